"""Who is counted how often: the one thing that release compares.

A released count is a sum over donors of their records. Two counts tell something of few donors exactly if the donors
whose records differ between them are few, whatever the words of the questions.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
from numpy.typing import NDArray
from pyroaring import BitMap

Donors = NDArray[numpy.int32]
Sketch = NDArray[numpy.int64]
PLANE = 27
"""Bits of a donor number in a cohort's bitmap; the five above are the place of a binary digit of the records."""
_DONOR = (1 << PLANE) - 1
_WEIGHT_BITS = 33
_EXACT = 1 << 53 - _WEIGHT_BITS
"""So many weights add up exactly in a float64, in which numpy counts; more are added in halves."""
_HALF = 16


@dataclass(frozen=True, eq=False)
class Counted:
    """A cohort: `behind` has the donor of every record, `donors` how many are distinct, `sketch` see Sketches."""

    behind: Donors
    donors: int
    sketch: Sketch

    @property
    def records(self) -> int:
        """How many records it counts."""
        return int(self.behind.size)

    @cached_property
    def bitmap(self) -> BitMap:
        """The records of every donor in binary, as a roaring bitmap: equal bitmaps count the same."""
        if self.records == self.donors:  # each donor once
            return to_bitmap(self.behind)
        donors, records = numpy.unique(self.behind, return_counts=True)
        planes = [
            donors[(records >> place) & 1 == 1].astype(numpy.uint32) | numpy.uint32(place << PLANE)
            for place in range(int(records.max(initial=0)).bit_length())
        ]
        return to_bitmap(numpy.concatenate(planes)) if planes else BitMap()


class Sketches:
    """A cohort in a few numbers that add up as cohorts do.

    Donors fall into `width` compartments by a fixed hash; a sketch has, for each, the sum of its donors' records
    weighted by 32 random bits. Cohorts that differ in fewer than n donors have equal sketches in all but n - 1
    compartments or fewer, so unequal ones prove a difference; equal ones only hint at none.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        # By donor number, compartment and weight in one, so that they are looked up at once.
        self._both = numpy.empty(0, dtype=numpy.int64)

    def of(self, groups: Sequence[Donors]) -> NDArray[numpy.int64]:
        """One sketch (a row of int64) per group of donor numbers."""
        behind = groups[0] if len(groups) == 1 else numpy.concatenate(groups)
        if behind.size and int(behind.max()) >= self._both.size:
            self._grow(int(behind.max()) + 1)
        both = self._both.take(behind, mode="clip")
        place = both >> _WEIGHT_BITS
        if len(groups) > 1:
            sizes = [group.size for group in groups]
            place += numpy.repeat(numpy.arange(len(groups), dtype=numpy.int64) * self.width, sizes)
        both &= (1 << _WEIGHT_BITS) - 1
        length = len(groups) * self.width
        if behind.size <= _EXACT:
            sums = numpy.bincount(place, weights=both, minlength=length).astype(numpy.int64)
        else:
            high, low = both >> _HALF, both & ((1 << _HALF) - 1)
            sums = numpy.bincount(place, weights=high, minlength=length).astype(numpy.int64) << _HALF
            sums += numpy.bincount(place, weights=low, minlength=length).astype(numpy.int64)
        return sums.reshape(len(groups), self.width)

    def _grow(self, size: int) -> None:
        mixed = numpy.arange(max(size, 2 * self._both.size), dtype=numpy.uint64)
        # splitmix64 (Steele, Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195).
        mixed += numpy.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> numpy.uint64(31)
        compartment = ((mixed >> numpy.uint64(32)) % numpy.uint64(self.width)).astype(numpy.int64)
        weight = ((mixed & numpy.uint64(0xFFFFFFFF)) + numpy.uint64(1)).astype(numpy.int64)
        self._both = compartment << _WEIGHT_BITS | weight


def distinct(behind: Donors) -> int:
    """How many distinct donors there are among the donors of records."""
    if not behind.size:
        return 0
    seen = numpy.zeros(int(behind.max()) + 1, dtype=bool)
    seen[behind] = True
    return int(numpy.count_nonzero(seen))


def same_donors(listed: Donors, behind: Donors) -> bool:
    """Whether as many donors of records are the listed ones, each once; those are distinct and in order."""
    if not listed.size:
        return True
    if int(behind.max()) > int(listed[-1]):
        return False
    seen = numpy.zeros(int(listed[-1]) + 1, dtype=bool)
    seen[behind] = True
    return bool(seen[listed].all())


def differing(one: BitMap, other: BitMap) -> int:
    """How many donors are counted differently by two cohorts."""
    changed = one ^ other
    if not changed or changed.max() <= _DONOR:
        return len(changed)
    return int(numpy.unique(to_array(changed) & _DONOR).size)


def times(bitmap: BitMap, size: int) -> NDArray[numpy.int64]:
    """The records of every donor numbered below `size`."""
    values = to_array(bitmap)
    return numpy.bincount(
        (values & _DONOR).astype(numpy.int64), weights=(1 << (values >> PLANE)).astype(numpy.float64), minlength=size
    ).astype(numpy.int64)


def to_bitmap(values: NDArray[numpy.integer]) -> BitMap:
    """A bitmap of values, in any order."""
    return BitMap(array.array("I", values.astype(numpy.uint32).tobytes()))


def to_array(bitmap: BitMap) -> NDArray[numpy.int64]:
    """The bitmap's values."""
    return numpy.frombuffer(bitmap.to_array(), dtype=numpy.uint32).astype(numpy.int64)


def donors_of(bitmap: BitMap) -> Donors:
    """The distinct donors of a cohort's bitmap, in order."""
    values = to_array(bitmap)
    return (values if not values.size or values[-1] <= _DONOR else numpy.unique(values & _DONOR)).astype(numpy.int32)


def last_donor(bitmap: BitMap) -> int:
    """The greatest donor number in a cohort's bitmap; 0 where it is empty."""
    return int((to_array(bitmap) & _DONOR).max(initial=0))


def at_most_each(bitmap: BitMap) -> int:
    """No donor of a cohort's bitmap has more records; it may be nearly twice what one has."""
    return (2 << (bitmap.max() >> PLANE)) - 1 if bitmap else 1
