"""First-ask tables: the closed form is least squares, unbiased and consistent, and its intervals cover."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from connexon_node.privacy.first_ask import (
    Frame,
    Plan,
    Precision,
    Table,
    count,
    for_display,
    half_width,
    measure,
    plan,
    reconstruct,
)
from tests.support.first_ask import coded_center, shipped_frame, small_frame

PAIRS: tuple[Table, ...] = (("a",), ("b",), ("c",), ("a", "b"), ("b", "c"))
Z = 1.959964


@st.composite
def planned(draw: st.DrawFn) -> tuple[Frame, Plan]:
    """Frames of three dimensions, any tables of them, any sigmas."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=3, max_size=3))
    every = [table for many in (1, 2, 3) for table in itertools.combinations("abc", many)]
    tables = tuple(draw(st.lists(st.sampled_from(every), min_size=1, max_size=5, unique=True)))
    sigmas = {table: draw(st.floats(0.5, 20)) for table in tables}
    return small_frame(sizes, tables), Plan(sigmas)


def drawn(
    frame: Frame, made: Plan, truth: NDArray[numpy.int64], random: numpy.random.Generator
) -> dict[Table, NDArray[numpy.float64]]:
    """Margins of the full table with normal noise."""
    exact = {table: margin(frame, truth, table) for table in made.sigmas}
    return {table: cells + random.normal(0, made.sigmas[table], cells.shape) for table, cells in exact.items()}


def variance(precision: Precision, table: Table, chosen: Sequence[NDArray[numpy.bool_]] = ()) -> float:
    """The variance of what the plan tells."""
    found = precision.variance(table, chosen)
    assert found is not None
    return found


def margin(frame: Frame, truth: NDArray[numpy.int64], table: Table) -> NDArray[numpy.int64]:
    others = tuple(axis for axis, one in enumerate(frame.dimensions) if one.name not in table)
    return numpy.asarray(truth.sum(axis=others))


def design(frame: Frame, table: Table) -> NDArray[numpy.float64]:
    """The matrix that makes the margin of the full table."""
    parts = [numpy.eye(one.size) if one.name in table else numpy.ones((1, one.size)) for one in frame.dimensions]
    matrix: NDArray[Any] = parts[0]
    for part in parts[1:]:
        matrix = numpy.kron(matrix, part)
    return matrix


