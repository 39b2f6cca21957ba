"""A count question's words as conditions and groupings on dimensions of the frame.

A filter's truth is three-valued, as the engine has it: a comparison with a missing field is neither true nor false.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy

from connexon.conditions import filters
from connexon.conditions.filters import Compare, Filter, Has, IsMissing, Not, OneOf, Operator, Scalar
from connexon.errors import ConnexonError
from connexon_node.data.dictionary import DONORS, Dictionary, relations
from connexon_node.privacy.first_ask.dimensions import Dimension, Mask, Origin, Special, Value
from connexon_node.privacy.first_ask.frame import Frame


class Undecided(Exception):
    """The words ask for what no table of the frame tells."""


@dataclass(frozen=True)
class Condition:
    """The donors in the cells of a mask."""

    dimension: Dimension
    mask: Mask


@dataclass(frozen=True)
class Grouping:
    """The donors by value; groups of a set may overlap. `best`: a donor is in the group of its best value only."""

    dimension: Dimension
    groups: tuple[tuple[Value, Mask], ...]
    best: bool = False


@dataclass(frozen=True)
class Reading:
    """A question as conditions and groupings: of each, those on any of the dimensions that tell it."""

    conditions: tuple[tuple[Condition, ...], ...]
    groupings: tuple[tuple[Grouping, ...], ...]


def read(
    frame: Frame, dictionary: Dictionary, dataset: str, condition: Filter | None, by: Sequence[str], *, best_of: bool
) -> Reading:
    """The question of distinct donors with a row of `dataset` that fulfils the condition. Raises Undecided."""
    reader = _Reader(frame, dictionary, dataset)
    held, parts = [], dict[tuple[str, str], list[Filter]]()
    for part in _parts(condition):
        if (inside := _has(part)) is not None:
            held.append(reader.holding(inside[0], inside[1], negated=inside[2]))
        else:
            parts.setdefault(reader.place(_field_of(part)), []).append(part)
    grouped = [reader.place(path) for path in by]
    # INVARIANT: two conditions on a row ask for one row that fulfils both, and the values of a donor do not say
    # whether it has one.
    of_rows = {place for place in (*parts, *grouped) if place[0] != DONORS}
    if len(of_rows) > 1 or len(set(grouped)) < len(grouped):
        raise Undecided
    conditions = [reader.condition(place, those) for place, those in parts.items() if place not in grouped]
    if dataset != DONORS and not of_rows:
        conditions.append(reader.rows(dataset))
    groupings = [reader.grouping(place, parts.get(place, []), best_of=best_of) for place in grouped]
    return Reading((*held, *conditions), tuple(groupings))


class _Reader:
    """Reads questions about one dataset."""

    def __init__(self, frame: Frame, dictionary: Dictionary, dataset: str) -> None:
        self._frame = frame
        self._dictionary = dictionary
        self._dataset = dataset

    def place(self, path: str) -> tuple[str, str]:
        """Dataset and field at the end of a path: of the rows that are counted, or of their donor."""
        if "." not in path:
            return self._dataset, path
        try:
            at = self._dictionary.dataset(self._dataset)
            steps, target, name = relations.place(self._dictionary, at, path)
        except ConnexonError:
            raise Undecided from None
        for step in steps:
            # Another reference may lead to another donor.
            if step.field is not None and step.field.name not in at.donor_through:
                raise Undecided
            at = step.target
        if target.name != DONORS:
            raise Undecided
        return DONORS, name

    def condition(self, place: tuple[str, str], parts: Sequence[Filter]) -> tuple[Condition, ...]:
        """The donors with a row of the place's dataset whose field fulfils the parts, on each dimension that tells."""
        found = ((one, one.having(_chosen(one.values, parts))) for one in self._dimensions(*place))
        return tuple(Condition(one, mask) for one, mask in found if mask is not None)

    def rows(self, dataset: str) -> tuple[Condition, ...]:
        """The donors with a row of the dataset."""
        return tuple(Condition(one, one.having_rows()) for one in self._frame.dimensions if one.dataset == dataset)

    def holding(self, dataset: str, inside: Filter | None, *, negated: bool) -> tuple[Condition, ...]:
        """The donors that have, or do not have, a row of the dataset which fulfils the filter inside."""
        if self._dataset != DONORS or "." in dataset or dataset == DONORS:
            raise Undecided
        parts = list(_parts(inside))
        fields = {_field_of(part) for part in parts}
        if len(fields) > 1:
            raise Undecided
        found = self.condition((dataset, *fields), parts) if parts else self.rows(dataset)  # type: ignore[arg-type] # one field
        return tuple(Condition(one.dimension, ~one.mask) for one in found) if negated else found

    def grouping(self, place: tuple[str, str], parts: Sequence[Filter], *, best_of: bool) -> tuple[Grouping, ...]:
        """The donors with a row whose field fulfils the parts, by that field."""
        found = (_grouping(one, _chosen(one.values, parts), best_of=best_of) for one in self._dimensions(*place))
        return tuple(one for one in found if one is not None)

    def _dimensions(self, dataset: str, field: str) -> Iterator[Dimension]:
        return (one for one in self._frame.dimensions if one.dataset == dataset and one.field == field)


