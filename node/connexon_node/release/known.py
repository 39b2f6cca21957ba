"""What is known outside: every cohort whose number left, and what can be worked out from those numbers.

A number is never checked against words but against this. Where a new cohort differs by fewer donors than the minimum
from one that is known, or from the sum or difference of two, it is given the number that this one has: so asking
again, in other words or by another person, tells nothing that was not told, and nobody can see whether a few donors
made a difference (Denning and Schloerer, The tracker, ACM TODS 1980, doi:10.1145/320613.320616).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
from numpy.typing import NDArray
from pyroaring import BitMap

from connexon_node.release.counted import Counted, differing, donors_of, last_donor, times

PAIRED = 512
"""The latest cohorts of which sums and differences of two are looked at, by a question of few cells."""
PAIRED_AT_LEAST = 64
"""The same for a question of many cells."""
_PAIRINGS = 6_400
"""Cells times cohorts that are paired: what keeps a question of many cells fast."""


@dataclass(frozen=True, eq=False)
class Known:
    """A cohort whose number left, or is about to. `value` is the number before rounding.

    `source` has its bitmap: made only where it is looked at.
    """

    source: BitMap | Counted
    donors: int
    records: int
    value: int
    sketch: NDArray[numpy.int64]

    @property
    def bitmap(self) -> BitMap:
        """See counted.Counted.bitmap."""
        return self.source.bitmap if isinstance(self.source, Counted) else self.source

    @cached_property
    def listed(self) -> NDArray[numpy.int64]:
        """Its distinct donors, in order."""
        return donors_of(self.bitmap)


class KnownCohorts:
    """The known cohorts of one dataset, found by likeness. `minimum`: the fewest donors that may make a difference."""

    def __init__(self, minimum: int, width: int) -> None:
        self.minimum = minimum
        self.all: list[Known] = []
        self.heaviest = 1
        self._width = width
        self._sketches = numpy.empty((64, width), dtype=numpy.int64)
        self._records = numpy.empty(64, dtype=numpy.int64)
        self._by_compartment: dict[int, list[int]] = {}
        self._by_donors: dict[int, list[int]] = {}

    def add(self, one: Known) -> None:
        """Know one more."""
        place = len(self.all)
        if place == self._records.size:
            self._sketches = numpy.concatenate([self._sketches, numpy.empty_like(self._sketches)])
            self._records = numpy.concatenate([self._records, numpy.empty_like(self._records)])
        self._sketches[place], self._records[place] = one.sketch, one.records
        self.all.append(one)
        self._by_donors.setdefault(one.donors, []).append(place)
        for compartment, number in enumerate(one.sketch.tolist()):
            if number:
                self._by_compartment.setdefault(number * self._width + compartment, []).append(place)

    def forget(self, size: int) -> None:
        """Keep the first `size` only."""
        for place in range(len(self.all) - 1, size - 1, -1):
            one = self.all.pop()
            self._by_donors[one.donors].remove(place)
            for compartment, number in enumerate(one.sketch.tolist()):
                if number:
                    self._by_compartment[number * self._width + compartment].remove(place)

    def nearest(self, one: Counted) -> Known | None:
        """The known cohort that counts the same, else the earliest that differs by too few donors, else None."""
        found: Known | None = None
        for place in sorted(self._like(one)):
            known = self.all[place]
            if abs(known.donors - one.donors) >= self.minimum:
                continue
            if int(numpy.count_nonzero(known.sketch != one.sketch)) >= self.minimum:
                continue
            difference = differing(known.bitmap, one.bitmap)
            if difference == 0:
                return known
            if difference < self.minimum:
                found = found or known
        return found

    def _like(self, one: Counted) -> set[int]:
        """Places that may differ by fewer than `minimum` donors; none that does is left out."""
        filled = one.sketch.nonzero()[0][: self.minimum]
        if filled.size < self.minimum:
            near = range(max(0, one.donors - self.minimum + 1), one.donors + self.minimum)
            return {place for donors in near for place in self._by_donors.get(donors, ())}
        # Fewer than `minimum` donors touch fewer than `minimum` compartments: one of these is untouched.
        keys = (one.sketch[filled] * self._width + filled).tolist()
        return {place for key in keys for place in self._by_compartment.get(key, ())}

    def worked_out(self, cells: Sequence[Counted]) -> list[tuple[Known, Known, int] | None]:
        """For each cell, two known cohorts whose sum (1) or difference (-1) it nearly is, and which of both."""
        results: list[tuple[Known, Known, int] | None] = [None] * len(cells)
        count = min(len(self.all), min(PAIRED, max(PAIRED_AT_LEAST, _PAIRINGS // max(1, len(cells)))))
        if count < 2 or not cells:
            return results
        begin = len(self.all) - count
        records = self._records[begin : len(self.all)]
        order = numpy.argsort(records, kind="stable")
        ascending = records[order]
        reach = (self.minimum - 1) * self.heaviest
        wanted = numpy.array([cell.records for cell in cells], dtype=numpy.int64)
        sketches = self._sketches[begin : len(self.all)]
        for sign in (1, -1):
            # cell = first + other, or cell = first - other
            rest = (wanted[:, None] - records[None, :]) * sign
            low = numpy.searchsorted(ascending, (rest - reach).ravel(), side="left")
            high = numpy.searchsorted(ascending, (rest + reach).ravel(), side="right")
            lengths = high - low
            pairs = numpy.repeat(numpy.arange(lengths.size), lengths)
            if not pairs.size:
                continue
            offsets = numpy.arange(pairs.size) - numpy.repeat(numpy.cumsum(lengths) - lengths, lengths)
            other = order[low[pairs] + offsets]
            cell, first = pairs // count, pairs % count
            keep = first < other if sign == 1 else first != other
            self._decide(results, cells, sketches, (cell[keep], first[keep], other[keep]), sign, begin)
        return results

    def _decide(
        self,
        results: list[tuple[Known, Known, int] | None],
        cells: Sequence[Counted],
        sketches: NDArray[numpy.int64],
        pairs: tuple[NDArray[numpy.int64], NDArray[numpy.int64], NDArray[numpy.int64]],
        sign: int,
        begin: int,
    ) -> None:
        cell, first, other = pairs
        own = numpy.stack([one.sketch for one in cells])
        # Most pairs are ruled out by the first compartments alone.
        some = min(2 * self.minimum, self._width)
        for size in (some, self._width):
            unequal = own[cell, :size] != sketches[first, :size] + sign * sketches[other, :size]
            alike = numpy.count_nonzero(unequal, axis=1) < self.minimum
            cell, first, other = cell[alike], first[alike], other[alike]
        for number, one, another in zip(cell.tolist(), first.tolist(), other.tolist(), strict=True):
            if results[number] is None:
                known, beside = self.all[begin + one], self.all[begin + another]
                if _apart(cells[number].bitmap, known.bitmap, beside.bitmap, sign) < self.minimum:
                    results[number] = (known, beside, sign)


def _apart(cell: BitMap, one: BitMap, other: BitMap, sign: int) -> int:
    """How many donors the cell counts differently from the sum or difference of two."""
    size = 1 + max(last_donor(bitmap) for bitmap in (cell, one, other))
    return int(numpy.count_nonzero(times(cell, size) - times(one, size) - sign * times(other, size)))
