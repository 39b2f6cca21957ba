"""Metrics of a federation from those of its centers: what each center's evaluation says, put together.

Pure functions of numbers. A center's exact evaluation names num-examples and loss; of classes accuracy; of two classes
auc, auc-pairs (one of each class, so many pairs), auc-variance, mean-predicted and mean-observed. What a center could
not tell is 0 in it, with auc-pairs 0, and counts for nothing here.

An evaluation with noise names sums over donors, each with noise of standard deviation noise-scale: noisy-donors,
noisy-loss and of classes noisy-correct. A donor adds at most 1 to each; losses are in units of `loss_unit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from connexon.learning.recipe import Recipe

NOISY_DONORS, NOISY_LOSS, NOISY_CORRECT, NOISE_SCALE = "noisy-donors", "noisy-loss", "noisy-correct", "noise-scale"
NOISY = (NOISY_DONORS, NOISY_LOSS, NOISY_CORRECT, NOISE_SCALE)
"""What an evaluation with noise tells."""
Z = 1.959963984540054
"""Of a 95 % interval."""
SPREAD = ("loss", "auc", "accuracy")
"""What is compared between centers."""


def combine_evaluations(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The federation's metrics from each center's, as far as they can be told.

    loss, accuracy      means over all rows
    auc                 see `stratified_auc`; auc-low and auc-high are its 95 % interval
    calibration         in the large: mean observed less mean predicted, 0 at best, above 0 where the model says too
                        little (Van Calster et al. 2019, doi 10.1186/s12916-019-1466-7)
    """
    told = [part for part in parts.values() if _rows(part) > 0]
    combined: dict[str, float] = {}
    for name in ("loss", "accuracy"):
        having = [part for part in told if name in part]
        if having:
            combined[name] = _mean(having, name)
    combined.update(stratified_auc(parts))
    # A probability is never 0: where the mean of them is, the center has not told it.
    probable = [part for part in told if part.get("mean-predicted", 0.0) > 0]
    if probable:
        combined["calibration"] = _mean(probable, "mean-observed") - _mean(probable, "mean-predicted")
    return combined


def loss_unit(recipe: Recipe) -> float:
    """The largest loss that a row counts with where evaluations have noise: the most that one donor adds to a sum.

    Of classes twice the loss of a guess at random; of a number that of a guess a half range off.
    """
    if recipe.classifies:
        return 2 * math.log(len(recipe.target.classes))
    low, high = recipe.target.range or (0.0, 0.0)
    return (high - low) ** 2 / 8


def combine_noisy(recipe: Recipe, parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The federation's loss and accuracy from evaluations with noise; nothing where donors drown in it.

    Sums are added up as they came, so that noise partly cancels, and divided by the noisy number of donors. The
    accuracy's 95 % interval is of the noise alone (delta method).
    """
    told = [part for part in parts.values() if NOISY_DONORS in part]
    donors = math.fsum(part[NOISY_DONORS] for part in told)
    noise = math.sqrt(math.fsum(part[NOISE_SCALE] ** 2 for part in told))
    if not donors > Z * noise:
        return {}
    share = math.fsum(part[NOISY_LOSS] for part in told) / donors
    combined = {"loss": min(1.0, max(0.0, share)) * loss_unit(recipe)}
    if recipe.classifies:
        accuracy = math.fsum(part.get(NOISY_CORRECT, 0.0) for part in told) / donors
        reach = Z * noise * math.sqrt(1 + accuracy**2) / donors
        bounds = (("accuracy", 0.0), ("accuracy-low", -reach), ("accuracy-high", reach))
        combined |= {name: min(1.0, max(0.0, accuracy + off)) for name, off in bounds}
    return combined


def stratified_auc(parts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """AUC over all pairs of rows that are of different class and of the same center, with a 95 % interval.

    Rows of different centers are not compared: that would need each row's score to leave, and would count
    differences between centers for the model. Weighted by pairs the centers' AUCs are the share of all such pairs in
    order; centers are independent, so its variance is the sum of theirs with the squares of these weights (each by
    Hanley & McNeil 1982, doi 10.1148/radiology.143.1.7063747). The interval is taken on the logit scale, so that it
    stays within 0 and 1 (Pepe 2003, The Statistical Evaluation of Medical Tests, 5.2); without an interval where all
    pairs are in order, or none: a variance of 0 is not certainty.
    """
    having = [part for part in parts.values() if part.get("auc-pairs", 0.0) > 0]
    pairs = math.fsum(part["auc-pairs"] for part in having)
    if not pairs > 0:
        return {}
    auc = math.fsum(part["auc"] * part["auc-pairs"] for part in having) / pairs
    variance = math.fsum(part.get("auc-variance", 0.0) * (part["auc-pairs"] / pairs) ** 2 for part in having)
    if not (0 < auc < 1 and variance > 0):
        return {"auc": auc}
    logit = math.log(auc / (1 - auc))
    reach = Z * math.sqrt(variance) / (auc * (1 - auc))
    return {"auc": auc, "auc-low": _expit(logit - reach), "auc-high": _expit(logit + reach)}


def spread(parts: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """The least and the greatest of the centers' own loss, auc and accuracy, where at least two have told it."""
    spreads = {}
    for name in SPREAD:
        weight = "auc-pairs" if name == "auc" else "num-examples"
        values = [part[name] for part in parts.values() if name in part and part.get(weight, 0.0) > 0]
        if len(values) > 1:
            spreads[name] = (min(values), max(values))
    return spreads


def _rows(part: Mapping[str, float]) -> float:
    return part.get("num-examples", 0.0)


def _mean(parts: list[Mapping[str, float]], name: str) -> float:
    rows = math.fsum(_rows(part) for part in parts)
    return math.fsum(part.get(name, 0.0) * _rows(part) for part in parts) / rows


def _expit(logit: float) -> float:
    # Written so that no power overflows.
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1 + power)
