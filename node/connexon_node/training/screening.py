"""Which inputs an exact update may not tell of, since few donors stand out in them: the hub chose the inputs.

A gradient has a sum for each input, and one for the intercept. An input in which few donors differ from all others
makes its sum, or what the intercept's leaves of it, a sum over those few.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from connexon.learning.preprocessing import Preprocessing


def told_of_few(
    preprocessing: Preprocessing, inputs: NDArray[numpy.float64], donors: NDArray[numpy.int32], minimum: int
) -> NDArray[numpy.bool_]:
    """Of each input whether fewer than `minimum` donors differ in it from what is most frequent, though some do.

    Of a category also those inputs without which few donors would be left who have none of its values.
    """
    few = numpy.zeros(inputs.shape[1], dtype=bool)
    for place in range(inputs.shape[1]):
        values, counts = numpy.unique(inputs[:, place], return_counts=True)
        if len(values) > 1:
            few[place] = _people(donors, inputs[:, place] != values[counts.argmax()]) < minimum
    first = 0
    for column in preprocessing.columns:
        places = numpy.arange(first, first + len(column.inputs))
        first += len(places)
        if column.kind == "category":
            _keep_rest(few, places, inputs, donors, minimum)
    return few


def _keep_rest(
    few: NDArray[numpy.bool_],
    places: NDArray[numpy.intp],
    inputs: NDArray[numpy.float64],
    donors: NDArray[numpy.int32],
    minimum: int,
) -> None:
    """Take the values of fewest donors out of a category, until none or enough donors are in the rest."""
    sizes = {int(place): _people(donors, inputs[:, place] > 0) for place in places}
    kept = sorted((place for place in sizes if not few[place]), key=lambda place: sizes[place])
    for place in kept:
        rest = inputs[:, [one for one in sizes if not few[one]]].sum(axis=1) == 0
        if not 0 < _people(donors, rest) < minimum:
            return
        few[place] = True


def _people(donors: NDArray[numpy.int32], chosen: NDArray[numpy.bool_]) -> int:
    return int(numpy.unique(donors[chosen]).size)
