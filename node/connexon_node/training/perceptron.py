"""Local work of perceptrons, on PyTorch: the same steps as `gradients`, in single precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.learning.clipping import shortening
from connexon.learning.recipe import Perceptron, Recipe
from connexon_node.training.gradients import batches

Arrays = Mapping[str, NDArray[Any]]


def trained(
    recipe: Recipe, arrays: Arrays, inputs: NDArray[Any], targets: NDArray[Any], *, round_number: int, proximal: float
) -> dict[str, NDArray[Any]]:
    """The model after one round on these rows."""
    torch, model = _torch(), recipe.model
    assert isinstance(model, Perceptron)
    parameters = _parameters(torch, arrays)
    start = {name: value.detach().clone() for name, value in parameters.items()}
    rows, right = torch.from_numpy(inputs.astype(numpy.float32)), torch.from_numpy(targets)
    for chosen in batches(model.work, len(targets), seed=recipe.seed, round_number=round_number):
        part = chosen if isinstance(chosen, slice) else torch.from_numpy(chosen)
        objective = _loss(torch, recipe, parameters, rows[part], right[part])
        for name, value in parameters.items():
            if name.endswith(".weight"):
                objective = objective + model.l2 / 2 * (value**2).sum()
            if proximal:
                objective = objective + proximal / 2 * ((value - start[name]) ** 2).sum()
        slopes = torch.autograd.grad(objective, list(parameters.values()))
        with torch.no_grad():
            for value, slope in zip(parameters.values(), slopes, strict=True):
                value -= model.work.learning_rate * slope
    return {name: value.detach().numpy().copy() for name, value in parameters.items()}


def clipped_sums(
    recipe: Recipe,
    arrays: Arrays,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    donors: NDArray[numpy.int32],
    clip: float,
) -> dict[str, NDArray[Any]]:
    """The sum over donors of each one's mean gradient, shortened to at most `clip`; rows of a donor lie together."""
    torch = _torch()
    parameters = _parameters(torch, arrays)
    rows, right = torch.from_numpy(inputs.astype(numpy.float32)), torch.from_numpy(targets)
    total = {name: numpy.zeros(value.shape) for name, value in parameters.items()}
    starts = numpy.flatnonzero(numpy.diff(donors, prepend=-1))
    for begin, end in zip(starts, numpy.append(starts[1:], len(donors)), strict=True):
        objective = _loss(torch, recipe, parameters, rows[begin:end], right[begin:end])
        slopes = [
            one.numpy().astype(numpy.float64) for one in torch.autograd.grad(objective, list(parameters.values()))
        ]
        length = numpy.sqrt(sum(float((one**2).sum()) for one in slopes))
        if not numpy.isfinite(length):
            continue
        factor = float(shortening(numpy.array([length]), clip)[0])
        for name, slope in zip(total, slopes, strict=True):
            total[name] += factor * slope
    return total


def _torch() -> Any:
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    return torch


def _parameters(torch: Any, arrays: Arrays) -> dict[str, Any]:
    return {name: torch.tensor(values, dtype=torch.float32, requires_grad=True) for name, values in arrays.items()}


def _loss(torch: Any, recipe: Recipe, parameters: dict[str, Any], rows: Any, right: Any) -> Any:
    values = rows
    last = len(parameters) // 2 - 1
    for number in range(last + 1):
        values = values @ parameters[f"layers.{number}.weight"].T + parameters[f"layers.{number}.bias"]
        if number < last:
            values = torch.relu(values)
    if values.shape[1] > 1:
        return torch.nn.functional.cross_entropy(values, right.long())
    if recipe.classifies:
        return torch.nn.functional.binary_cross_entropy_with_logits(values[:, 0], right.float())
    return 0.5 * ((values[:, 0] - right.float()) ** 2).mean()
