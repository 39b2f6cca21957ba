"""What bounds one donor's part in a training with noise."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

LARGEST_INPUT = 10.0
"""No input is further from 0: a number further from the middle of its range than ten quarters of it counts as that."""
LARGEST_WEIGHT = 1e4
"""Of a model. With LARGEST_INPUT it keeps rounding in sums far below the noise, whatever model the hub sends."""


def shortening(lengths: NDArray[Any], clip: float) -> NDArray[Any]:
    """By what vectors of these lengths are multiplied, so that none is longer than `clip`.

    INVARIANT: 0 where a length is not finite. Whoever has a gradient that is no number, or too large to be squared,
    adds nothing: were it left in, whether the whole sum is a number would tell of that donor.
    """
    sound = numpy.isfinite(lengths)
    known = numpy.where(sound, lengths, 1.0)
    return numpy.where(sound, numpy.minimum(1.0, clip / numpy.maximum(known, 1e-300)), 0.0)
