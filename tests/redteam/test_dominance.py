"""Sums and means against the researcher who wants one donor's value: the rules by themselves, ahead of the analyses."""

from __future__ import annotations

from typing import Any

import numpy
from hypothesis import assume, given
from hypothesis import strategies as st

from connexon_node.release import dominance

RULES: dict[str, Any] = {"minimum": 5, "largest": 2, "dominant": 75.0, "near": 10.0}
VALUES = st.lists(st.floats(1, 1_000), min_size=1, max_size=40).map(numpy.array)


@given(VALUES, st.integers(0, 39))
def test_a_mean_times_one_donors_indicator_never_leaves(values: numpy.ndarray, place: int) -> None:
    indicator = numpy.zeros(values.size)
    indicator[place % values.size] = 1
    assert not dominance.may_leave(values * indicator, **RULES)


@given(VALUES, st.integers(1, 4))
def test_a_sum_over_fewer_contributors_than_the_minimum_never_leaves(values: numpy.ndarray, few: int) -> None:
    contributions = numpy.zeros(1_000)
    contributions[: min(few, values.size)] = values[:few]
    assert not dominance.may_leave(contributions, **RULES)


@given(VALUES)
def test_two_sums_that_differ_by_one_donor_are_not_both_known(values: numpy.ndarray) -> None:
    without = values.copy()
    without[0] = 0
    assert not dominance.may_differ(values, without, **RULES)
    assert dominance.may_differ(values, values.copy(), **RULES)


@given(st.lists(st.floats(1, 100), min_size=6, max_size=40).map(numpy.array))
def test_whoever_knows_the_second_largest_value_misses_the_largest(values: numpy.ndarray) -> None:
    assume(dominance.may_leave(values, **RULES))
    ordered = numpy.sort(values)[::-1]
    estimate = values.sum() - ordered[1]
    assert abs(estimate - ordered[0]) >= 0.1 * ordered[0] * (1 - 1e-9)


def test_a_few_large_contributions_dominate_many_small_ones() -> None:
    assert dominance.dominated(numpy.array([500.0, 400.0, *[1.0] * 50]), largest=2, percent=75)
    assert not dominance.dominated(numpy.array([10.0] * 20), largest=2, percent=75)
    assert dominance.dominated(numpy.array([-500.0, 500.0, *[1.0] * 50]), largest=2, percent=75)
    assert dominance.dominated(numpy.zeros(10), largest=2, percent=75)


def test_ordinary_sums_leave_and_unfit_ones_do_not() -> None:
    assert dominance.may_leave(numpy.linspace(10, 20, 30), **RULES)
    assert not dominance.may_leave(numpy.array([1.0] * 10 + [numpy.nan]), **RULES)
    assert not dominance.may_leave(numpy.array([]), **RULES)


def test_sums_whose_difference_is_no_number_are_not_both_known() -> None:
    values = numpy.linspace(10, 20, 30)
    for unfit in (numpy.nan, numpy.inf):
        assert not dominance.may_differ(values, numpy.append(values[:-1], unfit), **RULES)


def test_extremes_and_quantiles_of_few_never_leave() -> None:
    many = [float(value) for value in range(100)]
    assert dominance.quantile_may_leave(many, 0.5, minimum=5)
    assert dominance.quantile_may_leave(many, 0.05, minimum=5)
    for fraction in (0.0, 1.0, 0.04, 0.96):
        assert not dominance.quantile_may_leave(many, fraction, minimum=5)
    assert not dominance.quantile_may_leave(many[:9], 0.5, minimum=5)
