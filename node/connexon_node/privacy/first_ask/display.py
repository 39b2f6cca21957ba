"""A non-negative copy for pictures. Biased upwards where cells are empty: sums over centers use the estimates."""

from __future__ import annotations

from collections.abc import Iterable

import numpy

from connexon_node.privacy.first_ask.frame import Table
from connexon_node.privacy.first_ask.reconstruct import Estimates, Numbers

_ROUNDS = 400
_CLOSE = 1e-3
"""Donors: nobody sees a smaller difference."""


def for_display(estimates: Estimates, tables: Iterable[Table]) -> dict[Table, Numbers]:
    """Tables of at most two dimensions without a negative cell; pairs sum to their margins. Unknown ones are left out.

    One-way tables are projected on the simplex of the estimated total, pairs on the non-negative tables with those
    margins (local non-negativity, Mullins et al. 2024, arXiv:2410.01091).
    """
    total = max(0.0, float(_known(estimates, ())))
    margins: dict[str, Numbers] = {}

    def margin(name: str) -> Numbers:
        if name not in margins:
            margins[name] = _on_simplex(_known(estimates, (name,)), total)
        return margins[name]

    shown: dict[Table, Numbers] = {}
    for table in tables:
        if not estimates.precision.tells(table):
            continue
        match table:
            case ():
                shown[table] = numpy.array(total)
            case (name,):
                shown[table] = margin(name)
            case (first, second):
                shown[table] = _pair(_known(estimates, table), margin(first), margin(second))
            case _:
                raise ValueError("a table of at most two dimensions is shown")
    return shown


def _known(estimates: Estimates, table: Table) -> Numbers:
    found = estimates.table(table)
    assert found is not None, "margins of what is known are known"
    return found


def _on_simplex(cells: Numbers, total: float) -> Numbers:
    """The nearest non-negative numbers of that sum (Duchi et al. 2008, doi:10.1145/1390156.1390191)."""
    falling = numpy.sort(cells)[::-1]
    excess = (numpy.cumsum(falling) - total) / numpy.arange(1, cells.size + 1)
    kept = int(numpy.flatnonzero(falling >= excess)[-1])
    return numpy.asarray(numpy.maximum(0.0, cells - excess[kept]))


def _pair(cells: Numbers, rows: Numbers, columns: Numbers) -> Numbers:
    """The nearest non-negative table with those margins, by ADMM (Boyd et al. 2011, doi:10.1561/2200000016).

    Ends on what has no negative cell; its margins are then as good as `_CLOSE`, or as 400 rounds make them.
    """
    start = _with_margins(cells, rows, columns)
    positive, carried = numpy.maximum(0.0, start), numpy.zeros_like(start)
    for _ in range(_ROUNDS):
        fitting = _with_margins((cells + positive - carried) / 2, rows, columns)
        before, positive = positive, numpy.maximum(0.0, fitting + carried)
        carried += fitting - positive
        if max(numpy.abs(fitting - positive).max(), numpy.abs(positive - before).max()) < _CLOSE:
            break
    return positive


def _with_margins(cells: Numbers, rows: Numbers, columns: Numbers) -> Numbers:
    """The nearest table with those margins."""
    high, wide = cells.shape
    by_row = (rows - cells.sum(axis=1)) / wide
    by_column = (columns - cells.sum(axis=0)) / high
    return numpy.asarray(cells + by_row[:, None] + by_column[None, :] - by_row.sum() / high)
