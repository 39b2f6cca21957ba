"""Local work of boosted trees, on XGBoost: trees added to the federation's, no leaf of which rests on few donors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.learning import forest, models
from connexon.learning.models import TREES
from connexon.learning.recipe import BoostedTrees, Recipe

Arrays = Mapping[str, NDArray[Any]]
_SURE = 8
"""How much less than before the first tree a row weighs where the trees are sure: p = 0.03."""
_BISECTIONS = 5


@dataclass(frozen=True)
class _Grown:
    """XGBoost's trees with the new ones, the new ones alone, and the fewest donors that a new leaf rests on."""

    whole: Any
    new: Any
    fewest: int


def trained(
    recipe: Recipe,
    arrays: Arrays,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    donors: NDArray[numpy.int32],
    *,
    minimum: int,
) -> tuple[dict[str, NDArray[Any]], int]:
    """The new trees (FedXgbBagging) or all of them (FedXgbCyclic), and the fewest donors that a new leaf rests on."""
    xgboost, model = models.xgboost_module(), recipe.model
    assert isinstance(model, BoostedTrees)
    matrix = xgboost.DMatrix(inputs, label=targets, nthread=1)

    def grown(weight: float) -> _Grown:
        settings = parameters(recipe, donors, minimum=minimum, weight=weight)
        booster = _with_more(model, settings, models.load_trees(arrays[TREES]), matrix)
        whole = booster.num_boosted_rounds()
        new = booster[whole - model.trees_per_round : whole]
        leaves = numpy.asarray(new.predict(matrix, pred_leaf=True)).reshape(len(targets), -1)
        return _Grown(booster, new, min(_fewest(leaves[:, tree], donors) for tree in range(leaves.shape[1])))

    found = _branched(grown, donors, minimum=minimum, row=0.25 if recipe.classifies else 1.0)
    given = found.new if recipe.strategy.name == "FedXgbBagging" else found.whole
    # Beside what predicts, XGBoost says of every node how many rows came there.
    return {TREES: numpy.frombuffer(forest.bare(bytes(given.save_raw("json"))), dtype=numpy.uint8)}, found.fewest


def _branched(grown: Callable[[float], _Grown], donors: NDArray[numpy.int32], *, minimum: int, row: float) -> _Grown:
    """The trees with the lightest leaves that keep enough donors, found by bisection.

    XGBoost weighs a leaf by its second derivatives and knows no donors: a row weighs 1 for numbers and p (1 - p) for
    classes, 1/4 before the first tree and less the surer the trees are. A donor has at most `heaviest` rows, so a leaf
    as heavy as `minimum` times that has at least `minimum` donors. But where a few donors have most of the rows, or the
    trees are sure, no branch would be that heavy.
    """
    heaviest = int(numpy.bincount(donors).max(initial=1))
    heavy = minimum * heaviest * row
    light = heavy / heaviest / (_SURE if row < 1 else 1)
    found = grown(heavy)
    # Where every donor has one row of weight 1, there is nothing between light and heavy.
    for _ in range(_BISECTIONS if light < heavy else 0):
        middle = float(numpy.sqrt(light * heavy))
        tried = grown(middle)
        if tried.fewest >= minimum:
            found, heavy = tried, middle
        else:
            light = middle
    return found


def _with_more(model: BoostedTrees, settings: dict[str, Any], booster: Any, matrix: Any) -> Any:
    if booster is None:
        return models.xgboost_module().train(settings, matrix, num_boost_round=model.trees_per_round)
    booster.set_param(settings)
    for _ in range(model.trees_per_round):
        booster.update(matrix, booster.num_boosted_rounds())
    return booster


def parameters(recipe: Recipe, donors: NDArray[numpy.int32], *, minimum: int, weight: float) -> dict[str, Any]:
    """What XGBoost is told. The bins, among whose borders a split is sought, each hold about `minimum` donors."""
    model = recipe.model
    assert isinstance(model, BoostedTrees)
    people = int(numpy.count_nonzero(numpy.bincount(donors)))
    return {
        "objective": "binary:logistic" if recipe.classifies else "reg:squarederror",
        "base_score": 0.5 if recipe.classifies else 0.0,
        "tree_method": "hist",
        "max_bin": int(numpy.clip(people // max(minimum, 1), 2, 256)),
        "max_depth": model.depth,
        "eta": model.learning_rate,
        "lambda": model.l2,
        "min_child_weight": weight,
        "seed": recipe.seed % 2**31,
        "nthread": 1,
        "verbosity": 0,
    }


def _fewest(leaves: NDArray[Any], donors: NDArray[numpy.int32]) -> int:
    pairs = numpy.unique(numpy.stack([leaves.astype(numpy.int64), donors.astype(numpy.int64)]), axis=1)
    return int(numpy.unique(pairs[0], return_counts=True)[1].min())
