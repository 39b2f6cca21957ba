"""Noise, drawn by OpenDP: the discrete Gaussian for whole numbers, the Gaussian for others.

What an OpenDP measurement costs is asked of the measurement itself (`map`), whose arithmetic rounds against us. It
draws from the operating system's generator and cannot be seeded: a draw that must be given again has to be kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

CONFIDENCE = 0.95
_CLOSE = 40.0
"""Up to this scale the distribution of whole numbers is added up number by number."""


class Noise:
    """Gaussian noise on a vector that one donor changes by at most `sensitivity` (Euclidean), for at most `rho`.

    `scale` is the standard deviation of each draw (of the discrete Gaussian: its parameter, Canonne, Kamath and Steinke
    2020, arXiv:2004.00010), `rho` what the whole vector costs, `sensitivity` squared over twice the scale squared.
    """

    def __init__(self, *, sensitivity: float, rho: float, whole: bool) -> None:
        """`whole`: for vectors of whole numbers. Raises ValueError where a number is not positive and finite."""
        if not all(math.isfinite(number) and number > 0 for number in (sensitivity, rho)):
            raise ValueError("noise needs a sensitivity and a rho above 0")
        self._of(sensitivity, sensitivity / math.sqrt(2 * rho), whole=whole)
        # The measurement rounds upwards: a hair more noise keeps it below what is paid.
        while self.rho > rho:
            self._of(sensitivity, self.scale * (1 + 1e-12), whole=whole)

    @classmethod
    def of_scale(cls, *, sensitivity: float, scale: float) -> Noise:
        """Noise of this scale on a vector of whole numbers, whatever it costs. Raises ValueError as the constructor."""
        if not all(math.isfinite(number) and number > 0 for number in (sensitivity, scale)):
            raise ValueError("noise needs a sensitivity and a scale above 0")
        noise = cls.__new__(cls)
        noise._of(sensitivity, scale, whole=True)
        return noise

    def _of(self, sensitivity: float, scale: float, *, whole: bool) -> None:
        self.scale = scale
        self._measurement = _gaussian(scale, whole=whole)
        self.rho = float(self._measurement.map(float(sensitivity)))

    def added(self, exact: Sequence[Any]) -> list[Any]:
        """The vector with noise on each number: ints where `whole`, else floats."""
        drawn: list[Any] = self._measurement(list(exact)) if len(exact) else []
        return drawn


@functools.lru_cache(maxsize=4096)
def half_width(scale: float) -> int:
    """The smallest w for which a discrete Gaussian draw lies within -w to w with 95 % probability."""
    if scale > _CLOSE:
        return math.ceil(NormalDist(0, scale).inv_cdf((1 + CONFIDENCE) / 2))
    reach = math.ceil(12 * scale) + 1
    weights = [math.exp(-(number**2) / (2 * scale**2)) for number in range(reach + 1)]
    whole = weights[0] + 2 * sum(weights[1:])
    inside = weights[0]
    for width in range(reach):
        if inside >= CONFIDENCE * whole:
            return width
        inside += 2 * weights[width + 1]
    return reach


def rarely_above(scale: float, probability: float) -> int:
    """A whole number that a discrete Gaussian draw reaches with at most this probability.

    The draw reaches m at most as often as the continuous one reaches m - 1 (the tail bound of Canonne, Kamath and
    Steinke 2020).
    """
    return 1 + math.ceil(-scale * NormalDist().inv_cdf(probability))


@functools.lru_cache(maxsize=256)
def _gaussian(scale: float, *, whole: bool) -> Any:
    # Loaded here: it takes half a second that commands which draw nothing need not wait.
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")  # OpenDP calls everything so that its own committee has not yet vetted
    atoms = atom_domain(T="i64") if whole else atom_domain(T="f64", nan=False)
    return make_gaussian(vector_domain(atoms), l2_distance(T="f64"), scale=scale)
