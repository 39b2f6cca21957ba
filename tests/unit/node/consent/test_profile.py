"""What a consent may say, and how it is written down."""

from __future__ import annotations

from random import Random
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.errors import InvalidQuery
from connexon_node.consent import donor_state
from connexon_node.consent import profile as duo
from connexon_node.consent.donor_state import Standing, Status
from connexon_node.consent.profile import ConsentProfile, Modifier, Scope


def test_equal_consents_are_one_profile_however_they_are_written() -> None:
    one = ConsentProfile.parse("DUO:0000007=MONDO:0005180", ["DUO:0000045", "DUO:0000025=012"])
    other = ConsentProfile.parse("DUO:0000007", ["DUO:0000025=12", " DUO:0000045 ", "DUO:0000007=MONDO:0005180"])
    assert one == other
    assert one.to_json() == other.to_json()


def test_the_eight_digit_spelling_of_the_owl_file_is_the_same_modifier() -> None:
    assert duo.modifier("DUO:00000044") == Modifier("DUO:0000044")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("DUO:0000022=GAZ/ISO:CN", "ISO:CN"),
        ("DUO:0000022=FR|ISO:DE", "ISO:DE|ISO:FR"),
        ("DUO:0000022=REGION:EU", "REGION:EU"),
        ("DUO:0000022=M49:150|TW", "ISO:TW|M49:150"),
        ("DUO:0000012=sex", "DUO:0000035"),
        ("DUO:0000012=RS-PD", "DUO:0000034"),
        ("DUO:0000026=kyoto/ken | lyon/ada", "kyoto/ken|lyon/ada"),
        ("DUO:0000024=2027-01-01", "2027-01-01"),
        ("DUO:0000020", ""),
    ],
)
def test_a_value_is_brought_to_one_form(written: str, kept: str) -> None:
    (modifier,) = ConsentProfile.parse("DUO:0000042", [written]).modifiers
    assert modifier.value == kept


@pytest.mark.parametrize(
    ("permission", "modifiers", "code"),
    [
        ("DUO:0000025", [], "consent.unknown_permission"),
        ("DUO:0000005", [], "consent.term_obsolete"),
        ("DUO:0000007", [], "consent.disease_missing"),
        ("DUO:0000042=MONDO:0005180", [], "consent.permission_value"),
        ("DUO:0000007=Parkinson", [], "consent.disease_invalid"),
        ("DUO:0000042", ["DUO:0000099"], "consent.unknown_modifier"),
        ("DUO:0000042", ["DUO:0000014"], "consent.term_obsolete"),
        ("DUO:0000042", ["DUO:0000025"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000025=0"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000025=soon"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000024=2027-02-30"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000022=Europe"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000022"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000022=UK"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000022=M49:999"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000022=-"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000012=botany"], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000027= | "], "consent.modifier_value"),
        ("DUO:0000042", ["DUO:0000045=yes"], "consent.modifier_value"),
    ],
)
def test_a_consent_that_cannot_be_judged_is_refused(permission: str, modifiers: list[str], code: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        ConsentProfile.parse(permission, modifiers)
    assert caught.value.code == code


def test_a_missing_permission_is_kept_as_unknown() -> None:
    assert ConsentProfile.parse("").permission == ""
    assert "permits nothing" in ConsentProfile.parse("").describe()


def test_a_profile_in_words_has_all_of_it() -> None:
    profile = ConsentProfile.parse("DUO:0000007=MONDO:0005180|MONDO:0005148", ["DUO:0000027=atlas"])
    assert str(profile) == "DUO:0000007=MONDO:0005148|MONDO:0005180 + DUO:0000027=atlas"
    words = profile.describe()
    assert "on MONDO:0005148, MONDO:0005180" in words
    assert words.endswith("atlas")
    assert " on " not in ConsentProfile.parse("DUO:0000042").describe()


@pytest.mark.parametrize(
    ("modifiers", "scope", "expected"),
    [([], "", Scope.RESEARCH), (["DUO:0000043"], "", Scope.BOTH), (["DUO:0000043"], "research", Scope.RESEARCH)],
)
def test_without_a_scope_clinical_care_means_both(modifiers: list[str], scope: str, expected: Scope) -> None:
    assert ConsentProfile.parse("DUO:0000042", modifiers, scope=scope).scope is expected


def test_an_unknown_scope_is_refused() -> None:
    with pytest.raises(InvalidQuery, match="research, clinical, both"):
        ConsentProfile.parse("DUO:0000042", scope="everything")


DAYS = st.sampled_from(["2026-01-01", "2026-02-01", "2026-03-01"])
ENDS = st.sampled_from(["", "2026-04-01", "2026-05-01"])
Step: TypeAlias = tuple[str, int, str, bool, str]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(1, 3), DAYS, st.booleans(), ENDS),
        st.tuples(st.just("withdraw"), st.just(0), DAYS, st.just(False), st.just("")),
    ),
    max_size=6,
)


def fold(steps: list[Step]) -> Standing:
    now = donor_state.NEVER
    for kind, profile, day, expired, ends in steps:
        if kind == "record":
            now = donor_state.recorded(now, profile, day, expired=expired, expires_on=ends)
        else:
            now = donor_state.withdrawn(now, day)
    return now


@given(STEPS, st.randoms(use_true_random=False))
def test_the_order_of_records_and_withdrawals_never_matters(steps: list[Step], random: Random) -> None:
    shuffled = list(steps)
    random.shuffle(shuffled)
    one, other = fold(steps), fold(shuffled)
    assert (one.profile, one.status, one.expires_on) == (other.profile, other.status, other.expires_on)


@given(STEPS)
def test_what_comes_twice_changes_nothing(steps: list[Step]) -> None:
    assert fold(steps + steps).profile == fold(steps).profile


@given(STEPS, DAYS)
def test_nothing_from_before_a_withdrawal_is_in_force_after_it(steps: list[Step], day: str) -> None:
    now = fold([*steps, ("withdraw", 0, day, False, "")])
    assert now.profile == 0 or now.obtained_on > day
    assert now.status is not Status.NONE
