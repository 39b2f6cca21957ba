"""Counts as they go over the wire."""

from __future__ import annotations

from collections.abc import Sequence

from connexon.question import Scalar
from connexon.v1 import answer_pb2
from connexon.wire_filter import write_value


def add_cell(result: answer_pb2.CountResult, key: Sequence[Scalar | None], count: int) -> None:
    """One more group, with its number."""
    # Filled in place: to make the messages first and copy them takes several times as long.
    cell = result.cells.add()
    cell.count = count
    for value in key:
        write_value(value, cell.key.add())
