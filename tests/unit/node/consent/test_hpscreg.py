"""hPSCreg flags as draft consents: what each says in DUO, and that nothing unknown permits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.errors import InvalidQuery
from connexon_node.consent.drafts import COLUMNS, confirmed, write_drafts
from connexon_node.consent.hpscreg import draft
from connexon_node.consent.profile import ConsentProfile

OPEN = {
    "donor_consent": "yes",
    "no_pressure_statement": "yes",
    "no_inducement_statement": "yes",
    "consent_pertains_specific_research_project": "no",
    "consent_permits_future_research": "yes",
    "consent_permits_clinical_treatment": "yes",
    "consent_permits_research_by_academic_institution": "yes",
    "consent_permits_research_by_org": "yes",
    "consent_permits_research_by_non_profit_company": "yes",
    "consent_permits_research_by_for_profit_company": "yes",
    "consent_permits_development_of_commercial_products": "yes",
    "consent_expressly_prevents_commercial_development": "no",
    "consent_expressly_prevents_financial_gain": "no",
    "consent_prevents_availability_to_worldwide_research": "no",
    "consent_permits_genetic_testing": "yes",
    "further_constraints_on_use": "no",
}


def test_the_most_open_form_is_general_research_with_clinical_care() -> None:
    made = draft(OPEN, country="DE")
    assert (made.permission, made.modifiers) == ("DUO:0000042", ["DUO:0000043"])


@pytest.mark.parametrize(
    ("name", "said", "added"),
    [
        ("consent_permits_clinical_treatment", "no", []),
        ("consent_permits_research_by_for_profit_company", "no", ["DUO:0000043", "DUO:0000045"]),
        ("consent_expressly_prevents_commercial_development", "yes", ["DUO:0000043", "DUO:0000046"]),
        ("consent_expressly_prevents_financial_gain", "yes", ["DUO:0000043", "DUO:0000046"]),
        ("consent_prevents_availability_to_worldwide_research", "yes", ["DUO:0000043", "DUO:0000022=ISO:DE"]),
        ("consent_permits_genetic_testing", "no", ["DUO:0000043", "CONNEXON:no_genetic_testing"]),
    ],
)
@pytest.mark.parametrize("form", [str.upper, str.title, lambda text: text[0]], ids=["upper", "title", "letter"])
def test_a_flag_says_what_it_says_in_duo(name: str, said: str, added: list[str], form: Callable[[str], str]) -> None:
    assert draft({**OPEN, name: form(said)}, country="DE").modifiers == added


@pytest.mark.parametrize("unknown", ["unknown", ""])
def test_commercial_use_is_permitted_only_where_the_form_is_known_not_to_prevent_gain(unknown: str) -> None:
    flags = {**OPEN, "consent_expressly_prevents_financial_gain": unknown}
    assert draft(flags, country="DE").modifiers == ["DUO:0000043", "DUO:0000046"]


def test_no_company_and_no_commerce_are_one_modifier() -> None:
    flags = {
        **OPEN,
        "consent_permits_research_by_for_profit_company": "no",
        "consent_expressly_prevents_commercial_development": "yes",
    }
    assert draft(flags, country="DE").modifiers == ["DUO:0000043", "DUO:0000018"]


def test_areas_that_are_diseases_make_it_disease_specific() -> None:
    made = draft({**OPEN, "future_research_permitted_areas": "MONDO:0005180, MONDO:0004976"}, country="DE")
    assert made.permission == "DUO:0000007=MONDO:0004976|MONDO:0005180"


@pytest.mark.parametrize(
    "change",
    [
        {"donor_consent": "no"},
        {"donor_consent": ""},
        {"no_inducement_statement": "no"},
        {"no_pressure_statement": "unknown"},
        {"consent_permits_future_research": "unknown"},
        {"consent_permits_future_research": "no", "consent_pertains_specific_research_project": "yes"},
        {"future_research_permitted_areas": "diseases of the heart"},
        {"further_constraints_on_use": ""},
        {"further_constraints_on_use": "yes", "further_constraints_on_use_desc": "not in films"},
        {"consent_permits_research_by_academic_institution": "no"},
        {"consent_permits_research_by_non_profit_company": "unknown"},
        {"third_party_obligations": "as agreed with the hospital"},
    ],
    ids=str,
)
def test_what_is_unknown_or_cannot_be_said_permits_nothing_and_says_why(change: dict[str, str]) -> None:
    made = draft({**OPEN, **change}, country="DE")
    assert made.permission == ""
    assert any(note.startswith("permits nothing: ") for note in made.notes)


def _restricts(modifiers: list[str]) -> set[str]:
    """What the modifiers forbid, one thing each: DUO:0000018 is DUO:0000045 and DUO:0000046 together."""
    single = {"DUO:0000018": {"DUO:0000045", "DUO:0000046"}, "DUO:0000043": set()}
    return set().union(*(single.get(one, {one}) for one in modifiers))


@given(
    st.dictionaries(st.sampled_from(sorted(OPEN)), st.sampled_from(["yes", "no"]), max_size=3),
    st.dictionaries(st.sampled_from(sorted(OPEN)), st.sampled_from(["", "unknown", "perhaps"]), max_size=3),
)
def test_forgetting_a_flag_never_widens(said: dict[str, str], forgotten: dict[str, str]) -> None:
    whole, less = (draft({**OPEN, **said, **lost}, country="DE") for lost in ({}, forgotten))
    assert less.permission in ("", whole.permission)
    assert _restricts(whole.modifiers) <= _restricts(less.modifiers)
    assert "DUO:0000043" in whole.modifiers or "DUO:0000043" not in less.modifiers
    ConsentProfile.parse(less.permission, less.modifiers)


def test_a_draft_file_that_is_wrong_is_recorded_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "drafts.csv"
    lines = [
        ",".join(COLUMNS),
        "D1,DUO:0000042,DUO:0000025=12 + DUO:0000045,v1,research,2015-05-05,no,,Ms Ito",
        "D2,DUO:0000042,DUO:0000025,v1,research,2015-05-05,no,,Ms Ito",
    ]
    file.write_text("\n".join(lines))
    with pytest.raises(InvalidQuery, match=r"drafts\.csv line 3"):
        confirmed(file)
    file.write_text("\n".join(lines[:2]))
    records, waiting = confirmed(file)
    assert (len(records["Ms Ito"]), waiting) == (1, 0)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "donor_consent\nyes\n"),
        ("a.csv", "donor_id,donor_consent\nD1\n"),
        ("a.csv", "donor_id,donor_consent\nD1,yes,no\n"),
        ("a.jsonl", "{\n"),
        ("a.jsonl", "[1]\n"),
    ],
)
def test_flags_that_cannot_be_read_are_refused_with_their_line(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidQuery, match=r"a\.\w+ line \d"):
        write_drafts(tmp_path / name, tmp_path / "out.csv", country="DE")


def test_json_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"donor": "D1", "donor_consent": true}\n\n{"donor": "D2", "donor_consent": null}\n'
    )
    drafts = write_drafts(tmp_path / "a.jsonl", tmp_path / "out.csv", country="DE")
    assert [donor for donor, _ in drafts] == ["D1", "D2"]
    assert not any("donor_consent" in note for note in drafts[0][1].notes)
