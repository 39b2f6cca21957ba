"""Recipes as files for people: what is trained, on which rows, at which centers and why, in YAML.

`connexon train --example` prints one with every part explained. Strict: what is not known is refused, with the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from connexon.conditions import where, wire_filter
from connexon.conditions.filters import Filter
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId, center_id
from connexon.learning import wire_recipe
from connexon.learning.recipe import (
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
from connexon.query import purpose as purposes
from connexon.query.recipes import yaml as recipe_yaml
from connexon.query.recipes.yaml import Place, RecipeUnreadable, place_of
from connexon.suggest import hint

__all__ = ["RecipeFile", "RecipeUnreadable", "example", "load", "of_mapping", "read"]

PARTS = (
    *("name", "dataset", "where", "target", "features", "model", "strategy", "rounds", "stop", "privacy", "evaluate"),
    *("centers", "minimum_centers", "round_seconds", "seed", "purpose", "project", "ethics_approval", "commercial"),
)
REQUIRED = ("name", "dataset", "target", "features", "model", "rounds")
_SET_PARTS = ("dataset", "key", "keys", "value", "where", "log2", "range")
_FIELD_PARTS = ("field", "range", "values")
EXACT = "exact"
"""In place of what `privacy` asks for: updates without noise, where a center has granted them."""
_GRADIENT: dict[str, type[Linear | Logistic | Multinomial]] = {
    "linear": Linear,
    "logistic": Logistic,
    "multinomial": Multinomial,
}
_MODEL_PARTS = {
    **dict.fromkeys(_GRADIENT, ("kind", "learning_rate", "epochs", "batch", "l2")),
    "perceptron": ("kind", "hidden", "learning_rate", "epochs", "batch", "l2"),
    "boosted_trees": ("kind", "trees_per_round", "depth", "learning_rate", "l2"),
}
_BY_WIRE = {"held_out": "evaluate", "held_out_centers": "evaluate", "stopping": "stop", "strategy.": "strategy.options"}
"""What the wire calls otherwise than the file."""


@dataclass(frozen=True)
class RecipeFile:
    """A recipe and the question around it: its rows, the centers (none named: all), and why."""

    recipe: Recipe
    dataset: str
    filter: Filter | None = None
    centers: tuple[CenterId, ...] = ()
    purpose: str = ""
    project: str = ""
    ethics_approval: str = ""
    commercial: bool = False


def example() -> str:
    """A recipe with every part explained."""
    return Path(__file__).with_name("example.yaml").read_text(encoding="utf-8")


def load(path: Path) -> RecipeFile:
    """Read a file. Raises RecipeUnreadable."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeUnreadable(
            f"{path} cannot be read as a recipe. Begin with:  connexon train --example > {path.name}"
        ) from error
    return read(text, path.name)


