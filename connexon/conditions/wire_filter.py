"""Conditions and values between their bytes and their values: strict, bounded, and the same both ways."""

from __future__ import annotations

import datetime
import math
import re

from connexon.conditions.cost import MAXIMUM_CONDITIONS
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
from connexon.conditions.terms import CURIE
from connexon.errors import InvalidQuery
from connexon.v1 import query_pb2

MAXIMUM_FILTERS = MAXIMUM_CONDITIONS
"""Of one filter while it is read; connexon.conditions.cost bounds the whole question."""
MAXIMUM_FILTER_DEPTH = 32
MAXIMUM_VALUES = 1_000
MAXIMUM_TEXT = 1_000
MAXIMUM_STEPS = 3
"""Rows on the way from a row to the field or dataset that a condition names."""
MAXIMUM_HAS = 3
"""How deep conditions on other datasets lie inside each other."""

_PATH = re.compile(rf"[a-z][a-z0-9_]{{0,63}}(\.[a-z][a-z0-9_]{{0,63}}){{0,{MAXIMUM_STEPS}}}\Z")
_LINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}\Z")
_OPERATORS = {
    Operator.EQUAL: query_pb2.OPERATOR_EQUAL,
    Operator.NOT_EQUAL: query_pb2.OPERATOR_NOT_EQUAL,
    Operator.LESS: query_pb2.OPERATOR_LESS,
    Operator.LESS_OR_EQUAL: query_pb2.OPERATOR_LESS_OR_EQUAL,
    Operator.GREATER: query_pb2.OPERATOR_GREATER,
    Operator.GREATER_OR_EQUAL: query_pb2.OPERATOR_GREATER_OR_EQUAL,
}
_OPERATORS_READ = {number: operator for operator, number in _OPERATORS.items()}


def value_to_wire(value: Scalar | None) -> query_pb2.Value:
    """A value for the wire; None is a value without content."""
    wire = query_pb2.Value()
    write_value(value, wire)
    return wire


def write_value(value: Scalar | None, wire: query_pb2.Value) -> None:
    """The same, into a value of the wire that is empty: quicker where there are many."""
    match value:
        case str():
            wire.text = value
        case None:
            pass
        case bool():
            wire.boolean = value
        case int():
            wire.integer = value
        case float():
            wire.number = value
        case datetime.date():
            wire.date = value.isoformat()


def value_from_wire(wire: query_pb2.Value) -> Scalar | None:
    """The inverse of value_to_wire; raises InvalidQuery on a number that is not finite or a bad date."""
    match wire.WhichOneof("value"):
        case "text":
            if len(wire.text) > MAXIMUM_TEXT:
                raise InvalidQuery(f"A value is longer than {MAXIMUM_TEXT} characters.", code="query.too_large")
            return wire.text
        case "integer":
            return wire.integer
        case "number":
            if not math.isfinite(wire.number):
                raise InvalidQuery("A number in the query is not finite.", code="query.invalid_value")
            return wire.number
        case "boolean":
            return wire.boolean
        case "date":
            return _date(wire.date)
        case _:
            return None


def _date(text: str) -> datetime.date:
    try:
        date = datetime.date.fromisoformat(text)
        # Weeks and dates without hyphens are ISO 8601 too; here a date is written in one way.
        if date.isoformat() == text:
            return date
    except ValueError:
        pass
    raise InvalidQuery(f"{text[:40]!r} is not a date such as 2026-01-31.", code="query.invalid_value")


def filter_to_wire(node: Filter) -> query_pb2.Filter:
    """A condition for the wire."""
    wire = query_pb2.Filter()
    match node:
        case All(filters):
            wire.all.filters.extend(filter_to_wire(child) for child in filters)
            wire.all.SetInParent()
        case Any(filters):
            wire.any.filters.extend(filter_to_wire(child) for child in filters)
            wire.any.SetInParent()
        case Not(child):
            getattr(wire, "not").CopyFrom(filter_to_wire(child))
        case Compare(field, operator, value):
            wire.compare.field = field
            wire.compare.operator = _OPERATORS[operator]
            wire.compare.value.CopyFrom(value_to_wire(value))
        case OneOf(field, values):
            wire.one_of.field = field
            wire.one_of.values.extend(value_to_wire(value) for value in values)
        case Between(field, low, high):
            wire.between.field = field
            wire.between.low.CopyFrom(value_to_wire(low))
            wire.between.high.CopyFrom(value_to_wire(high))
        case IsMissing(field):
            wire.is_missing.field = field
        case Under(field, term):
            wire.under.field = field
            wire.under.term = term
        case Has(dataset, inside):
            wire.has.dataset = dataset
            if inside is not None:
                wire.has.filter.CopyFrom(filter_to_wire(inside))
        case DescendsFrom(line):
            wire.descends_from.line = line
    return wire


