"""Dates by month and numbers by bins: how fine a condition on persons may be where numbers are exact.

A day or an exact value singles people out, and many random choices of days are many equations about the same people.
Decided by words and dictionary alone, before any row is read.
"""

from __future__ import annotations

import calendar
import datetime
import math
from fractions import Fraction

from connexon.conditions import filters
from connexon.conditions.filters import Between, Compare, Filter, Has, Not, OneOf, Operator, Scalar
from connexon.errors import InvalidQuery
from connexon_node.data.dictionary import Dataset, Dictionary, Field, FieldType, relations

BINS = 50
"""Bins of equal width, at most, in the range that the dictionary gives a field."""
_STEPS = (1, 2, 5)
_SMALLEST, _GREATEST = -3, 12
"""Powers of ten between which 1, 2 and 5 times a power of ten are edges for every field."""
_NUMBERS = (FieldType.INTEGER, FieldType.NUMBER)
_DAY = datetime.timedelta(days=1)


def require_bins(dictionary: Dictionary, dataset: Dataset, node: Filter) -> None:
    """Raise InvalidQuery, with the nearest edges, for a condition that is finer than a month or a bin."""
    match node:
        case filters.All(parts) | filters.Any(parts):
            for child in parts:
                require_bins(dictionary, dataset, child)
        case Not(child):
            require_bins(dictionary, dataset, child)
        case Has(path, inside):
            _, place, name = relations.place(dictionary, dataset, path)
            other = relations.pointing(dictionary, place, name)
            if inside is not None:
                require_bins(dictionary, other, inside)
        case Compare(path, how, value):
            _require(dictionary, dataset, path, how, value)
        case OneOf(path, values):
            for value in values:
                _require(dictionary, dataset, path, Operator.EQUAL, value)
        case Between(path, low, high):
            _require(dictionary, dataset, path, Operator.GREATER_OR_EQUAL, low)
            _require(dictionary, dataset, path, Operator.LESS_OR_EQUAL, high)
        case _:
            return


def _require(dictionary: Dictionary, dataset: Dataset, path: str, how: Operator, value: Scalar) -> None:
    at, field = relations.field_at(dictionary, dataset, path)
    if field.type is FieldType.DATE and isinstance(value, datetime.date):
        _require_month(f"{at.name}.{field.name}", how, value)
    elif field.type in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        _require_bin(f"{at.name}.{field.name}", field, how, value)


def _require_month(name: str, how: Operator, value: datetime.date) -> None:
    first = value.replace(day=1)
    last = value.replace(day=calendar.monthrange(value.year, value.month)[1])
    begins = how in (Operator.GREATER_OR_EQUAL, Operator.LESS)
    ends = how in (Operator.GREATER, Operator.LESS_OR_EQUAL)
    if (begins and value == first) or (ends and value == last):
        return
    if begins:
        hint = f"write {how.value} {first}" + (f" or {how.value} {last + _DAY}" if last < datetime.date.max else "")
    elif ends:
        hint = f"write {how.value} {last}" + (f" or {how.value} {first - _DAY}" if first > datetime.date.min else "")
    else:
        hint = f"write  between {first} and {last}"
    raise InvalidQuery(
        f"For exact numbers about persons {name} counts by whole months: {hint}.", code="granted.finer_than_month"
    )


def _require_bin(name: str, field: Field, how: Operator, value: float) -> None:
    if not math.isfinite(value):
        return  # no row has such a value
    whole = field.type is FieldType.INTEGER and float(value).is_integer()
    exact = Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    match how:
        case Operator.GREATER_OR_EQUAL | Operator.LESS:
            fine = _is_edge(field, exact)
        case Operator.GREATER | Operator.LESS_OR_EQUAL:
            # Up to the last value of a bin, or to the greatest of all.
            fine = (whole and _is_edge(field, exact + 1)) or value == field.maximum
        case Operator.EQUAL | Operator.NOT_EQUAL:
            fine = whole and _is_edge(field, exact) and _is_edge(field, exact + 1)
    if fine:
        return
    below, above = _edges_beside(field, exact)
    raise InvalidQuery(
        f"For exact numbers about persons {name} counts by bins, whose edges beside {value} are {_written(below)} and "
        f"{_written(above)}: write  >= {_written(below)}  and  < {_written(above)}.",
        code="granted.finer_than_bin",
    )


def _width(field: Field) -> Fraction | None:
    """The width of a field's bins: 1, 2 or 5 times a power of ten; None where the dictionary gives no range."""
    if field.minimum is None or field.maximum is None:
        return None
    least = Fraction(field.maximum - field.minimum) / BINS
    ladder = (step * Fraction(10) ** power for power in range(_SMALLEST, _GREATEST) for step in _STEPS)
    whole = field.type is FieldType.INTEGER
    return next((one for one in ladder if one >= least and (not whole or one >= 1)), None)


def _is_edge(field: Field, value: Fraction) -> bool:
    width = _width(field)
    return value == 0 or (width is not None and value % width == 0) or abs(value) in _ladder(field)


def _ladder(field: Field) -> list[Fraction]:
    smallest = 0 if field.type is FieldType.INTEGER else _SMALLEST
    return [step * Fraction(10) ** power for power in range(smallest, _GREATEST) for step in _STEPS]


def _edges_beside(field: Field, value: Fraction) -> tuple[Fraction, Fraction]:
    """The nearest edges at or below and above a value."""
    ladder = _ladder(field)
    edges = [-one for one in reversed(ladder)] + [Fraction(0)] + ladder
    if (width := _width(field)) is not None:
        edges += [value // width * width, (value // width + 1) * width]
    below = max((one for one in edges if one <= value), default=min(edges))
    return below, min((one for one in edges if one > value), default=max(edges))


def _written(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"
