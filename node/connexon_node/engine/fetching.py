"""From an Arrow result to rows: values as Python has them, lists of donors as arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon_node.analyses.spec import BEHIND, OWN, Rows


def fetched(table: Any) -> Rows:
    """Every row of an Arrow table.

    The column BEHIND becomes an int32 array of donor numbers, the column OWN such an array and one of float64.
    """
    read: dict[str, Callable[[Any], list[Any]]] = {BEHIND: _lists, OWN: _pairs}
    columns: list[list[Any]] = [
        read[name](table.column(place)) if name in read else table.column(place).to_pylist()
        for place, name in enumerate(table.column_names)
    ]
    return list(zip(*columns, strict=True))


def _lists(column: Any) -> list[NDArray[numpy.int32]]:
    # A list over no rows is missing in SQL: nobody is behind it.
    return [
        numpy.empty(0, dtype=numpy.int32) if not one.is_valid else one.values.to_numpy().astype(numpy.int32, copy=False)
        for one in column
    ]


def _pairs(column: Any) -> list[tuple[NDArray[numpy.int32], NDArray[numpy.float64]]]:
    return [_pair(one.values) if one.is_valid else _pair(None) for one in column]


def _pair(values: Any) -> tuple[NDArray[numpy.int32], NDArray[numpy.float64]]:
    if values is None:
        return numpy.empty(0, dtype=numpy.int32), numpy.empty(0)
    donors, own = values.field("donor"), values.field("own")
    return (
        donors.to_numpy(zero_copy_only=False).astype(numpy.int32, copy=False),
        own.to_numpy(zero_copy_only=False).astype(numpy.float64, copy=False),
    )