def of_mapping(parts: Mapping[str, Any]) -> RecipeFile:
    """The same from a Python mapping with the parts of a file. Raises RecipeUnreadable."""
    yaml = recipe_yaml.yaml_module()
    try:
        text = yaml.safe_dump(dict(parts), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise RecipeUnreadable("The recipe holds something other than texts, numbers, lists and mappings.") from error
    return read(text, "the recipe")


def read(text: str, name: str = "the recipe") -> RecipeFile:
    """Read a recipe; `name` is how it is called in complaints. Raises RecipeUnreadable."""
    top = recipe_yaml.read(text, name)
    parts = top.mapping(PARTS, required=REQUIRED)
    file = RecipeFile(
        recipe=_recipe(parts),
        dataset=_path(parts["dataset"], "dataset"),
        filter=_where(parts),
        centers=_centers(parts.get("centers")),
        purpose=_purpose(parts.get("purpose")),
        project=parts["project"].text() if "project" in parts else "",
        ethics_approval=parts["ethics_approval"].text() if "ethics_approval" in parts else "",
        commercial=parts["commercial"].flag() if "commercial" in parts else False,
    )
    return replace(file, recipe=_checked(file.recipe, top))


def _checked(recipe: Recipe, top: Place) -> Recipe:
    """The recipe as centers will read it: what they would refuse is refused here, at its line."""
    try:
        return wire_recipe.from_bytes(wire_recipe.to_bytes(recipe))
    except wire_recipe.RecipeWrong as error:
        first, dot, rest = error.place.partition(".")
        path = f"{_BY_WIRE.get(first, first)}{dot}{rest}"
        place = place_of(top.source.places, f"evaluate.{first}" if path == "evaluate" else path) or top
        place.refuse(f"{place.path or path}: allowed is {error.allowed}.")
    except InvalidQuery as error:
        top.refuse(error.public)


def _recipe(parts: Mapping[str, Place]) -> Recipe:
    kind, model = _model(parts["model"])
    target = _target(parts["target"])
    evaluate = parts["evaluate"].mapping(("held_out", "held_out_centers")) if "evaluate" in parts else {}
    return Recipe(
        name=parts["name"].text(),
        target=target,
        features=tuple(_feature(one) for one in parts["features"].items()),
        model=model,
        rounds=parts["rounds"].whole(),
        strategy=_strategy(parts.get("strategy"), kind),
        held_out=evaluate["held_out"].number() if "held_out" in evaluate else 0.0,
        stopping=_stopping(parts.get("stop")),
        privacy=_privacy(parts.get("privacy"), target),
        held_out_centers=_centers(evaluate.get("held_out_centers")),
        minimum_centers=parts["minimum_centers"].whole() if "minimum_centers" in parts else 2,
        round_seconds=parts["round_seconds"].number() if "round_seconds" in parts else ROUND_SECONDS,
        seed=parts["seed"].whole() if "seed" in parts else 0,
    )


def _target(place: Place) -> Target:
    if place.is_scalar:
        return Target(_path(place))
    parts = place.mapping(("field", "classes", "range"), required=("field",))
    return Target(_path(parts["field"]), _classes(parts["classes"]) if "classes" in parts else (), _range(parts))


def _classes(place: Place) -> tuple[TargetClass, ...]:
    """`failed: [false]`: a name and its values, null for a missing one; in a list each value is its own name."""
    if place.is_mapping:
        return tuple(
            TargetClass(name, tuple(one.value_or_none() for one in ([part] if part.is_scalar else part.items())))
            for name, part in place.pairs()
        )
    return tuple(TargetClass(one.text(), (one.value(),)) for one in place.items())


def _feature(place: Place) -> Feature:
    if place.is_scalar:
        return FieldFeature(_path(place))
    if any(name == "field" for name, _ in place.pairs()):
        parts = place.mapping(_FIELD_PARTS, required=("field",))
        values = tuple(one.text() for one in parts["values"].items()) if "values" in parts else ()
        return FieldFeature(_path(parts["field"]), _range(parts), values)
    parts = place.mapping(_SET_PARTS, required=("dataset", "key", "keys", "value"))
    return FeatureSet(
        dataset=_path(parts["dataset"], "dataset"),
        key=_path(parts["key"]),
        keys=tuple(one.text() for one in parts["keys"].items()),
        value=_path(parts["value"]),
        filter=_where(parts),
        log2=parts["log2"].flag() if "log2" in parts else False,
        range=_range(parts),
    )


def _model(place: Place) -> tuple[str, Model]:
    every = tuple(dict.fromkeys(name for names in _MODEL_PARTS.values() for name in names))
    parts = place.mapping(every, required=("kind",))
    kind = _one_of(parts["kind"], _MODEL_PARTS)
    place.mapping(_MODEL_PARTS[kind])
    l2 = parts["l2"].number() if "l2" in parts else 0.0
    if kind == "boosted_trees":
        return kind, _trees(parts)
    if "learning_rate" not in parts:
        place.refuse("'learning_rate' is missing in model: how far one step goes; try 0.1 first.")
    work = LocalWork(
        learning_rate=parts["learning_rate"].number(),
        epochs=parts["epochs"].whole() if "epochs" in parts else 1,
        batch=parts["batch"].whole() if "batch" in parts else 0,
    )
    if kind == "perceptron":
        if "hidden" not in parts:
            place.refuse("'hidden' is missing in model: the units of each hidden layer, for example [32, 16].")
        return kind, Perceptron(tuple(one.whole() for one in parts["hidden"].items()), work, l2)
    return kind, _GRADIENT[kind](work, l2)


def _trees(parts: Mapping[str, Place]) -> BoostedTrees:
    usual = BoostedTrees()
    return BoostedTrees(
        trees_per_round=parts["trees_per_round"].whole() if "trees_per_round" in parts else usual.trees_per_round,
        depth=parts["depth"].whole() if "depth" in parts else usual.depth,
        learning_rate=parts["learning_rate"].number() if "learning_rate" in parts else usual.learning_rate,
        l2=parts["l2"].number() if "l2" in parts else usual.l2,
    )


def _strategy(place: Place | None, kind: str) -> Strategy:
    if place is None:
        return Strategy("FedXgbBagging") if kind == "boosted_trees" else Strategy()
    if place.is_scalar:
        return Strategy(_one_of(place, sorted(wire_recipe.STRATEGIES)))
    parts = place.mapping(("name", "options"), required=("name",))
    options = parts["options"].pairs() if "options" in parts else []
    place.source.places.update({part.path: part for _, part in options})
    return Strategy(
        _one_of(parts["name"], sorted(wire_recipe.STRATEGIES)), {name: part.number() for name, part in sorted(options)}
    )


def _stopping(place: Place | None) -> Stopping | None:
    if place is None:
        return None
    parts = place.mapping(("metric", "patience", "minimum_change"), required=("metric", "patience"))
    return Stopping(
        metric=_one_of(parts["metric"], wire_recipe.METRICS),
        patience=parts["patience"].whole(),
        minimum_change=parts["minimum_change"].number() if "minimum_change" in parts else 0.0,
    )


def _privacy(place: Place | None, target: Target) -> TrainingPrivacy | None:
    """With noise unless `exact` is said. Where a number is predicted, errors are as large as a quarter of its range."""
    usual = TrainingPrivacy()
    clip = usual.clip if target.range is None else (target.range[1] - target.range[0]) / 4
    if place is None:
        return replace(usual, clip=clip)
    if place.is_scalar:
        _one_of(place, [EXACT])
        return None
    parts = place.mapping(("epsilon", "delta", "clip"))
    return TrainingPrivacy(
        epsilon=parts["epsilon"].number() if "epsilon" in parts else usual.epsilon,
        delta=parts["delta"].number() if "delta" in parts else usual.delta,
        clip=parts["clip"].number() if "clip" in parts else clip,
    )


def _range(parts: Mapping[str, Place]) -> Range | None:
    if "range" not in parts:
        return None
    bounds = [one.number() for one in parts["range"].items()]
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        parts["range"].refuse("A range is two numbers, the lower one first: [0, 100].")
    return bounds[0], bounds[1]


def _where(parts: Mapping[str, Place]) -> Filter | None:
    if "where" not in parts:
        return None
    place = parts["where"]
    try:
        return where.parse(place.text())
    except InvalidQuery as error:
        place.refuse(error.public)


def _path(place: Place, what: str = "field") -> str:
    try:
        return wire_filter.path(place.text(), what)
    except InvalidQuery:
        place.refuse(f"{place.text()[:64]!r} is not the name of a {what}; connexon catalog shows them.")


def _centers(place: Place | None) -> tuple[CenterId, ...]:
    if place is None:
        return ()
    centers = []
    for one in [place] if place.is_scalar else place.items():
        try:
            centers.append(center_id(one.text()))
        except InvalidQuery as error:
            one.refuse(error.public)
    return tuple(centers)


def _purpose(place: Place | None) -> str:
    if place is None:
        return ""
    try:
        purposes.parse_purpose(place.text())
    except InvalidQuery as error:
        place.refuse(error.public)
    return place.text()


def _one_of(place: Place, known: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    text = place.text()
    if text not in known:
        place.refuse(f"{text[:64]!r} is not known here.{hint(text, known)} Known: {', '.join(known)}.")
    return text
