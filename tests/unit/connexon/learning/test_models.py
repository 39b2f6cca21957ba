"""Models as arrays: their predictions and losses beside scikit-learn's, and their derivatives beside differences."""

from __future__ import annotations

import numpy
import pytest
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from connexon.learning import models
from connexon.learning.models import ModelRefused
from connexon.learning.preprocessing import Column, Preprocessing
from connexon.learning.recipe import (
    BoostedTrees,
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Model,
    Multinomial,
    Perceptron,
    Recipe,
    Strategy,
    Target,
    TargetClass,
)

WORK = LocalWork(0.1)
THREE = Preprocessing(tuple(Column(name, "number") for name in "abc"))
RANDOM = numpy.random.default_rng(5)
INPUTS = RANDOM.normal(size=(40, 3))


def recipe(model: Model, classes: int) -> Recipe:
    named = tuple(TargetClass(f"c{number}", (number,)) for number in range(classes))
    strategy = Strategy("FedXgbBagging") if isinstance(model, BoostedTrees) else Strategy()
    return Recipe("m", Target("y", named), (FieldFeature("a"),), model, 2, strategy=strategy, privacy=None, seed=7)


CASES = [
    (Linear(WORK), 0),
    (Logistic(WORK), 2),
    (Multinomial(WORK), 2),
    (Multinomial(WORK), 4),
    (Perceptron((5,), WORK), 0),
    (Perceptron((5, 4), WORK), 2),
    (Perceptron((5,), WORK), 3),
]


def targets(classes: int) -> numpy.ndarray:
    return RANDOM.integers(0, classes, len(INPUTS)) if classes else RANDOM.normal(size=len(INPUTS))


@pytest.mark.parametrize(("model", "classes"), CASES)
def test_a_model_begins_the_same_every_time_and_in_its_shape(model: Model, classes: int) -> None:
    first, again = (models.initial_arrays(recipe(model, classes), THREE) for _ in range(2))
    assert all(numpy.array_equal(first[name], again[name]) for name in first)
    prediction = models.predict(recipe(model, classes), first, INPUTS)
    outputs = models.outputs_of(recipe(model, classes))
    assert prediction.shape == ((40,) if outputs == 1 else (40, outputs))
    if classes:
        assert ((prediction >= 0) & (prediction <= 1)).all()
    if outputs > 1:
        assert prediction.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_loss_of_classes_is_scikit_learns(classes: int) -> None:
    model = Logistic(WORK) if classes == 2 else Multinomial(WORK)
    outputs = models.outputs_of(recipe(model, classes))
    arrays = {"coefficients": RANDOM.normal(size=(outputs, 3)), "intercept": RANDOM.normal(size=outputs)}
    found, right = models.scores(recipe(model, classes), arrays, INPUTS), targets(classes)
    predicted = models.predict(recipe(model, classes), arrays, INPUTS)
    assert models.loss(recipe(model, classes), found, right) == pytest.approx(
        log_loss(right, predicted, labels=range(classes))
    )


def test_the_loss_of_a_number_is_half_the_squared_error() -> None:
    assert models.loss(recipe(Linear(WORK), 0), numpy.array([[1.0], [3.0]]), numpy.array([0.0, 0.0])) == 2.5


def test_scores_that_are_far_off_have_a_finite_loss() -> None:
    far = numpy.array([[1e4], [-1e4]])
    assert models.loss(recipe(Logistic(WORK), 2), far, numpy.array([0, 1])) == pytest.approx(1e4)


@pytest.mark.parametrize(("model", "classes"), [case for case in CASES if not isinstance(case[0], Perceptron)])
def test_errors_are_the_derivative_of_the_losses(model: Model, classes: int) -> None:
    asked, step = recipe(model, classes), 1e-6
    right = targets(classes)
    found = RANDOM.normal(size=(40, models.outputs_of(asked)))
    for output in range(found.shape[1]):
        more, less = found.copy(), found.copy()
        more[:, output] += step
        less[:, output] -= step
        slope = (models.losses(asked, more, right) - models.losses(asked, less, right)) / (2 * step)
        assert models.errors(asked, found, right)[:, output] == pytest.approx(slope, abs=1e-6)


def test_a_perceptron_computes_what_scikit_learns_computes() -> None:
    right = targets(2)
    theirs = MLPClassifier((5, 4), max_iter=20, random_state=1)
    with pytest.warns(Warning, match="iterations"):
        theirs.fit(INPUTS, right)
    arrays = {
        name: values
        for number, (weight, bias) in enumerate(zip(theirs.coefs_, theirs.intercepts_, strict=True))
        for name, values in ((f"layers.{number}.weight", weight.T), (f"layers.{number}.bias", bias))
    }
    predicted = models.predict(recipe(Perceptron((5, 4), WORK), 2), arrays, INPUTS)
    assert predicted == pytest.approx(theirs.predict_proba(INPUTS)[:, 1])


def test_trees_predict_as_xgboost_does_and_nothing_before_the_first() -> None:
    xgboost = pytest.importorskip("xgboost")
    asked, right = recipe(BoostedTrees(), 2), targets(2)
    empty = models.initial_arrays(asked, THREE)
    assert models.predict(asked, empty, INPUTS).tolist() == [0.5] * 40
    booster = xgboost.train(
        {"objective": "binary:logistic", "base_score": 0.5}, xgboost.DMatrix(INPUTS, right), num_boost_round=3
    )
    arrays = {"0": numpy.frombuffer(booster.save_raw("json"), dtype=numpy.uint8)}
    assert models.predict(asked, arrays, INPUTS) == pytest.approx(booster.predict(xgboost.DMatrix(INPUTS)), abs=1e-6)
    with pytest.raises(ModelRefused, match="other inputs"):
        models.predict(asked, arrays, INPUTS[:, :2])
    with pytest.raises(ModelRefused, match="cannot be read"):
        models.predict(asked, {"0": numpy.frombuffer(b"{nothing", dtype=numpy.uint8)}, INPUTS)


def test_an_array_that_is_lacking_is_named() -> None:
    with pytest.raises(ModelRefused, match="intercept"):
        models.predict(recipe(Linear(WORK), 0), {"coefficients": numpy.zeros((1, 3))}, INPUTS)
