"""Which donors are kept apart to evaluate a model: drawn by their numbers, so that every task draws the same."""

from __future__ import annotations

import hashlib

import numpy
from numpy.typing import NDArray

_HELD_OUT_OF = 1 << 32


def held_out(donors: NDArray[numpy.int32], share: float, seed: int) -> NDArray[numpy.bool_]:
    """Which rows are kept apart: all of a donor's or none, the same ones in every round, whoever else withdraws."""
    numbers, inverse = numpy.unique(donors, return_inverse=True)
    below = round(share * _HELD_OUT_OF)
    apart = [_draw(seed, int(number)) < below for number in numbers]
    return numpy.array(apart, dtype=bool)[inverse]


def _draw(seed: int, donor: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{donor}".encode(), digest_size=4).digest(), "big")
