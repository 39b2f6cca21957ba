"""A recipe survives the way through its bytes, and one that is not right is refused with its place."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.conditions.filters import Compare, Operator
from connexon.errors import InvalidQuery
from connexon.identity.keys import center_id
from connexon.learning import wire_recipe
from connexon.learning.recipe import (
    BoostedTrees,
    FeatureSet,
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Multinomial,
    Perceptron,
    Recipe,
    Stopping,
    Strategy,
    Target,
    TargetClass,
    TrainingPrivacy,
)
from connexon.v1 import recipe_pb2

WORK = LocalWork(learning_rate=0.5)
TWO = (TargetClass("failed", (False,)), TargetClass("succeeded", (True,)))
RECIPE = Recipe(
    name="niche-score",
    target=Target("success", TWO),
    features=(
        FieldFeature("seed_density_1e6_ml"),
        FeatureSet(
            "timepoints", "attribute", ("ph", "glucose"), "value", Compare("day", Operator.LESS, 4.0), log2=True
        ),
    ),
    model=Logistic(WORK, l2=0.01),
    rounds=10,
    strategy=Strategy("FedProx", {"proximal_mu": 0.1}),
    privacy=None,
    held_out=0.2,
    stopping=Stopping("auc", 3, 0.01),
    held_out_centers=(center_id("lyon"),),
    minimum_centers=3,
    round_seconds=30.0,
    seed=7,
)


def varied(**changes: object) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        varied(target=Target("yield_1e6"), model=Linear(WORK, 0.1), stopping=None),
        varied(target=Target("disease", (TargetClass("control", (None,)), TargetClass("ALS", ("a", "b"))))),
        varied(model=Multinomial(LocalWork(0.1, epochs=3, batch=32))),
        varied(model=Perceptron((16, 8), WORK)),
        varied(model=BoostedTrees(2, 3, 0.1, 1.0), strategy=Strategy("FedXgbBagging")),
        varied(strategy=Strategy(), stopping=None, privacy=TrainingPrivacy(2.0, 1e-5, 1.0)),
        varied(
            target=Target("yield_1e6", range=(0.0, 50.0)),
            features=(FieldFeature("a", (1.0, 2.5)), FieldFeature("b", values=("x", "y"))),
            model=Linear(WORK),
            strategy=Strategy(),
            stopping=None,
            privacy=TrainingPrivacy(),
        ),
    ],
)
def test_a_recipe_comes_back_as_it_went(recipe: Recipe) -> None:
    assert wire_recipe.from_bytes(wire_recipe.to_bytes(recipe)) == recipe


PRIVATE = {"strategy": Strategy(), "stopping": None, "privacy": TrainingPrivacy(1.0, 1e-5, 1.0)}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": "Niche Score"}, "name"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 1_001}, "rounds"),
        ({"held_out": 0.6}, "held_out"),
        ({"held_out": float("nan")}, "held_out"),
        ({"features": ()}, "features"),
        ({"features": (FieldFeature("success"),)}, "features"),
        ({"features": (FieldFeature("vessel"), FieldFeature("vessel"))}, "features"),
        ({"target": Target("success")}, "target.classes"),
        ({"target": Target("success", (TWO[0], TWO[0]))}, "target.classes"),
        ({"model": Linear(WORK)}, "target.classes"),
        ({"model": Logistic(LocalWork(0.0))}, "model.learning_rate"),
        ({"model": Logistic(LocalWork(float("inf")))}, "model.learning_rate"),
        ({"model": Perceptron((), WORK)}, "model.hidden"),
        ({"strategy": Strategy("Mine")}, "strategy"),
        ({"strategy": Strategy("FedAvg", {"x": float("nan")})}, "strategy"),
        ({"strategy": Strategy("FedXgbBagging")}, "strategy"),
        ({"stopping": Stopping("luck", 3)}, "stopping.metric"),
        ({**PRIVATE, "strategy": Strategy("FedAdam")}, "strategy"),
        ({**PRIVATE, "model": Logistic(LocalWork(0.1, epochs=2))}, "model.epochs"),
        ({**PRIVATE, "model": Logistic(LocalWork(0.1, batch=8))}, "model.epochs"),
        ({**PRIVATE, "stopping": Stopping("loss", 3)}, "stopping.metric"),
        ({**PRIVATE, "target": Target("success"), "model": Linear(WORK)}, "target.range"),
        ({**PRIVATE, "model": BoostedTrees(), "strategy": Strategy("FedXgbBagging")}, "privacy"),
        ({"target": Target("success", TWO, (0.0, 1.0))}, "target.range"),
        ({"features": (FieldFeature("a", (2.0, 1.0)),)}, "features.range"),
        ({"features": (FieldFeature("a", (0.0, float("nan"))),)}, "features.range"),
        ({"features": (FieldFeature("a", (0.0, 1.0)), FieldFeature("a", (0.0, 2.0)))}, "features"),
        ({"features": (FieldFeature("a", values=("x", "x")),)}, "features.values"),
        ({"minimum_centers": 0}, "minimum_centers"),
        # Without noise one center's update alone would be the model.
        ({"minimum_centers": 1}, "minimum_centers"),
        ({"strategy": Strategy("Krum")}, "strategy"),
        ({"strategy": Strategy("MultiKrum")}, "strategy.num_nodes_to_select"),
        ({"round_seconds": -1.0}, "round_seconds"),
    ],
)
def test_what_is_not_right_is_refused_with_its_place(changes: dict[str, object], place: str) -> None:
    with pytest.raises(InvalidQuery, match=place.replace(".", r"\.")) as refused:
        wire_recipe.from_bytes(wire_recipe.to_bytes(varied(**changes)))
    assert refused.value.code in ("recipe.invalid", "query.invalid_value")


def test_a_field_of_a_later_version_is_refused() -> None:
    unknown = b"\xa0\x06\x01"  # field 100, varint 1
    with pytest.raises(InvalidQuery, match="does not know"):
        wire_recipe.from_bytes(wire_recipe.to_bytes(RECIPE) + unknown)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_right(data: bytes) -> None:
    with contextlib.suppress(InvalidQuery):
        wire_recipe.from_bytes(data)


@given(st.data())
def test_mutated_recipes_crash_nothing(data: st.DataObject) -> None:
    body = bytearray(wire_recipe.to_bytes(RECIPE))
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidQuery):
        assert isinstance(wire_recipe.from_bytes(bytes(body)), Recipe)


def test_every_model_has_its_bytes() -> None:
    names = {field.name for field in recipe_pb2.Recipe.DESCRIPTOR.oneofs_by_name["model"].fields}
    assert names == {"linear", "logistic", "multinomial", "perceptron", "boosted_trees"}
