"""The question as Connexon thinks of it: frozen values, parsed once from the wire (connexon.query.wire_question).

The language is closed. What is not here cannot be asked.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum

from connexon.identity.keys import CenterId
from connexon.learning.recipe import Recipe

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
    """The field is this ontology term or a descendant of it."""

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


@dataclass(frozen=True)
class Purpose:
    """Why a question is asked, in DUO terms; see connexon.query.purpose for the words people use."""

    research: tuple[str, ...]
    disease: str = ""
    commercial_use: bool = False
    project: str = ""
    ethics_approval: str = ""


class Unit(Enum):
    """What is counted; `value` is its name in documents. Datasets that belong to nobody are counted in records."""

    DONORS = "donors"
    RECORDS = "records"


class Kind(Enum):
    """What numbers about persons are to be; `value` is its name in documents. Others are exact anyway."""

    PRIVATE = "private"
    """With noise that hides each person."""
    GRANTED = "granted"
    """Exact, where the center's steward has granted that to the researcher and project."""
    PUBLISHED = "published"
    """Exact, of what centers have published of their banks, by fields of the public catalog."""


@dataclass(frozen=True)
class Count:
    """Number of distinct donors, or of records, by the values of up to four fields."""

    by: tuple[str, ...] = ()
    unit: Unit = Unit.DONORS
    kind: Kind = Kind.PRIVATE


@dataclass(frozen=True)
class Describe:
    """What a center offers for the purpose."""


@dataclass(frozen=True)
class Train:
    """Train a model with other centers: whether this center takes part."""

    recipe: Recipe


Analysis = Count | Describe | Train


@dataclass(frozen=True)
class Question:
    """One researcher's question to named centers. Times are milliseconds since 1970-01-01 UTC.

    `within`: the half-width of the 95 % interval that numbers with noise must have at each center; None: the center's
    default. `price_only`: say what the answer would cost instead of answering.
    """

    query_id: str
    federation: str
    centers: tuple[CenterId, ...]
    issued_at_ms: int
    expires_at_ms: int
    purpose: Purpose
    dataset: str
    filter: Filter | None
    analysis: Analysis
    within: int | None = None
    price_only: bool = False
