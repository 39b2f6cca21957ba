"""What privacy costs: rho of zero-concentrated differential privacy, and epsilon at a delta.

rho adds up over answers, however many and in whatever order they are asked (Bun and Steinke, Concentrated differential
privacy, TCC 2016, doi:10.1007/978-3-662-53641-4_24); epsilon is what people read. No random numbers here.
"""

from __future__ import annotations

import functools
import math

_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 80


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon that rho-zCDP promises at this delta, never too small.

    By the conversion of Canonne, Kamath and Steinke (The discrete Gaussian for differential privacy, NeurIPS 2020,
    arXiv:2004.00010). It holds for every order alpha, so a search that misses the best one errs on the
    safe side.
    """
    _require(rho >= 0, 0 < delta < 1)
    if rho == 0:
        return 0.0

    def bound(log_order: float) -> float:
        order = math.exp(log_order)  # alpha - 1
        alpha = 1 + order
        return alpha * rho - math.log1p(1 / order) + (math.log(1 / delta) - math.log(alpha)) / order

    # The best alpha lies about 1 + sqrt(log(1 / delta) / rho); the bound falls and then rises around it.
    about = math.log(math.sqrt(math.log(1 / delta) / rho) + 1e-12)
    low, high = about - 6, about + 6
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if bound(left) <= bound(right):
            high = right
        else:
            low = left
    return max(0.0, bound((low + high) / 2))


@functools.lru_cache(maxsize=512)
def rho_of(epsilon: float, delta: float) -> float:
    """The largest rho that promises this epsilon at this delta, never too large: what a question costs."""
    _require(epsilon >= 0, 0 < delta < 1)
    # Only a delta near 1 would allow a rho above epsilon; not looking there errs on the safe side.
    low, high = 0.0, epsilon
    for _ in range(2 * _STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if epsilon_of(middle, delta) <= epsilon:
            low = middle
        else:
            high = middle
    return low


def _require(*conditions: bool) -> None:
    # A NaN fulfils no comparison.
    if not all(conditions):
        raise ValueError("rho and epsilon are finite numbers from 0, delta lies between 0 and 1")
