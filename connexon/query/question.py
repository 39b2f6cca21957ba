"""The question as Connexon thinks of it: frozen values, parsed once from the wire (connexon.query.wire_question).

The language is closed. What is not here cannot be asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from connexon.conditions.filters import Filter
from connexon.identity.keys import CenterId
from connexon.learning.recipe import Recipe


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
