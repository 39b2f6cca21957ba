"""Attacks on granted numbers that win by conditions alone: what decides whether a part, a group or a question counts.

Each is played as it is written, against what is released by default but for more cohorts where an attack needs them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator

import numpy
import pytest
from scipy.optimize import linprog

from connexon.conditions.filters import Between, Filter, Has, Not, OneOf
from connexon_node.release.cohorts_used import CohortsUsed
from connexon_node.settings import ReleaseSection
from tests.redteam.target import (
    PLENTY,
    SECRET,
    TARGETS,
    Target,
    Unprotected,
    both,
    certain,
    either,
    is_,
    isnt,
    told,
)

HAS = is_("primary_disease_term", SECRET)
KNOWN = 4
"""Donors of whom the attacker knows everything: one fewer than the minimum."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("target"))
    yield target
    target.center.close()


def friends(one: str) -> tuple[str, ...]:
    """Four donors whom the attacker knows: each alone in a country."""
    return tuple(other for other in TARGETS if other != one)[:KNOWN]


def as_or(one: str) -> Filter:
    return either(*(is_("country_iso2", other) for other in friends(one)), both(is_("country_iso2", one), HAS))


def as_list(one: str) -> Filter:
    return either(OneOf("country_iso2", friends(one)), both(is_("country_iso2", one), HAS))


def as_not(one: str) -> Filter:
    apart = (isnt("country_iso2", other) for other in friends(one))
    return Not(both(*apart, Not(both(is_("country_iso2", one), HAS))))


def as_nested(one: str) -> Filter:
    """Each part is wide by itself; only together they single people out."""
    return both(
        OneOf("country_iso2", (*friends(one), one)),
        either(OneOf("country_iso2", friends(one)), HAS),
    )


def as_exclusion(one: str) -> Filter:
    """Of those in a list, all but the target unless it has the secret."""
    everyone = OneOf("country_iso2", (*friends(one), one))
    return both(everyone, Not(both(is_("country_iso2", one), Not(HAS))))


FOUR_KNOWN = (as_or, as_list, as_not, as_nested, as_exclusion)
Condition = Callable[[str], Filter]


@pytest.mark.parametrize("condition", FOUR_KNOWN, ids=lambda one: one.__name__)
def test_four_known_donors_or_the_target_tell_nothing(node: Target, condition: Condition) -> None:
    node.begin()
    assert certain({one: node.count(condition(one)) is not None for one in TARGETS}) == 0


@pytest.mark.parametrize("condition", FOUR_KNOWN, ids=lambda one: one.__name__)
def test_they_tell_everything_where_every_part_counts(node: Target, condition: Condition) -> None:
    node.begin(release=Unprotected)
    assert certain({one: node.count(condition(one)) is not None for one in TARGETS}) == len(TARGETS)


def test_four_known_donors_beside_a_crowd_tell_nothing(node: Target) -> None:
    """The same part beside donors whose number is known, in both units."""
    node.begin()
    women = node.count(is_("sex", "female"))
    claims = {}
    for one in TARGETS:
        men = node.count(both(is_("sex", "female"), Not(as_or(one))))
        more = node.count(either(is_("sex", "female"), as_or(one)))
        claims[one] = None if (men, more) == (women, women) else (more or 0) > (women or 0)
    assert certain(claims) == 0


def test_has_with_an_or_inside_tells_nothing(node: Target) -> None:
    """Lines: of four known donors, or the second line that only a target with the secret has."""
    node.begin()
    month = Between("derived_on", datetime.date(2020, 1, 1), datetime.date(2020, 1, 31))
    claims = {}
    for one in TARGETS:
        known = [Has("cell_lines", is_("donor.country_iso2", other)) for other in friends(one)]
        inside = both(is_("donor.country_iso2", one), month)
        asked = Has("cell_lines", either(inside, *(is_("donor.country_iso2", other) for other in friends(one))))
        claims[one] = node.count(asked) is not None or node.count(either(*known, Has("cell_lines", inside))) is not None
    assert certain(claims) == 0


def test_a_group_of_a_table_is_a_condition_too(node: Target) -> None:
    """Grouped by country: a part that many donors fulfil, and one in each group."""
    node.begin()
    claims = {}
    for one in TARGETS:
        with_part = node.table(("sex",), either(is_("country_iso2", "FR"), both(is_("country_iso2", one), HAS)))
        claims[one] = None if with_part == node.table(("sex",), is_("country_iso2", "FR")) else True
    assert certain(claims) == 0


