"""How wide noise may be for numbers to be as close as was asked for."""

from __future__ import annotations

import functools
from statistics import NormalDist

from connexon_node.privacy.noise import CONFIDENCE, half_width

_STEPS = 60
_HAIR = 1e-9


@functools.lru_cache(maxsize=1024)
def scale_within(width: int) -> float:
    """The largest scale of the discrete Gaussian whose whole half-width at 95 % is `width`: the cheapest such noise.

    INVARIANT: the lower end of the bisection is kept, and a hair less: the scale is worked out again from what was
    paid, and rounding upwards would give the next half-width.
    """
    if width < 1:
        raise ValueError("a half-width is a whole number from 1")
    low = width / (2 * NormalDist().inv_cdf((1 + CONFIDENCE) / 2))
    high = 2.0 * (width + 1)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if half_width(middle) <= width:
            low = middle
        else:
            high = middle
    return low * (1 - _HAIR)
