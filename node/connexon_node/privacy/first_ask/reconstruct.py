"""Reconstruction: all tables from the measured ones by generalised least squares, in closed form.

The residual of dimensions B is the B-margin of a table, centered along each axis. Residuals of different B are
uncorrelated, so that least squares is a weighted mean for each of them (Xiao, He, Zhang and Kifer 2023,
ResidualPlanner, arXiv:2305.08175). why.md has the formulas.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy
from numpy.typing import NDArray

from connexon_node.privacy.first_ask.dimensions import Mask
from connexon_node.privacy.first_ask.frame import Frame, Table
from connexon_node.privacy.first_ask.plan import Plan, information_of, subtables
from connexon_node.privacy.noise import CONFIDENCE

Numbers = NDArray[numpy.float64]
_KEPT = 10_000
"""Variances of sums in memory."""
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Estimate:
    """A number of donors: unbiased, signed, unrounded, with its exact variance."""

    value: float
    variance: float

    @property
    def rounded(self) -> int:
        """The nearest whole number, which the half-width belongs to."""
        return round(self.value)

    @property
    def half_width(self) -> int:
        """See `half_width`."""
        return half_width(self.variance)


def half_width(variance: float) -> int:
    """The smallest W for which a rounded estimate lies within W of the true number with 95 % probability.

    Rounding adds half a donor on either side, which is given back.
    """
    return max(0, math.ceil(_Z * math.sqrt(variance) - 0.5))


class Precision:
    """How well a plan tells sums of cells: known before anything is measured, and without data."""

    def __init__(self, frame: Frame, plan: Plan) -> None:
        self.frame = frame
        self.plan = plan
        measured = tuple(plan.sigmas)
        self.residuals = tuple(dict.fromkeys(inside for table in measured for inside in subtables(table)))
        precisions = numpy.array([1 / sigma**2 for sigma in plan.sigmas.values()])
        information = precisions @ information_of(frame, measured, self.residuals)
        self._variances = {one: 1 / float(known) for one, known in zip(self.residuals, information, strict=True)}
        self._of_sums: dict[tuple[Table, tuple[int, ...]], float] = {}
        """Variances that were worked out: by table and number of chosen places, of which a question has few."""

    def tells(self, table: Table) -> bool:
        """Whether the table is measured or a margin of a measured one."""
        return table in self._variances

    def residual(self, table: Table) -> float:
        """The variance v_B of a residual before centering. Raises KeyError where nothing measured tells it."""
        return self._variances[table]

    def variance(self, table: Table, chosen: Sequence[Mask] = ()) -> float | None:
        """The variance of a sum over the chosen places of each axis, or of one cell; None where nothing tells it.

        Raises ValueError where the masks do not fit the table.
        """
        if not self.tells(table):
            return None
        sizes = self.frame.sizes(table)
        taken = tuple(int(mask.sum()) for mask in checked(chosen, sizes)) if chosen else (1,) * len(sizes)
        known = self._of_sums.get((table, taken))
        if known is None:
            known = self._of_sums[table, taken] = self._variance(table, taken, sizes)
            if len(self._of_sums) > _KEPT:
                self._of_sums.clear()
        return known

    def _variance(self, table: Table, taken: tuple[int, ...], sizes: tuple[int, ...]) -> float:
        return math.fsum(
            self._variances[inside]
            * math.prod(
                many * (1 - many / size) if name in inside else (many / size) ** 2
                for name, many, size in zip(table, taken, sizes, strict=True)
            )
            for inside in subtables(table)
        )


class Estimates:
    """Every table that the measured ones tell: pairs sum to their margins, and those to the number of donors."""

    def __init__(self, precision: Precision, residuals: Mapping[Table, Numbers]) -> None:
        self.precision = precision
        self._residuals = dict(residuals)

    @property
    def residuals(self) -> Mapping[Table, Numbers]:
        """What all tables are made of; kept with an edition, since linear algebra may differ between machines."""
        return self._residuals

    def table(self, table: Table) -> Numbers | None:
        """The estimated cells, unrounded and signed; None where nothing measured tells them."""
        if not self.precision.tells(table):
            return None
        frame = self.precision.frame
        made = numpy.zeros(frame.sizes(table))
        for inside in subtables(table):
            shape = [frame.dimension(name).size if name in inside else 1 for name in table]
            made += self._residuals[inside].reshape(shape) * (math.prod(shape) / frame.cells(table))
        return made

    def sum(self, table: Table, chosen: Sequence[Mask]) -> Estimate | None:
        """The number of donors in the chosen places of each axis; None where nothing measured tells it."""
        cells, variance = self.table(table), self.precision.variance(table, chosen)
        if cells is None or variance is None:
            return None
        masks = checked(chosen, cells.shape)
        return Estimate(float(cells[numpy.ix_(*masks)].sum() if masks else cells), variance)


def reconstruct(precision: Precision, measured: Mapping[Table, NDArray[numpy.int64] | Numbers]) -> Estimates:
    """The least-squares estimates. Raises ValueError where a planned table is absent or has another shape."""
    frame, sigmas = precision.frame, precision.plan.sigmas
    if set(measured) != set(sigmas) or any(measured[one].shape != frame.sizes(one) for one in sigmas):
        raise ValueError("what was measured is not what was planned")
    sums = {one: numpy.zeros(frame.sizes(one)) for one in precision.residuals}
    for table, sigma in sigmas.items():
        for inside in subtables(table):
            others = tuple(axis for axis, name in enumerate(table) if name not in inside)
            margin = measured[table].sum(axis=others, dtype=numpy.float64)
            known = sums[inside].size / measured[table].size / sigma**2
            sums[inside] = sums[inside] + known * centered(margin)
    return Estimates(precision, {one: sums[one] * precision.residual(one) for one in precision.residuals})


def centered(table: Numbers) -> Numbers:
    """The table less its mean along each axis."""
    return functools.reduce(
        lambda left, axis: left - left.mean(axis=axis, keepdims=True), range(table.ndim), numpy.asarray(table)
    )


def checked(chosen: Sequence[Mask], sizes: Sequence[int]) -> list[Mask]:
    """The masks. Raises ValueError where they do not fit the sizes."""
    if [mask.shape for mask in chosen] != [(size,) for size in sizes]:
        raise ValueError("a mask for each axis of the table, as long as its domain")
    return [numpy.asarray(mask, dtype=bool) for mask in chosen]
