"""A recipe between its bytes and its values: strict, bounded, and the same both ways."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from google.protobuf.message import DecodeError, EncodeError

from connexon import strict
from connexon.conditions import wire_filter
from connexon.errors import InvalidQuery
from connexon.identity import keys as identity_keys
from connexon.learning.recipe import (
    MAXIMUM_CATEGORIES,
    ROUND_SECONDS,
    BoostedTrees,
    Feature,
    FeatureSet,
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Model,
    Multinomial,
    Perceptron,
    Range,
    Recipe,
    Stopping,
    Strategy,
    Target,
    TargetClass,
    TrainingPrivacy,
)
from connexon.v1 import recipe_pb2

MAXIMUM_ROUNDS = 1_000
MAXIMUM_FEATURES = 500
MAXIMUM_KEYS = 10_000
"""Keys of all feature sets together."""
MAXIMUM_CLASSES = 100
MAXIMUM_LAYERS = 8
MAXIMUM_UNITS = 16_384
MAXIMUM_OPTIONS = 20
MAXIMUM_EPOCHS = 1_000
MAXIMUM_ROUND_SECONDS = 86_400.0
MAXIMUM_BOUND = 1e12
"""Of a range."""
METRICS = ("loss", "auc", "accuracy")
STRATEGIES = frozenset(
    {
        "FedAvg",
        "FedProx",
        "FedAdam",
        "FedYogi",
        "FedAdagrad",
        "FedAvgM",
        "FedMedian",
        "FedTrimmedAvg",
        "MultiKrum",
        "Bulyan",
        "QFedAvg",
        "FedXgbBagging",
        "FedXgbCyclic",
    }
)
"""Of those that Flower ships, the ones a recipe may name. Not Krum: its model is the update of a single center."""
TREE_STRATEGIES = frozenset({"FedXgbBagging", "FedXgbCyclic"})

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?\Z")
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


class RecipeWrong(InvalidQuery):
    """A recipe with a value that is not allowed: `place` says where, `allowed` what would be."""

    code = "recipe.invalid"

    def __init__(self, place: str, allowed: str) -> None:
        super().__init__(f"The recipe's {place} is not right; allowed: {allowed}.")
        self.place, self.allowed = place, allowed


def to_bytes(recipe: Recipe) -> bytes:
    """The bytes of a recipe. Raises InvalidQuery where a value cannot be sent."""
    try:
        return _to_wire(recipe).SerializeToString(deterministic=True)
    except (ValueError, TypeError, DecodeError, EncodeError, RecursionError) as error:
        raise InvalidQuery("The recipe holds a value that cannot be sent.", code="recipe.invalid") from error


def from_bytes(data: bytes) -> Recipe:
    """Parse and check a recipe. Raises InvalidQuery with the place that is wrong."""
    wire = strict.parse(recipe_pb2.Recipe, data, what="recipe")
    if not _SLUG.match(wire.name):
        raise _wrong("name", "lower-case letters, digits and hyphens, at most 64")
    _whole(wire.rounds, 1, MAXIMUM_ROUNDS, "rounds")
    _number(wire.split.held_out, 0, 0.5, "held_out")
    recipe = Recipe(
        name=wire.name,
        target=_target(wire.target),
        features=_features(wire),
        model=_model(wire),
        rounds=wire.rounds,
        strategy=_strategy(wire.strategy),
        held_out=wire.split.held_out,
        stopping=_stopping(wire.stopping) if wire.HasField("stopping") else None,
        privacy=_privacy(wire.privacy) if wire.HasField("privacy") else None,
        held_out_centers=tuple(identity_keys.center_id(center) for center in wire.held_out_centers),
        minimum_centers=_whole(wire.minimum_centers, 1, 5_000, "minimum_centers"),
        round_seconds=_number(wire.round_seconds, 0, MAXIMUM_ROUND_SECONDS, "round_seconds") or ROUND_SECONDS,
        seed=_whole(wire.seed, 0, 2**63 - 1, "seed"),
    )
    _require_fitting(recipe)
    return recipe


def _require_fitting(recipe: Recipe) -> None:
    """What fields must agree on."""
    classes = len(recipe.target.classes)
    match recipe.model:
        case Linear() if classes:
            raise _wrong("target.classes", "none for a linear model, which predicts a number")
        case Logistic() if classes != 2:
            raise _wrong("target.classes", "two for a logistic model")
        case Multinomial() if classes < 2:
            raise _wrong("target.classes", "two or more for a multinomial model")
        case BoostedTrees() if classes not in (0, 2):
            raise _wrong("target.classes", "two, or none for a number, with boosted trees")
        case _:
            pass
    trees = isinstance(recipe.model, BoostedTrees)
    if trees != (recipe.strategy.name in TREE_STRATEGIES):
        raise _wrong("strategy", "FedXgbBagging or FedXgbCyclic with boosted trees, and with nothing else")
    if recipe.privacy is None:
        _require_summed(recipe)
    else:
        _require_private(recipe)
    if recipe.stopping is not None and recipe.stopping.metric != "loss" and not recipe.classifies:
        raise _wrong("stopping.metric", "loss where a number is predicted")
    if len(set(recipe.held_out_centers)) != len(recipe.held_out_centers):
        raise _wrong("held_out_centers", "each center once")


def _require_summed(recipe: Recipe) -> None:
    """Exact updates are added up before anybody but the hub sees them: never one center's alone."""
    if recipe.minimum_centers < 2:
        raise _wrong("minimum_centers", "2 or more with exact updates: one center's alone must not be told")
    if recipe.strategy.name == "MultiKrum" and recipe.strategy.options.get("num_nodes_to_select", 0) < 2:
        raise _wrong("strategy.num_nodes_to_select", "2 or more with MultiKrum: one center's alone must not be told")