def test_three_groups_against_their_union_tell_nothing(node: Target) -> None:
    """Exact, without rounding: three groups first, then all of them and the target if it has the secret."""
    node.begin()
    ages = ("30-34", "35-39", "40-44")
    single = [node.count(both(HAS, is_("age_range_y", age))) for age in ages]
    claims = {}
    for one in TARGETS:
        union = node.count(either(both(HAS, OneOf("age_range_y", ages)), both(HAS, is_("country_iso2", one))))
        assert union is not None
        claims[one] = told(union - sum(one or 0 for one in single))
    assert certain(claims) == 0


def test_more_known_cohorts_than_a_window_held_are_compared(node: Target) -> None:
    """A and B first, then many others, then A and B but for one donor: it gets the sum."""
    node.begin(section=PLENTY)
    first = node.count(both(HAS, is_("sex", "female")))
    other = node.count(both(HAS, is_("sex", "male")))
    for country in ("FR", "DE", "IT"):
        node.table(("age_range_y", "eligibility", "primary_disease_term"), is_("country_iso2", country))
    claims = {}
    for one in TARGETS:
        together = node.count(both(HAS, isnt("country_iso2", one)))
        claims[one] = told(None if together is None else (first or 0) + (other or 0) - together)
    assert certain(claims) == 0


def test_donors_beside_records_tell_nothing(node: Target) -> None:
    """Only targets with the secret have two lines: their records are one more than their donors."""
    node.begin()
    claims = {}
    for one in TARGETS:
        where = OneOf("donor.country_iso2", ("FR", one))
        lines = node.count(where, dataset="cell_lines")
        people = node.count(OneOf("country_iso2", ("FR", one)))
        claims[one] = told(None if lines is None or people is None else lines - people)
    assert certain(claims) == 0


def test_days_and_exact_values_are_refused_by_words_alone(node: Target) -> None:
    node.begin()
    day = node.answer("cell_lines", is_("derived_on", datetime.date(2020, 1, 3)))
    assert day.reason.code == "granted.finer_than_month"
    assert "between 2020-01-01 and 2020-01-31" in day.reason.message
    value = node.answer("lots", is_("cells_per_vial_1e6", 101.0))
    assert value.reason.code == "granted.finer_than_bin"
    assert "100" in value.reason.message
    month = Between("derived_on", datetime.date(2019, 5, 1), datetime.date(2019, 5, 31))
    assert node.count(month, dataset="cell_lines") is not None


def test_a_project_has_a_share_of_independent_cohorts_and_two_researchers_share_it(node: Target) -> None:
    node.begin(section=ReleaseSection(round_to=1))
    answered = 0
    for turn, age in enumerate(("30-34", "35-39", "40-44", "60-64") * 3):
        part = (is_("eligibility", "eligible"), is_("country_iso2", "FR"), is_("sex", "female"))[turn // 4]
        answer = node.answer("donors", both(is_("age_range_y", age), part), ("primary_disease_term",), who="ada")
        if answer.reason.code == "granted.cohorts_spent":
            break
        answered += len(answer.count.cells)
    stand = CohortsUsed(node.center.database, node.section.independent_cohorts).stand("researcher *")
    assert answered >= stand.used > 10
    assert stand.allowed == 21
    assert stand.used <= 21
    assert answer.reason.code == "granted.cohorts_spent"
    first = both(is_("age_range_y", "30-34"), is_("eligibility", "eligible"))
    assert node.answer("donors", first, ("primary_disease_term",), who="eve").count.cells, "what was told stays free"


def solved(truth: numpy.ndarray, asked: numpy.ndarray, answers: numpy.ndarray) -> float:
    """The share of secrets that a linear program gets right (Dinur and Nissim 2003)."""
    questions, people = asked.shape
    slack = -numpy.eye(questions)
    rows = numpy.block([[asked, slack], [-asked, slack]])
    cost = numpy.concatenate([numpy.zeros(people), numpy.ones(questions)])
    bounds = [(0, 1)] * people + [(0, None)] * questions
    found = linprog(cost, A_ub=rows, b_ub=numpy.concatenate([answers, -answers]), bounds=bounds, method="highs")
    return float(numpy.mean((found.x[:people] > 0.5) == truth))


@pytest.mark.parametrize(("questions", "low", "high"), [(20, 0.5, 0.70), (300, 0.85, 1.0)])
def test_random_groups_are_not_solved_within_the_share_of_a_project(questions: int, low: float, high: float) -> None:
    """Of 200 donors, in the best case for the attacker: groups at random, rounded to 5. Twenty is a project's share."""
    random = numpy.random.default_rng(11)
    right = []
    for _ in range(5):
        truth = random.random(200) < 0.5
        asked = (random.random((questions, 200)) < 0.5).astype(float)
        right.append(solved(truth, asked, numpy.floor(asked @ truth / 5 + 0.5) * 5))
    assert low <= numpy.mean(right) <= high
