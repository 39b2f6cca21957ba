"""What is known outside: every cohort whose number left, and what can be worked out from those numbers.

A number is never checked against words but against this. Where a new cohort differs by fewer donors than the minimum
from one that is known, or from what several known ones come to (known_sums.py), it is given the number that these
have: so asking again, in other words or by another person, tells nothing that was not told, and nobody can see whether
a few donors made a difference (Denning and Schloerer, The tracker, ACM TODS 1980, doi:10.1145/320613.320616).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy
from numpy.typing import NDArray
from pyroaring import BitMap

from connexon_node.release.donor_multiset import Counted, Donors, differing, donors_of, same_donors

_LISTED_BYTES = 64 * 2**20
"""How much of the listed donors of known cohorts is kept."""


class Known(NamedTuple):
    """A cohort whose number left, or is about to. `value` is the number before rounding.

    `source` has its bitmap: made only where it is looked at.
    """

    source: BitMap | Counted
    donors: int
    records: int
    value: int
    sketch: NDArray[numpy.int64]

    @property
    def once(self) -> bool:
        """Whether each donor counts once."""
        return self.donors == self.records

    @property
    def bitmap(self) -> BitMap:
        """See counted.Counted.bitmap."""
        return self.source.bitmap if isinstance(self.source, Counted) else self.source


class KnownCohorts:
    """The known cohorts of all datasets together, found by likeness: one person stands behind rows of each.

    `minimum`: the fewest donors that may make a difference.
    """

    def __init__(self, minimum: int, width: int) -> None:
        self.minimum = minimum
        self.all: list[Known] = []
        self.heaviest = 1
        self.when_forgetting: list[Callable[[int], None]] = []
        """Told how many are kept."""
        self._width = width
        self._sketches = numpy.empty((64, width), dtype=numpy.int64)
        self._records = numpy.empty(64, dtype=numpy.int64)
        self._first: dict[int, int] = {}
        """By key (see `_keys`): the place of the first cohort that has it."""
        self._later: dict[int, list[int]] = {}
        """By key: the places of all others."""
        self._by_donors: dict[int, list[int]] = {}
        self._listed: OrderedDict[int, tuple[Known, Donors]] = OrderedDict()
        self._listed_bytes = 0

    @property
    def sketches(self) -> NDArray[numpy.int64]:
        """The sketch of each known cohort (a row)."""
        return self._sketches[: len(self.all)]

    @property
    def records(self) -> NDArray[numpy.int64]:
        """The records of each known cohort."""
        return self._records[: len(self.all)]

    def listed(self, one: Known) -> Donors:
        """Its distinct donors, in order; the latest that were asked for are kept."""
        kept = self._listed.get(id(one))
        if kept is None:
            # The cohort is held too, so that its id stays its own.
            kept = self._listed[id(one)] = (one, donors_of(one.bitmap))
            self._listed_bytes += kept[1].nbytes
            while self._listed_bytes > _LISTED_BYTES:
                self._listed_bytes -= self._listed.popitem(last=False)[1][1].nbytes
        return kept[1]

    def add(self, many: Sequence[Known]) -> None:
        """Know more."""
        if not many:
            return
        begin, end = len(self.all), len(self.all) + len(many)
        while end > self._records.size:
            self._sketches = numpy.concatenate([self._sketches, numpy.empty_like(self._sketches)])
            self._records = numpy.concatenate([self._records, numpy.empty_like(self._records)])
        self._sketches[begin:end] = [one.sketch for one in many]
        self._records[begin:end] = [one.records for one in many]
        self.all.extend(many)
        for place, one in enumerate(many, start=begin):
            self._by_donors.setdefault(one.donors, []).append(place)
        keys = self._keys(self._sketches[begin:end], 2 * self.minimum - 1)
        flat = [key for found in keys for key in found]
        places = [place for place, found in enumerate(keys, start=begin) for _ in found]
        fresh = dict(zip(flat, places, strict=True))
        if len(fresh) == len(flat) and self._first.keys().isdisjoint(flat):
            self._first.update(fresh)
            return
        for key, place in zip(flat, places, strict=True):
            if self._first.setdefault(key, place) != place:
                self._later.setdefault(key, []).append(place)

    def forget(self, size: int) -> None:
        """Keep the first `size` only."""
        if size == len(self.all):
            return
        keys = self._keys(self._sketches[size : len(self.all)], 2 * self.minimum - 1)
        for place in range(len(self.all) - 1, size - 1, -1):
            self._by_donors[self.all.pop().donors].remove(place)
            for key in keys[place - size]:
                if self._first[key] == place:
                    del self._first[key]
                else:
                    self._later[key].remove(place)
        for tell in self.when_forgetting:
            tell(size)

    def nearest(self, cells: Sequence[Counted]) -> list[Known | None]:
        """For each cell the known cohort that counts the same, else the earliest that differs by too few, else None."""
        if not cells:
            return []
        keys = self._keys(numpy.array([one.sketch for one in cells]), self.minimum)
        unlike = self._first.keys().isdisjoint
        # Mostly nothing is like a cell: then no more is done for it.
        likely = [
            [] if len(found) >= self.minimum and unlike(found) else self._like(one, found)
            for one, found in zip(cells, keys, strict=True)
        ]
        if not any(likely):
            return [None] * len(cells)
        same = self._same(cells, likely)
        return [
            self._nearest(one, places) if found is None else found
            for one, found, places in zip(cells, same, likely, strict=True)
        ]

    def _same(self, cells: Sequence[Counted], likely: Sequence[Sequence[int]]) -> list[Known | None]:
        """For each cell the known cohort of just as many donors if they are the same, compared all at once.

        None for every cell unless all of these are. A table that is asked for again is found by this.
        """
        seeming = [
            next((known for known in map(self.all.__getitem__, places) if _as_many(known, one)), None)
            for one, places in zip(cells, likely, strict=True)
        ]
        known = [self.listed(one) for one in seeming if one is not None]
        behind = [one.behind for one, found in zip(cells, seeming, strict=True) if found is not None]
        if known and numpy.array_equal(numpy.concatenate(known), numpy.concatenate(behind)):
            return seeming
        return [None] * len(cells)

    def _nearest(self, one: Counted, places: Sequence[int]) -> Known | None:
        near: Known | None = None
        for place in places:
            known = self.all[place]
            if abs(known.donors - one.donors) >= self.minimum:
                continue
            unequal = int(numpy.count_nonzero(known.sketch != one.sketch))
            if unequal >= self.minimum:
                continue
            if unequal == 0 and _as_many(known, one) and same_donors(self.listed(known), one.behind):
                return known
            difference = differing(known.bitmap, one.bitmap)
            if difference == 0:
                return known
            if difference < self.minimum:
                near = near or known
        return near

    def _like(self, one: Counted, keys: Sequence[int]) -> list[int]:
        """Places in order that may differ by fewer than `minimum` donors; none that does is left out."""
        if len(keys) < self.minimum:
            near = range(max(0, one.donors - self.minimum + 1), one.donors + self.minimum)
            return sorted({place for donors in near for place in self._by_donors.get(donors, ())})
        # Fewer than `minimum` donors touch fewer than `minimum` compartments: one of these is untouched. It is among
        # the first `minimum` that are filled here, and fewer than `minimum` more may be filled before it there.
        places = {place for place in map(self._first.get, keys) if place is not None}
        if self._later and not self._later.keys().isdisjoint(keys):
            places.update(*(self._later.get(key, ()) for key in keys))
        return sorted(places)

    def _keys(self, sketches: NDArray[numpy.int64], most: int) -> list[list[int]]:
        """The first `most` filled compartments of each sketch, each with what is in it, as one number."""
        keys: list[list[int]] = (sketches[:, :most] * self._width + numpy.arange(most)).tolist()
        for row in numpy.flatnonzero((sketches[:, :most] == 0).any(axis=1)).tolist():
            filled = numpy.flatnonzero(sketches[row])[:most]
            keys[row] = (sketches[row, filled] * self._width + filled).tolist()
        return keys


def _as_many(known: Known, one: Counted) -> bool:
    """Whether both count as many records, and the known one each donor once."""
    return known.donors == known.records == one.records