def _require_private(recipe: Recipe) -> None:
    """What can be trained with noise: gradients of all rows, a number of rounds known beforehand, one evaluation."""
    if isinstance(recipe.model, BoostedTrees):
        raise _wrong("privacy", "exact with boosted trees, where a center has granted it: trees cannot be clipped")
    if recipe.strategy.name != "FedAvg":
        raise _wrong("strategy", "FedAvg with noise; others with privacy: exact, where a center has granted it")
    if (recipe.model.work.epochs, recipe.model.work.batch) != (1, 0):
        raise _wrong("model.epochs", "1, and no batch, with noise: a round is one step over all rows")
    if recipe.stopping is not None:
        raise _wrong("stopping.metric", "none with noise: the model is evaluated once, after the last round")
    if not recipe.classifies and recipe.target.range is None:
        raise _wrong("target.range", "[low, high] where a number is predicted with noise: between what it usually lies")


def _target(wire: recipe_pb2.Target) -> Target:
    classes = tuple(
        TargetClass(
            _text(one.name, "target.classes.name"), tuple(wire_filter.value_from_wire(value) for value in one.values)
        )
        for one in wire.classes
    )
    values = [value for one in classes for value in one.values]
    if (
        len(classes) > MAXIMUM_CLASSES
        or len(classes) == 1
        or any(not one.values for one in classes)
        or len({repr(value) for value in values}) != len(values)
        or len({one.name for one in classes}) != len(classes)
    ):
        raise _wrong("target.classes", f"2 to {MAXIMUM_CLASSES}, each with a name and values of its own, or none")
    if classes and wire.HasField("range"):
        raise _wrong("target.range", "none where classes are predicted")
    return Target(wire_filter.path(wire.field), classes, _range(wire, "target.range"))


def _features(wire: recipe_pb2.Recipe) -> tuple[Feature, ...]:
    if not 1 <= len(wire.features) <= MAXIMUM_FEATURES:
        raise _wrong("features", f"1 to {MAXIMUM_FEATURES}")
    features = tuple(_feature(one) for one in wire.features)
    if sum(len(one.keys) for one in features if isinstance(one, FeatureSet)) > MAXIMUM_KEYS:
        raise _wrong("features", f"at most {MAXIMUM_KEYS} keys in all")
    if len({repr(replace(one, range=None)) for one in features}) != len(features):
        raise _wrong("features", "each once")
    target = wire.target.field
    if any(isinstance(one, FieldFeature) and one.field == target for one in features):
        raise _wrong("features", "not the target itself")
    return features


