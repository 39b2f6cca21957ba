"""Groups of a table: the fields grouped by, their order, and the columns beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from connexon.analyses.key_columns import Key
from connexon.conditions.wire_filter import path
from connexon.errors import InvalidQuery

MAXIMUM_GROUP_FIELDS = 4


def read_by(wire: Iterable[str]) -> tuple[str, ...]:
    """The fields that a question groups by. Raises InvalidQuery."""
    by = tuple(path(field) for field in wire)
    if len(by) > MAXIMUM_GROUP_FIELDS or len(set(by)) != len(by):
        raise InvalidQuery(f"Group by at most {MAXIMUM_GROUP_FIELDS} different fields.", code="query.invalid_group")
    return by


def beside(by: Sequence[str], columns: Iterable[str]) -> tuple[str, ...]:
    """Names of columns beside those grouped by: where a field is itself called count, our column steps aside."""
    ours = []
    for name in columns:
        while name in by:
            name += "_"
        ours.append(name)
    return tuple(ours)


def in_order(key: Key) -> tuple[tuple[bool, bool, float, str], ...]:
    """A key to sort groups by: numbers by size, other values by text, missing ones last."""
    return tuple(
        (value is None, isinstance(value, str), value if isinstance(value, int | float) else 0.0, str(value))
        for value in key
    )
