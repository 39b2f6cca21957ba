"""hPSCreg flags as draft consents: what each says in DUO, and that nothing unknown permits."""

from __future__ import annotations

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
def test_a_flag_says_what_it_says_in_duo(name: str, said: str, added: list[str], form) -> None:
    assert draft({**OPEN, name: form(said)}, country="DE").modifiers == added


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
        {"consent_permits_future_research": "unknown"},
        {"consent_permits_future_research": "no", "consent_pertains_specific_research_project": "yes"},
        {"future_research_permitted_areas": "diseases of the heart"},
        {"further_constraints_on_use": ""},
        {"further_constraints_on_use": "yes", "further_constraints_on_use_desc": "not in films"},
        {"consent_permits_research_by_academic_institution": "no"},
        {"third_party_obligations": "as agreed with the hospital"},
    ],
    ids=str,
)
def test_what_is_unknown_or_cannot_be_said_permits_nothing_and_says_why(change: dict[str, str]) -> None:
    made = draft({**OPEN, **change}, country="DE")
    assert made.permission == ""
    assert any(note.startswith("permits nothing: ") for note in made.notes)


@given(st.dictionaries(st.sampled_from(sorted(OPEN)), st.sampled_from(["", "unknown", "perhaps"])))
def test_forgetting_a_flag_never_widens(forgotten) -> None:
    whole, less = draft(OPEN, country="DE"), draft({**OPEN, **forgotten}, country="DE")
    assert less.permission in ("", whole.permission)
    widening = {"DUO:0000043"}
    assert set(whole.modifiers) - widening <= set(less.modifiers)
    assert set(less.modifiers) & widening <= set(whole.modifiers) & widening
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
