"""Attacks on noise: averaging it away, drawing it again, and reading from it who is in a cohort."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator

import pytest

from connexon.question import Filter, IsMissing, Not
from connexon_node.privacy import Budgets, rho_of
from connexon_node.settings import PrivacySection, ReleaseSection
from tests.redteam.target import OTHER, SECRET, TARGETS, TRUTH, StickyByCohort, Target, both, either, is_, isnt

HAS = is_("primary_disease_term", SECRET)
NO_MINIMUM = ReleaseSection(minimum_donors=1, round_to=1)
MUCH = PrivacySection(budget_epsilon=1000.0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("target"))
    yield target
    target.center.close()


def spent(node: Target, who: str = "ada") -> float:
    accounts = Budgets(node.center.database, node.privacy).accounts()
    return sum(one.spent for one in accounts if one.researcher == f"kyoto/{who}")


def paraphrases() -> list[Filter]:
    """Other words for HAS that logic makes equal."""
    more = [is_("sex", "female"), is_("country_iso2", "FR"), isnt("age_range_y", "30-34")]
    words: list[Filter] = [HAS, Not(Not(HAS)), Not(isnt("primary_disease_term", SECRET)), both(HAS, HAS)]
    words += [either(HAS, both(HAS, one)) for one in more]
    words += [both(HAS, either(HAS, one)) for one in more]
    words += [both(HAS, either(IsMissing("sex"), Not(IsMissing("sex"))))]
    return words


def test_asking_again_in_other_words_by_others_and_after_a_restart_gets_one_draw(node: Target) -> None:
    node.begin(section=NO_MINIMUM)
    numbers = set()
    for round_number in range(3):
        for who in ("ada", "bob", "carol"):
            numbers |= {node.noisy(where, who=who) for where in paraphrases()}
        if round_number:
            node.restart()
    assert len(numbers) == 1
    assert spent(node, "ada") == pytest.approx(rho_of(1.0, 1e-6), rel=1e-6)
    assert spent(node, "bob") == spent(node, "carol") == 0


def test_words_that_only_the_data_makes_equal_are_paid_for_until_the_budget_is_spent(node: Target) -> None:
    """No normal form sees everything; what it misses is another draw, and the budget bounds what averaging gives."""
    node.begin(section=NO_MINIMUM, privacy=PrivacySection(budget_epsilon=3.0))
    numbers = []
    nowhere = [f"{first}{second}" for first in "QXZ" for second in string.ascii_uppercase]
    for country in nowhere:
        number = node.noisy(both(HAS, isnt("country_iso2", country)))
        if number is None:
            break
        numbers.append(number)
    else:
        pytest.fail("the budget never ended")
    whole = rho_of(3.0, node.privacy.budget_delta / 2)
    assert len(numbers) == math.floor(whole / rho_of(1.0, 1e-6) * (1 + 1e-9))
    assert len(set(numbers)) > 1
    # The mean of all of them is no better than one answer that cost the whole budget.
    best = 1 / math.sqrt(2 * whole)
    assert 1 / math.sqrt(2 * rho_of(1.0, 1e-6)) / math.sqrt(len(numbers)) >= best * (1 - 1e-9)
    assert node.noisy(both(HAS, isnt("country_iso2", nowhere[0]))) == numbers[0]
    refusal = node.answer("donors", both(HAS, isnt("country_iso2", nowhere[-1])), epsilon=1.0)
    assert refusal.reason.code == "budget.spent"
    assert "epsilon" in refusal.reason.message


def test_many_names_of_projects_are_one_budget(node: Target) -> None:
    node.begin(section=NO_MINIMUM, privacy=PrivacySection(budget_epsilon=2.0))
    codes = [
        node.answer("donors", isnt("country_iso2", f"X{letter}"), epsilon=1.0, project=f"project-{letter}").reason.code
        for letter in string.ascii_uppercase
    ]
    assert codes[0] == ""
    assert codes[-1] == "budget.spent"
    assert codes.count("") == math.floor(rho_of(2.0, node.privacy.budget_delta / 2) / rho_of(1.0, 1e-6))


def same_noise(node: Target) -> list[bool]:
    """Everybody with the disease, and everybody but one who has it not: are both numbers the same?"""
    everybody = node.noisy(HAS)
    well = [one for one in TARGETS if not TRUTH[one]]
    return [node.noisy(both(HAS, isnt("country_iso2", one))) == everybody for one in well]


def test_noise_does_not_tell_that_two_cohorts_are_the_same(node: Target) -> None:
    """Two draws of this noise are the same once in sixteen; all six are once in ten million runs."""
    assert not all(same_noise(node.begin(section=NO_MINIMUM, privacy=MUCH)))


def test_noise_that_sticks_to_cohorts_would_tell_it_of_every_target(node: Target) -> None:
    """Why draws are kept by question and not by who is counted."""
    assert all(same_noise(node.begin(release=StickyByCohort, section=NO_MINIMUM, privacy=MUCH)))


def test_the_difference_of_two_noisy_numbers_is_hardly_better_than_a_coin(node: Target) -> None:
    """Without noise 240 of 240 are right; this noise allows 53 %, and six deviations more are 73 %."""
    node.begin(section=NO_MINIMUM, privacy=MUCH)
    right = 0
    for round_number in range(20):
        for number, one in enumerate(TARGETS):
            epsilon = 1 + (round_number * len(TARGETS) + number) * 1e-6
            everybody = node.noisy(HAS, epsilon=epsilon)
            without = node.noisy(both(HAS, isnt("country_iso2", one)), epsilon=epsilon)
            assert everybody is not None
            assert without is not None
            right += (everybody - without >= 1) is TRUTH[one]
    assert right < 0.73 * 240


def test_a_group_of_one_shows_neither_by_its_number_nor_by_its_name(node: Target) -> None:
    """Every target is alone in its country: with noise, and one donor allowed to show, none of these countries does."""
    node.begin(section=NO_MINIMUM, privacy=MUCH)
    answer = node.answer("donors", is_("primary_disease_term", OTHER), ("country_iso2",), epsilon=2.0)
    assert not {cell.key[0].text for cell in answer.count.cells} & set(TARGETS)


def test_nobody_and_a_few_are_told_in_the_same_words(node: Target) -> None:
    node.begin()
    nobody = both(is_("country_iso2", "IS"), is_("country_iso2", "FR"))
    answers = [node.answer("donors", where, epsilon=1.0) for where in (is_("country_iso2", "IS"), nobody)]
    for answer in answers:
        for name in ("query_id", "query_sha256", "answered_at_ms"):
            answer.ClearField(name)  # type: ignore[arg-type]  # names of fields
    assert answers[0] == answers[1]
    assert answers[0].reason.code == "release.too_few_donors"
