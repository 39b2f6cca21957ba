"""Checking policies as a whole: they load, they are formatted, their cases come out, and every rule has cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cedarpy

from connexon.errors import Misconfigured
from connexon_node.ontology import Ontologies, demonstration
from connexon_node.policy.ruleset import RuleSet
from connexon_node.policy.store import SCHEMA, compile_rules, read_folder
from connexon_node.policy_review.cases import Case, Outcome, problems, read_all, run_case, uncovered

LINE_WIDTH = 120
CASES = "cases"


@dataclass(frozen=True)
class Sources:
    """Policy files and cases, and the ontologies that the own cases are judged with."""

    baseline: Mapping[str, bytes]
    baseline_cases: Mapping[str, bytes]
    own: Mapping[str, bytes]
    own_cases: Mapping[str, bytes]
    ontologies: Ontologies

    @classmethod
    def of_folder(cls, folder: Path) -> Sources:
        """A policies folder by itself. Raises Misconfigured where there is none."""
        if not (folder / SCHEMA).is_file():
            raise Misconfigured(f"There is no {SCHEMA} in {folder}.", code="policy.incomplete")
        return cls(read_folder(folder), _cases(folder), {}, {}, demonstration())

    @classmethod
    def of_node(cls, baseline: Mapping[str, bytes], shipped: Path, own_folder: Path, ontologies: Ontologies) -> Sources:
        """A node's rules. The cases that came with the software are run where the roster's rules are the same."""
        same = read_folder(shipped) == dict(baseline)
        known = ontologies if ontologies.version("MONDO") else demonstration()
        return cls(baseline, _cases(shipped) if same else {}, read_folder(own_folder), _cases(own_folder), known)

    def compile(self) -> RuleSet:
        """The rules of all of it. Raises Misconfigured naming file and line."""
        return compile_rules(self.baseline, self.own)


@dataclass(frozen=True)
class Checked:
    """A case, what came of it, and how that differs from what it says."""

    case: Case
    outcome: Outcome
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a check found."""

    version: str
    rules: int
    cases: tuple[Checked, ...]
    uncovered: Mapping[str, str]
    unformatted: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.uncovered or self.unformatted or any(one.problems for one in self.cases))


def check(sources: Sources) -> Report:
    """Check everything. Raises Misconfigured where the rules or the cases cannot even be read."""
    rules = sources.compile()
    federation = compile_rules(sources.baseline, {}) if sources.own else rules
    shared = run_cases(read_all(sources.baseline_cases), federation, demonstration())
    own = run_cases(read_all(sources.own_cases), rules, sources.ontologies)
    without = uncovered(federation, [(one.case, one.outcome) for one in shared]) if shared else {}
    files = sources.own or sources.baseline
    unformatted = tuple(path for path, content in sorted(files.items()) if _formatted(path, content) != content)
    return Report(rules.version, len(rules.rules), (*shared, *own), without, unformatted)


def run_cases(cases: list[Case], rules: RuleSet, ontologies: Ontologies) -> list[Checked]:
    """Run cases against rules."""
    checked = []
    for case in cases:
        outcome = run_case(case, rules, ontologies)
        checked.append(Checked(case, outcome, tuple(problems(case, outcome, rules))))
    return checked


def write_formatted(folder: Path) -> None:
    """Write every Cedar file below the folder in Cedar's format. Raises Misconfigured where one cannot be read."""
    for path, content in read_folder(folder).items():
        formatted = _formatted(path, content)
        if formatted != content:
            (folder / path).write_bytes(formatted)


def _formatted(path: str, content: bytes) -> bytes:
    if not path.endswith(".cedar"):
        return content
    try:
        formatted: str = cedarpy.format_policies(content.decode(), line_width=LINE_WIDTH)
        return formatted.encode()
    except ValueError as error:
        raise Misconfigured(f"{path}: {error}.", code="policy.syntax") from error


def _cases(folder: Path) -> dict[str, bytes]:
    return {f"{CASES}/{path.name}": path.read_bytes() for path in sorted((folder / CASES).glob("*.yaml"))}
