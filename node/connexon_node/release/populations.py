"""The populations that purposes reach, as cohorts; kept, since engines give the same array while nothing changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy

from connexon_node.release.donor_multiset import Counted, Donors, distinct

KEPT = 16


class Population(NamedTuple):
    """A population: as a cohort, the most records that one donor has in it."""

    behind: Donors
    counted: Counted
    heaviest: int


class Populations:
    """The latest populations. Not thread-safe: ReleaseControl's lock guards it."""

    def __init__(self, counting: Callable[[Sequence[Donors], Sequence[int]], list[Counted]]) -> None:
        self._counting = counting
        self._kept: OrderedDict[int, Population] = OrderedDict()
        self._once_each: OrderedDict[int, tuple[Donors, Donors]] = OrderedDict()

    def of(self, behind: Donors) -> Population:
        """The population with these donors of records."""
        kept = self._kept.get(id(behind))
        if kept is None:
            (counted,) = self._counting([behind], [distinct(behind)])
            heaviest = int(numpy.bincount(behind).max(initial=1)) if behind.size else 1
            # The array is held too, so that its id stays its own.
            kept = self._kept[id(behind)] = Population(behind, counted, heaviest)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return kept

    def once_each(self, behind: Donors) -> Population:
        """The population of the same donors, each with one record."""
        kept = self._once_each.get(id(behind))
        if kept is None:
            kept = self._once_each[id(behind)] = (behind, numpy.unique(behind))
            if len(self._once_each) > KEPT:
                self._once_each.popitem(last=False)
        return self.of(kept[1])
