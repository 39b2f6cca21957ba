"""Enrolling in a training run: the rows that a recipe would be trained on, and the donors behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Expression

from connexon.query.question import Question
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.engine.analyses.plan import BEHIND, DONOR, Rows, donors_behind
from connexon_node.engine.recipes import checked_recipe, recipe_of
from connexon_node.pipeline.values import Cell, Participation


class EnrolRows:
    """Train: how many rows have what the recipe predicts."""

    covers_all = False

    def fields(self, question: Question, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """None beside what the filter names; the recipe is held against the dictionary."""
        checked_recipe(recipe_of(question), dataset, dictionary)
        return ()

    def aggregate(self, question: Question, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: records, donors and the donor of each record."""
        numbers = {"records": rows.count(), "donors": donors_behind(dataset, rows), BEHIND: rows[DONOR].collect()}
        return rows.aggregate(**numbers)

    def shape(self, question: Question, results: Mapping[str, Rows]) -> Participation:
        """A Participation."""
        ((records, donors, behind),) = results[question.dataset]
        return Participation(Cell((), records, donors, behind))  # type: ignore[arg-type]