class FilterReader:
    """Reads one filter tree and keeps count of how much of it there is."""

    def __init__(self) -> None:
        self._nodes = 0
        self._inside = 0

    def read(self, wire: query_pb2.Filter, depth: int) -> Filter:
        """The condition at `depth`, 1 for the whole. Raises InvalidQuery with what is wrong."""
        self._nodes += 1
        if self._nodes > MAXIMUM_FILTERS or depth > MAXIMUM_FILTER_DEPTH:
            raise InvalidQuery(
                f"The filter may hold {MAXIMUM_FILTERS} conditions, nested {MAXIMUM_FILTER_DEPTH} deep at most.",
                code="query.too_large",
            )
        kind = wire.WhichOneof("node")
        match kind:
            case "all" | "any":
                group = wire.all if kind == "all" else wire.any
                if not group.filters:
                    raise InvalidQuery(f"An empty {kind!r} in the filter means nothing.", code="query.invalid_filter")
                children = tuple(self.read(child, depth + 1) for child in group.filters)
                return All(children) if kind == "all" else Any(children)
            case "not":
                return Not(self.read(getattr(wire, "not"), depth + 1))
            case "compare":
                if wire.compare.operator not in _OPERATORS_READ:
                    raise InvalidQuery("A comparison names no operator.", code="query.invalid_filter")
                operator = _OPERATORS_READ[wire.compare.operator]
                return Compare(path(wire.compare.field), operator, _present(wire.compare.value))
            case "one_of":
                return self._one_of(wire.one_of)
            case "between":
                low, high = _present(wire.between.low), _present(wire.between.high)
                return Between(path(wire.between.field), low, high)
            case "is_missing":
                return IsMissing(path(wire.is_missing.field))
            case "under":
                if not CURIE.match(wire.under.term):
                    raise InvalidQuery(
                        f"{wire.under.term[:80]!r} is not a term such as MONDO:0005180.",
                        code="query.invalid_term",
                    )
                return Under(path(wire.under.field), wire.under.term)
            case "has":
                return self._has(wire.has, depth)
            case "descends_from":
                return DescendsFrom(line_name(wire.descends_from.line))
            case _:
                raise InvalidQuery("A part of the filter is empty.", code="query.invalid_filter")

    def _has(self, wire: query_pb2.Has, depth: int) -> Has:
        self._inside += 1
        if self._inside > MAXIMUM_HAS:
            raise too_many_has()
        inside = self.read(wire.filter, depth + 1) if wire.HasField("filter") else None
        self._inside -= 1
        return Has(path(wire.dataset, "dataset"), inside)

    @staticmethod
    def _one_of(wire: query_pb2.OneOf) -> OneOf:
        if not 1 <= len(wire.values) <= MAXIMUM_VALUES:
            raise InvalidQuery(f"A list of values must hold 1 to {MAXIMUM_VALUES} of them.", code="query.too_large")
        return OneOf(path(wire.field), tuple(_present(value) for value in wire.values))


def _present(wire: query_pb2.Value) -> Scalar:
    value = value_from_wire(wire)
    if value is None:
        raise InvalidQuery(
            "A comparison lacks its value; to ask for missing values use 'is missing'.",
            code="query.invalid_value",
        )
    return value


def line_name(text: str) -> str:
    """The public name of a cell line; raises InvalidQuery on what is none."""
    if not _LINE_NAME.match(text):
        raise InvalidQuery(
            f"{text[:80]!r} is not the name of a cell line such as UKKi023-A or CVCL_1234.", code="query.invalid_line"
        )
    return text


def too_many_has() -> InvalidQuery:
    """What to raise where conditions on other datasets lie too deep inside each other."""
    return InvalidQuery(f"At most {MAXIMUM_HAS} 'has' may lie inside each other.", code="query.too_large")


def path(text: str, what: str = "field") -> str:
    """The text if it names a field, or the way to one; raises InvalidQuery."""
    if not _PATH.match(text):
        raise InvalidQuery(
            f"{text[:80]!r} is not the name of a {what}, nor the way to one over at most {MAXIMUM_STEPS} rows.",
            code=f"query.invalid_{what}",
        )
    return text
