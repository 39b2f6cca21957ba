"""Counting records and the donors behind them, by the values of fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Expression

from connexon.analyses.count import Count
from connexon.errors import InvalidQuery
from connexon.query.question import Question
from connexon_node.data.dictionary import Dataset, Dictionary, Field, relations
from connexon_node.engine.analyses.plan import BEHIND, DONOR, Rows, donors_behind
from connexon_node.pipeline.values import Cell, CellTable

MAXIMUM_CELLS = 20_000
"""Groups of one answer."""


class CountRows:
    """Count: one cell per combination of values that occurs; one cell in all where nothing is grouped by."""

    covers_all = False

    def fields(self, question: Question, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """The fields grouped by."""
        by = _fields(question)
        for path in by:
            _require_groupable(*relations.field_at(dictionary, dataset, path))
        return by

    def aggregate(self, question: Question, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: the fields grouped by, then records, donors and the donor of each record."""
        by = _fields(question)
        numbers = {"records": rows.count(), "donors": donors_behind(dataset, rows), BEHIND: rows[DONOR].collect()}
        if not by:
            return rows.aggregate(**numbers)
        return rows.group_by(list(by)).aggregate(**numbers).limit(MAXIMUM_CELLS + 1)

    def shape(self, question: Question, results: Mapping[str, Rows]) -> CellTable:
        """A CellTable."""
        by = _fields(question)
        rows = results[question.dataset]
        if len(rows) > MAXIMUM_CELLS:
            raise InvalidQuery(
                f"Grouping by {', '.join(by)} gives more than {MAXIMUM_CELLS} groups; group by fewer fields.",
                code="query.too_many_groups",
            )
        return CellTable(by, tuple(Cell(row[: len(by)], *row[len(by) :]) for row in rows))  # type: ignore[arg-type]


def _fields(question: Question) -> tuple[str, ...]:
    assert isinstance(question.analysis, Count)
    return question.analysis.by


def _require_groupable(dataset: Dataset, field: Field) -> None:
    if not field.groupable:
        groupable = ", ".join(other.name for other in dataset.offered if other.groupable)
        raise InvalidQuery(
            f"{dataset.name}.{field.name} has too many different values to count by; count by one of: {groupable}.",
            code="field.not_groupable",
        )
