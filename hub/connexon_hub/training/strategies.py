"""From a recipe's strategy to Flower's; its options are Flower's own numeric parameters, by their names."""

from __future__ import annotations

import inspect

from flwr.serverapp import strategy as flower_strategies
from flwr.serverapp.strategy import FedAvg

from connexon.learning.recipe import Recipe
from connexon_hub.training.bagging import Bagging
from connexon_hub.training.worker_protocol import RunEnded

_OURS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")
"""Set from the recipe's minimum_centers."""
_LOSS_KEY = "train_loss_key"


def strategy_of(recipe: Recipe) -> FedAvg:
    """The strategy that runs. Raises RunEnded for an option that Flower does not know."""
    trees = recipe.strategy.name == "FedXgbBagging"
    kind: type[FedAvg] = Bagging if trees else getattr(flower_strategies, recipe.strategy.name)
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
    if recipe.privacy is not None:
        # Centers evaluate once, when the last round is done: each evaluation with noise costs their account.
        made.fraction_evaluate = 0.0
    made.min_train_nodes = made.min_evaluate_nodes = made.min_available_nodes = recipe.minimum_centers
    return made


def _whole(name: str, value: float) -> int:
    if value != int(value):
        raise RunEnded(f"The strategy's {name} is a whole number.", code="recipe.strategy")
    return int(value)
