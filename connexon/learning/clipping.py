"""An update of a model, shortened: how far one center, and so one donor, can move it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def clipped(start: Arrays, new: Arrays, clip: float) -> dict[str, NDArray[Any]]:
    """The new arrays, moved back towards the start until they are at most `clip` away from it."""
    length = numpy.sqrt(sum(float(((new[name].astype(numpy.float64) - start[name]) ** 2).sum()) for name in new))
    factor = min(1.0, clip / length) if length > 0 else 1.0
    moved = {name: start[name] + factor * (new[name].astype(numpy.float64) - start[name]) for name in new}
    return {name: values.astype(start[name].dtype) for name, values in moved.items()}
