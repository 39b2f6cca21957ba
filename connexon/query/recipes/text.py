"""Recipes written as the YAML that connexon.query.recipes.file reads back: of a model, to train it again."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator

from connexon.conditions.filters import Scalar
from connexon.conditions.where_text import to_text as condition_text
from connexon.learning.recipe import (
    KINDS,
    ROUND_SECONDS,
    BoostedTrees,
    Feature,
    FeatureSet,
    FieldFeature,
    Model,
    Perceptron,
    Recipe,
    Target,
)
from connexon.query.recipes.file import RecipeFile
from connexon.query.recipes.yaml import scalar_of

_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*\Z")


def to_text(file: RecipeFile) -> str:
    """The file: what it leaves out is as it is without."""
    return "\n".join(_lines(file)) + "\n"


def _lines(file: RecipeFile) -> Iterator[str]:
    recipe = file.recipe
    yield f"name: {_text(recipe.name)}"
    yield f"dataset: {_text(file.dataset)}"
    if file.filter is not None:
        yield f"where: {_quoted(condition_text(file.filter))}"
    yield from _target(recipe.target)
    yield "features:"
    for feature in recipe.features:
        yield from _feature(feature)
    yield "model:"
    yield from _model(recipe.model)
    yield "strategy:"
    yield f"  name: {recipe.strategy.name}"
    if recipe.strategy.options:
        yield "  options:"
        yield from (f"    {_text(name)}: {value!r}" for name, value in sorted(recipe.strategy.options.items()))
    yield f"rounds: {recipe.rounds}"
    yield from _rest(recipe)
    yield from _terms(file)


def _target(target: Target) -> Iterator[str]:
    yield "target:"
    yield f"  field: {_text(target.field)}"
    if target.classes:
        yield "  classes:"
        yield from (f"    {_text(one.name)}: {_list(map(_value, one.values))}" for one in target.classes)
    if target.range is not None:
        yield f"  range: {_list(map(repr, target.range))}"


def _feature(feature: Feature) -> Iterator[str]:
    match feature:
        case FieldFeature(field, None, ()):
            yield f"  - {_text(field)}"
        case FieldFeature(field, usual, values):
            yield f"  - field: {_text(field)}"
            if usual is not None:
                yield f"    range: {_list(map(repr, usual))}"
            if values:
                yield f"    values: {_list(map(_text, values))}"
        case FeatureSet():
            yield f"  - dataset: {_text(feature.dataset)}"
            yield f"    key: {_text(feature.key)}"
            yield f"    keys: {_list(map(_text, feature.keys))}"
            yield f"    value: {_text(feature.value)}"
            if feature.filter is not None:
                yield f"    where: {_quoted(condition_text(feature.filter))}"
            if feature.log2:
                yield "    log2: true"
            if feature.range is not None:
                yield f"    range: {_list(map(repr, feature.range))}"


def _model(model: Model) -> Iterator[str]:
    yield f"  kind: {KINDS[type(model)]}"
    match model:
        case BoostedTrees():
            yield f"  trees_per_round: {model.trees_per_round}"
            yield f"  depth: {model.depth}"
            yield f"  learning_rate: {model.learning_rate!r}"
        case _:
            if isinstance(model, Perceptron):
                yield f"  hidden: {_list(map(str, model.hidden))}"
            yield f"  learning_rate: {model.work.learning_rate!r}"
            yield f"  epochs: {model.work.epochs}"
            yield f"  batch: {model.work.batch}"
    yield f"  l2: {model.l2!r}"


def _rest(recipe: Recipe) -> Iterator[str]:
    if recipe.stopping is not None:
        yield "stop:"
        yield f"  metric: {recipe.stopping.metric}"
        yield f"  patience: {recipe.stopping.patience}"
        yield f"  minimum_change: {recipe.stopping.minimum_change!r}"
    if recipe.privacy is None:
        yield "privacy: exact"
    else:
        yield "privacy:"
        yield f"  epsilon: {recipe.privacy.epsilon!r}"
        yield f"  delta: {recipe.privacy.delta!r}"
        yield f"  clip: {recipe.privacy.clip!r}"
    if recipe.held_out or recipe.held_out_centers:
        yield "evaluate:"
        if recipe.held_out:
            yield f"  held_out: {recipe.held_out!r}"
        if recipe.held_out_centers:
            yield f"  held_out_centers: {_list(map(_text, recipe.held_out_centers))}"
    yield f"minimum_centers: {recipe.minimum_centers}"
    if recipe.round_seconds != ROUND_SECONDS:
        yield f"round_seconds: {recipe.round_seconds!r}"
    if recipe.seed:
        yield f"seed: {recipe.seed}"


def _terms(file: RecipeFile) -> Iterator[str]:
    if file.centers:
        yield f"centers: {_list(map(_text, file.centers))}"
    for name, text in (
        ("purpose", file.purpose),
        ("project", file.project),
        ("ethics_approval", file.ethics_approval),
    ):
        if text:
            yield f"{name}: {_text(text)}"
    if file.commercial:
        yield "commercial: true"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(texts)}]"


def _value(value: Scalar | None) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case datetime.date():
            return value.isoformat()
        case str():
            return _text(value)
        case _:
            return repr(value)


def _text(text: str) -> str:
    return text if _BARE.match(text) and isinstance(scalar_of(text), str) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() and ord(char) < 0xFFFE else f"\\U{ord(char):08x}"
