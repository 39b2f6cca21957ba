"""Conditions on the rows of a dataset: a closed language, as a tree."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum

Scalar = str | int | float | bool | datetime.date
"""A value of a field. Missing is `None`, which no comparison satisfies."""


class Operator(Enum):
    """How a field compares with a value; `value` is how it is written."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="


@dataclass(frozen=True)
class All:
    """Every one of the filters holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class Any:
    """At least one of the filters holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The filter does not hold. A comparison with a missing field holds neither way."""

    filter: Filter


@dataclass(frozen=True)
class Compare:
    """A field beside a value."""

    field: str
    operator: Operator
    value: Scalar


@dataclass(frozen=True)
class OneOf:
    """The field equals one of the values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Between:
    """low <= field <= high."""

    field: str
    low: Scalar
    high: Scalar


@dataclass(frozen=True)
class IsMissing:
    """The field was not collected."""

    field: str


@dataclass(frozen=True)
class Under:
    """The field is this ontology term or a descendant of it. A question that is sent has its id, never its name."""

    field: str
    term: str


@dataclass(frozen=True)
class Has:
    """At least one row of another dataset points to this one, directly or through others, and fulfils `filter`.

    `dataset` may begin with the way to the row that is pointed to, as in cell_line.karyotype_findings.
    """

    dataset: str
    filter: Filter | None = None


@dataclass(frozen=True)
class DescendsFrom:
    """The cell line (of a lot: its line) was derived from the line of this public name, in one step or several."""

    line: str


Filter = All | Any | Not | Compare | OneOf | Between | IsMissing | Under | Has | DescendsFrom
"""A condition. A field may be one of a row that this one points to: donor.sex, cell_line.donor.sex."""


def terms_in(node: Filter) -> list[str]:
    """The ontology terms that a condition names with `under`, or compares with."""
    match node:
        case All(filters) | Any(filters):
            return [term for child in filters for term in terms_in(child)]
        case Not(inside):
            return terms_in(inside)
        case Has(_, inside_other):
            return [] if inside_other is None else terms_in(inside_other)
        case Under(_, term):
            return [term]
        case Compare(_, _, str() as value):
            return [value]
        case OneOf(_, values):
            return [value for value in values if isinstance(value, str)]
        case _:
            return []
