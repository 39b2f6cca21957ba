"""How rows become inputs where noise is asked for: by the recipe and the dictionary, and never by the rows."""

from __future__ import annotations

from connexon.errors import InvalidQuery
from connexon.learning.moments import Moments
from connexon.learning.preprocessing import Kind, Summary, moments_in, names_in
from connexon.learning.recipe import MAXIMUM_CATEGORIES, FeatureSet, FieldFeature, Range
from connexon.query.question import Question
from connexon_node.analyses.recipes import PlacedSet, checked_recipe, recipe_of
from connexon_node.data.dictionary import Dictionary, Field, relations


class ScaleMissing(InvalidQuery):
    """A feature whose scale neither recipe nor dictionary tell."""

    code = "recipe.scale_missing"


def told_beforehand(question: Question, dictionary: Dictionary) -> Summary:
    """The summary of a recipe's columns that is known without rows; `examples` is 0. Raises ScaleMissing."""
    recipe, dataset = recipe_of(question), dictionary.dataset(question.dataset)
    checked = checked_recipe(recipe, dataset, dictionary)
    kinds, sets = iter(checked.kinds), iter(checked.sets)
    columns: list[tuple[Kind, Moments]] = []
    categories: dict[int, tuple[str, ...]] = {}
    for feature in recipe.features:
        if isinstance(feature, FeatureSet):
            columns += [("number", moments_in(_range_of_set(feature, next(sets))))] * len(names_in(feature))
            continue
        kind, (_, field) = next(kinds), relations.field_at(dictionary, dataset, feature.field)
        if kind == "category":
            categories[len(columns)] = _values(feature, field)
        columns.append((kind, moments_in(_range(feature, field)) if kind == "number" else Moments()))
    return Summary(tuple(kind for kind, _ in columns), tuple(moments for _, moments in columns), categories)


def _range(feature: FieldFeature, field: Field) -> Range:
    found = feature.range or _bounds(field)
    if found is None:
        raise ScaleMissing(_sentence(feature.field))
    return found


def _range_of_set(feature: FeatureSet, placed: PlacedSet) -> Range:
    # The dictionary's bounds are of the value itself, and not of its logarithm.
    found = feature.range or (None if feature.log2 else _bounds(placed.value))
    if found is None:
        raise ScaleMissing(_sentence(f"{feature.dataset}.{feature.value}"))
    return found


def _bounds(field: Field) -> Range | None:
    if field.minimum is None or field.maximum is None:
        return None
    return field.minimum, field.maximum


def _values(feature: FieldFeature, field: Field) -> tuple[str, ...]:
    found = feature.values or field.values
    if not 0 < len(found) <= MAXIMUM_CATEGORIES:
        raise ScaleMissing(
            f"With noise, {feature.field} needs its values from you: write  - field: {feature.field}  and below it  "
            f"values: [...], at most {MAXIMUM_CATEGORIES} of them. Nothing of the rows tells which there are."
        )
    return tuple(sorted(found))


def _sentence(name: str) -> str:
    return (
        f"With noise, {name} needs its range from you: add  range: [low, high]  to the feature, between what it "
        "usually lies. Nothing of the rows tells how it is scaled."
    )