def _feature(wire: recipe_pb2.Feature) -> Feature:
    match wire.WhichOneof("feature"):
        case "field":
            values = tuple(_text(value, "features.values") for value in wire.values)
            if len(values) > MAXIMUM_CATEGORIES or len(set(values)) != len(values):
                raise _wrong("features.values", f"at most {MAXIMUM_CATEGORIES}, each once")
            return FieldFeature(wire_filter.path(wire.field), _range(wire, "features.range"), values)
        case "set":
            one = wire.set
            keys = tuple(_text(key, "features.keys") for key in one.keys)
            if not keys or len(set(keys)) != len(keys):
                raise _wrong("features.keys", "at least one, each once")
            return FeatureSet(
                dataset=wire_filter.path(one.dataset, "dataset"),
                key=wire_filter.path(one.key),
                keys=keys,
                value=wire_filter.path(one.value),
                filter=wire_filter.FilterReader().read(one.filter, 1) if one.HasField("filter") else None,
                log2=one.log2,
                range=_range(wire, "features.range"),
            )
        case _:
            raise _wrong("features", "a field or a set each")


def _model(wire: recipe_pb2.Recipe) -> Model:
    match wire.WhichOneof("model"):
        case "linear":
            return Linear(_work(wire.linear.work), _l2(wire.linear.l2))
        case "logistic":
            return Logistic(_work(wire.logistic.work), _l2(wire.logistic.l2))
        case "multinomial":
            return Multinomial(_work(wire.multinomial.work), _l2(wire.multinomial.l2))
        case "perceptron":
            hidden = tuple(_whole(units, 1, MAXIMUM_UNITS, "model.hidden") for units in wire.perceptron.hidden)
            if not 1 <= len(hidden) <= MAXIMUM_LAYERS:
                raise _wrong("model.hidden", f"1 to {MAXIMUM_LAYERS} layers")
            return Perceptron(hidden, _work(wire.perceptron.work), _l2(wire.perceptron.l2))
        case "boosted_trees":
            trees = wire.boosted_trees
            return BoostedTrees(
                trees_per_round=_whole(trees.trees_per_round, 1, 100, "model.trees_per_round"),
                depth=_whole(trees.depth, 1, 12, "model.depth"),
                learning_rate=_positive(trees.learning_rate, 1, "model.learning_rate"),
                l2=_l2(trees.l2),
            )
        case _:
            raise _wrong("model", "one of linear, logistic, multinomial, perceptron, boosted_trees")


def _work(wire: recipe_pb2.LocalWork) -> LocalWork:
    return LocalWork(
        learning_rate=_positive(wire.learning_rate, 1_000, "model.learning_rate"),
        epochs=_whole(wire.epochs, 0, MAXIMUM_EPOCHS, "model.epochs") or 1,
        batch=_whole(wire.batch, 0, 10_000_000, "model.batch"),
    )


def _strategy(wire: recipe_pb2.Strategy) -> Strategy:
    if wire.name not in STRATEGIES:
        raise _wrong("strategy", f"one of {', '.join(sorted(STRATEGIES))}")
    if len(wire.options) > MAXIMUM_OPTIONS:
        raise _wrong("strategy", f"at most {MAXIMUM_OPTIONS} options")
    for name, value in wire.options.items():
        if not _OPTION.match(name) or not math.isfinite(value):
            raise _wrong(f"strategy.{name[:40]}", "a finite number")
    return Strategy(wire.name, dict(sorted(wire.options.items())))


def _stopping(wire: recipe_pb2.Stopping) -> Stopping:
    if wire.metric not in METRICS:
        raise _wrong("stopping.metric", f"one of {', '.join(METRICS)}")
    return Stopping(
        wire.metric,
        _whole(wire.patience, 1, MAXIMUM_ROUNDS, "stopping.patience"),
        _number(wire.minimum_change, 0, 1e9, "stopping.minimum_change"),
    )


def _privacy(wire: recipe_pb2.TrainingPrivacy) -> TrainingPrivacy:
    return TrainingPrivacy(
        epsilon=_positive(wire.epsilon, 100, "privacy.epsilon"),
        delta=_positive(wire.delta, 1e-3, "privacy.delta"),
        clip=_positive(wire.clip, 1e9, "privacy.clip"),
    )


def _range(wire: recipe_pb2.Target | recipe_pb2.Feature, place: str) -> Range | None:
    if not wire.HasField("range"):
        return None
    low, high = wire.range.low, wire.range.high
    if not -MAXIMUM_BOUND <= low < high <= MAXIMUM_BOUND:  # false for what is no number
        raise _wrong(place, "two numbers, the lower one first")
    return low, high


