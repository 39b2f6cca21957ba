"""How well a model does on rows it was not trained on, in numbers that can be combined over centers."""

from __future__ import annotations

import math
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.learning import metrics, models
from connexon.learning.recipe import Recipe


def metrics_of(recipe: Recipe, scores: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
    """Loss; of classes accuracy; of two classes AUC, its variance, and mean predicted and observed probability."""
    told = {"loss": models.loss(recipe, scores, targets)}
    if not recipe.classifies:
        return told
    two = len(recipe.target.classes) == 2
    chosen = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
    told["accuracy"] = float(numpy.mean(chosen == targets)) if len(targets) else 0.0
    if two:
        second = scores[:, 1] - scores[:, 0] if scores.shape[1] > 1 else scores[:, 0]
        chances = numpy.exp(-numpy.logaddexp(0, -second))
        told |= auc_of(second, targets == 1)
        told["mean-predicted"] = float(chances.mean()) if len(targets) else 0.0
        told["mean-observed"] = float(targets.mean()) if len(targets) else 0.0
    return told


def bounded_sums(
    recipe: Recipe, scores: NDArray[Any], targets: NDArray[Any], donors: NDArray[numpy.int32]
) -> NDArray[numpy.float64]:
    """Sums over donors: 1, the mean loss of their rows in units of `metrics.loss_unit`, of classes the share right.

    INVARIANT: a donor adds at most 1 to each, and what one adds depends on their own rows alone.
    """
    with numpy.errstate(over="ignore", invalid="ignore"):
        losses = models.losses(recipe, scores, targets) / metrics.loss_unit(recipe)
    told = [numpy.clip(numpy.nan_to_num(losses, nan=1.0), 0.0, 1.0)]
    if recipe.classifies:
        chosen = scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
        told.append((chosen == targets).astype(numpy.float64))
    people, who = numpy.unique(donors, return_inverse=True)
    rows = numpy.maximum(1, numpy.bincount(who, minlength=len(people)))
    shares = [numpy.bincount(who, weights=one, minlength=len(people)) / rows for one in told]
    return numpy.array([float(len(people)), *(float(one.sum()) for one in shares)])


def auc_of(scores: NDArray[Any], positive: NDArray[numpy.bool_]) -> dict[str, float]:
    """The area under the ROC curve, the pairs it is a share of, and its variance; zeros where there are no pairs.

    Mann and Whitney's statistic with ties counted half; variance after Hanley and McNeil, Radiology 1982,
    doi:10.1148/radiology.143.1.7063747.
    """
    many, others = int(positive.sum()), int((~positive).sum())
    if not many * others:
        return {"auc": 0.0, "auc-pairs": 0.0, "auc-variance": 0.0}
    _, place, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[place]
    auc = float((ranks[positive].sum() - many * (many + 1) / 2) / (many * others))
    return {"auc": auc, "auc-pairs": float(many * others), "auc-variance": variance_of(auc, many, others)}


def variance_of(auc: float, many: int, others: int) -> float:
    """Hanley and McNeil's variance of an AUC over so many positives and negatives."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (many - 1) * (first - auc**2) + (others - 1) * (second - auc**2)
    return max(0.0, spread / (many * others)) if math.isfinite(spread) else 0.0
