"""What a question may ask of a center at most, counted from the question alone: no data are looked at.

Every receiver counts alike, when it reads. The bounds are such that a center writes its query for any question within
them in some 50 ms (tests/bench/limits.py measures the worst ones).

INVARIANT: nothing that the data decide is counted, such as the terms below an `under`: a refusal would tell of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    Under,
)
from connexon.errors import InvalidQuery

MAXIMUM_SIZE = 256 * 1024
"""Bytes of a serialised question."""
MAXIMUM_CONDITIONS = 60
"""Comparisons, lists, `has`, `not`, `and` and `or` of one filter, each of which counts once."""
MAXIMUM_HAS = 10
"""`has` in all."""
MAXIMUM_JOINS = 10
"""Rows beside the one asked about that a question looks at: each step of a way once, each dataset of `has` twice."""
MAXIMUM_VALUES = 2_000
"""Values in all lists together."""


def require_bounded(condition: Filter | None, fields: Iterable[str] = ()) -> None:
    """Raise InvalidQuery where a filter, with the fields that a question names beside it, asks for too much."""
    nodes = [] if condition is None else list(_nodes(condition))
    _bound(len(nodes), MAXIMUM_CONDITIONS, "conditions, each 'and', 'or' and 'not' counted as one")
    _bound(sum(isinstance(one, Has) for one in nodes), MAXIMUM_HAS, "times 'has'")
    _bound(
        sum(len(one.values) for one in nodes if isinstance(one, OneOf)), MAXIMUM_VALUES, "values in its lists together"
    )
    joins = _joins([] if condition is None else [condition], fields)
    _bound(
        joins,
        MAXIMUM_JOINS,
        "joins: each step of a way such as cell_line.donor is one, and each dataset after 'has' is two, however often "
        "they are named",
    )


def _bound(found: int, most: int, what: str) -> None:
    if found > most:
        raise InvalidQuery(
            f"The question has {found}, and may have {most}, {what}. Ask several smaller questions.",
            code="query.too_large",
        )


def _nodes(node: Filter) -> Iterator[Filter]:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        match current:
            case All(filters) | Any(filters):
                waiting.extend(filters)
            case Not(child):
                waiting.append(child)
            case Has(_, inside) if inside is not None:
                waiting.append(inside)
            case _:
                pass


def _joins(conditions: Iterable[Filter], fields: Iterable[str] = ()) -> int:
    """Joins that conditions on one kind of rows need together; all `has` of a path share theirs, and what is inside."""
    ways = {way for field in fields for way in _ways(field)}
    inside: dict[str, list[Filter]] = {}
    for node in (node for condition in conditions for node in _own(condition)):
        match node:
            case Has(path, child):
                inside.setdefault(path, []).extend([] if child is None else [child])
                ways.update(_ways(path))
            case Compare(field) | OneOf(field) | Between(field) | IsMissing(field) | Under(field):
                ways.update(_ways(field))
            case _:
                pass
    return len(ways) + sum(2 + _joins(children) for children in inside.values())


def _own(node: Filter) -> Iterator[Filter]:
    """The conditions on the rows themselves, without those inside `has`."""
    match node:
        case All(filters) | Any(filters):
            for child in filters:
                yield from _own(child)
        case Not(child):
            yield from _own(child)
        case Compare() | OneOf() | Between() | IsMissing() | Under() | Has() | DescendsFrom():
            yield node


def _ways(path: str) -> Iterator[str]:
    way = path.rpartition(".")[0]
    while way:
        yield way
        way = way.rpartition(".")[0]
