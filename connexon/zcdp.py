"""What privacy costs: rho of zero-concentrated differential privacy, and epsilon at a delta.

rho adds up over answers, however many and in whatever order they are asked (Bun and Steinke, Concentrated differential
privacy, TCC 2016, doi:10.1007/978-3-662-53641-4_24); epsilon is what people read. No random numbers here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from statistics import NormalDist

_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 80
_ROUNDING = 1e-12
"""By which a price is lowered, so that rounding of numbers cannot make it too large."""


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon that rho-zCDP promises at this delta, never too small.

    By the conversion of Canonne, Kamath and Steinke (The discrete Gaussian for differential privacy, NeurIPS 2020,
    arXiv:2004.00010). It holds for every order alpha, so a search that misses the best one errs on the safe side.
    """
    _require(rho >= 0, 0 < delta < 1)
    if rho == 0:
        return 0.0
    # The best alpha lies about 1 + sqrt(log(1 / delta) / rho).
    about = math.log(math.sqrt(math.log(1 / delta) / rho))
    return max(0.0, _least(lambda order: (1 + order) * rho + _beside(order, delta), about - 6, about + 6))


@functools.lru_cache(maxsize=512)
def rho_of(epsilon: float, delta: float) -> float:
    """The largest rho that promises this epsilon at this delta, never too large: what a question costs."""
    _require(epsilon >= 0, 0 < delta < 1)
    if epsilon == 0:
        return 0.0
    # The same conversion solved for rho: every order gives one that is kept to, the best one the largest.
    best = -_least(lambda order: (_beside(order, delta) - epsilon) / (1 + order), -8, 30)
    return max(0.0, best * (1 - _ROUNDING))


def _beside(order: float, delta: float) -> float:
    """What the conversion adds to alpha times rho; `order` is alpha - 1."""
    return (math.log(1 / delta) - math.log1p(order)) / order - math.log1p(1 / order)


def _least(bound: Callable[[float], float], low: float, high: float) -> float:
    """The least value of a function that falls and then rises, of an argument between two powers of e."""
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if bound(math.exp(left)) <= bound(math.exp(right)):
            high = right
        else:
            low = left
    return bound(math.exp((low + high) / 2))


def _require(*conditions: bool) -> None:
    # A NaN fulfils no comparison.
    if not all(conditions):
        raise ValueError("rho and epsilon are finite numbers from 0, delta lies between 0 and 1")


def best_guess(rho: float) -> float:
    """How often one secret bit, equally likely either way, can be guessed right at best, with all answers of `rho`.

    What rho-zCDP allows is told no better than a shift of a normal distribution by sqrt(2 rho): a guess is right with
    Phi(sqrt(2 rho) / 2) (Dong, Roth and Su, Gaussian differential privacy, 2022, doi:10.1111/rssb.12454). A donor who
    is known to be there and whose value is secret moves two groups of a table: twice the rho.
    """
    _require(rho >= 0)
    return NormalDist().cdf(math.sqrt(2 * rho) / 2)
