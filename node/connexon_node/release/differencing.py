"""Which number stands for each cohort of an answer, given what is known outside.

The order is visible in `settle_table`: the population, then what the cells find known, then the sums that tie them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from connexon_node.pipeline.values import Cell
from connexon_node.release.donor_multiset import (
    Counted,
    Donors,
    at_most_each,
    distinct,
    donors_of,
    last_donor,
    times,
    to_bitmap,
)
from connexon_node.release.known_outside import KnownOutside
from connexon_node.release.known_pairs import Pair, TooManyPairs
from connexon_node.release.released_cohorts import Known

EXACT = "exact"
"""Why a number is what it is, where nothing stands against it."""
_SAMPLED = (4, 32)
"""Times the minimum: records of a cell that are looked at, before all are."""
_TOGETHER = 200_000
"""Donors of known cohorts that are looked up in one go."""


@dataclass
class Settled:
    """A cohort and the number that stands for it before rounding. `fixed`: known before, so it cannot be another."""

    counted: Counted
    value: int
    seal: bytes
    fixed: bool = False
    locked: bool = False
    withheld: bool = False
    why: str = ""


@dataclass
class Line:
    """Shown cells that add up to a sum, but for the donors in `hidden`; `value` is the sum's number where known."""

    shown: list[int]
    hidden: int
    possible: int | None
    value: int | None
    whole: Counted | None = None
    name: str = ""


@dataclass
class Settlement:
    """What became of a table: one entry per shown cell, and what becomes known with the answer."""

    cells: list[Settled]
    new: list[Known] = field(default_factory=list)
    total: Settled | None = None
    steps: list[str] = field(default_factory=list)


Counting = Callable[[Sequence[Donors], Sequence[int]], list[Counted]]


