"""From a checked filter to an ibis condition.

Truth is three-valued, as in SQL (Kleene): a comparison with a missing field is neither true nor false, `not` of it
neither, and only rows for which the whole filter is true count. So `not (sex = 'male')` does not count a row whose
sex is missing; `not (sex = 'male' and type = 'ESC')` does where the type is known to be another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any as Expression

from connexon.conditions import filters
from connexon.conditions.filters import (
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
from connexon_node.engine.lists import among

_COMPARE: dict[Operator, Callable[[Expression, Expression], Expression]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


def condition(node: Filter, many: Callable[[str], bool], table: Expression, found: Mapping[Has, str]) -> Expression:
    """The boolean ibis column that `node`, as FilterCheck.check returned it, means on `table`.

    `many` says whether a field holds several values, `found` names the column that is present where a `has` holds.
    """
    match node:
        case filters.All(parts):
            return _balanced(operator.and_, [condition(child, many, table, found) for child in parts])
        case filters.Any(parts):
            return _balanced(operator.or_, [condition(child, many, table, found) for child in parts])
        case Not(child):
            return ~condition(child, many, table, found)
        case IsMissing(name):
            return table[name].isnull()
        case Compare(name, how, value):
            return table[name].contains(value) if many(name) else _COMPARE[how](table[name], value)
        case OneOf(name, values):
            return _among(table[name], values, many=many(name))
        case Between(name, low, high):
            return (table[name] >= low) & (table[name] <= high)
        case Has():
            return table[found[node]].notnull()
        case Under() | DescendsFrom():
            raise TypeError("an unchecked filter came to the engine")


def either(conditions: Sequence[Expression]) -> Expression:
    """That at least one of them holds."""
    return _balanced(operator.or_, list(conditions))


def _among(column: Expression, values: tuple[Scalar, ...], *, many: bool) -> Expression:
    if not values:
        # False where the field was collected, missing where not.
        return column.length() < 0 if many else column != column
    if len(values) == 1:
        # One value is an equality: engines skip what they need not read by it more readily than by a list.
        return column.contains(values[0]) if many else column == values[0]
    return among(column, values, many=many)


def _balanced(join: Callable[[Expression, Expression], Expression], conditions: list[Expression]) -> Expression:
    # A tree as shallow as can be: hundreds of conditions in a chain would exhaust the compiler's stack.
    while len(conditions) > 1:
        pairs = [join(*pair) for pair in zip(conditions[::2], conditions[1::2], strict=False)]
        conditions = pairs + ([conditions[-1]] if len(conditions) % 2 else [])
    return conditions[0]


def fields_of(node: Filter | None) -> Iterable[str]:
    """The fields that a filter names of the rows themselves, not of those inside `has`."""
    match node:
        case None | Has():
            return
        case filters.All(parts) | filters.Any(parts):
            for child in parts:
                yield from fields_of(child)
        case Not(child):
            yield from fields_of(child)
        case DescendsFrom():
            raise TypeError("an unchecked filter came to the engine")
        case leaf:
            yield leaf.field


def has_of(node: Filter | None) -> Iterable[Has]:
    """The `has` that look from the rows themselves into other datasets."""
    match node:
        case Has():
            yield node
        case filters.All(parts) | filters.Any(parts):
            for child in parts:
                yield from has_of(child)
        case Not(child):
            yield from has_of(child)
        case _:
            return


def common_values(filters: Sequence[Filter | None], many: Callable[[str], bool]) -> OneOf | None:
    """A field that each filter holds to values, with all of these; None where there is none.

    Rows beyond fulfil no filter. Engines skip what they need not read by such a list, not by the filters together.
    """
    required = [_required_values(one) for one in filters]
    for field in required[0]:
        if "." not in field and not many(field) and all(field in one for one in required):
            return OneOf(field, tuple(dict.fromkeys(value for one in required for value in one[field])))
    return None


def _required_values(node: Filter | None) -> dict[str, tuple[Scalar, ...]]:
    match node:
        case Compare(field, Operator.EQUAL, value):
            return {field: (value,)}
        case OneOf(field, values):
            return {field: values}
        case filters.All(parts):
            return {field: values for child in parts for field, values in _required_values(child).items()}
        case _:
            return {}
