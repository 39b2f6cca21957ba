"""Enrolling in a training run: the rows that a recipe would be trained on, and the donors behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any as Expression

from connexon.analyses.train import Train
from connexon.conditions.filters import Filter, OneOf
from connexon.query.question import Question
from connexon_node.analyses.recipes import checked_recipe, condition_of
from connexon_node.analyses.spec import BEHIND, DONOR, NodeAnalysis, NodeTraits, Rows, donors_behind
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.pipeline.values import Cell, Participation


class EnrolRows(NodeAnalysis[Train]):
    """Train: how many rows have what the recipe predicts."""

    traits = NodeTraits("train", Participation, may_be_referred=True)

    def reads_edition(self, analysis: Train) -> bool:
        """Whoever trains reads an edition: between two rounds, or runs, no import may show."""
        return True

    def condition(self, question: Question, analysis: Train) -> Filter | None:
        """The filter, and that the target has a value that the model could be told."""
        return condition_of(question)

    def further_conditions(
        self, analysis: Train, dataset: Dataset, dictionary: Dictionary
    ) -> tuple[tuple[Dataset, Filter], ...]:
        """That the target has the values of each class, and the rows of each set its keys."""
        recipe = analysis.recipe
        known = [tuple(value for value in one.values if value is not None) for one in recipe.target.classes]
        targets = [(dataset, OneOf(recipe.target.field, values)) for values in known if values]
        placed = checked_recipe(recipe, dataset, dictionary).sets
        return (*targets, *((one.dataset, OneOf(one.key.name, one.feature.keys)) for one in placed))

    def fields(self, analysis: Train, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """None beside what the filter names; the recipe is held against the dictionary."""
        checked_recipe(analysis.recipe, dataset, dictionary)
        return ()

    def aggregate(self, analysis: Train, dataset: Dataset, rows: Expression) -> Expression:
        """Columns: records, donors and the donor of each record."""
        numbers = {"records": rows.count(), "donors": donors_behind(dataset, rows), BEHIND: rows[DONOR].collect()}
        return rows.aggregate(**numbers)

    def result(self, analysis: Train, results: Mapping[str, Rows]) -> Participation:
        """A Participation."""
        ((found,),) = results.values()
        records, donors, behind = found
        return Participation(Cell((), records, donors, behind))  # type: ignore[arg-type]

    def noisy_table(self, analysis: Train, dataset: Dataset, dictionary: Dictionary) -> None:
        """None: what leaves of a model has an account of its own."""
        return
