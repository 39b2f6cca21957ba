"""Training: which centers take part in a run, and how many donors stand behind each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connexon import strict
from connexon.analyses import noise as noises
from connexon.analyses import prices
from connexon.analyses.answer_bounds import ResultUnreadable
from connexon.analyses.prices import Priced
from connexon.analyses.spec import Analysis, Combined, Sheet
from connexon.analyses.train import Train
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.learning.recipe import (
    KINDS,
    Recipe,
)
from connexon.v1 import answer_pb2


@dataclass(frozen=True)
class Enrolled:
    """A center that takes part; `donors` as it released them, None where it does not say.

    With noise they lie within `half_width` of the exact number with 95 %; None where they are exact but for rounding.
    """

    donors: int | None
    half_width: float | None = None

    @property
    def words(self) -> str:
        """As people read it."""
        if self.donors is None:
            return "takes part"
        return f"takes part with {self.donors:,}{noises.plus_minus(self.half_width)} donors"


class Enrolling:
    """Reads who takes part in a training run."""

    name = "train"

    def parameters(self, analysis: Analysis) -> dict[str, Any]:
        """The model asked for."""
        recipe = _recipe(analysis)
        return {
            "model": recipe.name,
            "kind": KINDS[type(recipe.model)],
            "target": recipe.target.field,
            "rounds": recipe.rounds,
            "minimum_centers": recipe.minimum_centers,
        }

    def read(self, analysis: Analysis, answer: answer_pb2.Answer) -> Enrolled | Priced:
        """One center's word that it takes part, or the price of it."""
        if answer.WhichOneof("result") == "price":
            return prices.read(answer.price)
        if answer.WhichOneof("result") != "enrolment":
            raise ResultUnreadable("The center's result does not fit the question.")
        try:
            strict.refuse_unknown(answer.enrolment, what="result")
        except InvalidQuery as error:
            raise ResultUnreadable(
                "The center's result holds something that cannot be read here; a newer connexon may."
            ) from error
        private = _recipe(analysis).privacy is not None
        if private != answer.protection.HasField("noise"):
            raise ResultUnreadable("The center takes part otherwise than the recipe asks: with noise, or without.")
        width = answer.protection.noise.half_width if private else None
        return Enrolled(answer.enrolment.donors if answer.enrolment.HasField("donors") else None, width)

    def combine(self, analysis: Analysis, results: Mapping[CenterId, Any], *, silent: int) -> Combined:
        """A row for each center that takes part; one total, a lower bound where a center does not say how many.

        Of prices, a row for each center.
        """
        if results and all(isinstance(one, Priced) for one in results.values()):
            return prices.combined(results)
        recipe = _recipe(analysis)
        enrolled = {center: one for center, one in sorted(results.items()) if isinstance(one, Enrolled)}
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


def _recipe(analysis: Analysis) -> Recipe:
    if not isinstance(analysis, Train):
        raise TypeError(f"{type(analysis).__name__} is not a training")
    return analysis.recipe


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