@settings(max_examples=60, deadline=None)
@given(planned(), st.integers(0, 2**32))
def test_the_closed_form_is_weighted_least_squares(case: tuple[Frame, Plan], seed: int) -> None:
    """Beside the same by brute force over the full domain: estimates, variances of cells and of sums."""
    frame, made = case
    random = numpy.random.default_rng(seed)
    truth = random.integers(0, 50, [one.size for one in frame.dimensions])
    measured = drawn(frame, made, truth, random)
    weighted = numpy.vstack([design(frame, table) / sigma for table, sigma in made.sigmas.items()])
    numbers = numpy.concatenate([measured[table].ravel() / sigma for table, sigma in made.sigmas.items()])
    solved = numpy.linalg.lstsq(weighted, numbers, rcond=None)[0]
    covariance = numpy.linalg.pinv(weighted.T @ weighted)
    precision = Precision(frame, made)
    estimates = reconstruct(precision, measured)
    for table in precision.residuals:
        matrix = design(frame, table)
        cells = estimates.table(table)
        assert cells is not None
        numpy.testing.assert_allclose(cells.ravel(), matrix @ solved, atol=1e-7)
        one = variance(precision, table)
        numpy.testing.assert_allclose(numpy.diag(matrix @ covariance @ matrix.T), one, rtol=1e-6)
        masks = [random.random(size) < 0.6 for size in frame.sizes(table)]
        chosen = numpy.zeros(frame.sizes(table))
        chosen[numpy.ix_(*masks) if masks else ()] = 1
        weights = chosen.ravel() @ matrix
        found = estimates.sum(table, masks)
        assert found is not None
        assert found.value == pytest.approx(float(weights @ solved), abs=1e-6)
        assert found.variance == pytest.approx(float(weights @ covariance @ weights), rel=1e-6, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(planned(), st.integers(0, 2**32))
def test_tables_sum_to_their_margins_and_what_nothing_tells_is_none(case: tuple[Frame, Plan], seed: int) -> None:
    frame, made = case
    random = numpy.random.default_rng(seed)
    truth = random.integers(0, 50, [one.size for one in frame.dimensions])
    precision = Precision(frame, made)
    estimates = reconstruct(precision, drawn(frame, made, truth, random))
    for table in (found for many in range(4) for found in itertools.combinations("abc", many)):
        told = any(set(table) <= set(one) for one in made.sigmas)
        cells = estimates.table(table)
        assert (cells is not None) == told == (precision.variance(table) is not None)
        if cells is None:
            assert estimates.sum(table, [numpy.ones(size, dtype=bool) for size in frame.sizes(table)]) is None
            continue
        for axis, name in enumerate(table):
            smaller = estimates.table(tuple(one for one in table if one != name))
            assert smaller is not None
            numpy.testing.assert_allclose(cells.sum(axis=axis), smaller, atol=1e-7)


def test_estimates_are_unbiased_and_their_variances_are_what_is_said() -> None:
    frame = small_frame([3, 4, 5], PAIRS)
    precision = Precision(frame, plan(frame, rho=0.5))
    random = numpy.random.default_rng(4)
    truth = random.integers(0, 9, [3, 4, 5])
    worlds = 4_000
    chosen = [numpy.array([True, False, True]), numpy.array([False, True, True, False])]
    exact = margin(frame, truth, ("a", "b"))
    errors, sums = [], []
    for _ in range(worlds):
        estimates = reconstruct(precision, drawn(frame, precision.plan, truth, random))
        errors.append(estimates.table(("a", "b")) - exact)
        sums.append(estimates.sum(("a", "b"), chosen).value - exact[numpy.ix_(*chosen)].sum())
    error = numpy.array(errors)
    deviation = math.sqrt(variance(precision, ("a", "b")))
    # Six standard errors: fails once in 10^8 seeds.
    assert numpy.abs(error.mean(axis=0)).max() < 6 * deviation / math.sqrt(worlds)
    assert numpy.abs(error.std(axis=0) / deviation - 1).max() < 6 / math.sqrt(2 * worlds)
    assert abs(numpy.std(sums) / math.sqrt(variance(precision, ("a", "b"), chosen)) - 1) < 6 / math.sqrt(2 * worlds)


@pytest.mark.parametrize("centers", [1, 3, 10, 100])
def test_intervals_cover_95_of_100_over_one_to_a_hundred_centers(centers: int) -> None:
    """Sums of centers' unrounded estimates, rounded when they are shown."""
    frame = small_frame([4, 5, 6], PAIRS)
    precision = Precision(frame, plan(frame, rho=0.04))
    random = numpy.random.default_rng(11)
    truth = random.integers(0, 4, [4, 5, 6])
    table = ("b", "c")
    error = []
    for _ in range(12_000 // min(centers, 20)):
        found: Any = [
            reconstruct(precision, drawn(frame, precision.plan, truth, random)).table(table)
            for _ in range(min(centers, 20))
        ]
        # A hundred centers are twenty, with the others' noise added as one normal draw of what is said of it.
        rest = random.normal(0, math.sqrt(max(0, centers - 20) * variance(precision, table)), found[0].shape)
        error.append(numpy.rint(sum(found) + rest - min(centers, 20) * margin(frame, truth, table)))
    width = half_width(centers * variance(precision, table))
    assert 0.935 <= numpy.mean(numpy.abs(error) <= width) <= 0.965


def test_what_is_drawn_is_whole_signed_and_paid_for() -> None:
    frame = shipped_frame()
    codes = coded_center(frame, 120, seed=3)
    made = plan(frame, rho=0.444)
    measured, spent = measure(frame, made, codes)
    assert set(measured) == set(made.sigmas)
    assert all(cells.dtype == numpy.int64 and cells.shape == frame.sizes(one) for one, cells in measured.items())
    assert 0.444 * (1 - 1e-6) < spent <= 0.444 * (1 + 1e-12)
    exact = {table: count(frame, table, codes) for table in measured}
    assert all(cells.sum() == 120 for cells in exact.values())
    assert any((cells < 0).any() for cells in measured.values())
    # The mean square of the noise in units of its variance: a chi square with as many degrees as there are cells.
    errors = [((measured[one] - exact[one]) / made.sigmas[one]).ravel() for one in measured]
    noise = numpy.concatenate(errors)
    assert abs(numpy.mean(noise**2) - 1) < 6 * math.sqrt(2 / noise.size)


def test_the_shipped_plan_tells_every_table_within_ten() -> None:
    frame = shipped_frame()
    made = plan(frame, rho=0.444)
    precision = Precision(frame, made)
    assert made.rho == pytest.approx(0.444)
    assert max(half_width(variance(precision, table)) for table in frame.tables) == 10
    assert ("disease",) not in made.sigmas, "its pairs tell it"


@pytest.mark.parametrize("rho", [0.32, 0.444, 0.64, 1e-4])
def test_the_plan_is_better_than_equal_noise_and_than_its_neighbors(rho: float) -> None:
    frame = shipped_frame()
    made = plan(frame, rho=rho)
    assert made.rho == pytest.approx(rho)
    even = Plan(dict.fromkeys(frame.tables, math.sqrt(len(frame.tables) / (2 * rho))))
    assert widest(frame, made, norm=math.inf) < 0.87 * widest(frame, even, norm=math.inf)
    best = widest(frame, made)
    random = numpy.random.default_rng(5)
    for _ in range(50):
        moved = {table: sigma * math.exp(random.normal(0, 0.1)) for table, sigma in made.sigmas.items()}
        scale = math.sqrt(Plan(moved).rho / rho)
        assert best <= widest(frame, Plan({table: sigma * scale for table, sigma in moved.items()})) * (1 + 1e-6)


def widest(frame: Frame, made: Plan, *, norm: float = 16) -> float:
    """The half-width of the least accurate table; with the norm that is minimized, nearly."""
    precision = Precision(frame, made)
    variances = numpy.array([variance(precision, table) for table in frame.tables])
    return Z * math.sqrt(float(numpy.linalg.norm(variances / variances.max(), norm)) * variances.max())


def test_the_same_sizes_give_the_same_plan() -> None:
    assert plan(shipped_frame(), rho=0.444) == plan(shipped_frame(), rho=0.444)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.inf, math.nan])