def _to_wire(recipe: Recipe) -> recipe_pb2.Recipe:
    wire = recipe_pb2.Recipe(
        name=recipe.name,
        target=recipe_pb2.Target(
            field=recipe.target.field,
            classes=[
                recipe_pb2.TargetClass(name=one.name, values=[wire_filter.value_to_wire(value) for value in one.values])
                for one in recipe.target.classes
            ],
        ),
        features=[_feature_to_wire(one) for one in recipe.features],
        split=recipe_pb2.Split(held_out=recipe.held_out),
        strategy=recipe_pb2.Strategy(name=recipe.strategy.name, options=dict(recipe.strategy.options)),
        rounds=recipe.rounds,
        held_out_centers=list(recipe.held_out_centers),
        minimum_centers=recipe.minimum_centers,
        round_seconds=recipe.round_seconds,
        seed=recipe.seed,
    )
    _range_to_wire(recipe.target.range, wire.target)
    _model_to_wire(recipe.model, wire)
    if recipe.stopping is not None:
        wire.stopping.metric = recipe.stopping.metric
        wire.stopping.patience = recipe.stopping.patience
        wire.stopping.minimum_change = recipe.stopping.minimum_change
    if recipe.privacy is not None:
        wire.privacy.epsilon = recipe.privacy.epsilon
        wire.privacy.delta = recipe.privacy.delta
        wire.privacy.clip = recipe.privacy.clip
    return wire


def _feature_to_wire(feature: Feature) -> recipe_pb2.Feature:
    wire = recipe_pb2.Feature()
    _range_to_wire(feature.range, wire)
    match feature:
        case FieldFeature(field, _, values):
            wire.field = field
            wire.values.extend(values)
            return wire
        case FeatureSet():
            wire.set.dataset, wire.set.key, wire.set.value = feature.dataset, feature.key, feature.value
            wire.set.keys.extend(feature.keys)
            wire.set.log2 = feature.log2
            if feature.filter is not None:
                wire.set.filter.CopyFrom(wire_filter.filter_to_wire(feature.filter))
            return wire


def _range_to_wire(found: Range | None, wire: recipe_pb2.Target | recipe_pb2.Feature) -> None:
    if found is not None:
        wire.range.low, wire.range.high = found


def _model_to_wire(model: Model, wire: recipe_pb2.Recipe) -> None:
    match model:
        case Linear(work, l2):
            wire.linear.l2 = l2
            wire.linear.work.CopyFrom(_work_to_wire(work))
        case Logistic(work, l2):
            wire.logistic.l2 = l2
            wire.logistic.work.CopyFrom(_work_to_wire(work))
        case Multinomial(work, l2):
            wire.multinomial.l2 = l2
            wire.multinomial.work.CopyFrom(_work_to_wire(work))
        case Perceptron(hidden, work, l2):
            wire.perceptron.hidden.extend(hidden)
            wire.perceptron.l2 = l2
            wire.perceptron.work.CopyFrom(_work_to_wire(work))
        case BoostedTrees():
            wire.boosted_trees.trees_per_round = model.trees_per_round
            wire.boosted_trees.depth = model.depth
            wire.boosted_trees.learning_rate = model.learning_rate
            wire.boosted_trees.l2 = model.l2


def _work_to_wire(work: LocalWork) -> recipe_pb2.LocalWork:
    return recipe_pb2.LocalWork(learning_rate=work.learning_rate, epochs=work.epochs, batch=work.batch)


def _l2(value: float) -> float:
    return _number(value, 0, 1e6, "model.l2")


def _text(text: str, place: str) -> str:
    if not 0 < len(text) <= 200:
        raise _wrong(place, "1 to 200 characters")
    return text


def _whole(value: int, low: int, high: int, place: str) -> int:
    if not low <= value <= high:
        raise _wrong(place, f"a whole number from {low} to {high}")
    return value


def _number(value: float, low: float, high: float, place: str) -> float:
    if not low <= value <= high:  # false for what is no number
        raise _wrong(place, f"a number from {low:g} to {high:g}")
    return value


def _positive(value: float, high: float, place: str) -> float:
    if not 0 < value <= high:
        raise _wrong(place, f"a number above 0, at most {high:g}")
    return value


def _wrong(place: str, allowed: str) -> RecipeWrong:
    return RecipeWrong(place, allowed)
