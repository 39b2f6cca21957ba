"""Rules for sums of values, and for means, which are sums with a known count: no contributor stands out.

They hold for each cell of a table of sums, and for what the cell leaves of every sum that is known. A mean of a value
times an indicator is a sum over those who have the indicator: whoever contributes nothing is nobody here, so a sum over
one donor with a value and thousands with zero rests on one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

Contributions = NDArray[numpy.float64]
"""What each donor adds to a sum, one number per donor; zero adds nothing."""


def enough_contributors(contributions: Contributions, minimum: int) -> bool:
    """Whether at least `minimum` donors add something to the sum; donors who add zero are not counted."""
    return int(numpy.count_nonzero(contributions)) >= minimum


def dominated(contributions: Contributions, *, largest: int, percent: float) -> bool:
    """The (n,k) rule: whether the `largest` (n) donors add more than `percent` (k) of the sum.

    Hundepool et al., Statistical Disclosure Control (Wiley 2012), section 4.2.2. By magnitude, so that contributions
    of both signs do not hide each other. A sum of nothing is dominated.
    """
    sizes = _descending(contributions)
    whole = float(sizes.sum())
    return whole == 0 or float(sizes[:largest].sum()) > whole * percent / 100


def estimable(contributions: Contributions, *, percent: float) -> bool:
    """The p% rule: whether the second largest donor can work out the largest to within `percent` of it.

    It takes the sum less its own contribution as an estimate; the others are what makes that wrong. Hundepool et al.
    (2012), section 4.2.2. Stricter than (1,k) alone, since it looks from within. A sum of nothing is estimable.
    """
    sizes = _descending(contributions)
    if not sizes.size or sizes[0] == 0:
        return True
    others = float(sizes[2:].sum())
    return others < float(sizes[0]) * percent / 100


def may_leave(contributions: Contributions, *, minimum: int, largest: int, dominant: float, near: float) -> bool:
    """Whether a sum may leave: enough contributors, not dominated, not estimable; never where a value is not finite."""
    return (
        bool(numpy.isfinite(contributions).all())
        and enough_contributors(contributions, minimum)
        and not dominated(contributions, largest=largest, percent=dominant)
        and not estimable(contributions, percent=near)
    )


def may_differ(
    one: Contributions, other: Contributions, *, minimum: int, largest: int, dominant: float, near: float
) -> bool:
    """Whether two sums over the same donors (in the same order) may both be known: their difference is a sum too."""
    difference = one - other
    if not numpy.isfinite(difference).all():
        return False
    return not difference.any() or may_leave(difference, minimum=minimum, largest=largest, dominant=dominant, near=near)


def quantile_may_leave(values: Sequence[float], fraction: float, *, minimum: int) -> bool:
    """Whether a quantile may leave (rounded): at least `minimum` donors' values lie on either side of it.

    So there is never a minimum or a maximum, and no exact quantile of few (Brandt et al., Guidelines for the checking
    of output based on microdata research, ESSnet SDC 2010).
    """
    if not 0 < fraction < 1:
        return False
    below = fraction * len(values)
    return min(below, len(values) - below) >= minimum


def _descending(contributions: Contributions) -> Contributions:
    return numpy.sort(numpy.abs(contributions))[::-1]
