"""The plan: how much noise each table gets, from the sizes of the domains alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from connexon_node.privacy.first_ask.frame import Frame, Table

Vector = NDArray[numpy.float64]
_SPARED_ABOVE = 16.0
"""A table that would get more than so many times the sigma of equal noise is told well enough by the others and not
measured; of 35 tables at rho 0.444, that is a sigma above 100."""
_POWER = 16
"""Norm over the tables' variances: near to the largest, and smooth."""
_ROUNDS = 400
_ENOUGH = 1e-9
_MEMORY = 10


@dataclass(frozen=True)
class Plan:
    """The sigma of each table that is measured. `rho` is what measuring them all costs a donor who comes or goes."""

    sigmas: dict[Table, float]

    @property
    def rho(self) -> float:
        """Of zCDP: a donor is in one cell of each table, so each costs 1 / (2 sigma^2)."""
        return math.fsum(1 / (2 * sigma**2) for sigma in self.sigmas.values())


def subtables(table: Table) -> tuple[Table, ...]:
    """Every subset of a table's dimensions, the empty one first."""
    return tuple(
        subset for many in range(len(table) + 1) for subset in itertools.combinations(table, many)
    )  # fmt: skip


def plan(frame: Frame, *, rho: float) -> Plan:
    """The sigmas for which the least accurate of the frame's tables is as accurate as `rho` allows.

    INVARIANT: sees domain sizes and nothing else; the same sizes give the same plan. Raises ValueError where `rho` is
    not positive and finite.
    """
    if not (math.isfinite(rho) and rho > 0):
        raise ValueError("a plan needs a rho above 0")
    measured = frame.tables
    while True:
        precisions = _optimum(frame, measured, 2 * rho)
        enough = precisions * _SPARED_ABOVE**2 >= precisions.mean()
        if enough.all():
            sigmas = 1 / numpy.sqrt(precisions)
            return Plan({table: float(sigma) for table, sigma in zip(measured, sigmas, strict=True)})
        measured = tuple(table for table, kept in zip(measured, enough, strict=True) if kept)


def information_of(frame: Frame, measured: Sequence[Table], residuals: Sequence[Table]) -> Vector:
    """Measured tables x residuals: what a table at sigma 1 knows of a residual, 1 / (product of the other sizes)."""
    return _matrix(measured, residuals, lambda table, inside: 1 / frame.cells(_without(table, inside)))


def share_of(frame: Frame, wanted: Sequence[Table], residuals: Sequence[Table]) -> Vector:
    """Tables x residuals: how much of a residual's variance is in the variance of one cell of the table."""

    def share(table: Table, inside: Table) -> float:
        return math.prod(1 - 1 / size for size in frame.sizes(inside)) / frame.cells(_without(table, inside)) ** 2

    return _matrix(wanted, residuals, share)


def _matrix(tables: Sequence[Table], residuals: Sequence[Table], entry: Callable[[Table, Table], float]) -> Vector:
    column = {residual: place for place, residual in enumerate(residuals)}
    matrix = numpy.zeros((len(tables), len(residuals)))
    for row, table in enumerate(tables):
        for inside in subtables(table):
            if inside in column:
                matrix[row, column[inside]] = entry(table, inside)
    return matrix


def _without(table: Table, inside: Table) -> Table:
    return tuple(name for name in table if name not in inside)


def _optimum(frame: Frame, measured: Sequence[Table], total: float) -> Vector:
    """The precisions 1 / sigma^2 of the measured tables, `total` in all."""
    residuals = tuple(dict.fromkeys(inside for table in frame.tables for inside in subtables(table)))
    known = information_of(frame, measured, residuals)
    shares = share_of(frame, frame.tables, residuals)

    def loss(logs: Vector) -> tuple[float, Vector]:
        """The logarithm of the norm of the variances, and its gradient; softmax keeps the sum of precisions."""
        weights = numpy.exp(logs - logs.max())
        weights /= weights.sum()
        precisions = total * weights
        information = precisions @ known
        variances = shares @ (1 / information)
        largest = variances.max()
        powers = (variances / largest) ** _POWER
        value = math.log(largest) + math.log(powers.sum()) / _POWER
        by_variance = powers / powers.sum() / variances
        by_precision = -known @ ((by_variance @ shares) / information**2)
        by_weight = total * by_precision
        return value, weights * (by_weight - weights @ by_weight)

    logs = _minimum(loss, numpy.zeros(len(measured)))
    weights = numpy.exp(logs - logs.max())
    return numpy.asarray(total * weights / weights.sum())


def _minimum(loss: Callable[[Vector], tuple[float, Vector]], start: Vector) -> Vector:
    """L-BFGS with backtracking (Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 and 3.1)."""
    place, steps, changes = start, list[Vector](), list[Vector]()
    value, gradient = loss(place)
    for _ in range(_ROUNDS):
        direction = -_newton(gradient, steps, changes)
        slope = float(direction @ gradient)
        length = 1.0
        while True:
            after = place + length * direction
            new_value, new_gradient = loss(after)
            if new_value <= value + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        step, change = after - place, new_gradient - gradient
        if new_value > value - _ENOUGH:
            return place if new_value > value else after
        if float(step @ change) > 0:
            steps, changes = [*steps, step][-_MEMORY:], [*changes, change][-_MEMORY:]
        place, value, gradient = after, new_value, new_gradient
    return place


def _newton(gradient: Vector, steps: Sequence[Vector], changes: Sequence[Vector]) -> Vector:
    """The gradient times the inverse curvature, as the latest steps show it."""
    pairs = [(step, change, 1 / float(step @ change)) for step, change in zip(steps, changes, strict=True)]
    found, taken = gradient.copy(), []
    for step, change, inverse in reversed(pairs):
        taken.append(inverse * float(step @ found))
        found -= taken[-1] * change
    if pairs:
        step, change, inverse = pairs[-1]
        found /= inverse * float(change @ change)
    for (step, change, inverse), amount in zip(pairs, reversed(taken), strict=True):
        found += (amount - inverse * float(change @ found)) * step
    return found
