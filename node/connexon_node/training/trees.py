"""Local work of boosted trees, on XGBoost: trees added to the federation's, no leaf of which rests on few donors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.learning import models
from connexon.learning.models import TREES
from connexon.learning.recipe import BoostedTrees, Recipe

Arrays = Mapping[str, NDArray[Any]]


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
    settings = parameters(recipe, donors, minimum=minimum)
    booster = models.load_trees(arrays[TREES])
    if booster is None:
        booster = xgboost.train(settings, matrix, num_boost_round=model.trees_per_round)
    else:
        booster.set_param(settings)
        for _ in range(model.trees_per_round):
            booster.update(matrix, booster.num_boosted_rounds())
    whole = booster.num_boosted_rounds()
    new = booster[whole - model.trees_per_round : whole]
    leaves = numpy.asarray(new.predict(matrix, pred_leaf=True)).reshape(len(targets), -1)
    fewest = min(_fewest(leaves[:, tree], donors) for tree in range(leaves.shape[1]))
    given = new if recipe.strategy.name == "FedXgbBagging" else booster
    return {TREES: numpy.frombuffer(given.save_raw("json"), dtype=numpy.uint8)}, fewest


def parameters(recipe: Recipe, donors: NDArray[numpy.int32], *, minimum: int) -> dict[str, Any]:
    """What XGBoost is told.

    The weight of a leaf is the sum of second derivatives: 1 a row for numbers, at most 1/4 for classes. A donor has at
    most `heaviest` rows, so a leaf of `minimum` times that has at least `minimum` donors. The bins, among whose borders
    a split is sought, are so few that each holds about as many.
    """
    model = recipe.model
    assert isinstance(model, BoostedTrees)
    rows = numpy.bincount(donors)
    heaviest, people = int(rows.max(initial=1)), int(numpy.count_nonzero(rows))
    return {
        "objective": "binary:logistic" if recipe.classifies else "reg:squarederror",
        "base_score": 0.5 if recipe.classifies else 0.0,
        "tree_method": "hist",
        "max_bin": int(numpy.clip(people // max(minimum, 1), 2, 256)),
        "max_depth": model.depth,
        "eta": model.learning_rate,
        "lambda": model.l2,
        "min_child_weight": minimum * heaviest * (0.25 if recipe.classifies else 1.0),
        "seed": recipe.seed % 2**31,
        "nthread": 1,
        "verbosity": 0,
    }


def _fewest(leaves: NDArray[Any], donors: NDArray[numpy.int32]) -> int:
    pairs = numpy.unique(numpy.stack([leaves.astype(numpy.int64), donors.astype(numpy.int64)]), axis=1)
    return int(numpy.unique(pairs[0], return_counts=True)[1].min())
