"""From a recipe's strategy to Flower's, unchanged; its options are Flower's own numeric parameters, by their names."""

from __future__ import annotations

import inspect
import math

from flwr.serverapp import strategy as flower_strategies
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg, Strategy

from connexon.learning.recipe import PrivacySide, Recipe, TrainingPrivacy
from connexon_hub.training.talk import RunEnded

_OURS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")
"""Set from the recipe's minimum_centers."""
_LOSS_KEY = "train_loss_key"


def strategy_of(recipe: Recipe, *, centers: int) -> Strategy:
    """The strategy that runs; `centers` is how many train. Raises RunEnded for an option that Flower does not know."""
    kind: type[FedAvg] = getattr(flower_strategies, recipe.strategy.name)
    known = inspect.signature(kind.__init__).parameters
    options: dict[str, int | float | str] = {}
    for name, value in recipe.strategy.options.items():
        if name not in known or name in _OURS or known[name].annotation not in (int, float):
            numeric = sorted(
                other for other, one in known.items() if one.annotation in (int, float) and other not in _OURS
            )
            raise RunEnded(
                f"{recipe.strategy.name} has no numeric option {name}; it has {', '.join(numeric)}.",
                code="recipe.strategy",
            )
        options[name] = _whole(name, value) if known[name].annotation is int else value
    if _LOSS_KEY in known:
        options[_LOSS_KEY] = "loss"
    try:
        made = kind(**options)  # type: ignore[arg-type]  # names and types are checked above
    except (TypeError, ValueError) as error:
        raise RunEnded(
            f"{recipe.strategy.name} does not take these options: {error}", code="recipe.strategy"
        ) from error
    made.min_train_nodes = made.min_evaluate_nodes = made.min_available_nodes = recipe.minimum_centers
    if recipe.privacy is None or recipe.privacy.side is PrivacySide.CENTER:
        return made
    return DifferentialPrivacyServerSideFixedClipping(
        made, noise_multiplier(recipe.privacy, recipe.rounds), recipe.privacy.clip, centers
    )


def noise_multiplier(privacy: TrainingPrivacy, rounds: int) -> float:
    """Standard deviation of the noise in units of the clip, so that all rounds together keep (epsilon, delta).

    The Gaussian mechanism with multiplier z is 1 / (2 z^2)-zCDP, rounds add up, and rho-zCDP is
    (rho + 2 sqrt(rho ln(1 / delta)), delta)-differential privacy (Bun and Steinke 2016, propositions 1.3 and 1.6 and
    lemma 1.7, doi 10.1007/978-3-662-53641-4_24).
    """
    wide = math.log(1 / privacy.delta)
    rho = (math.sqrt(wide + privacy.epsilon) - math.sqrt(wide)) ** 2
    return math.sqrt(rounds / (2 * rho))


def _whole(name: str, value: float) -> int:
    if value != int(value):
        raise RunEnded(f"The strategy's {name} is a whole number.", code="recipe.strategy")
    return int(value)
