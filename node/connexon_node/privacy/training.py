"""What a training costs, by its recipe alone, and the noise that this buys: nothing else of it leaves a center.

One donor more or less changes the number of donors by one; the sum of clipped gradients by `clip` at most, since all
rows of a donor are one gradient; and the sums of an evaluation by one each. Rho adds up over them, and over rounds that
depend on earlier ones: the hub may send whatever model it likes (Bun and Steinke 2016, adaptive composition).
Donors who are kept apart to evaluate are in no update and the others in no evaluation, and who is kept apart depends on
the donor's own number alone: so the two cost each donor the larger of them and not their sum (parallel composition).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.learning.clipping import LARGEST_WEIGHT
from connexon.learning.recipe import BoostedTrees, Recipe
from connexon.zcdp import rho_of
from connexon_node.privacy.noise import Noise, half_width

OF_DONORS = 0.1
"""Share of the price that buys the number of donors, by which gradients are divided and centers weighed."""
OF_EVALUATION = 0.2
"""Share of the rest that buys the evaluation, where the same donors are trained on."""
_ROUNDING = 1e-6
"""By which the sensitivity is raised, for the rounding of sums."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TrainingPrice:
    """Rho of the number of donors, of each round's update and of the one evaluation; `rho` is what is charged."""

    rho: float
    donors: float
    update: float
    evaluation: float

    @classmethod
    def of(cls, recipe: Recipe) -> TrainingPrice:
        """The price of a recipe with privacy; the same at every center, also where nobody is trained on."""
        assert recipe.privacy is not None
        rho = rho_of(recipe.privacy.epsilon, recipe.privacy.delta)
        donors = OF_DONORS * rho
        rest = rho - donors
        apart = recipe.held_out > 0
        updates, evaluation = (rest, rest) if apart else (rest * (1 - OF_EVALUATION), rest * OF_EVALUATION)
        return cls(rho, donors, updates / recipe.rounds, evaluation)

    @property
    def counting(self) -> Noise:
        """The noise on the number of donors."""
        return Noise.of_scale(sensitivity=1.0, scale=1 / math.sqrt(2 * self.donors))

    def weight(self, donors: int) -> int:
        """By how many donors a center counts, from their noisy number: not so few that noise would be all there is."""
        return max(donors, half_width(self.counting.scale))

    def noisy_sums(self, recipe: Recipe, sums: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Sums of clipped gradients of one round, with noise on each number."""
        assert recipe.privacy is not None
        return _added(_noise(recipe.privacy.clip, self.update), sums)

    def noisy_evaluation(self, sums: NDArray[numpy.float64]) -> tuple[NDArray[numpy.float64], float]:
        """Sums to each of which one donor adds at most 1, with noise, and the noise's scale."""
        noise = _noise(math.sqrt(sums.shape[-1]), self.evaluation)
        return _added(noise, sums), noise.scale


def noisy_step(recipe: Recipe, price: TrainingPrice, start: Arrays, sums: Arrays, *, people: float) -> dict[str, Any]:
    """One step of gradient descent from sums of clipped gradients, which get noise; `people` is a noisy number."""
    assert not isinstance(recipe.model, BoostedTrees)
    flat = numpy.concatenate([values.astype(numpy.float64).reshape(-1) for values in sums.values()])
    drawn = price.noisy_sums(recipe, flat)
    new, at = {}, 0
    for name, values in sums.items():
        slope = drawn[at : at + values.size].reshape(values.shape) / people
        at += values.size
        if name == "coefficients" or name.endswith(".weight"):
            slope = slope + recipe.model.l2 * start[name]
        moved = start[name] - recipe.model.work.learning_rate * slope
        new[name] = numpy.clip(moved, -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(start[name].dtype)
    return new


def _noise(sensitivity: float, rho: float) -> Noise:
    return Noise(sensitivity=sensitivity * (1 + _ROUNDING), rho=rho, whole=False)


def _added(noise: Noise, exact: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    return numpy.array(noise.added(exact.reshape(-1).tolist()), dtype=numpy.float64).reshape(exact.shape)
