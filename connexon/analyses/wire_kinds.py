"""Kinds of numbers and units of counts, between the wire and their values."""

from __future__ import annotations

from connexon.analyses.spec import Kind, Unit
from connexon.errors import InvalidQuery
from connexon.v1 import query_pb2

_KINDS = {
    Kind.PRIVATE: query_pb2.NUMBER_KIND_PRIVATE,
    Kind.GRANTED: query_pb2.NUMBER_KIND_GRANTED,
    Kind.PUBLISHED: query_pb2.NUMBER_KIND_PUBLISHED,
}
_UNITS = {Unit.DONORS: query_pb2.COUNT_UNIT_DONORS, Unit.RECORDS: query_pb2.COUNT_UNIT_RECORDS}


def kind_to_wire(kind: Kind) -> query_pb2.NumberKind.ValueType:
    """As it travels."""
    return _KINDS[kind]


def unit_to_wire(unit: Unit) -> query_pb2.CountUnit.ValueType:
    """As it travels."""
    return _UNITS[unit]


def known_kind(wire: query_pb2.NumberKind.ValueType) -> Kind | None:
    """None where it is not said, or not known."""
    return next((kind for kind, number in _KINDS.items() if number == wire), None)


def kind_from_wire(wire: query_pb2.NumberKind.ValueType) -> Kind:
    """Raises InvalidQuery where it is not said, or not known."""
    kind = known_kind(wire)
    if kind is not None:
        return kind
    raise InvalidQuery("The query does not say what its numbers are to be.", code="query.invalid_kind")


def unit_from_wire(wire: query_pb2.CountUnit.ValueType) -> Unit:
    """Raises InvalidQuery where it is not said, or not known."""
    for unit, number in _UNITS.items():
        if number == wire:
            return unit
    raise InvalidQuery("The query does not say whether donors or records are counted.", code="query.invalid_unit")
