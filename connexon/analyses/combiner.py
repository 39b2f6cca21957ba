"""The promise every analysis keeps on the researcher's side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from connexon.analyses.spec import Analysis
from connexon.identity.keys import CenterId
from connexon.v1 import answer_pb2


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


class Combiner(Protocol):
    """Reads the results of one kind of analysis and puts those of several centers together."""

    name: str
    """How the analysis is called in documents, for example count."""

    def parameters(self, analysis: Analysis) -> dict[str, Any]:
        """What was asked beside dataset and condition, for documents."""
        ...

    def read(self, analysis: Analysis, answer: answer_pb2.Answer) -> Any:
        """The result in a released answer. Raises ResultUnreadable where it does not fit the question.

        Answers may come from newer nodes: a part that is unknown here and could change what a number means is refused.
        """
        ...

    def combine(self, analysis: Analysis, results: Mapping[CenterId, Any], *, silent: int) -> Combined:
        """Put the released results together; `silent` more centers were asked and released nothing."""
        ...
