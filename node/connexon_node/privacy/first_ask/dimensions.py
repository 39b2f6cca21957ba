"""Dimensions: known domains into which a donor's rows are coded, and the conditions that a cell can decide."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy
from numpy.typing import NDArray

from connexon_node.data.dictionary import Field

Codes = NDArray[numpy.int64]
Mask = NDArray[numpy.bool_]
NO_ROWS = "none"
MISSING = "missing"


class Special(Enum):
    """A value that no field holds."""

    OTHER = "other"
    """A value outside the public list of an open domain."""


Value = str | bool | None | Special
"""A value of a field; None where it was not collected."""


class Origin(Enum):
    """How a donor's value comes from rows."""

    OWN = "own"
    """The donor's own field."""
    BEST = "best"
    """The best value among the donor's rows; cells stand in order, the best first."""
    FIRST = "first"
    """The value of the donor's first row."""
    SET = "set"
    """The set of values that the donor's rows have."""
    NUMBER = "number"
    """The number of the donor's rows."""


@dataclass(frozen=True)
class Cell:
    """One code of a domain, and the values of the field that it stands for; none where the donor has no rows."""

    code: str
    values: frozenset[Value] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One axis of the frame. `field` is one of `dataset`; empty where the rows themselves are counted.

    Every donor has exactly one of the cells.
    """

    name: str
    title: str
    dataset: str
    field: str
    origin: Origin
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        if len(set(self.domain)) != len(self.cells) or len(self.cells) < 2:
            raise ValueError(f"the domain of {self.name} needs two codes at least, each once")
        if len(set(self.ordered_values)) != len(self.ordered_values):
            raise ValueError(f"a value of {self.name} is in two cells")

    @property
    def path(self) -> str:
        """The field that the dimension stands for, such as donors.sex."""
        return f"{self.dataset}.{self.field}" if self.field else self.dataset

    @property
    def domain(self) -> tuple[str, ...]:
        """The public codes, in the order of the axis."""
        return tuple(cell.code for cell in self.cells)

    @property
    def size(self) -> int:
        """The number of codes."""
        return len(self.cells)

    @property
    def values(self) -> frozenset[Value]:
        """Every value of the field that the domain knows."""
        return frozenset(self.ordered_values)

    @property
    def ordered_values(self) -> tuple[Value, ...]:
        """Every value of the field once, in the order of the axis."""
        return tuple(_members(self.cells) if self.origin is Origin.SET else _all_values(self.cells))

    def having(self, chosen: frozenset[Value]) -> Mask | None:
        """The cells whose donors have a row with a chosen value; None where a cell holds donors of both kinds.

        What is decided depends on the domain and the chosen values, never on data.
        """
        masks = [self._has(place, chosen) for place in range(self.size)]
        return None if None in masks else numpy.array(masks, dtype=bool)

    def having_rows(self) -> Mask:
        """The cells whose donors have a row at all."""
        return numpy.array([cell.code not in (NO_ROWS, "0") or self.origin is Origin.OWN for cell in self.cells])

    def coded(self, owners: Sequence[int] | Codes, values: Sequence[Value], *, donors: int) -> Codes:
        """The place in the domain of each of `donors` donors, from rows (owner from 0, value).

        Rows of FIRST come with each donor's first before the others. A donor without a row of an OWN field counts as
        missing. Raises ValueError where the domain has no place for a value or a donor.
        """
        owner = numpy.asarray(owners, dtype=numpy.int64)
        if owner.size and not (owner.min() >= 0 and owner.max() < donors):
            raise ValueError(f"a row of {self.name} is of no donor in the frame")
        if self.origin is Origin.NUMBER:
            return numpy.minimum(numpy.bincount(owner, minlength=donors), self.size - 1).astype(numpy.int64)
        places = self._places(values)
        if self.origin is Origin.SET:
            held = numpy.zeros(donors, dtype=numpy.int64)
            numpy.bitwise_or.at(held, owner, numpy.left_shift(1, places))
            return held
        none = self.domain.index(MISSING if self.origin is Origin.OWN else NO_ROWS) if self._may_lack else self.size
        coded = numpy.full(donors, none, dtype=numpy.int64)
        if self.origin is Origin.BEST:
            numpy.minimum.at(coded, owner, places)
        else:
            coded[owner[::-1]] = places[::-1]  # of several rows the first is written last
        if coded.size and coded.max() == self.size:
            raise ValueError(f"a donor has no {self.name}, and the domain has no place for that")
        return coded

    @property
    def _may_lack(self) -> bool:
        return (MISSING if self.origin is Origin.OWN else NO_ROWS) in self.domain

    def _places(self, values: Sequence[Value]) -> Codes:
        """The cell of each value; of a SET, the bit."""
        if self.origin is Origin.SET:
            known = {value: bit for bit, value in enumerate(_members(self.cells))}
        else:
            known = {value: place for place, cell in enumerate(self.cells) for value in cell.values}
        other = known.get(Special.OTHER)
        places = [known.get(value, other) for value in values]
        if None in places:
            raise ValueError(f"the domain of {self.name} has no place for {values[places.index(None)]!r}")
        return numpy.array(places, dtype=numpy.int64)

    def _has(self, place: int, chosen: frozenset[Value]) -> bool | None:
        cell = self.cells[place]
        if not cell.values:
            # No rows; a number of rows does not say which values they have.
            return False if self.origin is not Origin.NUMBER or place == 0 else None
        if self.origin is Origin.SET:
            return bool(cell.values & chosen)
        if cell.values <= chosen:
            return True
        match self.origin:
            case Origin.BEST:
                possible = frozenset(_all_values(self.cells[place:]))
            case Origin.FIRST:
                possible = self.values
            case _:
                possible = cell.values
        return None if possible & chosen else False


def own(name: str, field: Field, *, listed: tuple[str, ...] | None = None) -> Dimension:
    """The donor's own field, a cell for each value; with `listed`, for each listed one and one for all others."""
    values: tuple[Value, ...] = field.values if listed is None else (*listed, Special.OTHER)
    missing = () if field.required else (None,)
    cells = tuple(_cell(value) for value in (*values, *missing))
    return Dimension(name=name, title=field.title, dataset="donors", field=field.name, origin=Origin.OWN, cells=cells)