class Settling:
    """Settles one answer's cohorts on all that is known. Leaves `outside` as it found it.

    `heaviest`: the most records that one donor has in the answer's dataset.
    """

    def __init__(self, outside: KnownOutside, counting: Counting, heaviest: int = 1) -> None:
        self._outside = outside
        self._known = outside.cohorts
        self._minimum = self._known.minimum
        self._heaviest = heaviest
        self._counting = counting
        self._new: list[Known] = []

    def settle_table(self, population: Counted, cells: Sequence[Cell], sizes: Sequence[int | None]) -> Settlement:
        """Numbers for the cells, each of at least `minimum` donors; `sizes` are those of the grouped fields' domains.

        `cells` are all groups, small ones too.
        """
        size = len(self._known.all)
        try:
            return self._settle_table(population, cells, sizes)
        finally:
            self._known.forget(size)

    def settle_one(self, population: Counted) -> Settlement:
        """The number for a dataset's whole reach."""
        size = len(self._known.all)
        try:
            settled = self._settle(population)
            return Settlement([settled], self._new, settled)
        finally:
            self._known.forget(size)

    def _settle_table(self, population: Counted, cells: Sequence[Cell], sizes: Sequence[int | None]) -> Settlement:
        # The complement within the consented population is protected by the population's being known from the start.
        self._settle(population)
        groups = self._counting([_behind(cell) for cell in cells], [cell.donors for cell in cells])
        # All that was selected is part of the population: the population itself where it has as many records.
        whole = sum(cell.records for cell in cells) == population.records
        chosen = population if whole else self._together(groups)
        if not sizes:
            settled = self._settle(chosen)
            return Settlement([settled], self._new, settled)
        shown = [place for place, cell in enumerate(cells) if cell.donors >= self._minimum]
        counted = [groups[place] for place in shown]
        settled_cells = self._cells(counted)
        total = self._found(chosen)
        lines = list(self._lines(cells, groups, shown, chosen, total, sizes))
        if not all(one.fixed for one in settled_cells):  # else no sum can change any
            lines += self._earlier_sums(counted)
        for line in lines:
            self._balance(line, settled_cells)
        for one in settled_cells:
            if not one.fixed and not one.withheld:
                self._become_known(one.counted, one.value)
        for line in lines:
            self._remember(line, settled_cells, counted)
        return Settlement(settled_cells, self._new, total)

    def _found(self, one: Counted) -> Settled | None:
        """The number that a cohort has already, by itself or by two others."""
        (near,) = self._known.nearest([one])
        if near is not None:
            return _of_known(one, near)
        return self._worked_out([one])[0]

    def _worked_out(self, cohorts: Sequence[Counted]) -> list[Settled | None]:
        """For each the number that follows from several known ones, if one does."""
        found: list[Settled | None] = []
        values = self._outside.sums.values([one.bitmap for one in cohorts])
        for one, pair, value in zip(cohorts, self._outside.pairs.worked_out(cohorts), values, strict=True):
            match pair:
                case Pair():
                    found.append(self._of_pair(one, pair))
                case TooManyPairs():
                    found.append(Settled(one, 0, b"", fixed=True, withheld=True, why="withheld: too much to compare"))
                case None:
                    found.append(None if value is None else self._of_sum(one, value))
        return found

    def _settle(self, one: Counted) -> Settled:
        settled = self._found(one)
        if settled is None:
            settled = Settled(one, one.records, one.sketch.tobytes(), why=EXACT)
            # What follows in this answer is compared with it too.
            self._known.add([self._become_known(one, one.records)])
        return settled

    def _cells(self, counted: Sequence[Counted]) -> list[Settled]:
        nearest = self._known.nearest(counted)
        worked_out = iter(self._worked_out([one for one, near in zip(counted, nearest, strict=True) if near is None]))
        settled = []
        for one, near in zip(counted, nearest, strict=True):
            if near is not None:
                settled.append(_of_known(one, near))
            else:
                new = Settled(one, one.records, one.sketch.tobytes(), why=EXACT)
                settled.append(next(worked_out) or new)
        return settled

    def _of_pair(self, one: Counted, pair: Pair) -> Settled:
        first, other, sign = pair
        seal = first.sketch.tobytes() + bytes([sign + 1]) + other.sketch.tobytes()
        value = first.value + sign * other.value
        # Donors may have had more records then.
        most = max(at_most_each(known.bitmap) for known in (first, other))
        return self._follows(one, value, seal, most, "worked out from two earlier numbers")

    def _of_sum(self, one: Counted, value: int) -> Settled:
        seal = b"sum" + str(value).encode()
        return self._follows(one, value, seal, self._heaviest, "worked out from several earlier numbers")

    def _follows(self, one: Counted, value: int, seal: bytes, most: int, why: str) -> Settled:
        # Far-off numbers would make nonsense of it; then it stays inside.
        furthest = 2 * (self._minimum - 1) * max(most, self._heaviest)
        astray = value < self._minimum or abs(value - one.records) > furthest
        return Settled(one, value, seal, fixed=True, withheld=astray, why=why)

    @property
    def _reach(self) -> int:
        """Records by which a number may be off: those of fewer donors than the minimum."""
        return 2 * (self._minimum - 1) * self._heaviest

    def _become_known(self, one: Counted, value: int) -> Known:
        known = Known(one, one.donors, one.records, value, one.sketch)
        self._new.append(known)
        return known

    def _lines(
        self,
        cells: Sequence[Cell],
        groups: Sequence[Counted],
        shown: Sequence[int],
        chosen: Counted,
        total: Settled | None,
        sizes: Sequence[int | None],
    ) -> Iterator[Line]:
        """The sums that tie the cells: the table's total and its margins."""
        number_of = {place: number for number, place in enumerate(shown)}
        everything = range(len(cells))
        value = None if total is None else total.value
        yield self._line(groups, everything, number_of, _product(sizes), value, chosen, "total")
        fields = range(len(sizes))
        for kept in itertools.chain.from_iterable(itertools.combinations(fields, many) for many in fields[1:]):
            others = _product([sizes[place] for place in fields if place not in kept])
            margins: dict[tuple[object, ...], list[int]] = {}
            for place, cell in enumerate(cells):
                margins.setdefault(tuple(cell.key[field] for field in kept), []).append(place)
            for places in margins.values():
                if any(place in number_of for place in places):
                    margin = self._together([groups[place] for place in places])
                    found = self._found(margin)
                    value = None if found is None else found.value
                    yield self._line(groups, places, number_of, others, value, margin, "margin")

    def _line(
        self,
        groups: Sequence[Counted],
        places: Sequence[int],
        number_of: dict[int, int],
        possible: int | None,
        value: int | None,
        whole: Counted,
        name: str,
    ) -> Line:
        hidden = [groups[place].behind for place in places if place not in number_of]
        donors = distinct(numpy.concatenate(hidden)) if hidden else 0
        shown = [number_of[place] for place in places if place in number_of]
        left = None if possible is None else possible - len(shown)
        return Line(shown, donors, left, value, whole, name)

    def _earlier_sums(self, counted: Sequence[Counted]) -> Iterator[Line]:
        """The known cohorts that are several of these cells together, but for too few donors."""
        if len(counted) < 2:
            return
        donors = numpy.array([one.donors for one in counted])
        # Who has fewer donors than this cannot be two cells, of which each lacks fewer donors than the minimum.
        fewest = int(numpy.partition(donors, 1)[:2].sum()) - 2 * (self._minimum - 1)
        near = [known for known in self._known.all if known.donors >= fewest]
        perhaps: list[tuple[Known, list[int]]] = []
        for many in _SAMPLED:
            perhaps = self._perhaps_whole(near, [one.behind[: many * self._minimum] for one in counted])
            near = [known for known, _places in perhaps]
        for known, places in perhaps:
            (covered,) = _covered([self._known.listed(known)], [counted[place].behind for place in places])
            whole = [place for place, many in zip(places, covered, strict=True) if many > donors[place] - self._minimum]
            if len(whole) < 2:
                continue
            rest = known.sketch - sum(counted[place].sketch for place in whole)
            if int(numpy.count_nonzero(rest)) < self._minimum:
                hidden = self._left(known, [counted[place] for place in whole])
                if hidden < self._minimum:
                    yield Line(whole, hidden, None, known.value, None, "an earlier number")

    def _perhaps_whole(self, near: Sequence[Known], some: Sequence[Donors]) -> list[tuple[Known, list[int]]]:
        """The cohorts in which, as far as some donors of each cell tell, several cells are as a whole, and these.

        Of a cell that is there as a whole, fewer donors than the minimum are missing.
        """
        if not near:
            return []
        sizes = numpy.array([one.size if self._known.heaviest == 1 else len(set(one.tolist())) for one in some])
        sampled = to_bitmap(numpy.concatenate(some))
        inside = [
            donors_of(known.bitmap & sampled) if known.records == known.donors else self._known.listed(known)
            for known in near
        ]
        found = [
            (known, numpy.flatnonzero(covered > sizes - self._minimum).tolist())
            for known, covered in zip(near, _covered(inside, some), strict=True)
        ]
        return [(known, places) for known, places in found if len(places) > 1]

    def _left(self, known: Known, parts: Sequence[Counted]) -> int:
        behind = numpy.concatenate([part.behind for part in parts])
        size = 1 + max(last_donor(known.bitmap), int(behind.max()))
        return int(numpy.count_nonzero(times(known.bitmap, size) - numpy.bincount(behind, minlength=size)))

    def _together(self, parts: Sequence[Counted]) -> Counted:
        """Cohorts added up; sketches add up as they do."""
        if len(parts) == 1:
            return parts[0]
        behind = numpy.concatenate([part.behind for part in parts])
        donors = behind.size if self._known.heaviest == 1 else distinct(behind)
        return Counted(behind, donors, numpy.sum([part.sketch for part in parts], axis=0))

    def _telling(self, line: Line) -> bool:
        """Whether the sum beside its shown cells would tell of too few hidden donors.

        They are too few by themselves, or so many for their few groups that none of these can be empty: each hidden
        group has fewer donors than the minimum, and everybody knows that (the feasibility interval of Hundepool et
        al., Statistical Disclosure Control, Wiley 2012, chapter 4).
        """
        if line.hidden < self._minimum:
            return True
        return line.possible is not None and line.hidden > (line.possible - 1) * (self._minimum - 1)

    def _balance(self, line: Line, settled: Sequence[Settled]) -> None:
        """Where the sum is known and would tell of a few, let the largest free cell make it up; it hides them."""
        if line.value is None or not self._telling(line):
            return
        shown = [settled[number] for number in line.shown if not settled[number].withheld]
        missing = line.value - sum(one.value for one in shown)
        if len(shown) < len(line.shown) or missing == 0:
            return
        free = [one for one in shown if not one.fixed and not one.locked]
        if free:
            largest = max(free, key=lambda one: one.value)
            largest.value += missing
            largest.locked = True
            largest.why = f"takes up what is hidden in the {line.name}"
            largest.withheld = largest.value < self._minimum or abs(missing) > 2 * self._reach
        elif locked := [one for one in shown if one.locked]:
            smallest = min(locked, key=lambda one: one.value)
            smallest.withheld = True
            smallest.why = "withheld: it is tied by two sums"

    def _remember(self, line: Line, settled: Sequence[Settled], counted: Sequence[Counted]) -> None:
        """Let a sum become known that can be added up, so that asking for it later tells no more than adding does."""
        shown = [number for number in line.shown if not settled[number].withheld]
        if line.whole is None or not shown:
            return
        added = sum(settled[number].value for number in shown)
        if line.value is None:
            if self._telling(line) and len(shown) == len(line.shown):
                self._become_known(line.whole, added)
            elif line.name == "total":
                self._become_known(line.whole, line.whole.records)
        if line.hidden and len(shown) > 1:
            union = self._together([counted[number] for number in shown])
            if self._known.nearest([union]) == [None]:
                self._become_known(union, added)


