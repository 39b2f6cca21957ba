"""Whether a model with noise is of use: three centers of 300 donors, by the node's own steps, beside an exact one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy
import pytest

from connexon.learning import metrics, models
from connexon.learning.preprocessing import Column, Preprocessing
from connexon.learning.recipe import (
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Recipe,
    Target,
    TargetClass,
    TrainingPrivacy,
)
from connexon_node.privacy.training import TrainingPrice, noisy_step
from connexon_node.training import evaluation, gradients

CENTERS, DONORS, INPUTS = 3, 300, 6
TRUE = numpy.array([1.5, -1.0, 0.8, 0.0, 0.5, -0.3])
FITTED = Preprocessing(tuple(Column(f"x{place}", "number") for place in range(INPUTS)))
CLASSES = (TargetClass("no", (0,)), TargetClass("yes", (1,)))
RECIPE = Recipe(
    "useful",
    Target("y", CLASSES),
    tuple(FieldFeature(f"x{place}", (-2.0, 2.0)) for place in range(INPUTS)),
    Logistic(LocalWork(2.0), l2=0.001),
    12,
)


def drawn(random: numpy.random.Generator, donors: int = DONORS) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Inputs and scores of one center's donors."""
    inputs = numpy.clip(random.normal(0, 1, (donors, INPUTS)), -2, 2)
    return inputs, inputs @ TRUE + random.logistic(0, 0.5, donors)


def trained(recipe: Recipe, centers: list[tuple[numpy.ndarray, numpy.ndarray]]) -> dict[str, numpy.ndarray]:
    """The model after all rounds, with noise at each center where the recipe asks for it."""
    arrays = models.initial_arrays(recipe, FITTED)
    price = TrainingPrice.of(replace(recipe, privacy=recipe.privacy or TrainingPrivacy()))
    weights = [price.weight(*price.counting.added([len(target)])) for _, target in centers]
    for number in range(1, recipe.rounds + 1):
        updates = []
        for (inputs, target), weight in zip(centers, weights, strict=True):
            who = numpy.arange(len(target), dtype=numpy.int32)
            if recipe.privacy is None:
                updates.append(gradients.trained(recipe, arrays, inputs, target, round_number=number, proximal=0.0))
                continue
            sums = gradients.clipped_sums(recipe, arrays, inputs, target, who, recipe.privacy.clip)
            updates.append(noisy_step(recipe, price, arrays, sums, people=weight))
        shares = numpy.array(weights, dtype=float) if recipe.privacy is not None else numpy.full(len(centers), 1.0)
        arrays = {name: numpy.average([one[name] for one in updates], axis=0, weights=shares) for name in updates[0]}
    return arrays


def test_a_logistic_model_with_noise_is_nearly_as_often_right_as_an_exact_one() -> None:
    """docs/training.md states these figures."""
    found: dict[str, list[float]] = {"exact": [], "noise": [], "few": []}
    for world in range(15):
        random = numpy.random.default_rng(world)
        centers = [(inputs, (scores > 0).astype(float)) for inputs, scores in (drawn(random) for _ in range(CENTERS))]
        few = [(inputs[:60], target[:60]) for inputs, target in centers]
        inputs, scores = drawn(random, 20_000)
        for name, recipe, rows in (
            ("exact", replace(RECIPE, privacy=None), centers),
            ("noise", RECIPE, centers),
            ("few", RECIPE, few),
        ):
            told = models.scores(recipe, trained(recipe, rows), inputs)[:, 0] > 0
            found[name].append(float((told == (scores > 0)).mean()))
    exact, noise, few_ = (float(numpy.mean(found[name])) for name in ("exact", "noise", "few"))
    assert exact > 0.86
    assert noise > exact - 0.01
    assert few_ > exact - 0.09


def test_a_linear_model_with_noise_explains_nearly_what_an_exact_one_does() -> None:
    linear = replace(
        RECIPE,
        target=Target("y", range=(-6.0, 6.0)),
        model=Linear(LocalWork(0.6)),
        privacy=TrainingPrivacy(clip=3.0),
    )
    found: dict[str, list[float]] = {"exact": [], "noise": []}
    for world in range(15):
        random = numpy.random.default_rng(world)
        centers = [drawn(random) for _ in range(CENTERS)]
        inputs, scores = drawn(random, 20_000)
        for name, recipe in (("exact", replace(linear, privacy=None)), ("noise", linear)):
            wrong = models.scores(recipe, trained(recipe, centers), inputs)[:, 0] - scores
            found[name].append(1 - float(wrong.var() / scores.var()))
    assert numpy.mean(found["exact"]) > 0.75
    assert numpy.mean(found["noise"]) > numpy.mean(found["exact"]) - 0.02


@pytest.mark.parametrize(("held_out", "most"), [(0.33, 0.15), (0.0, 0.25)])
def test_an_evaluation_with_noise_says_how_good_a_model_is(held_out: float, most: float) -> None:
    recipe = replace(RECIPE, held_out=held_out)
    price = TrainingPrice.of(recipe)
    random = numpy.random.default_rng(5)
    apart = round(DONORS * held_out) or DONORS
    parts = {}
    truth = []
    for place in range(CENTERS):
        inputs, scores = drawn(random, apart)
        told = models.scores(recipe, {"coefficients": TRUE[None, :], "intercept": numpy.zeros(1)}, inputs)
        target = (scores > 0).astype(float)
        sums = evaluation.bounded_sums(recipe, told, target, numpy.arange(apart, dtype=numpy.int32))
        truth.append(sums)
        noisy, scale = price.noisy_evaluation(sums)
        parts[str(place)] = dict(zip(metrics.NOISY, [*noisy.tolist(), scale], strict=True))
    right = sum(one[2] for one in truth) / sum(one[0] for one in truth)
    found = metrics.combine_noisy(recipe, parts)
    assert found["accuracy-high"] - found["accuracy-low"] < 2 * most
    assert found["accuracy"] == pytest.approx(right, abs=2.5 * most)
    assert 0 <= found["loss"] <= 2 * math.log(2)


def test_nothing_is_said_of_a_model_where_donors_drown_in_noise() -> None:
    part = {"noisy-donors": 12.0, "noisy-loss": 3.0, "noisy-correct": 40.0, "noise-scale": 9.0}
    assert metrics.combine_noisy(RECIPE, {"kyoto": part}) == {}
    assert metrics.combine_noisy(RECIPE, {}) == {}
