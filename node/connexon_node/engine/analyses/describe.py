"""Describing: how much of each dataset a purpose reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Expression

from connexon.query.question import Question
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.engine.analyses.plan import BEHIND, DONOR, Rows, donors_behind
from connexon_node.pipeline.values import Offer, Reach


class DescribeReach:
    """Describe: records and donors of each dataset."""

    covers_all = True

    def fields(self, question: Question, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """None."""
        return ()

    def aggregate(self, question: Question, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: records, donors and the donor of each record."""
        numbers = {"records": rows.count(), "donors": donors_behind(dataset, rows), BEHIND: rows[DONOR].collect()}
        return rows.aggregate(**numbers)

    def shape(self, question: Question, results: Mapping[str, Rows]) -> Offer:
        """An Offer, one reach per dataset."""
        return Offer(
            tuple(
                Reach(name, records, donors, behind)  # type: ignore[arg-type]
                for name, rows in results.items()
                for records, donors, behind in rows
            )
        )
