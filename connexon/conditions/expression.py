"""Conditions written in Python: col("passage_no") > 10, col("disease_term").under("MONDO:0005180")."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass

from connexon.conditions import cost, wire_filter
from connexon.conditions.filters import (
    All,
    Any,
    Between,
    Compare,
    DescendsFrom,
    Filter,
    Has,
    IsMissing,
    Not,
    OneOf,
    Operator,
    Scalar,
    Under,
)
from connexon.errors import InvalidQuery

_INTEGER_BITS = 63


@dataclass(frozen=True)
class Condition:
    """A condition on rows; combine with & (and), | (or) and ~ (not)."""

    filter: Filter

    def __and__(self, other: Condition) -> Condition:
        return Condition(All((*_parts(self, All), *_parts(other, All))))

    def __or__(self, other: Condition) -> Condition:
        return Condition(Any((*_parts(self, Any), *_parts(other, Any))))

    def __invert__(self) -> Condition:
        return Condition(Not(self.filter))

    def __bool__(self) -> bool:
        # 'and', 'or' and 1 < x < 2 ask for the truth of a condition, which only the centers' rows have.
        raise TypeError("Combine conditions with & and |, negate with ~, and write ranges with .between(low, high).")


class Column:
    """A field of the dataset, to be compared with values."""

    __hash__ = None  # type: ignore[assignment]  # == makes a condition here, so a hash would mislead

    def __init__(self, field: str) -> None:
        self._field = field

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]  # a condition, not a truth
        return self.is_missing() if value is None else self._compare(Operator.EQUAL, value)

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]  # a condition, not a truth
        return ~self.is_missing() if value is None else self._compare(Operator.NOT_EQUAL, value)

    def __lt__(self, value: Scalar) -> Condition:
        return self._compare(Operator.LESS, value)

    def __le__(self, value: Scalar) -> Condition:
        return self._compare(Operator.LESS_OR_EQUAL, value)

    def __gt__(self, value: Scalar) -> Condition:
        return self._compare(Operator.GREATER, value)

    def __ge__(self, value: Scalar) -> Condition:
        return self._compare(Operator.GREATER_OR_EQUAL, value)

    def isin(self, values: Iterable[Scalar]) -> Condition:
        """The field equals one of the values."""
        if isinstance(values, str):
            raise InvalidQuery(f"Give {self._field} a list of values, not one text.", code="query.invalid_value")
        return Condition(OneOf(self._field, tuple(scalar(value, self._field) for value in values)))

    def between(self, low: Scalar, high: Scalar) -> Condition:
        """low <= field <= high."""
        return Condition(Between(self._field, scalar(low, self._field), scalar(high, self._field)))

    def is_missing(self) -> Condition:
        """The field was not collected."""
        return Condition(IsMissing(self._field))

    def under(self, term: str) -> Condition:
        """The field is this ontology term, by id (MONDO:0005180) or name (Parkinson disease), or one of its kinds."""
        return Condition(Under(self._field, term))

    def _compare(self, operator: Operator, value: object) -> Condition:
        return Condition(Compare(self._field, operator, scalar(value, self._field)))


def col(field: str) -> Column:
    """A field of the dataset that is asked about, or of a row that its rows point to: col("donor.sex")."""
    return Column(field)


def has(dataset: str, *conditions: Condition, **equal: object) -> Condition:
    """At least one row of another dataset points to the row, directly or through others, and fulfils all conditions.

    has("karyotype_findings", col("clone_pct") > 10, recurrent_region="20q11.21"). Where it is not this row that is
    pointed to, begin with the way there: has("cell_line.karyotype_findings", change="gain").
    """
    filters = [*(condition.filter for condition in conditions), *(equals(name, value) for name, value in equal.items())]
    inside = None if not filters else filters[0] if len(filters) == 1 else All(tuple(filters))
    return Condition(Has(dataset, inside))


def descends_from(line: str) -> Condition:
    """The cell line (of a lot: its line) was derived from this one, named as in hPSCreg or by its RRID."""
    return Condition(DescendsFrom(wire_filter.line_name(line)))


def equals(field: str, value: object) -> Filter:
    """What `where(field=value)` means: equal, one of a list, or missing for None."""
    column = Column(field)
    if value is None:
        return column.is_missing().filter
    if isinstance(value, list | tuple | set | frozenset):
        return column.isin(value).filter
    return (column == value).filter


def scalar(value: object, field: str) -> Scalar:
    """A value that the question language can hold; raises InvalidQuery on any other."""
    if not isinstance(value, str | int | float | bool | datetime.date) and hasattr(value, "item"):
        value = value.item()  # the numbers of array libraries
    problem = None
    match value:
        case bool():
            return value
        case int() if not -(2**_INTEGER_BITS) <= value < 2**_INTEGER_BITS:
            problem = "a whole number too large to send"
        case float() if not math.isfinite(value):
            problem = "a number that is not finite"
        case datetime.datetime():
            problem = "a moment; use a date"
        case str() if not _is_text(value):
            problem = "a text with broken characters"
        case str() | int() | float() | datetime.date():
            return value
        case _:
            problem = f"a {type(value).__name__}; use a text, number, date, True or False"
    raise InvalidQuery(f"{field} is compared with {problem}.", code="query.invalid_value")


def check(node: Filter) -> None:
    """Raise InvalidQuery where a condition is larger or deeper than a question may be."""
    waiting, nodes = [(node, 1, 0)], 0
    while waiting:
        current, depth, inside = waiting.pop()
        nodes += 1
        within_bounds(nodes, depth)
        match current:
            case All(filters) | Any(filters):
                waiting.extend((child, depth + 1, inside) for child in filters)
            case Not(child):
                waiting.append((child, depth + 1, inside))
            case Has(_, child):
                if inside >= wire_filter.MAXIMUM_HAS:
                    raise wire_filter.too_many_has()
                if child is not None:
                    waiting.append((child, depth + 1, inside + 1))
            case _:
                pass
    cost.require_bounded(node)


def within_bounds(nodes: int, depth: int) -> None:
    """Raise InvalidQuery where a condition of so many parts, nested so deep, cannot be sent."""
    if nodes > wire_filter.MAXIMUM_FILTERS or depth > wire_filter.MAXIMUM_FILTER_DEPTH:
        raise InvalidQuery(
            f"The condition may hold {wire_filter.MAXIMUM_FILTERS} parts, nested "
            f"{wire_filter.MAXIMUM_FILTER_DEPTH} deep at most.",
            code="where.too_large",
        )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parts(condition: Condition, group: type[All] | type[Any]) -> tuple[Filter, ...]:
    node = condition.filter
    return node.filters if isinstance(node, All | Any) and type(node) is group else (node,)
