"""Describing: how much of each dataset a purpose reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Expression

from connexon.analyses.describe import Describe
from connexon.conditions.filters import Filter
from connexon.query.question import Question
from connexon_node.analyses.spec import BEHIND, DONOR, NodeAnalysis, NodeTraits, Rows, donors_behind
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.pipeline.values import Offer, Reach


class DescribeReach(NodeAnalysis[Describe]):
    """Describe: records and donors of each dataset."""

    traits = NodeTraits("describe", Offer, may_be_referred=False)

    def reads_edition(self, analysis: Describe) -> bool:
        """The datasets of now are shown; their numbers of donors come from first-ask tables."""
        return False

    def condition(self, question: Question, analysis: Describe) -> Filter | None:
        """None."""
        return None

    def further_conditions(
        self, analysis: Describe, dataset: Dataset, dictionary: Dictionary
    ) -> tuple[tuple[Dataset, Filter], ...]:
        """None."""
        return ()

    def fields(self, analysis: Describe, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """None."""
        return ()

    def aggregate(self, analysis: Describe, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: records, donors and the donor of each record."""
        numbers = {"records": rows.count(), "donors": donors_behind(dataset, rows), BEHIND: rows[DONOR].collect()}
        return rows.aggregate(**numbers)

    def result(self, analysis: Describe, results: Mapping[str, Rows]) -> Offer:
        """An Offer, one reach per dataset."""
        return Offer(
            tuple(
                Reach(name, records, donors, behind)  # type: ignore[arg-type]
                for name, rows in results.items()
                for records, donors, behind in rows
            )
        )

    def noisy_table(self, analysis: Describe, dataset: Dataset, dictionary: Dictionary) -> None:
        """No table of its own: what it tells of donors, first-ask tables tell."""
        return