def test_a_plan_without_a_price_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        plan(shipped_frame(), rho=rho)


def test_what_was_measured_must_be_what_was_planned() -> None:
    frame = small_frame([2, 3], (("a",), ("a", "b")))
    precision = Precision(frame, Plan({("a",): 1.0, ("a", "b"): 1.0}))
    with pytest.raises(ValueError, match="planned"):
        reconstruct(precision, {("a",): numpy.zeros(2)})
    with pytest.raises(ValueError, match="planned"):
        reconstruct(precision, {("a",): numpy.zeros(2), ("a", "b"): numpy.zeros((3, 2))})
    estimates = reconstruct(precision, {("a",): numpy.zeros(2), ("a", "b"): numpy.zeros((2, 3))})
    with pytest.raises(ValueError, match="mask"):
        estimates.sum(("a", "b"), [numpy.ones(2, dtype=bool)])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 1), st.integers(0, 40))
def test_the_display_copy_has_no_negative_cell_and_sums_to_its_margins(seed: int, rho: float, most: int) -> None:
    frame = small_frame([3, 6, 5], PAIRS)
    precision = Precision(frame, plan(frame, rho=rho))
    random = numpy.random.default_rng(seed)
    truth = random.integers(0, most + 1, [3, 6, 5]) * (random.random([3, 6, 5]) < 0.3)
    shown = for_display(reconstruct(precision, drawn(frame, precision.plan, truth, random)), ((), *PAIRS, ("a", "c")))
    assert ("a", "c") not in shown, "nothing measured tells it"
    total = float(shown[()])
    for table in PAIRS:
        assert shown[table].min() >= 0
        assert shown[table].sum() == pytest.approx(total, abs=0.5)
    for first, second in (("a", "b"), ("b", "c")):
        assert numpy.abs(shown[first, second].sum(axis=1) - shown[first,]).max() < 0.5
        assert numpy.abs(shown[first, second].sum(axis=0) - shown[second,]).max() < 0.5


def test_the_display_copy_leaves_what_is_not_negative_as_it_was() -> None:
    frame = small_frame([3, 4, 2], PAIRS)
    precision = Precision(frame, plan(frame, rho=5.0))
    random = numpy.random.default_rng(1)
    estimates = reconstruct(precision, drawn(frame, precision.plan, random.integers(80, 90, [3, 4, 2]), random))
    for table, cells in for_display(estimates, PAIRS).items():
        expected: Any = estimates.table(table)
        numpy.testing.assert_allclose(cells, expected, atol=1e-6)
