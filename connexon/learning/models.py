"""Models as arrays: how they begin, what they predict and how wrong they are. NumPy only; trees need xgboost.

The same functions evaluate at a center and predict at a researcher's desk. Targets are numbers, or the places of
classes in the recipe, from 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.errors import Misconfigured, Refused
from connexon.learning.preprocessing import Preprocessing
from connexon.learning.recipe import BoostedTrees, Multinomial, Perceptron, Recipe

Arrays = Mapping[str, NDArray[Any]]
TREES = "0"
"""The one array of boosted trees: XGBoost's own JSON, as bytes; empty before the first tree."""


class ModelRefused(Refused):
    """Arrays that are not the model of a recipe."""

    code = "model.other_arrays"


def outputs_of(recipe: Recipe) -> int:
    """How many scores a model gives for a row: one for a number or two classes, otherwise one for each class."""
    classes = len(recipe.target.classes)
    return classes if isinstance(recipe.model, Multinomial) or classes > 2 else 1


def initial_arrays(recipe: Recipe, preprocessing: Preprocessing) -> dict[str, NDArray[Any]]:
    """The model before its first round; the same for the same recipe and preprocessing."""
    width, outputs = preprocessing.width, outputs_of(recipe)
    match recipe.model:
        case BoostedTrees():
            return {TREES: numpy.zeros(0, dtype=numpy.uint8)}
        case Perceptron(hidden):
            return _layers((width, *hidden, outputs), numpy.random.default_rng(recipe.seed))
        case _:
            middle = 0.0 if recipe.target.range is None else sum(recipe.target.range) / 2
            return {"coefficients": numpy.zeros((outputs, width)), "intercept": numpy.full(outputs, middle)}


def _layers(sizes: tuple[int, ...], random: numpy.random.Generator) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        # Glorot and Bengio 2010 in PyTorch's form: uniform within 1 / sqrt(inputs).
        bound = 1 / numpy.sqrt(max(inputs, 1))
        arrays[f"layers.{number}.weight"] = random.uniform(-bound, bound, (outputs, inputs)).astype(numpy.float32)
        arrays[f"layers.{number}.bias"] = random.uniform(-bound, bound, outputs).astype(numpy.float32)
    return arrays


def scores(recipe: Recipe, arrays: Arrays, inputs: NDArray[Any]) -> NDArray[numpy.float64]:
    """What the model gives before it becomes a number or probabilities: [rows, outputs]. Raises ModelRefused."""
    match recipe.model:
        case BoostedTrees():
            return _margins(recipe, arrays, inputs)
        case Perceptron(hidden):
            values = numpy.asarray(inputs, dtype=numpy.float64)
            for number in range(len(hidden) + 1):
                weight, bias = _array(arrays, f"layers.{number}.weight"), _array(arrays, f"layers.{number}.bias")
                values = values @ weight.astype(numpy.float64).T + bias
                if number < len(hidden):
                    values = numpy.maximum(values, 0)
            return values
        case _:
            found: NDArray[numpy.float64] = inputs @ _array(arrays, "coefficients").T + _array(arrays, "intercept")
            return found


def predict(recipe: Recipe, arrays: Arrays, inputs: NDArray[Any]) -> NDArray[numpy.float64]:
    """Of each row: the number; or of two classes the second one's probability; or all probabilities [rows, classes].

    A multinomial model gives all probabilities also of two classes. Raises ModelRefused, and Misconfigured for trees
    where xgboost is not installed.
    """
    found = scores(recipe, arrays, inputs)
    if found.shape[1] > 1:
        return numpy.exp(_log_softmax(found))
    return _sigmoid(found[:, 0]) if recipe.classifies else found[:, 0]


def loss(recipe: Recipe, found: NDArray[Any], targets: NDArray[Any]) -> float:
    """Mean loss of scores: half the squared error of a number, minus the logarithm of the right class's probability."""
    return float(numpy.mean(losses(recipe, found, targets))) if len(targets) else 0.0


def losses(recipe: Recipe, found: NDArray[Any], targets: NDArray[Any]) -> NDArray[numpy.float64]:
    """The loss of each row."""
    if found.shape[1] > 1:
        each = -_log_softmax(found)[numpy.arange(len(targets)), targets.astype(numpy.intp)]
    elif recipe.classifies:
        each = numpy.logaddexp(0, found[:, 0]) - targets * found[:, 0]
    else:
        each = 0.5 * (found[:, 0] - targets) ** 2
    return numpy.asarray(each, dtype=numpy.float64)


def errors(recipe: Recipe, found: NDArray[Any], targets: NDArray[Any]) -> NDArray[numpy.float64]:
    """The derivative of each row's loss by its scores: [rows, outputs]."""
    if found.shape[1] > 1:
        chances = numpy.exp(_log_softmax(found))
        chances[numpy.arange(len(targets)), targets.astype(numpy.intp)] -= 1
        return chances
    present = _sigmoid(found[:, 0]) if recipe.classifies else found[:, 0]
    return numpy.asarray(present - targets, dtype=numpy.float64)[:, None]


def missing_input(recipe: Recipe) -> float:
    """What a missing number is to a model: the mean, 0; trees are told, and learn which way it goes."""
    return math.nan if isinstance(recipe.model, BoostedTrees) else 0.0


def load_trees(array: NDArray[Any]) -> Any:
    """XGBoost's booster from its array; None before the first tree. Raises ModelRefused, Misconfigured."""
    xgboost = xgboost_module()
    if not array.size:
        return None
    try:
        return xgboost.Booster(model_file=bytearray(array.astype(numpy.uint8).tobytes()))
    except xgboost.core.XGBoostError as error:
        raise ModelRefused("The trees cannot be read.") from error


def xgboost_module() -> Any:
    """XGBoost. Raises Misconfigured where it is not installed."""
    try:
        import xgboost
    except ModuleNotFoundError as error:
        raise Misconfigured(
            "Boosted trees need xgboost: install it with  pip install 'connexon[learn]'", code="extra.missing"
        ) from error
    return xgboost


def _margins(recipe: Recipe, arrays: Arrays, inputs: NDArray[Any]) -> NDArray[numpy.float64]:
    booster = load_trees(_array(arrays, TREES))
    if booster is None:
        return numpy.zeros((len(inputs), 1))
    if booster.num_features() != inputs.shape[1]:
        raise ModelRefused("The trees are of other inputs.")
    matrix = xgboost_module().DMatrix(inputs)
    return numpy.asarray(booster.predict(matrix, output_margin=True), dtype=numpy.float64).reshape(len(inputs), 1)


def _array(arrays: Arrays, name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ModelRefused(f"The model has no array {name}.")
    return arrays[name]


def _sigmoid(values: NDArray[Any]) -> NDArray[numpy.float64]:
    return numpy.asarray(numpy.exp(-numpy.logaddexp(0, -values)), dtype=numpy.float64)


def _log_softmax(values: NDArray[Any]) -> NDArray[numpy.float64]:
    shifted = values - values.max(axis=1, keepdims=True)
    return numpy.asarray(shifted - numpy.log(numpy.exp(shifted).sum(axis=1, keepdims=True)), dtype=numpy.float64)
