"""Training: which centers take part in a run, and how many donors stand behind each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connexon import strict
from connexon.analyses import noise as noises
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Analysis, AnalysisSpec, Combined, Kind, Lookup, Sheet, Traits
from connexon.conditions.where_text import to_text
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.learning import wire_recipe
from connexon.learning.recipe import KINDS, Feature, FeatureSet, FieldFeature, Recipe
from connexon.v1 import answer_pb2, query_pb2


@dataclass(frozen=True)
class Train(Analysis):
    """Train a model with other centers: whether this center takes part."""

    recipe: Recipe


@dataclass(frozen=True)
class Enrolled:
    """A center that takes part; `donors` as it released them, None where it does not say.

    With noise they lie within `half_width` of the exact number with 95 %; None where they are exact but for rounding.
    """

    donors: int | None
    half_width: int | None = None

    @property
    def words(self) -> str:
        """As people read it."""
        if self.donors is None:
            return "takes part"
        return f"takes part with {self.donors:,}{noises.plus_minus(self.half_width)} donors"


class TrainSpec(AnalysisSpec[Train, Enrolled]):
    """Centers are asked to take part in a training run."""

    traits = Traits("train", takes_filter=True, takes_accuracy=False, has_price=True, covers_all=False)

    def from_wire(self, wire: query_pb2.Query) -> Train:
        """See AnalysisSpec."""
        recipe = wire_recipe.from_bytes(wire.train.recipe)
        if not set(recipe.held_out_centers) < set(wire.centers):
            raise InvalidQuery(
                "The recipe's held_out_centers must be centers that are asked, and not all of them.",
                code="recipe.invalid",
            )
        return Train(recipe)

    def to_wire(self, analysis: Train, wire: query_pb2.Query) -> None:
        """See AnalysisSpec."""
        wire.train.recipe = wire_recipe.to_bytes(analysis.recipe)

    def fields(self, analysis: Train) -> tuple[str, ...]:
        """The target, and the features that are fields."""
        features = analysis.recipe.features
        return (analysis.recipe.target.field, *(one.field for one in features if isinstance(one, FieldFeature)))

    def lookups(self, analysis: Train) -> tuple[Lookup, ...]:
        """The features that are sets of other rows."""
        sets = (one for one in analysis.recipe.features if isinstance(one, FeatureSet))
        return tuple(Lookup(one.dataset, one.filter, (one.key, one.value)) for one in sets)

    def kind(self, analysis: Train) -> Kind:
        """With noise where the recipe asks for it."""
        return Kind.GRANTED if analysis.recipe.privacy is None else Kind.PRIVATE

    def identity(self, analysis: Train) -> dict[str, Any]:
        """The whole recipe."""
        return {"recipe": wire_recipe.to_bytes(analysis.recipe).hex()}

    def words(self, analysis: Train, dataset: str) -> str:
        """For example: train survival on cell_lines: outcome from type, passage_no."""
        recipe = analysis.recipe
        inputs = ", ".join(map(feature_in_words, recipe.features))
        return f"train {recipe.name} on {dataset}: {recipe.target.field} from {inputs}"

    def parameters(self, analysis: Train) -> dict[str, Any]:
        """The model asked for."""
        recipe = analysis.recipe
        return {
            "model": recipe.name,
            "kind": KINDS[type(recipe.model)],
            "target": recipe.target.field,
            "rounds": recipe.rounds,
            "minimum_centers": recipe.minimum_centers,
        }

    def read(self, analysis: Train, answer: answer_pb2.Answer) -> Enrolled:
        """One center's word that it takes part."""
        if answer.WhichOneof("result") != "enrolment":
            raise ResultUnreadable("The center's result does not fit the question.")
        try:
            strict.refuse_unknown(answer.enrolment, what="result")
        except InvalidQuery as error:
            raise ResultUnreadable(
                "The center's result holds something that cannot be read here; a newer connexon may."
            ) from error
        private = analysis.recipe.privacy is not None
        if private != answer.protection.HasField("noise"):
            raise ResultUnreadable("The center takes part otherwise than the recipe asks: with noise, or without.")
        width = math.ceil(answer.protection.noise.half_width) if private else None
        return Enrolled(answer.enrolment.donors if answer.enrolment.HasField("donors") else None, width)

    def combine(self, analysis: Train, results: Mapping[CenterId, Enrolled], *, silent: int) -> Combined:
        """A row for each center that takes part; one total, a lower bound where a center does not say how many."""
        recipe = analysis.recipe
        enrolled: dict[CenterId, Enrolled] = dict(sorted(results.items()))
        said = [one.donors for one in enrolled.values() if one.donors is not None]
        total = {
            "centers": len(enrolled),
            "donors": sum(said) if said else None,
            "at_least": len(said) < len(enrolled),
        }
        return Combined(
            columns=("center", "donors"),
            rows=tuple({"center": center, "donors": one.donors} for center, one in enrolled.items()),
            total_columns=("centers", "donors", "at_least"),
            totals=(total,) if enrolled else (),
            notes=_notes(recipe, len(enrolled), silent),
            sheets=(_sheet(recipe, total),) if enrolled else (),
        )


def feature_in_words(feature: Feature) -> str:
    """A feature of a recipe as people read it."""
    if isinstance(feature, FieldFeature):
        return feature.field
    condition = "" if feature.filter is None else f" where {to_text(feature.filter)}"
    return f"{feature.dataset}.{feature.value} of {len(feature.keys)} {feature.key}{condition}"


def _notes(recipe: Recipe, enrolled: int, silent: int) -> tuple[str, ...]:
    if enrolled >= recipe.minimum_centers:
        return ()
    centers = "1 center takes" if enrolled == 1 else f"{enrolled} centers take"
    hope = ", so far" if silent else ""
    return (f"{centers} part{hope}; the recipe wants at least {recipe.minimum_centers}.",)


def _sheet(recipe: Recipe, total: Mapping[str, Any]) -> Sheet:
    donors = "not said" if total["donors"] is None else f"{'≥ ' if total['at_least'] else ''}{total['donors']:,}"
    return Sheet(
        title="",
        columns=("model", "kind", "centers that take part", "donors"),
        rows=((recipe.name, KINDS[type(recipe.model)], str(total["centers"]), donors),),
        numbers=frozenset({2, 3}),
    )
