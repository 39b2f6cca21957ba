"""The noise in released numbers, as centers state it, and what it comes to in a sum."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from connexon.errors import Refused
from connexon.v1 import answer_pb2

_NORMAL = 1.959963984540054
"""Half-width of the interval that holds 95 % of the standard normal distribution."""


class NoiseUnreadable(Refused):
    """A center states noise that cannot be."""

    code = "answer.bad_noise"


@dataclass(frozen=True)
class Noise:
    """Noise of differential privacy, drawn for each number by itself.

    A number lies within `half_width` of the count with 95 % probability, rounding included. At most
    `records_per_donor` records of one donor are counted; numbers below `shown_from` are left out.
    """

    epsilon: float
    delta: float
    rho: float
    scale: float
    half_width: float
    records_per_donor: int
    shown_from: int


def read(wire: answer_pb2.Noise) -> Noise:
    """The noise that a center states. Raises NoiseUnreadable."""
    sizes = (wire.epsilon, wire.delta, wire.rho, wire.scale, wire.half_width)
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        raise NoiseUnreadable("The center's answer states noise that cannot be.")
    return Noise(*sizes, wire.records_per_donor, wire.shown_from)


def together(parts: Iterable[Noise | None]) -> float | None:
    """Half-width of the 95 % interval of a sum of one number from each; None where none has noise.

    Independent noises add up in their squares; what rounding adds to a half-width may all go one way.
    """
    noisy = [part for part in parts if part is not None]
    if not noisy:
        return None
    if len(noisy) == 1:
        return noisy[0].half_width
    rounding = sum(max(0.0, part.half_width - _NORMAL * part.scale) for part in noisy)
    return _NORMAL * math.sqrt(sum(part.scale**2 for part in noisy)) + rounding


def plus_minus(half_width: float | None) -> str:
    """How a half-width stands behind its number."""
    return "" if half_width is None else f" ± {math.ceil(half_width):,}"