def ranked(name: str, title: str, dataset: str, field: Field, *best_first: str | bool | tuple[str, ...]) -> Dimension:
    """The best value among a donor's rows. A tuple of values shares a cell; the last two cells are missing and none.

    Raises ValueError where a value that the dictionary has is ranked nowhere.
    """
    cells = [
        Cell("not_" + str(best_first[0]), frozenset(one)) if isinstance(one, tuple) else _cell(one)
        for one in best_first
    ]
    missing = () if field.required else (_cell(None),)
    made = Dimension(
        name=name, title=title, dataset=dataset, field=field.name, origin=Origin.BEST,
        cells=(*cells, *missing, Cell(NO_ROWS)),
    )  # fmt: skip
    if made.values != frozenset(field.domain or ()):
        raise ValueError(f"{name} does not rank the values of {made.path}")
    return made


def first(name: str, title: str, dataset: str, field: Field) -> Dimension:
    """The value of a donor's first row."""
    cells = (*(_cell(value) for value in field.domain or ()), Cell(NO_ROWS))
    return Dimension(name=name, title=title, dataset=dataset, field=field.name, origin=Origin.FIRST, cells=cells)


def subsets(name: str, title: str, dataset: str, field: Field) -> Dimension:
    """The set of values that a donor's rows have: a cell for each subset, in the order of binary numbers."""
    if not field.required:
        raise ValueError("a set of values has no place for missing ones")
    cells = []
    for number in range(2 ** len(field.values)):
        held = [value for bit, value in enumerate(field.values) if number >> bit & 1]
        cells.append(Cell("+".join(held) or NO_ROWS, frozenset(held)))
    return Dimension(name=name, title=title, dataset=dataset, field=field.name, origin=Origin.SET, cells=tuple(cells))


def number_of_rows(name: str, title: str, dataset: str, most: int) -> Dimension:
    """How many rows a donor has: 0, 1, ... and `most` or more."""
    cells = (*(Cell(str(number)) for number in range(most)), Cell(f"{most}+"))
    return Dimension(name=name, title=title, dataset=dataset, field="", origin=Origin.NUMBER, cells=cells)


def coarser(fine: Dimension, name: str, title: str, groups: Sequence[tuple[str, tuple[str, ...]]]) -> Dimension:
    """The same field in wider cells; a value in no group keeps its own cell."""
    taken = frozenset(itertools.chain.from_iterable(values for _, values in groups))
    rest = tuple(cell for cell in fine.cells if not cell.values & taken)
    cells = (*(Cell(code, frozenset(values)) for code, values in groups), *rest)
    made = Dimension(
        name=name, title=title, dataset=fine.dataset, field=fine.field, origin=fine.origin, cells=cells
    )  # fmt: skip
    if made.values != fine.values:
        raise ValueError(f"{name} does not cover {fine.path}")
    return made


def _cell(value: Value) -> Cell:
    if value is None:
        return Cell(MISSING, frozenset({None}))
    code = value.value if isinstance(value, Special) else str(value).lower() if isinstance(value, bool) else value
    return Cell(code, frozenset({value}))


def _members(cells: tuple[Cell, ...]) -> Iterator[Value]:
    """The values of a set dimension in the order of their bits: the cells of one value, by number."""
    return (value for cell in cells if len(cell.values) == 1 for value in cell.values)


def _all_values(cells: tuple[Cell, ...]) -> Iterator[Value]:
    # The order of a set differs between processes.
    return (value for cell in cells for value in sorted(cell.values, key=str))
