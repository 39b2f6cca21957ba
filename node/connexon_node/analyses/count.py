"""Counting by groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Expression

from connexon.analyses.count import Count
from connexon.analyses.spec import Kind
from connexon.conditions.filters import Filter
from connexon.query.question import Question
from connexon_node.analyses.groups import MAXIMUM_CELLS, require_few, require_groupable
from connexon_node.analyses.spec import BEHIND, DONOR, NodeAnalysis, NodeTraits, NoisyTable, Rows, donors_behind
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.pipeline.values import Cell, CellTable


class CountRows(NodeAnalysis[Count]):
    """Count: one cell per combination of values that occurs; one cell in all where nothing is grouped by."""

    traits = NodeTraits("count", CellTable, may_be_referred=True)

    def reads_edition(self, analysis: Count) -> bool:
        """Private numbers are of the edition."""
        return analysis.kind is Kind.PRIVATE

    def condition(self, question: Question, analysis: Count) -> Filter | None:
        """The question's filter."""
        return question.filter

    def further_conditions(
        self, analysis: Count, dataset: Dataset, dictionary: Dictionary
    ) -> tuple[tuple[Dataset, Filter], ...]:
        """None."""
        return ()

    def fields(self, analysis: Count, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """The fields grouped by."""
        require_groupable(analysis.by, dataset, dictionary)
        return analysis.by

    def aggregate(self, analysis: Count, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: the fields grouped by, then records, donors and the donor of each record."""
        numbers = {"records": rows.count(), "donors": donors_behind(dataset, rows), BEHIND: rows[DONOR].collect()}
        if not analysis.by:
            return rows.aggregate(**numbers)
        return rows.group_by(list(analysis.by)).aggregate(**numbers).limit(MAXIMUM_CELLS + 1)

    def result(self, analysis: Count, results: Mapping[str, Rows]) -> CellTable:
        """A CellTable."""
        (rows,) = results.values()
        require_few(analysis.by, rows)
        places = len(analysis.by)
        return CellTable(analysis.by, tuple(Cell(row[:places], *row[places:]) for row in rows))  # type: ignore[arg-type]

    def noisy_table(self, analysis: Count, dataset: Dataset, dictionary: Dictionary) -> NoisyTable:
        """One number for each group."""
        return NoisyTable(analysis.by, analysis.unit, numbers=1, range=None)