def _grouping(dimension: Dimension, chosen: frozenset[Value], *, best_of: bool) -> Grouping | None:
    """A group for each chosen value; None where the dimension does not tell the values apart."""
    values = [value for value in dimension.ordered_values if value in chosen]
    masks = [dimension.having(frozenset({value})) for value in values]
    told = tuple((value, mask) for value, mask in zip(values, masks, strict=True) if mask is not None)
    if len(told) == len(values):
        return Grouping(dimension, told)
    single = all(len(cell.values) <= 1 for cell in dimension.cells)
    # The best of the chosen values is the best of all only where no better one is left out.
    if not (best_of and single and dimension.origin is Origin.BEST and dimension.having(chosen) is not None):
        return None
    groups = tuple((value, numpy.array([value in cell.values for cell in dimension.cells])) for value in values)
    return Grouping(dimension, groups, best=True)


def _parts(node: Filter | None) -> Iterator[Filter]:
    """The conditions that hold together."""
    match node:
        case None:
            return
        case filters.All(parts):
            for child in parts:
                yield from _parts(child)
        case _:
            yield node


def _has(node: Filter) -> tuple[str, Filter | None, bool] | None:
    """Dataset and filter of `has`, and whether it is negated."""
    match node:
        case Has(dataset, inside):
            return dataset, inside, False
        case Not(Has(dataset, inside)):
            return dataset, inside, True
        case _:
            return None


def _field_of(node: Filter) -> str:
    """The one field that a condition names. Raises Undecided where it names several, or asks for more than values."""
    match node:
        case filters.All(parts) | filters.Any(parts):
            fields = {_field_of(child) for child in parts}
            if len(fields) != 1:
                raise Undecided
            return fields.pop()
        case Not(child):
            return _field_of(child)
        case Compare(field, Operator.EQUAL | Operator.NOT_EQUAL, _) | OneOf(field, _) | IsMissing(field):
            return field
        case _:
            raise Undecided


def _chosen(values: frozenset[Value], parts: Sequence[Filter]) -> frozenset[Value]:
    """The values of a domain that fulfil every part. Raises Undecided where a part names a value it does not list."""
    truth = {value: _truth(filters.All(tuple(parts)), value, values) for value in values}
    return frozenset(value for value, holds in truth.items() if holds)


def _truth(node: Filter, value: Value, known: frozenset[Value]) -> bool | None:
    match node:
        case filters.All(parts):
            return _all([_truth(child, value, known) for child in parts])
        case filters.Any(parts):
            return _not(_all([_not(_truth(child, value, known)) for child in parts]))
        case Not(child):
            return _not(_truth(child, value, known))
        case Compare(_, Operator.EQUAL, other):
            return _equal(value, other, known)
        case Compare(_, Operator.NOT_EQUAL, other):
            return _not(_equal(value, other, known))
        case OneOf(_, others):
            same = [_equal(value, other, known) for other in others]
            return None if value is None else any(same)
        case IsMissing():
            return value is None
        case _:
            raise Undecided


def _equal(value: Value, other: Scalar, known: frozenset[Value]) -> bool | None:
    # By type, too: 1 equals True in Python.
    if not isinstance(other, (str, bool)) or other not in known:
        raise Undecided
    return None if value is None else value is not Special.OTHER and value == other


def _not(holds: bool | None) -> bool | None:
    return None if holds is None else not holds


def _all(parts: Sequence[bool | None]) -> bool | None:
    if False in parts:
        return False
    return None if None in parts else True
