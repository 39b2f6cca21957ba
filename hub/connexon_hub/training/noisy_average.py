"""The mean of the centers' updates with noise on it, where the recipe asks the hub to add it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from connexon.learning.clipping import clipped
from connexon.learning.recipe import TrainingPrivacy

ARRAYS = "arrays"


class NoisyAverage(FedAvg):
    """FedAvg of updates that are each shortened to `clip`, with Gaussian noise.

    Not Flower's own wrapper (DifferentialPrivacyServerSideFixedClipping): that makes the noise for as many centers as
    there were at first, drops a round in which one of them fails, and takes a center for the one who is protected.
    """

    def __init__(self, *, privacy: TrainingPrivacy, rounds: int, **options: Any) -> None:
        super().__init__(**options)
        self._clip = privacy.clip
        self._multiplier = noise_multiplier(privacy, rounds)
        self._start: dict[str, NDArray[Any]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for updates, and remember from where they begin."""
        self._start = _numpy(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of those that came, and noise for as many as they are."""
        usable = [reply for reply in replies if not reply.has_error()]
        for reply in usable:
            # Centers do this themselves; one that did not would have more say, and its donors less protection.
            new = clipped(self._start, _numpy(reply.content.array_records[ARRAYS]), self._clip)
            reply.content[ARRAYS] = _record(new)
        mean, metrics = super().aggregate_train(server_round, usable)
        if mean is None:
            return None, metrics
        scale = noise_scale(self._multiplier, self._clip, len(usable))
        # In the order of the arrays, from numpy's one generator: a run that is taken up again draws the same.
        noisy = {
            name: (values + numpy.random.normal(0.0, scale, values.shape)).astype(values.dtype)
            for name, values in _numpy(mean).items()
        }
        return _record(noisy), metrics


def noise_multiplier(privacy: TrainingPrivacy, rounds: int) -> float:
    """Standard deviation of the noise on the sum, in units of the clip, so that all rounds together keep their promise.

    What is protected is a donor, not a center: with one donor more or less a center's update may be any other one that
    is at most `clip` long, so the sum moves by up to twice the clip. The Gaussian mechanism whose noise is s times what
    may move is 1 / (2 s^2)-zCDP, rounds add up, and rho-zCDP is (rho + 2 sqrt(rho ln(1 / delta)), delta)-differential
    privacy (Bun and Steinke 2016, propositions 1.3 and 1.6 and lemma 1.7, doi 10.1007/978-3-662-53641-4_24).
    """
    wide = math.log(1 / privacy.delta)
    rho = (math.sqrt(wide + privacy.epsilon) - math.sqrt(wide)) ** 2
    return 2 * math.sqrt(rounds / (2 * rho))


def noise_scale(multiplier: float, clip: float, centers: int) -> float:
    """Standard deviation of the noise on the mean of so many centers' updates."""
    return multiplier * clip / centers


def _numpy(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    return {name: array.numpy() for name, array in arrays.items()}


def _record(arrays: dict[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(values) for name, values in arrays.items()})