def _covered(listed: Sequence[Donors], cells: Sequence[Donors]) -> Iterator[NDArray[numpy.int64]]:
    """For each list of distinct donors, how many are in each cell; one in several cells is in the last only."""
    behind = numpy.concatenate(cells)
    last = max((int(one.max()) for one in listed if one.size), default=0)
    cell_of = numpy.zeros(1 + max(last, int(behind.max())), dtype=numpy.int32)
    numbers = numpy.arange(1, len(cells) + 1, dtype=numpy.int32)
    cell_of[behind] = numpy.repeat(numbers, [one.size for one in cells])
    width = len(cells) + 1
    for some in _batches(listed):
        row = numpy.repeat(numpy.arange(len(some)) * width, [one.size for one in some])
        table = numpy.bincount(row + cell_of[numpy.concatenate(some)], minlength=len(some) * width)
        yield from table.reshape(len(some), width)[:, 1:]


def _batches(listed: Sequence[Donors]) -> Iterator[list[Donors]]:
    """The same lists in order, several at a time while they are short."""
    some: list[Donors] = []
    for one in listed:
        if some and sum(other.size for other in some) + one.size > _TOGETHER:
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _of_known(one: Counted, near: Known) -> Settled:
    return Settled(one, near.value, near.sketch.tobytes(), fixed=True, why="known from earlier")


def _behind(cell: Cell) -> Donors:
    assert cell.behind is not None
    return cell.behind


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
