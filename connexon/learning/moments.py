"""Count, mean and spread of numbers that lie apart: each part tells its own, and they are those of all numbers at once.

The spread is told as the sum of squared deviations from the part's own mean. Sums of squares would not do: of a column
of mean 1e5 and standard deviation 0.05 the mean square less the squared mean has no digit left that is right (Chan,
Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 1983,
doi:10.1080/00031305.1983.10483115).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

LARGEST_MEAN = 1e140
LARGEST_SQUARE = 1e300
"""Beyond these, squares of what many centers tell would no longer be finite."""


@dataclass(frozen=True)
class Moments:
    """How many numbers, their mean, and the sum of their squared deviations from it."""

    count: float = 0.0
    mean: float = 0.0
    squared_deviations: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether these can be moments of numbers, and be put together with others."""
        return (
            0 <= self.count <= 2**53
            and abs(self.mean) <= LARGEST_MEAN
            and 0 <= self.squared_deviations <= LARGEST_SQUARE
        )

    @property
    def sd(self) -> float:
        """The standard deviation: of these numbers themselves, not of what they may be a sample of."""
        return math.sqrt(self.squared_deviations / self.count) if self.count > 0 else 0.0


def moments_of(values: NDArray[numpy.float64]) -> Moments:
    """Of finite numbers; not `sound` where they are too large to be squared."""
    if not len(values):
        return Moments()
    with numpy.errstate(over="ignore", invalid="ignore"):
        # Differences from one of them, so that equal numbers have exactly their own mean and no spread.
        mean = float(values[0] + (values - values[0]).mean())
        deviations = values - mean
        # The second term is what the rounding of the mean has added to the first.
        squared = float((deviations**2).sum() - deviations.sum() ** 2 / len(values))
    return Moments(float(len(values)), mean, max(0.0, squared))


def together(parts: Sequence[Moments]) -> Moments:
    """Of all parts' numbers at once, from `sound` parts. Chan, Golub and LeVeque's formula, for any number of parts.

    The standard deviation is right to 1e-9, or where the mean is more than a million of them to as much as the means'
    own digits allow.
    """
    parts = [part for part in parts if part.count > 0]
    if not parts:
        return Moments()
    count, begin = math.fsum(part.count for part in parts), parts[0].mean
    mean = begin + math.fsum(part.count * (part.mean - begin) for part in parts) / count
    within = math.fsum(part.squared_deviations for part in parts)
    between = math.fsum(part.count * (part.mean - mean) ** 2 for part in parts)
    rounding = math.fsum(part.count * (part.mean - mean) for part in parts) ** 2 / count
    return Moments(count, mean, within + max(0.0, between - rounding))
