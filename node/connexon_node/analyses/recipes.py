"""A recipe held against the dictionary: every field offered, every kind one that a model can take."""

from __future__ import annotations

from dataclasses import dataclass

from connexon.analyses.train import Train
from connexon.conditions.filters import All, Any, Filter, IsMissing, Not, OneOf, Scalar
from connexon.errors import InvalidQuery
from connexon.learning.preprocessing import Kind
from connexon.learning.recipe import FeatureSet, FieldFeature, Recipe
from connexon.query.question import Question
from connexon_node.data.dictionary import Dataset, Dictionary, Field, FieldType, relations

_NUMBERS = (FieldType.NUMBER, FieldType.INTEGER)


@dataclass(frozen=True)
class PlacedSet:
    """A feature set with the dataset its rows are in, and its key and value there."""

    feature: FeatureSet
    dataset: Dataset
    key: Field
    value: Field


@dataclass(frozen=True)
class CheckedRecipe:
    """What the dictionary says of a recipe's fields. `kinds` are of the field features, in order."""

    target: Field
    fields: tuple[str, ...]
    kinds: tuple[Kind, ...]
    sets: tuple[PlacedSet, ...]


def recipe_of(question: Question) -> Recipe:
    """The recipe of a question that asks for training."""
    assert isinstance(question.analysis, Train)
    return question.analysis.recipe


def checked_recipe(recipe: Recipe, dataset: Dataset, dictionary: Dictionary) -> CheckedRecipe:
    """Raises InvalidQuery that names the field and what could be asked instead."""
    if not dataset.personal:
        raise InvalidQuery(
            f"{dataset.name} belong to nobody, so no consent could cover a model of them; train on personal data.",
            code="recipe.invalid",
        )
    _, target = relations.field_at(dictionary, dataset, recipe.target.field)
    _require_single(target, recipe.target.field)
    if not recipe.classifies and target.type not in _NUMBERS:
        raise InvalidQuery(
            f"{recipe.target.field} holds {target.type.value}, which is no number: name its classes.",
            code="recipe.invalid",
        )
    fields = tuple(one.field for one in recipe.features if isinstance(one, FieldFeature))
    kinds = tuple(_kind(relations.field_at(dictionary, dataset, path)[1], path) for path in fields)
    sets = tuple(_placed(one, dataset, dictionary) for one in recipe.features if isinstance(one, FeatureSet))
    return CheckedRecipe(target, fields, kinds, sets)


def condition_of(question: Question) -> Filter | None:
    """The filter of a question that asks for training, and that the target has a value that the model could be told."""
    target = recipe_of(question).target
    known: Filter = Not(IsMissing(target.field))
    if target.classes:
        known = having(target.field, tuple(value for one in target.classes for value in one.values))
    return known if question.filter is None else All((question.filter, known))


def having(field: str, values: tuple[Scalar | None, ...]) -> Filter:
    """The condition that a field has one of these values; None is a missing one."""
    present = tuple(value for value in values if value is not None)
    conditions: list[Filter] = [OneOf(field, present)] if present else []
    if len(present) < len(values):
        conditions.append(IsMissing(field))
    return conditions[0] if len(conditions) == 1 else Any(tuple(conditions))


def _kind(field: Field, path: str) -> Kind:
    _require_single(field, path)
    if field.type in _NUMBERS:
        return "number"
    if field.type is FieldType.BOOLEAN:
        return "boolean"
    if field.type is FieldType.DATE:
        raise InvalidQuery(f"{path} holds a date, which no model here takes; use a number.", code="recipe.invalid")
    if not field.groupable:
        raise InvalidQuery(f"{path} has too many different values to be a feature.", code="recipe.invalid")
    return "category"


def _require_single(field: Field, path: str) -> None:
    if field.many or field.coded or field.alias_of:
        raise InvalidQuery(
            f"{path} holds several values at once or is a key; use it in a feature set.", code="recipe.invalid"
        )


def _placed(feature: FeatureSet, dataset: Dataset, dictionary: Dictionary) -> PlacedSet:
    _, place, name = relations.place(dictionary, dataset, feature.dataset)
    other = relations.pointing(dictionary, place, name)
    key, value = other.offered_field(feature.key), other.offered_field(feature.value)
    if key.type not in (FieldType.TEXT, FieldType.TERM) or key.many:
        raise InvalidQuery(
            f"{other.name}.{key.name} holds {key.type.value}; the key of a feature set is a text or a term.",
            code="recipe.invalid",
        )
    if value.type not in _NUMBERS or value.coded:
        raise InvalidQuery(
            f"{other.name}.{value.name} holds {value.type.value}; the value of a feature set is a number.",
            code="recipe.invalid",
        )
    return PlacedSet(feature, other, key, value)
