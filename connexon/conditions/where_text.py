"""Conditions written as text, for people and documents; connexon.conditions.where reads the same text back."""

from __future__ import annotations

import datetime

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
    Scalar,
    Under,
)
from connexon.conditions.terms import CURIE

_KEYWORDS = frozenset(
    {"and", "or", "not", "in", "between", "under", "is", "missing", "true", "false", "has", "descends_from"}
)


def to_text(node: Filter) -> str:
    """The condition as `parse` reads it."""
    match node:
        case All(filters) | Any(filters):
            if len(filters) == 1:
                return to_text(filters[0])
            word = " and " if isinstance(node, All) else " or "
            return word.join(_grouped(child) for child in filters)
        case Not(IsMissing(field)):
            return f"{_field_text(field)} is not missing"
        case Not(OneOf() | Between() | Under() as leaf):
            return _leaf_text(leaf, " not")
        case Not(child):
            return f"not {_grouped(child)}"
        case Compare(field, operator, value):
            return f"{_field_text(field)} {operator.value} {to_text_value(value)}"
        case IsMissing(field):
            return f"{_field_text(field)} is missing"
        case Has(dataset, inside):
            return f"has {_field_text(dataset)}" + (f" ({to_text(inside)})" if inside is not None else "")
        case DescendsFrom(line):
            return f"descends_from({_quoted(line)})"
        case _:
            return _leaf_text(node, "")


def _grouped(node: Filter) -> str:
    text = to_text(node)
    return f"({text})" if isinstance(node, All | Any) and len(node.filters) > 1 else text


def _leaf_text(node: Filter, negation: str) -> str:
    match node:
        case OneOf(field, values):
            return f"{_field_text(field)}{negation} in ({', '.join(to_text_value(value) for value in values)})"
        case Between(field, low, high):
            return f"{_field_text(field)}{negation} between {to_text_value(low)} and {to_text_value(high)}"
        case Under(field, term):
            return f"{_field_text(field)}{negation} under {to_text_value(term)}"
        case _:
            raise TypeError(f"{type(node).__name__} is not a condition on one field")


def _field_text(field: str) -> str:
    return f"`{field}`" if _KEYWORDS.intersection(field.split(".")) else field


def to_text_value(value: Scalar) -> str:
    """A value as a condition writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return value if CURIE.match(value) else _quoted(value)
        case datetime.date():
            return value.isoformat()
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    return "'" + "".join(_escaped(char) for char in text) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"
