"""What an analysis is: a value that a question holds, and a spec that says everything the library must know of it.

A spec has no defaults. What it does not say, nobody assumes: an analysis without a spec is refused where it is met.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from connexon.conditions.filters import Filter
from connexon.identity.keys import CenterId
from connexon.v1 import answer_pb2, query_pb2

MAXIMUM_WITHIN = 1_000
"""The widest half-width that numbers with noise can be asked for."""


class Unit(Enum):
    """The unit of a count; `value` is its name in documents. Datasets that belong to nobody are counted in records."""

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


class Analysis:
    """One analysis with its parameters. Subclasses are frozen dataclasses that compare by content."""


@dataclass(frozen=True)
class Lookup:
    """Rows of another dataset that an analysis reads beside the rows asked about, found as `has` finds them.

    `dataset` may begin with a way, as in Has. `fields` are read of the rows that meet `filter`.
    """

    dataset: str
    filter: Filter | None
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Traits:
    """What a question with the analysis may hold beside it.

    `name` is the analysis's field in Query.analysis, its word in documents and in the audit log.
    """

    name: str
    takes_filter: bool
    takes_accuracy: bool
    """Whether `within` may be asked for."""
    has_price: bool
    """Whether the price may be asked for instead of the answer."""
    covers_all: bool
    """Whether no dataset may be named; then the question is about all that are offered."""


@dataclass(frozen=True)
class Sheet:
    """A table for people: texts in rows, with the columns that hold numbers set to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Combined:
    """What the centers' results come to together.

    `rows` tell the centers apart, `totals` do not; each is a dict with the keys of its columns. `notes` say in
    sentences what the numbers do not cover. `whole_sheets` show groups too that `sheets` leave out as unreadable; empty
    where these are the same. `misfits` are centers whose results cannot stand beside the others', each with a sentence;
    nothing of them is counted.
    """

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    total_columns: tuple[str, ...]
    totals: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    whole_sheets: tuple[Sheet, ...] = ()
    misfits: Mapping[CenterId, str] = field(default_factory=dict)


A = TypeVar("A", bound=Analysis)
R = TypeVar("R")


class AnalysisSpec(ABC, Generic[A, R]):
    """One analysis, as question and as answer: what every party must know of it. `R` is one center's result."""

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What a question with it may hold."""

    @abstractmethod
    def from_wire(self, wire: query_pb2.Query) -> A:
        """The analysis in a question whose `analysis` is this one. Raises InvalidQuery."""

    @abstractmethod
    def to_wire(self, analysis: A, wire: query_pb2.Query) -> None:
        """Write it into a question."""

    @abstractmethod
    def fields(self, analysis: A) -> tuple[str, ...]:
        """Every field of the rows asked about that it reads, paths included, beside those in the question's filter."""

    @abstractmethod
    def lookups(self, analysis: A) -> tuple[Lookup, ...]:
        """What it reads of other rows beside the question's filter."""

    @abstractmethod
    def kind(self, analysis: A) -> Kind | None:
        """What its numbers about persons are to be; None where the center decides that for each of them."""

    @abstractmethod
    def identity(self, analysis: A) -> dict[str, Any]:
        """As plain JSON values what makes two analyses ask for the same numbers, so that both get the same noise."""

    @abstractmethod
    def words(self, analysis: A, dataset: str) -> str:
        """As people read it, for example: count donors of cell_lines by type."""

    @abstractmethod
    def parameters(self, analysis: A) -> dict[str, Any]:
        """What was asked beside dataset and condition, for documents."""

    @abstractmethod
    def read(self, analysis: A, answer: answer_pb2.Answer) -> R:
        """The result in a released answer. Raises ResultUnreadable where it does not fit the question.

        Answers may come from newer nodes: a part that is unknown here and could change what a number means is refused.
        """

    @abstractmethod
    def combine(self, analysis: A, results: Mapping[CenterId, R], *, silent: int) -> Combined:
        """Put the released results together; `silent` more centers were asked and released nothing."""
