"""Which questions are the same: a normal form of conditions, decided from words alone and never from data.

INVARIANT: nothing here looks at rows. If equal cohorts shared their noise because they are equal, equal noise would
tell that they are (Gadotti et al., When the signal is in the noise, USENIX Security 2019).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any as Tree

import numpy
from numpy.typing import NDArray

from connexon.conditions import filters
from connexon.conditions.filters import (
    Between,
    Compare,
    DescendsFrom,
    Filter,
    Has,
    IsMissing,
    Not,
    OneOf,
    Operator,
    Scalar,
    Under,
)

MAXIMUM_ATOMS = 8
"""Up to so many different conditions are compared by their truth table, which sees through every rewriting."""
_TWO_VALUED = ("missing", "has")


def canonical(node: Filter | None) -> str:
    """A text that is equal for filters which the rules of logic make equal.

    A comparison with a missing value is neither true nor false (Kleene's third value), and a row counts where the whole
    is true. Of more than MAXIMUM_ATOMS conditions only order, repetition and nesting are seen through.
    """
    if node is None:
        return '["all",[],"1"]'
    tree = _tree(node)
    atoms = sorted(set(_atoms(tree)))
    written = _by_truth(tree, atoms) if len(atoms) <= MAXIMUM_ATOMS else _sorted(tree)
    return json.dumps(written, separators=(",", ":"))


def _tree(node: Filter) -> list[Tree]:
    """The filter as nested lists: and, or, not, and atoms, which are texts."""
    match node:
        case filters.All(parts):
            return ["and", *map(_tree, parts)]
        case filters.Any(parts):
            return ["or", *map(_tree, parts)]
        case Not(child):
            return ["not", _tree(child)]
        case Compare(field, how, value):
            return _comparison(field, how, value)
        case OneOf(field, values):
            return ["or", *(_comparison(field, Operator.EQUAL, value) for value in values)]
        case Between(field, low, high):
            above = _comparison(field, Operator.GREATER_OR_EQUAL, low)
            return ["and", above, _comparison(field, Operator.LESS_OR_EQUAL, high)]
        case IsMissing(field):
            return _atom("missing", field)
        case Under(field, term):
            return _atom("under", field, term)
        case Has(dataset, inside):
            return _atom("has", dataset, canonical(inside))
        case DescendsFrom(line):
            return _atom("descends", line)


def _comparison(field: str, how: Operator, value: Scalar) -> list[Tree]:
    match how:
        case Operator.NOT_EQUAL:
            return ["not", _comparison(field, Operator.EQUAL, value)]
        case Operator.GREATER:
            return ["not", _comparison(field, Operator.LESS_OR_EQUAL, value)]
        case Operator.GREATER_OR_EQUAL:
            return ["not", _comparison(field, Operator.LESS, value)]
        case _:
            return _atom(how.value, field, _plain(value))


def _atom(*parts: object) -> list[Tree]:
    return ["is", json.dumps(parts, separators=(",", ":"))]


def _plain(value: Scalar) -> object:
    """Whole numbers alike, whether written with a point or without."""
    if isinstance(value, datetime.date):
        return ["date", value.isoformat()]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _atoms(tree: list[Tree]) -> list[str]:
    kind, *rest = tree
    return rest if kind == "is" else [atom for child in rest for atom in _atoms(child)]


def _by_truth(tree: list[Tree], atoms: Sequence[str]) -> list[Tree]:
    """The atoms that make a difference, and for every way in which they can hold whether the row counts."""
    # False, unknown and true are 0, 1 and 2; presence is never unknown.
    values = [(0, 2) if json.loads(atom)[0] in _TWO_VALUED else (0, 1, 2) for atom in atoms]
    shape = tuple(len(possible) for possible in values)
    held: dict[str, NDArray[numpy.int8]] = {}
    for axis, (atom, possible) in enumerate(zip(atoms, values, strict=True)):
        along = [1] * len(atoms)
        along[axis] = len(possible)
        held[atom] = numpy.array(possible, dtype=numpy.int8).reshape(along)
    counts = numpy.broadcast_to(_holds(tree, held), shape) == 2
    telling: list[str] = []
    for axis in reversed(range(len(atoms))):
        first = numpy.take(counts, [0], axis=axis)
        if (counts == first).all():
            counts = numpy.take(counts, 0, axis=axis)
        else:
            telling.insert(0, atoms[axis])
    return ["all", telling, "".join("1" if one else "0" for one in counts.ravel())]


def _holds(tree: list[Tree], held: dict[str, NDArray[numpy.int8]]) -> NDArray[numpy.int8]:
    kind, *rest = tree
    if kind == "is":
        return held[rest[0]]
    parts = [_holds(child, held) for child in rest]
    if kind == "not":
        return numpy.int8(2) - parts[0]
    whole = parts[0]
    for part in parts[1:]:
        whole = numpy.minimum(whole, part) if kind == "and" else numpy.maximum(whole, part)
    return whole


def _sorted(tree: list[Tree]) -> list[Tree]:
    """The tree without double negation, nesting of the same kind, repetition and order."""
    kind, *rest = tree
    if kind == "is":
        return tree
    parts = [_sorted(child) for child in rest]
    if kind == "not":
        inner: list[Tree] = parts[0]
        return list(inner[1]) if inner[0] == "not" else ["not", inner]
    flat = [part for one in parts for part in (one[1:] if one[0] == kind else [one])]
    distinct = sorted({json.dumps(part): part for part in flat}.items())
    return list(distinct[0][1]) if len(distinct) == 1 else [kind, *(part for _, part in distinct)]
