"""Cases: who asks what for which purpose over which consent, and what must come of it.

A case is written in YAML for a steward to read. It says the verdict and the rule that decides; every rule of the
federation has a case in which it applies and one in which it does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connexon.clock import midnight, now_ms
from connexon.errors import ConnexonError, Misconfigured
from connexon.identity.roster import OrganisationKind
from connexon.query import purpose as purposes
from connexon.query.question import Purpose
from connexon_node.consent.evaluation import ProfileEntities, Verdict, judge, nearest
from connexon_node.consent.profile import ConsentProfile
from connexon_node.ontology import Ontologies
from connexon_node.policy.access import Target, dataset_entities, decide
from connexon_node.policy.request import Asking, Requester, ask
from connexon_node.policy.rules import ACCESS_ACTIONS
from connexon_node.policy.ruleset import Lacking, RuleSet
from connexon_node.policy.store import SWITCHES, read_yaml

_KEYS = {
    *("case", "who", "purpose", "commercial", "project", "ethics_approval", "protection", "on", "switches"),
    *("consent", "scope", "do", "dataset", "sensitivity", "own", "verdict", "rule", "about", "obligations"),
}
_WHO = {"id", "center", "country", "organisation", "role", "statuses", "grants", "terms"}


@dataclass(frozen=True)
class Case:
    """One case. `consent` is set for consent cases, `action` and `target` for access cases.

    `own` is Cedar text: rules of a center's own that the case adds.
    """

    name: str
    place: str
    requester: Requester
    purpose: Purpose
    at_ms: int
    protection: frozenset[str]
    switches: frozenset[str]
    consent: ConsentProfile | None
    action: str
    target: Target | None
    verdict: Verdict
    rule: str
    about: str
    obligations: frozenset[str]
    own: str = ""


@dataclass(frozen=True)
class Outcome:
    """What the rules make of a case. `applied` are all rules that had a say, `lacking` explains a default deny."""

    verdict: Verdict
    rules: tuple[str, ...]
    duties: tuple[str, ...] = ()
    lacking: tuple[Lacking, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def applied(self) -> frozenset[str]:
        """Rules that decided or oblige."""
        return frozenset((*self.rules, *self.duties))


def read_cases(file: str, content: bytes) -> list[Case]:
    """The cases of one YAML file. Raises Misconfigured that names file and case."""
    read = read_yaml(file, content)
    if not isinstance(read, list) or not all(isinstance(one, dict) for one in read):
        raise Misconfigured(f"{file}: write a list of cases, each beginning with  - case: ...", code="policy.case")
    return [_case(file, number, one) for number, one in enumerate(read, start=1)]


def run_case(case: Case, rules: RuleSet, ontologies: Ontologies) -> Outcome:
    """What the rules say. A purpose that cannot be judged, such as an unknown disease, is a denial."""
    if case.own:
        rules = rules.narrowed(case.place, case.own)
    try:
        disease = ontologies.ancestors(case.purpose.disease) if case.purpose.disease else frozenset()
        asking = ask(
            case.requester, case.purpose, disease=disease, at_ms=case.at_ms, switches=rules.switches | case.switches
        ).protected(case.protection)
    except ConnexonError as error:
        return Outcome(Verdict.DENY, (), errors=(error.public,))
    if case.consent is not None:
        return consent_outcome(rules, asking, case.consent, ontologies)
    assert case.target is not None  # a case is about a consent or about a dataset
    return access_outcome(rules, asking, case.action, case.target)


def consent_outcome(rules: RuleSet, asking: Asking, profile: ConsentProfile, ontologies: Ontologies) -> Outcome:
    """What the consent rules say to one profile."""
    profiles = ProfileEntities(rules, ontologies, {1: profile})
    judged = judge(rules, asking, profiles)[1]
    lacking = () if judged.rules or judged.errors else nearest(rules, asking, profiles, 1)
    return Outcome(judged.verdict, judged.rules, judged.duties, lacking, judged.errors)


def access_outcome(rules: RuleSet, asking: Asking, action: str, target: Target) -> Outcome:
    """What the access rules say to one action on one dataset."""
    decision = decide(rules, [action], asking, target)[0]
    lacking: tuple[Lacking, ...] = ()
    if not decision.allowed and not decision.rules and not decision.errors:
        lacking = rules.nearest(action, asking.request(target.uid), dataset_entities(rules, asking, target))
    verdict = Verdict.PERMIT if decision.allowed else Verdict.DENY
    return Outcome(verdict, decision.rules, lacking=lacking, errors=decision.errors)


def problems(case: Case, outcome: Outcome, rules: RuleSet) -> list[str]:
    """How the outcome differs from what the case says; empty when it does not."""
    known = rules.narrowed(case.place, case.own) if case.own else rules
    found = [f"there is no rule {name}" for name in {case.rule, case.about} - {""} if name not in known.rules]
    if outcome.verdict is not case.verdict:
        why = ", ".join(outcome.rules) or "; ".join(outcome.errors) or "no rule permits it"
        found.append(f"the verdict is {outcome.verdict.value} ({why}), not {case.verdict.value}")
    elif case.rule and case.rule not in outcome.applied:
        found.append(f"it is decided by {', '.join(outcome.rules) or 'no rule'}, not by {case.rule}")
    elif not case.rule and outcome.rules and case.verdict is not Verdict.PERMIT:
        found.append(f"it is decided by {', '.join(outcome.rules)}; name the rule in the case")
    terms = frozenset(known.rules[duty].term for duty in outcome.duties)
    if case.verdict is Verdict.PERMIT and terms != case.obligations:
        found.append(f"the obligations are {sorted(terms)}, not {sorted(case.obligations)}")
    return found


def uncovered(rules: RuleSet, outcomes: Sequence[tuple[Case, Outcome]]) -> dict[str, str]:
    """Rules without a case in which they apply and one in which they do not, and what is missing."""
    missing = {}
    for rule in rules.rules:
        about = [outcome for case, outcome in outcomes if rule in (case.about, case.rule)]
        applies = any(rule in outcome.applied for outcome in about)
        differs = any(rule not in outcome.applied for outcome in about)
        if not applies:
            missing[rule] = "no case about it in which it applies"
        elif not differs:
            missing[rule] = "no case about it in which it does not apply"
    return missing


def read_all(files: Mapping[str, bytes]) -> list[Case]:
    """The cases of every YAML file below cases/, in order."""
    return [case for path, content in sorted(files.items()) for case in read_cases(path, content)]


def _case(file: str, number: int, read: Mapping[str, Any]) -> Case:
    name = str(read.get("case", ""))
    place = f"{file} case {number}"
    try:
        _refuse_unknown(read.keys(), _KEYS)
        _refuse_unknown((read.get("who") or {}).keys(), _WHO)
        if not name:
            raise ValueError("say in words what the case is:  - case: ...")
        if ("consent" in read) == ("do" in read):
            raise ValueError("a case is about a consent (consent: ...) or about a dataset (do: count, dataset: ...)")
        rule = str(read.get("rule", ""))
        return Case(
            name=name,
            place=place,
            requester=_requester(read.get("who") or {}),
            purpose=_purpose(read),
            at_ms=midnight(str(read["on"])) if "on" in read else now_ms(),
            protection=frozenset(read.get("protection", ())),
            switches=_switches(read.get("switches", ())),
            consent=_consent(read) if "consent" in read else None,
            action=_action(read.get("do", "")),
            target=Target(str(read.get("dataset", "")), str(read.get("sensitivity", ""))) if "do" in read else None,
            verdict=Verdict(read.get("verdict")),
            rule=rule,
            about=str(read.get("about", rule)),
            obligations=frozenset(read.get("obligations", ())),
            own=str(read.get("own", "")),
        )
    except (ConnexonError, ValueError, TypeError, AttributeError, KeyError) as error:
        said = error.public if isinstance(error, ConnexonError) else str(error)
        raise Misconfigured(f"{place} ({name}): {said}", code="policy.case") from error


def _refuse_unknown(given: Iterable[str], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"{key!r} means nothing here; use {', '.join(sorted(known))}")


def _requester(read: Mapping[str, Any]) -> Requester:
    approvals = {str(value): midnight(str(day)) for value, day in (read.get("grants") or {}).items()}
    return Requester(
        id=str(read.get("id", "lyon/ada")),
        center=str(read.get("center", "lyon")),
        country=str(read.get("country", "FR")),
        organisation=OrganisationKind(read.get("organisation", "academic")),
        role=str(read.get("role", "researcher")),
        statuses=frozenset(read.get("statuses", ())),
        grants=frozenset(approvals),
        terms=frozenset(read.get("terms", ())),
        approvals=approvals,
    )


def _purpose(read: Mapping[str, Any]) -> Purpose:
    return purposes.parse_purpose(
        str(read.get("purpose", "health")),
        commercial_use=bool(read.get("commercial", False)),
        project=str(read.get("project", "")),
        ethics_approval=str(read.get("ethics_approval", "")),
    )


def _consent(read: Mapping[str, Any]) -> ConsentProfile:
    permission, *modifiers = (part.strip() for part in str(read["consent"] or "").split("+"))
    return ConsentProfile.parse(permission, modifiers, scope=str(read.get("scope", "")))


def _action(name: str) -> str:
    if name and name not in ACCESS_ACTIONS:
        raise ValueError(f"there is no action {name!r}; there are {', '.join(ACCESS_ACTIONS)}")
    return name


def _switches(names: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(names)
    _refuse_unknown(chosen, set(SWITCHES))
    return chosen
