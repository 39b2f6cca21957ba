"""What several known cohorts come to together: any sum of them, with any factors.

Cohorts are vectors with a number for each donor. Numbers that left give the value of every linear combination of their
cohorts, so a new cohort that is such a combination, but for fewer donors than the minimum, is known already: three
groups and their union, or half of (A and B) + (A and C) - (B and C). Found by projecting it on what the known ones
span, and then setting aside the donors that stand out most, one after another (orthogonal matching pursuit: Tropp and
Gilbert, IEEE Trans. Inf. Theory 2007, doi:10.1109/TIT.2007.909108).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy
from numpy.typing import NDArray
from pyroaring import BitMap

from connexon_node.release.donor_multiset import last_donor, times
from connexon_node.release.released_cohorts import KnownCohorts

Array = NDArray[numpy.float64]
WIDTH = 2_048
"""Numbers in a vector, at most. Of more donors than that, several share one, each with a weight of its own."""
SPANNED = 1_000
"""The latest independent cohorts that are looked at together: what memory and time allow."""
_KEPT = 3 * SPANNED // 4
_TOGETHER = 256
_NOTHING = 1e-9
"""Of a squared length: what rounding leaves of zero."""


class KnownSums:
    """The span of known cohorts. Not thread-safe."""

    def __init__(self, known: KnownCohorts) -> None:
        self._known = known
        known.when_forgetting.append(self._forget)
        self._taken = 0
        self._places: list[int] = []
        """Of each vector of the basis, the known cohort that it was added for."""
        self._vectors: Array = numpy.zeros((WIDTH, 64))
        self._upper: Array = numpy.zeros((64, 64))
        """Upper triangular: basis @ upper are the cohorts."""

    @property
    def _basis(self) -> Array:
        return self._vectors[:, : len(self._places)]

    def values(self, cohorts: Sequence[BitMap]) -> list[int | None]:
        """For each the number that known ones give it, where fewer donors than the minimum are in the way."""
        self._catch_up()
        if not self._places or not cohorts:
            return [None] * len(cohorts)
        wanted = numpy.column_stack([_vector(one) for one in cohorts])
        left = self._apart(wanted)
        # Weights are below 2: fewer donors than the minimum cannot be further away than this.
        furthest = (self._known.minimum - 1) * (2 * self._known.heaviest) ** 2 + _NOTHING
        near = numpy.einsum("ij,ij->j", left, left) <= furthest
        return [self._value(wanted[:, place], left[:, place]) if one else None for place, one in enumerate(near)]

    def _value(self, wanted: Array, left: Array) -> int | None:
        outside = self._in_the_way(wanted, left)
        return None if outside is None else self._combined(wanted, outside)

    def _in_the_way(self, wanted: Array, left: Array) -> list[int] | None:
        """The places, fewer than the minimum, without which a vector is in the span; None where there are none."""
        outside: list[int] = []
        beside: Array = numpy.zeros((wanted.size, 0))
        free = 1 - numpy.einsum("ij,ij->i", self._basis, self._basis)
        while _square(left) > _NOTHING * max(1.0, _square(wanted)):
            if len(outside) == self._known.minimum - 1:
                return None
            worth = numpy.where(free > _NOTHING, left**2 / numpy.maximum(free, _NOTHING), 0.0)
            worst = int(worth.argmax())
            single = numpy.zeros(wanted.size)
            single[worst] = 1
            single = self._apart(single)
            single -= beside @ (beside.T @ single)
            length = _square(single)
            if length <= _NOTHING:
                return None
            outside.append(worst)
            single /= numpy.sqrt(length)
            beside = numpy.column_stack([beside, single])
            left = left - single * (single @ left)
            free = free - single**2
        return outside

    def _combined(self, wanted: Array, outside: Sequence[int]) -> int:
        rest = wanted.copy()
        if outside:
            singles = numpy.zeros((wanted.size, len(outside)))
            singles[list(outside), range(len(outside))] = 1
            apart = self._apart(singles)
            amounts = numpy.linalg.lstsq(apart, self._apart(wanted), rcond=None)[0]
            rest -= singles @ amounts
        size = len(self._places)
        factors = numpy.linalg.solve(self._upper[:size, :size], self._basis.T @ rest)
        values = numpy.array([self._known.all[place].value for place in self._places], dtype=numpy.float64)
        return round(float(factors @ values))

    def _apart(self, vectors: Array) -> Array:
        """What the span leaves of vectors."""
        once: Array = vectors - self._basis @ (self._basis.T @ vectors)
        again: Array = once - self._basis @ (self._basis.T @ once)  # twice is enough (Kahan and Parlett)
        return again

    def _catch_up(self) -> None:
        last = len(self._known.all)
        self._taken = max(self._taken, last - SPANNED)
        while self._taken < last:
            end = min(last, self._taken + _TOGETHER)
            self._add(range(self._taken, end))
            self._taken = end

    def _add(self, places: Sequence[int]) -> None:
        if len(self._places) + len(places) > SPANNED:
            self._keep_latest()
        before = len(self._places)
        self._grow(before + len(places))
        block = numpy.column_stack([_vector(self._known.all[place].bitmap) for place in places])
        shares, left = self._basis.T @ block, self._apart(block)
        for number, place in enumerate(places):
            size = len(self._places)
            single, new = left[:, number], self._vectors[:, before:size]
            among = new.T @ single
            single = single - new @ among
            single -= new @ (new.T @ single)
            length = _square(single) ** 0.5
            if length**2 <= _NOTHING * max(1.0, _square(block[:, number])):
                continue  # a combination of those before it
            self._vectors[:, size] = single / length
            self._upper[: size + 1, size] = [*shares[:, number], *among, length]
            self._places.append(place)

    def _grow(self, size: int) -> None:
        more = max(0, size - self._vectors.shape[1])
        if more:
            more = max(more, self._vectors.shape[1])
            self._vectors = numpy.pad(self._vectors, ((0, 0), (0, more)))
            self._upper = numpy.pad(self._upper, ((0, more), (0, more)))

    def _keep_latest(self) -> None:
        size = len(self._places)
        first = max(0, size - _KEPT)
        basis, upper = numpy.linalg.qr(self._basis @ self._upper[:size, first:size])
        self._places = self._places[first:]
        self._vectors[:, : basis.shape[1]] = basis
        self._upper[:] = 0
        self._upper[: len(upper), : len(upper)] = upper

    def _forget(self, size: int) -> None:
        self._taken = min(self._taken, size)
        self._places = [place for place in self._places if place < size]


def _square(vector: Array) -> float:
    return float(vector @ vector)


def _vector(cohort: BitMap) -> Array:
    """How often each donor counts; of many donors the weighted sums of those that share a place."""
    counts = times(cohort, max(WIDTH, 1 + last_donor(cohort))).astype(numpy.float64)
    if counts.size == WIDTH:
        return counts
    place, weight = _shared(1 << (counts.size - 1).bit_length())
    shared = numpy.bincount(place[: counts.size], weights=weight[: counts.size] * counts, minlength=WIDTH)
    return shared.astype(numpy.float64, copy=False)


@functools.lru_cache(maxsize=1)
def _shared(donors: int) -> tuple[NDArray[numpy.int64], Array]:
    """The place of each donor and its weight, from 1 to 2; donors below WIDTH have the place of their number."""
    mixed = numpy.arange(donors, dtype=numpy.uint64)
    # splitmix64 (Steele, Lea and Flood, OOPSLA 2014, doi:10.1145/2660193.2660195).
    mixed += numpy.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> numpy.uint64(31)
    place = (mixed % numpy.uint64(WIDTH)).astype(numpy.int64)
    weight = 1 + (mixed >> numpy.uint64(40)).astype(numpy.float64) / 2**24
    place[:WIDTH], weight[:WIDTH] = numpy.arange(WIDTH), 1
    return place, weight
