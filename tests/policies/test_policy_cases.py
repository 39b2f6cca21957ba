"""The federation's rules: every case comes out as it says, and every rule has cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from connexon.errors import Misconfigured
from connexon.service import policy_files
from connexon_node.policy_review.cases import Case, problems, read_all, read_cases, run_case, uncovered
from connexon_node.policy_review.checking import Sources, check
from tests.support.rules import demo_ontologies, shipped_rules

FOLDER = policy_files.shipped()
CASES = read_all({path.name: path.read_bytes() for path in (FOLDER / "cases").glob("*.yaml")})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.place} {case.name}")
def test_a_case_comes_out_as_it_says(case: Case) -> None:
    outcome = run_case(case, shipped_rules(), demo_ontologies())
    assert problems(case, outcome, shipped_rules()) == []


def test_every_rule_has_a_case_in_which_it_applies_and_one_in_which_it_does_not() -> None:
    outcomes = [(case, run_case(case, shipped_rules(), demo_ontologies())) for case in CASES]
    assert uncovered(shipped_rules(), outcomes) == {}


def test_a_rule_without_cases_is_found() -> None:
    spared = [case for case in CASES if "consent.time_limit" not in (case.rule, case.about)]
    outcomes = [(case, run_case(case, shipped_rules(), demo_ontologies())) for case in spared]
    assert set(uncovered(shipped_rules(), outcomes)) == {"consent.time_limit"}


def test_the_shipped_policies_pass_their_own_check() -> None:
    report = check(Sources.of_folder(FOLDER))
    assert report.ok
    assert report.unformatted == ()
    assert len(report.cases) == len(CASES)


def test_a_case_that_comes_out_otherwise_is_reported_with_what_happened(tmp_path: Path) -> None:
    content = (
        b"- case: Methods are excluded\n  purpose: methods\n  consent: DUO:0000042 + DUO:0000015\n  verdict: permit\n"
    )
    (case,) = read_cases("wrong.yaml", content)
    found = problems(case, run_case(case, shipped_rules(), demo_ontologies()), shipped_rules())
    assert found == ["the verdict is deny (consent.no_methods), not permit"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- case: x\n  verdict: perhaps\n  consent: DUO:0000042\n", "'perhaps' is not a valid Verdict"),
        (b"- case: x\n  verdict: deny\n", "about a consent"),
        (b"- case: x\n  verdict: deny\n  consent: DUO:0000042\n  colour: red\n", "'colour' means nothing here"),
        (b"- case: x\n  verdict: deny\n  consent: DUO:0000042 + DUO:0000025\n", "needs a whole number of months"),
        (b"- case: x\n  verdict: deny\n  do: steal\n  dataset: donors\n", "there is no action 'steal'"),
        (b"- case: x\n  verdict: deny\n  verdict: permit\n  consent: DUO:0000042\n", "verdict is said twice"),
        (b"case: [", "wrong.yaml line 1"),
        (b"just words", "write a list of cases"),
    ],
)
def test_a_case_that_cannot_be_read_is_named_with_its_fault(content: bytes, said: str) -> None:
    with pytest.raises(Misconfigured, match=r"wrong\.yaml") as caught:
        read_cases("wrong.yaml", content)
    assert said in caught.value.public
