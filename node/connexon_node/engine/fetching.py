"""From an Arrow result to rows: values as Python has them, lists of donors as arrays."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray

from connexon_node.analyses.spec import BEHIND, Rows


def fetched(table: Any) -> Rows:
    """Every row of an Arrow table; the column BEHIND becomes an int32 array of donor numbers."""
    columns: list[list[Any]] = [
        _lists(table.column(place)) if name == BEHIND else table.column(place).to_pylist()
        for place, name in enumerate(table.column_names)
    ]
    return list(zip(*columns, strict=True))


def _lists(column: Any) -> list[NDArray[numpy.int32]]:
    # A list over no rows is missing in SQL: nobody is behind it.
    return [
        numpy.empty(0, dtype=numpy.int32) if not one.is_valid else one.values.to_numpy().astype(numpy.int32, copy=False)
        for one in column
    ]
