"""The types of the fields that counts are grouped by: one for each column, on which all centers that count agree.

Tables of other programs have one type per column, and in Python `1`, `1.0` and `True` are the same key. So a center
whose keys are of another type than most centers' cannot be put beside them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from connexon.analyses.results import ResultUnreadable
from connexon.conditions.filters import Scalar
from connexon.identity.keys import CenterId
from connexon.safe_text import spelled

Key = tuple[Scalar | None, ...]
V = TypeVar("V")
Cells = Mapping[Key, V]
"""What a center says of each group."""
_EXACT = 2**53
"""Up to here every whole number is a number in double precision, too."""


def read(pairs: Sequence[tuple[Key, V]], width: int) -> dict[Key, V]:
    """One center's cells with one type in each of `width` columns; whole numbers among others become such.

    Raises ResultUnreadable.
    """
    if any(len(key) != width for key, _ in pairs):
        raise ResultUnreadable("The center's result does not fit the question.")
    for place in range(width):
        found = {type(key[place]) for key, _ in pairs} - {type(None)}
        if (found == {int, float} and _are_exact(pairs, place)) or found == {float}:
            pairs = [(_changed(key, place, _as_number), number) for key, number in pairs]
        elif len(found) > 1:
            raise ResultUnreadable("The center's result mixes texts, numbers, dates or truth values in one field.")
    cells = dict(pairs)
    if len(cells) != len(pairs):
        raise ResultUnreadable("The center's result has a group twice.")
    return cells


def agreed(
    by: Sequence[str], centers: Mapping[CenterId, Cells[V]]
) -> tuple[dict[CenterId, Cells[V]], dict[CenterId, str]]:
    """The cells of the centers that fit together, and of each that does not why, in a sentence.

    A column has the type that most centers give it. Whole numbers fit a column of numbers. Where as many centers say
    one as another, nobody is believed more: the column becomes text, and its centers stay.
    """
    fitting, misfits = dict(centers), dict[CenterId, str]()
    for place, field in enumerate(by):
        types = {center: _type(cells, place) for center, cells in fitting.items()}
        votes = Counter(one for one in types.values() if one is not None)
        if len(votes) < 2:
            continue
        most = max(votes.values())
        leading = {one for one, number in votes.items() if number == most}
        for center, one in types.items():
            change = _change(one, leading, fitting[center], place)
            if change is None:
                misfits[center] = f"Its values of {field} are of another type than the other centers'."
                del fitting[center]
            elif change is not _same:
                fitting[center] = {_changed(key, place, change): number for key, number in fitting[center].items()}
    return fitting, misfits


def _change(
    one: type | None, leading: set[type], cells: Cells[V], place: int
) -> Callable[[Scalar | None], Scalar | None] | None:
    """What to do with a center's values of this type; None where they do not fit."""
    if one is None or leading == {one}:
        return _same
    if float in leading and leading <= {int, float}:
        exact = one is float or (one is int and _are_exact(cells.items(), place))
        return _as_number if exact else None
    if one not in leading:
        return None
    return _same if one is str else _as_text


def _type(cells: Cells[V], place: int) -> type | None:
    return next((type(key[place]) for key in cells if key[place] is not None), None)


def _are_exact(pairs: Iterable[tuple[Key, V]], place: int) -> bool:
    values = (key[place] for key, _ in pairs)
    return all(abs(value) <= _EXACT for value in values if isinstance(value, int))


def _changed(key: Key, place: int, change: Callable[[Scalar | None], Scalar | None]) -> Key:
    return (*key[:place], change(key[place]), *key[place + 1 :])


def _same(value: Scalar | None) -> Scalar | None:
    return value


def _as_number(value: Scalar | None) -> Scalar | None:
    # Minus zero equals zero as a key: the first center's would stand for both.
    return float(value) + 0.0 if isinstance(value, int | float) else value


def _as_text(value: Scalar | None) -> Scalar | None:
    return None if value is None else spelled(value)
