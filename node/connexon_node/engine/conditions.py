"""From a checked filter to an ibis condition.

Truth is three-valued, as in SQL (Kleene): a comparison with a missing field is neither true nor false, `not` of it
neither, and only rows for which the whole filter is true count. So `not (sex = 'male')` does not count a row whose
sex is missing; `not (sex = 'male' and type = 'ESC')` does where the type is known to be another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any as Expression

from connexon import question
from connexon.question import (
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
        case question.All(filters):
            return _balanced(operator.and_, [condition(child, many, table, found) for child in filters])
        case question.Any(filters):
            return _balanced(operator.or_, [condition(child, many, table, found) for child in filters])
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


def _among(column: Expression, values: tuple[Scalar, ...], *, many: bool) -> Expression:
    if many:
        # An empty list of values: false where the field was collected, missing where not.
        return _balanced(operator.or_, [column.contains(value) for value in values]) if values else column.length() < 0
    if len(values) == 1:
        # One value is an equality: engines skip what they need not read by it more readily than by a list.
        return column == values[0]
    return column.isin(values) if values else column != column


def _balanced(join: Callable[[Expression, Expression], Expression], conditions: list[Expression]) -> Expression:
    # A tree as shallow as can be: hundreds of conditions in a chain would exhaust the compiler's stack.
    while len(conditions) > 1:
        pairs = [join(*pair) for pair in zip(conditions[::2], conditions[1::2], strict=False)]
        conditions = pairs + ([conditions[-1]] if len(conditions) % 2 else [])
    return conditions[0]
