"""The parts of a condition, and which of them count: those that make a difference for enough donors.

A number that is exact tells of a single donor where a part of its condition is about that donor alone: four donors
whom somebody knows, *or* a fifth one if they have a secret. So a part (each value of a list, each side of an and, an
or, a range, each condition inside a `has`) counts only where it changes which donors are counted by at least the
minimum. Elsewhere the condition is taken as if the part had not been written. That is done for each group of a table
by itself, since a group is a condition too.

INVARIANT: nothing of this is told. Whether a part counted looks from outside like what it decides: nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal as Word

import numpy
from numpy.typing import NDArray

from connexon.conditions import filters
from connexon.conditions.filters import Between, Compare, Filter, Has, Not, OneOf, Operator
from connexon.errors import InvalidQuery

MAXIMUM_PARTS = 100
"""Parts of one condition on persons, where numbers are exact."""
MAXIMUM_LOOKED_UP = 200
"""Conditions that are looked up to decide which of them count."""
Truth = NDArray[numpy.int8]
"""For each row: 0 false, 1 neither (something is missing), 2 true."""
Mask = NDArray[numpy.bool_]
TRUE = 2


@dataclass(eq=False)
class Part:
    """One part. `dropped`: the rows for which it does not count, where there are any."""

    dropped: Mask | None = field(default=None, init=False)


@dataclass(eq=False)
class Leaf(Part):
    """A condition that is looked up, or its opposite. Inside its `has` all must hold: ors are outside.

    `weakened`: what stands for it in some rows, and in which; no row is in two.
    """

    condition: Filter
    opposite: bool = False
    weakened: list[tuple[Filter, Mask]] = field(default_factory=list, init=False)


@dataclass(eq=False)
class Join(Part):
    """Parts that all must hold, or of which one must."""

    how: Word["and", "or"]
    parts: list[Part]


def parts_of(node: Filter) -> Join:
    """The condition in parts, as one and. Raises InvalidQuery where they are too many."""
    whole = _parts(node, opposite=False)
    root = whole if isinstance(whole, Join) and whole.how == "and" else Join("and", [whole])
    if sum(1 for _ in _leaves(root)) > MAXIMUM_PARTS:
        raise _too_many()
    return root


def looked_up(root: Join) -> tuple[Filter, ...]:
    """Every condition that may be looked up to decide what counts. Raises InvalidQuery where they are too many."""
    found: dict[Filter, None] = {}
    waiting = [leaf.condition for leaf in _leaves(root)]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found[one] = None
            waiting += weaker(one)
        if len(found) > MAXIMUM_LOOKED_UP:
            raise _too_many()
    return tuple(found)


def _too_many() -> InvalidQuery:
    return InvalidQuery(
        f"For exact numbers about persons a condition has at most {MAXIMUM_PARTS} parts; each value of a list is one, "
        "and each condition inside a has doubles them. Ask for less at once, or without exact.",
        code="granted.too_many_parts",
    )


def _leaves(part: Part) -> Iterator[Leaf]:
    if isinstance(part, Leaf):
        yield part
    elif isinstance(part, Join):
        for one in part.parts:
            yield from _leaves(one)


def _parts(node: Filter, *, opposite: bool) -> Part:
    match node:
        case filters.All(inside):
            return _join("or" if opposite else "and", [_parts(one, opposite=opposite) for one in inside])
        case filters.Any(inside):
            return _join("and" if opposite else "or", [_parts(one, opposite=opposite) for one in inside])
        case Not(inner):
            return _parts(inner, opposite=not opposite)
        case OneOf(name, values) if values:
            each = [Leaf(Compare(name, Operator.EQUAL, value), opposite) for value in values]
            return _join("and" if opposite else "or", each)
        case Compare(name, Operator.NOT_EQUAL, value):
            return Leaf(Compare(name, Operator.EQUAL, value), not opposite)
        case Between(name, low, high):
            both = (Compare(name, Operator.GREATER_OR_EQUAL, low), Compare(name, Operator.LESS_OR_EQUAL, high))
            return _join("or" if opposite else "and", [Leaf(one, opposite) for one in both])
        case Has(path, inside) if inside is not None:
            # Some row fulfils one or the other: some row fulfils the one, or some row the other.
            each = [Leaf(Has(path, _all(one)), opposite) for one in _alternatives(_parts(inside, opposite=False))]
            return _join("and" if opposite else "or", each)
        case _:
            return Leaf(node, opposite)


def _join(how: Word["and", "or"], parts: Sequence[Part]) -> Part:
    flat: list[Part] = []
    for one in parts:
        flat += one.parts if isinstance(one, Join) and one.how == how else [one]
    return flat[0] if len(flat) == 1 else Join(how, flat)


def _alternatives(part: Part) -> list[tuple[Filter, ...]]:
    """The same as an or of ands."""
    if isinstance(part, Leaf):
        return [(Not(part.condition) if part.opposite else part.condition,)]
    assert isinstance(part, Join)
    inside = [_alternatives(one) for one in part.parts]
    if part.how == "or":
        return list(itertools.chain.from_iterable(inside))
    found: list[tuple[Filter, ...]] = [()]
    for several in inside:
        found = [(*before, *more) for before in found for more in several]
        if len(found) > MAXIMUM_PARTS:
            break  # parts_of refuses it
    return found


def _all(conditions: Sequence[Filter]) -> Filter | None:
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    return filters.All(tuple(conditions))


def weaker(node: Filter) -> Iterator[Filter]:
    """The condition without each one of the conditions inside its `has`, in turn."""
    match node:
        case Has(path, inside) if inside is not None:
            several = inside.filters if isinstance(inside, filters.All) else (inside,)
            for place, one in enumerate(several):
                yield Has(path, _all((*several[:place], *several[place + 1 :])))
                for less in weaker(one):
                    yield Has(path, _all((*several[:place], less, *several[place + 1 :])))
        case Not(inner):
            for less in weaker(inner):
                yield Not(less)
        case _:
            return


@dataclass(frozen=True)
class CountedRows:
    """Rows as release counts them: whose they are and in which group. `once`: each donor counts once in a group."""

    donors: NDArray[numpy.int32]
    group: NDArray[numpy.int64]
    groups: int
    once: bool
    pairs: tuple[NDArray[numpy.int64], NDArray[numpy.int64]] = field(init=False, repr=False)
    """Of each row its pair of donor and group; of each pair its group."""

    def __post_init__(self) -> None:
        width = 1 + int(self.donors.max(initial=0))
        pairs, pair_of = numpy.unique(self.group * width + self.donors, return_inverse=True)
        object.__setattr__(self, "pairs", (pair_of.reshape(-1), pairs // width))

    def differing(self, one: Mask, other: Mask) -> NDArray[numpy.int64]:
        """For each group the donors that are counted differently where these rows are."""
        pair_of, group_of = self.pairs
        changed = numpy.zeros(group_of.size, dtype=bool)
        if self.once:
            changed[pair_of[one]] = True
            after = numpy.zeros(group_of.size, dtype=bool)
            after[pair_of[other]] = True
            changed ^= after
        else:
            changed[pair_of[one ^ other]] = True
        return numpy.bincount(group_of[changed], minlength=self.groups)


class Counting:
    """Decides for a table of rows which parts of a condition count."""

    def __init__(self, root: Join, rows: CountedRows, minimum: int, truth: Mapping[Filter, Truth]) -> None:
        """`truth` has every condition that is looked up, for every row."""
        self._root, self._rows, self._minimum, self._truth = root, rows, minimum, truth

    def counted(self) -> Mask:
        """The rows that count: those for which all that counts of the condition is true."""
        before = self._true()
        while True:
            after = before
            for part, how in _inner_first(self._root):
                after = self._without_small(part, how, after)
            if numpy.array_equal(before, after):
                return after
            before = after

    def _without_small(self, part: Part, how: Word["and", "or"], now: Mask) -> Mask:
        """Drop the part, and what is inside its `has`, in the groups in which it makes too little difference."""
        kept, part.dropped = part.dropped, numpy.ones(now.size, dtype=bool)
        small = self._small(now, self._true())
        part.dropped = small if kept is None else kept | small
        if not part.dropped.any():
            part.dropped = None
        if isinstance(part, Leaf):
            standing = numpy.ones(now.size, dtype=bool)
            for _, where in part.weakened:
                standing &= ~where
            waiting = [(part.condition, standing), *part.weakened]
            part.weakened = []
            while waiting:
                condition, where = waiting.pop()
                part.weakened.append((condition, where))
                waiting += self._weaken(part, waiting)
        return self._true()

    def _weaken(self, leaf: Leaf, others: Sequence[tuple[Filter, Mask]]) -> list[tuple[Filter, Mask]]:
        """Try the leaf's last stand-in without each of its conditions; returns those that took its place."""
        weaker_ones: list[tuple[Filter, Mask]] = []
        condition, where = leaf.weakened.pop()
        standing = leaf.weakened
        for less in weaker(condition):
            leaf.weakened = [*standing, *others, *weaker_ones, (condition, where)]
            now = self._true()
            leaf.weakened[-1] = (less, where)
            few = self._small(now, self._true()) & where
            if few.any():
                weaker_ones.append((less, few))
                where = where & ~few
        leaf.weakened = [*standing, (condition, where)] if where.any() else standing
        return weaker_ones

    def _small(self, one: Mask, other: Mask) -> Mask:
        """The rows in whose group fewer donors than the minimum are counted differently."""
        few = numpy.asarray(self._rows.differing(one, other) < self._minimum, dtype=numpy.bool_)
        return few[self._rows.group]

    def _true(self) -> Mask:
        true: Mask = numpy.equal(self._held(self._root), TRUE)
        return true

    def _held(self, part: Part) -> Truth:
        if isinstance(part, Leaf):
            truth = self._truth[part.condition]
            for condition, where in part.weakened:
                truth = numpy.where(where, self._truth[condition], truth)
            return numpy.int8(TRUE) - truth if part.opposite else truth
        assert isinstance(part, Join)
        neutral = numpy.int8(TRUE if part.how == "and" else 0)
        whole = numpy.full(self._rows.donors.size, neutral, dtype=numpy.int8)
        for one in part.parts:
            held = self._held(one)
            if one.dropped is not None:
                held = numpy.where(one.dropped, neutral, held)
            (numpy.minimum if part.how == "and" else numpy.maximum)(whole, held, out=whole)
        return whole


def _inner_first(join: Join) -> Iterator[tuple[Part, Word["and", "or"]]]:
    for one in join.parts:
        if isinstance(one, Join):
            yield from _inner_first(one)
        yield one, join.how
