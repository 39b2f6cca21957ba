"""What a reply must be like before a strategy sees it: finite, of the right shapes, with the number of rows it signed.

Flower's strategies trust what they get: one number that is not finite would spoil the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from flwr.app import MetricRecord, RecordDict

from connexon.errors import Refused
from connexon.learning import forest, records
from connexon.learning.metrics import NOISE_SCALE, NOISY
from connexon.learning.models import TREES
from connexon.learning.preprocessing import Preprocessing, Summary, names_in
from connexon.learning.recipe import BoostedTrees, FeatureSet, Recipe
from connexon.v1 import answer_pb2

SUMMARY, TRAIN, EVALUATE = "query.summary", "train", "evaluate"
WEIGHT = "num-examples"
METRICS = frozenset({"loss", "accuracy", "auc", "auc-pairs", "auc-variance", "mean-predicted", "mean-observed"})
"""What an evaluation tells."""


class ReplyRefused(Refused):
    """A reply that must not be used."""

    code = "reply.refused"


@dataclass(frozen=True)
class Expected:
    """What a reply is measured by: what was asked."""

    action: str
    recipe: Recipe
    asked: RecordDict


def require_sound(content: RecordDict, result: answer_pb2.TaskResult, expected: Expected) -> None:
    """Raise Refused, of one kind or another, where a reply must not be used."""
    if expected.action == EVALUATE and result.examples == 0:
        raise ReplyRefused(
            "Too few of the center's donors were kept apart to say how good the model is there.", code="reply.too_few"
        )
    _require_weight(_metrics(content), result)
    records.require_finite(content)
    match expected.action:
        case "train":
            _require_arrays(content, expected)
        case "evaluate":
            if content.array_records:
                raise ReplyRefused("The reply to an evaluation holds arrays.", code="reply.unexpected")
            if expected.recipe.privacy is not None:
                _require_noisy(_metrics(content))
            else:
                _require_possible(_metrics(content), result.examples)
        case _:
            _require_summary(content, expected.recipe)


def _metrics(content: RecordDict) -> MetricRecord:
    found = content.metric_records
    if set(found) != {"metrics"}:
        raise ReplyRefused("The reply does not hold its metrics.", code="reply.unexpected")
    return found["metrics"]


def _require_weight(metrics: MetricRecord, result: answer_pb2.TaskResult) -> None:
    """The number of rows is the one that the center signed."""
    weight = metrics.get(WEIGHT)
    if not isinstance(weight, int) or weight <= 0 or weight != result.examples:
        raise ReplyRefused("The number of rows is not the one that the center signed.", code="reply.other_count")


def _require_possible(metrics: MetricRecord, rows: int) -> None:
    """Metrics that can be: one center that claims more would own what is said of the model."""
    # Twice as many rows of each class as there are of both: numbers of rows are rounded, and may stand for longer.
    most = {"auc-pairs": 4.0 * rows * rows, "loss": math.inf}
    for name, value in metrics.items():
        if name == WEIGHT:
            continue
        if name not in METRICS or not isinstance(value, int | float) or not 0 <= value <= most.get(name, 1.0):
            raise ReplyRefused(f"The metric {name[:40]} of an evaluation cannot be.", code="reply.bad_metric")


def _require_noisy(metrics: MetricRecord) -> None:
    """Sums with noise, which may lie below 0; that they are finite is known."""
    for name, value in metrics.items():
        if name != WEIGHT and (name not in NOISY or not isinstance(value, int | float)):
            raise ReplyRefused(f"The metric {name[:40]} of an evaluation cannot be.", code="reply.bad_metric")
    if set(NOISY[:2]) - set(metrics) or not float(cast("float", metrics.get(NOISE_SCALE, 0.0))) > 0:
        raise ReplyRefused("The evaluation does not say how wide its noise is.", code="reply.bad_metric")


def _require_arrays(content: RecordDict, expected: Expected) -> None:
    """The same arrays that were sent: names, types and shapes. Trees grow, within what was asked for."""
    if set(content.array_records) != {"arrays"} or content.config_records:
        raise ReplyRefused("The reply does not hold one set of arrays.", code="reply.unexpected")
    got, sent = records.specs(content.array_records["arrays"]), records.specs(expected.asked.array_records["arrays"])
    if isinstance(expected.recipe.model, BoostedTrees):
        if set(got) != {TREES} or got[TREES].dtype != "uint8" or len(got[TREES].shape) != 1:
            raise ReplyRefused("The reply does not hold trees.", code="reply.other_shape")
        _require_trees(content, expected, expected.recipe.model)
    elif got != sent:
        raise ReplyRefused("The reply's arrays are not shaped as those that were sent.", code="reply.other_shape")


def _require_trees(content: RecordDict, expected: Expected, model: BoostedTrees) -> None:
    """As many new trees as the recipe says, over the inputs there are; after those that were sent, or alone."""
    settings: Any = expected.asked.config_records["config"]
    inputs = Preprocessing.from_json(settings["preprocessing"]).width
    sound = partial(forest.require_sound, inputs=inputs, depth=model.depth, classifies=expected.recipe.classifies)
    got, sent = (one.array_records["arrays"][TREES].numpy().tobytes() for one in (content, expected.asked))
    alone = expected.recipe.strategy.name == "FedXgbBagging"
    if sound(got) != model.trees_per_round + (0 if alone else sound(sent)):
        raise ReplyRefused("The reply does not hold as many trees as the recipe asks for.", code="reply.other_shape")


def _require_summary(content: RecordDict, recipe: Recipe) -> None:
    """The moments of the recipe's columns, those of a set as numbers. Raises PreprocessingRefused."""
    told = Summary.from_records(content)
    sets = [isinstance(feature, FeatureSet) for feature in recipe.features for _ in names_in(feature)]
    if len(told.kinds) != len(sets) or any(
        kind != "number" for kind, of_set in zip(told.kinds, sets, strict=True) if of_set
    ):
        raise ReplyRefused("The summary has other columns than the recipe.", code="reply.other_shape")
