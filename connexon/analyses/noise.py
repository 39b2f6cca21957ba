"""The noise in private numbers, as centers state it, and what it comes to in a sum."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from connexon.analyses.results import MAXIMUM_NUMBER
from connexon.errors import Refused
from connexon.v1 import answer_pb2

CONFIDENCE = 0.95
READABLE_FROM = 5
"""No group below this is shown, whatever the noise."""
MINIMUM_SCALE = 0.05
"""Narrower noise is none: the half-width of a question is at least 1."""
MAXIMUM_RHO = 1e9
MAXIMUM_SCALE = 1e6
"""No center's question has wider noise: a half-width is at most 1,000, and at most a few records of a donor count."""
MAXIMUM_CONTRIBUTIONS = 1_000_000
NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard deviations to half the width of a 95 % interval."""
_CLOSE, _CLOSE_SUM = 40.0, 12.0
"""Up to this scale, of one draw and of a sum, the distribution is worked out number by number."""


class NoiseUnreadable(Refused):
    """A center states noise that cannot be."""

    code = "answer.bad_noise"


@dataclass(frozen=True)
class Noise:
    """Noise of differential privacy, drawn for each number by itself; amounts are rho of zCDP.

    A number lies within `half_width` of the exact one with 95 % probability. At most `contributions` groups, or
    records, of one donor are counted. Groups with open names are left out below `shown_from`, and with probability
    `delta` at most one of a single donor shows. `rho` is what the numbers have cost in all, `charged` what this answer.
    """

    rho: float
    charged: float
    scale: float
    half_width: int
    contributions: int
    shown_from: int
    delta: float


def read(wire: answer_pb2.Noise) -> Noise:
    """The noise that a center states. Raises NoiseUnreadable."""
    positive = (wire.rho, wire.scale, wire.half_width)
    others = (wire.charged, wire.delta)
    fits = (
        all(math.isfinite(size) and size > 0 for size in positive)
        and all(math.isfinite(size) and size >= 0 for size in others)
        and MINIMUM_SCALE <= wire.scale <= MAXIMUM_SCALE
        and max(wire.rho, wire.charged) <= MAXIMUM_RHO
        and wire.delta <= 1
        and wire.contributions <= MAXIMUM_CONTRIBUTIONS
        and wire.shown_from <= MAXIMUM_NUMBER
        # What the noise comes to, is for us to work out: a center cannot claim to be closer than it is.
        and abs(wire.half_width - half_width_of([wire.scale])) <= 1
    )
    if not fits:
        raise NoiseUnreadable("The center's answer states noise that cannot be.")
    return Noise(
        rho=wire.rho,
        charged=wire.charged,
        scale=wire.scale,
        half_width=math.ceil(wire.half_width),
        contributions=wire.contributions,
        shown_from=wire.shown_from,
        delta=wire.delta,
    )


def together(parts: Iterable[Noise | None]) -> int | None:
    """Half-width of the 95 % interval of a sum of one number from each; None where none has noise."""
    noisy = [part for part in parts if part is not None]
    if not noisy:
        return None
    return noisy[0].half_width if len(noisy) == 1 else half_width_of([part.scale for part in noisy])


def scale_together(parts: Iterable[Noise | None]) -> float:
    """Scale of the noise in a sum of one number from each; 0 where none has noise."""
    return math.sqrt(sum(part.scale**2 for part in parts if part is not None))


def half_width_of(scales: Sequence[float]) -> int:
    """Half-width of the interval around a sum of discrete Gaussian draws that holds 95 %, or the nearest to it.

    Of one draw the smallest that holds 95 %. Of wide sums the normal distribution's, taken back by half a number, since
    the sum is whole; of narrow ones the distribution itself is added up.
    """
    return _half_width(tuple(sorted(scales)))


@functools.lru_cache(maxsize=1024)
def _half_width(scales: tuple[float, ...]) -> int:
    spread = math.sqrt(sum(scale**2 for scale in scales))
    if spread > (_CLOSE if len(scales) == 1 else _CLOSE_SUM):
        # One draw is held to 95 % at least, as centers state it.
        return math.ceil(NORMAL * spread - (0.5 if len(scales) > 1 else 0.0))
    reach = math.ceil(12 * spread) + 1
    chances = [1.0 if number == 0 else 0.0 for number in range(-reach, reach + 1)]
    for scale in scales:
        weights = [math.exp(-(number**2) / (2 * scale**2)) for number in range(-reach, reach + 1)]
        all_weights = sum(weights)
        drawn = [weight / all_weights for weight in weights]
        chances = drawn if chances[reach] == 1.0 else _convolved(chances, drawn, reach)
    inside = [chances[reach]]
    for width in range(1, reach + 1):
        inside.append(inside[-1] + chances[reach - width] + chances[reach + width])
    if len(scales) == 1:
        return next(width for width, chance in enumerate(inside) if chance >= CONFIDENCE)
    return min(range(len(inside)), key=lambda width: abs(inside[width] - CONFIDENCE))


def _convolved(first: Sequence[float], second: Sequence[float], reach: int) -> list[float]:
    size = len(first)
    summed = [0.0] * size
    for place, chance in enumerate(first):
        if chance < 1e-18:
            continue
        for other in range(max(0, reach - place), min(size, size + reach - place)):
            summed[place + other - reach] += chance * second[other]
    return summed


def readable_from(scale: float, groups: int) -> int:
    """The smallest number that stands for somebody: among so many groups of nobody, every other time one shows.

    Numbers below it are left out of tables for people, and of nothing else.
    """
    if groups <= 1 or scale <= 0:
        return READABLE_FROM
    return max(READABLE_FROM, math.ceil(scale * NormalDist().inv_cdf(1 - 0.5 / groups) + 0.5))


def plus_minus(half_width: int | None) -> str:
    """How a half-width stands behind its number."""
    return "" if half_width is None else f" ± {half_width:,}"
