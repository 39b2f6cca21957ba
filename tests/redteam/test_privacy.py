"""Attacks on noise: averaging it away, drawing it again, and reading from it who is in a cohort."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator

import pytest

from connexon.conditions.filters import Filter, IsMissing, Not
from connexon_node.privacy import Account
from connexon_node.privacy.accuracy import scale_within
from connexon_node.settings import PrivacySection
from tests.redteam.target import MUCH, OTHER, SECRET, TARGETS, TRUTH, StickyByCohort, Target, both, either, is_, isnt

HAS = is_("primary_disease_term", SECRET)
RHO = 1 / (2 * scale_within(15) ** 2)
"""The price of one total within 15."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("target"))
    yield target
    target.center.close()


def spent(node: Target, who: str = "ada") -> float:
    balance = Account(node.center.database, node.privacy).researchers().get(f"kyoto/{who}")
    return balance.spent if balance else 0.0


def paraphrases() -> list[Filter]:
    """Other words for HAS that logic makes equal."""
    more = [is_("sex", "female"), is_("country_iso2", "FR"), isnt("age_range_y", "30-34")]
    words: list[Filter] = [HAS, Not(Not(HAS)), Not(isnt("primary_disease_term", SECRET)), both(HAS, HAS)]
    words += [either(HAS, both(HAS, one)) for one in more]
    words += [both(HAS, either(HAS, one)) for one in more]
    words += [both(HAS, either(IsMissing("sex"), Not(IsMissing("sex"))))]
    return words


def test_asking_again_in_other_words_and_after_a_restart_gets_one_draw(node: Target) -> None:
    node.begin()
    numbers = set()
    for round_number in range(3):
        numbers |= {node.noisy(where) for where in paraphrases()}
        if round_number:
            node.restart()
    assert len(numbers) == 1
    assert spent(node) == pytest.approx(RHO, rel=1e-6)


def test_many_researchers_who_ask_the_same_pay_together_and_end_together(node: Target) -> None:
    """Each gets noise of their own, so that a hundred could average it away: the account ends it."""
    node.begin(privacy=PrivacySection(questions=0.1))
    answered = [node.noisy(HAS, who=f"r{number}") is not None for number in range(20)]
    assert answered == [True] * math.floor(0.1 / RHO) + [False] * (20 - math.floor(0.1 / RHO))


def test_words_that_only_the_data_makes_equal_are_paid_for_until_the_account_is_spent(node: Target) -> None:
    """No normal form sees everything; what it misses is another draw, and the account bounds what averaging gives."""
    node.begin()
    numbers = []
    nowhere = [f"{first}{second}" for first in "QXZ" for second in string.ascii_uppercase]
    for country in nowhere:
        number = node.noisy(both(HAS, isnt("country_iso2", country)))
        if number is None:
            break
        numbers.append(number)
    else:
        pytest.fail("the account never ended")
    assert len(numbers) == math.floor(node.privacy.researcher / RHO * (1 + 1e-9))
    assert len(set(numbers)) > 1
    assert node.noisy(both(HAS, isnt("country_iso2", nowhere[0]))) == numbers[0]
    refusal = node.answer("donors", both(HAS, isnt("country_iso2", nowhere[-1])), within=15)
    assert refusal.reason.code == "budget.spent"
    assert "--within" in refusal.reason.message


def test_many_names_of_projects_and_diseases_are_one_account(node: Target) -> None:
    node.begin()
    answers = [node.noisy(isnt("country_iso2", "XX"), project=f"project-{letter}") for letter in string.ascii_letters]
    assert [one is not None for one in answers].count(True) == math.floor(node.privacy.researcher / RHO)
    # A disease fixed is a line of its own, and what everybody was charged is in it.
    assert node.noisy(both(HAS, is_("sex", "female"))) is None


def same_noise(node: Target) -> list[bool]:
    """Everybody with the disease, and everybody but one who has it not: are both numbers the same?"""
    everybody = node.noisy(HAS)
    well = [one for one in TARGETS if not TRUTH[one]]
    return [node.noisy(both(HAS, isnt("country_iso2", one))) == everybody for one in well]


def test_noise_does_not_tell_that_two_cohorts_are_the_same(node: Target) -> None:
    """Two draws of this noise are the same once in twenty-eight."""
    assert not all(same_noise(node.begin(privacy=MUCH)))


def test_noise_that_sticks_to_cohorts_would_tell_it_of_every_target(node: Target) -> None:
    """Why draws are kept by question and not by who is counted."""
    assert all(same_noise(node.begin(release=StickyByCohort, privacy=MUCH)))


def test_the_difference_of_two_noisy_numbers_is_hardly_better_than_a_coin(node: Target) -> None:
    """Without noise 240 of 240 are right; this noise allows 53 %, and six deviations more are 73 %."""
    node.begin(privacy=MUCH)
    right = 0
    for round_number in range(20):
        for one in TARGETS:
            project = f"round-{round_number}-{one}"
            everybody = node.noisy(HAS, project=project)
            without = node.noisy(both(HAS, isnt("country_iso2", one)), project=project)
            assert everybody is not None
            assert without is not None
            right += (everybody - without >= 1) is TRUTH[one]
    assert right < 0.73 * 240


def test_a_group_of_one_shows_neither_by_its_number_nor_by_its_name(node: Target) -> None:
    """Every target is alone in its country: none of these countries shows, however close the numbers are."""
    node.begin(privacy=MUCH)
    answer = node.answer("donors", is_("primary_disease_term", OTHER), ("country_iso2",), within=2)
    assert not {cell.key[0].text for cell in answer.count.cells} & set(TARGETS)


def test_nobody_and_a_few_are_told_in_the_same_words(node: Target) -> None:
    node.begin()
    nobody = both(is_("country_iso2", "IS"), is_("country_iso2", "FR"))
    answers = [node.answer("donors", where, within=15) for where in (is_("country_iso2", "IS"), nobody)]
    for answer in answers:
        for name in ("query_id", "query_sha256", "answered_at_ms"):
            answer.ClearField(name)
        answer.count.cells[0].number = 0
    assert answers[0] == answers[1]
