"""Local work of linear, logistic and multinomial models: gradient steps in double precision, the same every time.

What is minimised is the mean loss (connexon.learning.models.loss) plus l2 / 2 times the squared coefficients, and where
the strategy asks for it mu / 2 times the squared distance from where the round began (Li et al., Federated optimization
in heterogeneous networks, MLSys 2020, arXiv:1812.06127).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.learning import models
from connexon.learning.clipping import shortening
from connexon.learning.recipe import Linear, LocalWork, Logistic, Multinomial, Recipe

Arrays = Mapping[str, NDArray[Any]]
_CHUNK_VALUES = 8_000_000


def trained(
    recipe: Recipe, arrays: Arrays, inputs: NDArray[Any], targets: NDArray[Any], *, round_number: int, proximal: float
) -> dict[str, NDArray[Any]]:
    """The model after one round on these rows."""
    model = recipe.model
    assert isinstance(model, Linear | Logistic | Multinomial)
    start = {name: values.astype(numpy.float64) for name, values in arrays.items()}
    coefficients, intercept = start["coefficients"].copy(), start["intercept"].copy()
    for chosen in batches(model.work, len(targets), seed=recipe.seed, round_number=round_number):
        part = inputs[chosen]
        found = part @ coefficients.T + intercept
        wrong = models.errors(recipe, found, targets[chosen]) / len(part)
        by_coefficient = wrong.T @ part + model.l2 * coefficients + proximal * (coefficients - start["coefficients"])
        by_intercept = wrong.sum(axis=0) + proximal * (intercept - start["intercept"])
        coefficients -= model.work.learning_rate * by_coefficient
        intercept -= model.work.learning_rate * by_intercept
    return {"coefficients": coefficients, "intercept": intercept}


def batches(work: LocalWork, rows: int, *, seed: int, round_number: int) -> Iterator[Any]:
    """Which rows each step sees; in every epoch all of them, shuffled by seed and round where a step sees a part."""
    for epoch in range(work.epochs):
        if not 0 < work.batch < rows:
            yield slice(None)
            continue
        order = numpy.random.default_rng([seed, round_number, epoch]).permutation(rows)
        for start in range(0, rows, work.batch):
            yield order[start : start + work.batch]


def clipped_sums(
    recipe: Recipe,
    arrays: Arrays,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    donors: NDArray[numpy.int32],
    clip: float,
) -> dict[str, NDArray[Any]]:
    """The sum over donors of each one's mean gradient, shortened to at most `clip`; rows of a donor lie together.

    After Abadi et al., Deep learning with differential privacy, CCS 2016, arXiv:1607.00133, by donor, not by row.
    """
    wide = numpy.concatenate([inputs, numpy.ones((len(inputs), 1))], axis=1)
    wrong = models.errors(recipe, models.scores(recipe, arrays, inputs), targets)
    starts = numpy.flatnonzero(numpy.diff(donors, prepend=-1))
    ends = numpy.append(starts[1:], len(donors))
    outputs, width = wrong.shape[1], wide.shape[1]
    total = numpy.zeros((outputs, width))
    step = max(1, _CHUNK_VALUES // (outputs * width))
    for first in range(0, len(starts), step):
        begin, end = starts[first : first + step], ends[first : first + step]
        rows = slice(int(begin[0]), int(end[-1]))
        each = wrong[rows, :, None] * wide[rows, None, :]
        means = numpy.add.reduceat(each, begin - begin[0], axis=0) / (end - begin)[:, None, None]
        with numpy.errstate(over="ignore", invalid="ignore"):
            lengths = numpy.sqrt((means**2).sum(axis=(1, 2)))
        means[~numpy.isfinite(lengths)] = 0.0
        total += (means * shortening(lengths, clip)[:, None, None]).sum(axis=0)
    return {"coefficients": total[:, :-1].copy(), "intercept": total[:, -1].copy()}
