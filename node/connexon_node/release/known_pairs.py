"""Sums and differences of two known cohorts, among all that are known.

A cohort that differs from a sum in fewer donors than the minimum touches fewer compartments of the sketches than
that: of any `minimum` compartments one at least adds up. In a sorted column of the sketches, what must be added to each
known cohort is looked up at once, so that a cell takes time in proportion to the number of known cohorts and not to its
square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from pyroaring import BitMap

from connexon_node.release.donor_multiset import Counted, last_donor, times
from connexon_node.release.released_cohorts import Known, KnownCohorts

Places = NDArray[numpy.int64]
MAXIMUM_PAIRS = 20_000_000
"""Pairs that may be looked at for one cell; a cell for which there are more does not leave."""
_TOGETHER = 500_000


class Pair(NamedTuple):
    """A known cohort plus (1) or minus (-1) another."""

    first: Known
    other: Known
    sign: int


class TooManyPairs(NamedTuple):
    """There are too many to look at: the cell is withheld."""


class KnownPairs:
    """Finds, for cells, two known cohorts whose sum or difference they nearly are. Not thread-safe."""

    def __init__(self, known: KnownCohorts) -> None:
        self._known = known
        self._orders: dict[int, Places] = {}
        known.when_forgetting.append(self._forget)

    def worked_out(self, cells: Sequence[Counted]) -> list[Pair | TooManyPairs | None]:
        """For each cell such a pair, if there is one."""
        if len(self._known.all) < 2:
            return [None] * len(cells)
        return [self._of(cell) for cell in cells]

    def _of(self, cell: Counted) -> Pair | TooManyPairs | None:
        looked_at = 0
        for sign in (1, -1):
            for first, other in self._candidates(cell, sign):
                looked_at += first.size
                if looked_at > MAXIMUM_PAIRS:
                    return TooManyPairs()
                found = self._true(cell, first, other, sign)
                if found is not None:
                    return found
        return None

    def _true(self, cell: Counted, first: Places, other: Places, sign: int) -> Pair | None:
        keep = first < other if sign == 1 else first != other
        first, other = first[keep], other[keep]
        sketches, least = self._known.sketches, self._known.minimum
        unequal = numpy.zeros(first.size, dtype=numpy.int64)
        for column in range(sketches.shape[1]):
            one = sketches[:, column]
            unequal += one[first] + sign * one[other] != cell.sketch[column]
            if column % least == least - 1:  # most are ruled out by a few columns
                alike = unequal < least
                first, other, unequal = first[alike], other[alike], unequal[alike]
        for place, beside in zip(first.tolist(), other.tolist(), strict=True):
            known, another = self._known.all[place], self._known.all[beside]
            if _apart(cell.bitmap, known.bitmap, another.bitmap, sign) < least:
                return Pair(known, another, sign)
        return None

    def _candidates(self, cell: Counted, sign: int) -> Iterator[tuple[Places, Places]]:
        """Pairs among which any is that the cell nearly is."""
        filled = numpy.flatnonzero(cell.sketch)[: self._known.minimum].tolist()
        if len(filled) < self._known.minimum:
            # So few donors that fewer than `minimum` may be in every compartment: told apart by their number.
            yield from self._by_records(cell, sign)
            return
        for column in filled:
            order, values = self._sorted(column)
            wanted = int(cell.sketch[column])
            # cell = first + other, or cell = first - other.
            rest = (wanted - values)[::-1] if sign == 1 else values - wanted
            of = order[::-1] if sign == 1 else order
            yield from _matching(of, rest, rest, values, order)

    def _by_records(self, cell: Counted, sign: int) -> Iterator[tuple[Places, Places]]:
        reach = (self._known.minimum - 1) * self._known.heaviest
        records = self._known.records
        order = numpy.argsort(records, kind="stable")
        values = records[order]
        rest = (cell.records - values)[::-1] if sign == 1 else values - cell.records
        yield from _matching(order[::-1] if sign == 1 else order, rest - reach, rest + reach, values, order)

    def _sorted(self, column: int) -> tuple[Places, NDArray[numpy.int64]]:
        """The places of known cohorts in the order of a column of their sketches, and that column so."""
        sketches = self._known.sketches
        order = self._orders.get(column, numpy.empty(0, dtype=numpy.int64))
        if order.size < len(sketches):
            order = numpy.concatenate([order, numpy.arange(order.size, len(sketches))])
            # Nearly sorted already, which a stable sort is fast on.
            order = order[numpy.argsort(sketches[order, column], kind="stable")]
            self._orders[column] = order
        return order, sketches[order, column]

    def _forget(self, size: int) -> None:
        self._orders = {column: order[order < size] for column, order in self._orders.items()}


def _matching(
    first: Places,
    low: NDArray[numpy.int64],
    high: NDArray[numpy.int64],
    values: NDArray[numpy.int64],
    places: Places,
) -> Iterator[tuple[Places, Places]]:
    """For each first (in ascending order of `low` and `high`) every place whose value lies between, in batches."""
    begin = numpy.searchsorted(values, low, side="left")
    inside = numpy.flatnonzero((begin < values.size) & (values[numpy.minimum(begin, values.size - 1)] <= high))
    if not inside.size:
        return
    begin = begin[inside]
    lengths = numpy.searchsorted(values, high[inside], side="right") - begin
    start = 0
    ends = numpy.cumsum(lengths)
    while start < inside.size:
        stop = max(start + 1, int(numpy.searchsorted(ends, (ends[start - 1] if start else 0) + _TOGETHER)))
        some = lengths[start:stop]
        offsets = numpy.arange(int(some.sum())) - numpy.repeat(numpy.cumsum(some) - some, some)
        yield (
            numpy.repeat(first[inside[start:stop]], some),
            places[numpy.repeat(begin[start:stop], some) + offsets],
        )
        start = stop


def _apart(cell: BitMap, one: BitMap, other: BitMap, sign: int) -> int:
    """How many donors the cell counts differently from the sum or difference of two."""
    size = 1 + max(last_donor(bitmap) for bitmap in (cell, one, other))
    return int(numpy.count_nonzero(times(cell, size) - times(one, size) - sign * times(other, size)))
