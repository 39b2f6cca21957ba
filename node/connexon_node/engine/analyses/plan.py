"""What an analysis must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any as Expression
from typing import Protocol

from connexon.query.question import Question
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.pipeline.values import CellTable, Offer, Participation

DONOR = "_donor"
"""The hidden column of every dataset: the donor number of the row."""
BEHIND = "behind"
"""The column of an aggregate that lists the donor of each record."""
Rows = Sequence[tuple[object, ...]]
"""What running one expression gave, in its column order; lists of donors are int32 arrays."""


class AnalysisPlan(Protocol):
    """One analysis of the question language."""

    covers_all: bool
    """Whether a question without a dataset is meant for all that are offered."""

    def fields(self, question: Question, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """The fields, paths included, that the aggregate needs columns of. Raises InvalidQuery."""
        ...

    def aggregate(self, question: Question, dataset: Dataset, rows: Expression) -> Expression:
        """The ibis expression to run over one dataset's rows. Raises InvalidQuery."""
        ...

    def shape(self, question: Question, results: Mapping[str, Rows]) -> CellTable | Offer | Participation:
        """The result for release, from what each dataset gave. Raises InvalidQuery where it is too large."""
        ...


def donors_behind(dataset: Dataset, rows: Expression) -> Expression:
    """The number of distinct donors among rows, without counting distinctly where each donor has one row."""
    return rows.count() if dataset.one_row_per_donor else rows[DONOR].nunique()
