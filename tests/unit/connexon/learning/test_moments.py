"""Moments put together from parts are those of all numbers at once, beside exact fractions and NumPy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.learning.moments import Moments, moments_of, together

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=8)


def told(values: numpy.ndarray, sizes: list[int]) -> Moments:
    """Of values that lie in parts of these sizes, and the rest in one more."""
    return together([moments_of(part) for part in numpy.split(values, numpy.cumsum(sizes))])


def exact(values: numpy.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, without rounding on the way."""
    numbers = [Fraction(float(value)) for value in values]
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    return float(mean), math.sqrt(variance)


@settings(deadline=None)
@given(
    SIZES,
    st.sampled_from([0.0, 1.0, -1e5, 1e9, 1e-9]),
    st.floats(-9, 3),
    st.integers(0, 2**32 - 1),
)
def test_parts_tell_what_all_numbers_at_once_do(sizes: list[int], mean: float, spread: float, seed: int) -> None:
    scale = (abs(mean) or 1.0) * 10**spread
    values = numpy.random.default_rng(seed).normal(mean, scale, 1 + sum(sizes))
    found = told(values, sizes)
    right_mean, right_sd = exact(values)
    assert found.count == len(values)
    assert found.mean == pytest.approx(right_mean, rel=1e-14, abs=1e-12 * right_sd)
    # Means are told as doubles, and a spread is known no better than its place among their digits.
    near = max(1e-9, 2 * numpy.finfo(float).eps * abs(right_mean) / right_sd) if right_sd else 0.0
    assert found.sd == pytest.approx(right_sd, rel=near, abs=0)
    assert found.sd == pytest.approx(values.std(), rel=near, abs=0)


@given(SIZES, st.floats(-1e130, 1e130))
def test_equal_numbers_have_exactly_their_own_mean_and_no_spread(sizes: list[int], value: float) -> None:
    found = told(numpy.full(1 + sum(sizes), value), sizes)
    assert (found.mean, found.squared_deviations) == (value, 0.0)


@given(st.lists(st.floats(-1e100, 1e100), min_size=1, max_size=40))
def test_one_number_at_each_center_is_enough(values: list[float]) -> None:
    apart = together([moments_of(numpy.array([value])) for value in values])
    mean, sd = exact(numpy.array(values))
    reach = max(map(abs, values))
    assert apart.mean == pytest.approx(mean, rel=1e-12, abs=1e-14 * reach)
    # What is smaller still has squares without digits.
    assert apart.sd == pytest.approx(sd, rel=1e-9, abs=1e-13 * reach + 1e-145)


def test_the_numbers_that_sums_of_squares_lost() -> None:
    values = 1e5 + numpy.array([-0.05, 0.05] * 50)
    squares = (values**2).sum() / 100 - (values.sum() / 100) ** 2
    assert abs(squares / 0.0025 - 1) > 1e-4
    assert told(values, [13, 40]).sd == pytest.approx(0.05, rel=1e-9)


def test_the_certified_numbers_are_met() -> None:
    # NumAcc4 of NIST's Statistical Reference Datasets: mean 10000000.2, standard deviation (n - 1) 0.1. The values
    # themselves are rounded to 2e-9, so that no more than seven digits of the spread can be met.
    values = numpy.array([10000000.2] + [10000000.1, 10000000.3] * 500)
    found = told(values, [7, 0, 500])
    assert found.mean == 10000000.2
    assert math.sqrt(found.squared_deviations / 1000) == pytest.approx(0.1, rel=3e-8)


def test_one_far_away_number_that_comes_first_takes_nothing_from_the_others() -> None:
    values = numpy.array([1e12, *numpy.linspace(0, 1, 99)])
    assert moments_of(values).sd == pytest.approx(exact(values)[1], rel=1e-12)


def test_nothing_is_told_of_no_numbers() -> None:
    assert moments_of(numpy.empty(0)) == together([]) == together([Moments(), Moments()]) == Moments()


@pytest.mark.parametrize("values", [[1e200, -1e200], [1e308, -1e308, 3.0], [1e145] * 3, [math.inf, 1.0]])
def test_numbers_that_cannot_be_squared_are_not_sound(values: list[float]) -> None:
    assert not moments_of(numpy.array(values)).sound
