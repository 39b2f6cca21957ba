"""Rows as the local work sees them: columns by name, targets, and which donor each row belongs to.

They are handed over in a file that has no name, and nothing comes with them: no id of a donor or record, no question.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy
from numpy.typing import NDArray

from connexon.learning.preprocessing import Kind
from connexon_node.pipeline.held_out import held_out
from connexon_node.pipeline.values import TrainingTable


@dataclass(frozen=True)
class Rows:
    """Donors are numbered from 0 in the order of the rows; the rows of one donor lie together."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    donors: NDArray[numpy.int32]
    target: NDArray[numpy.float64]
    held_out: NDArray[numpy.bool_]
    columns: Mapping[str, NDArray[Any]]

    def of(self, chosen: NDArray[numpy.bool_]) -> Rows:
        """Those rows that are chosen."""
        columns = {name: values[chosen] for name, values in self.columns.items()}
        return Rows(self.names, self.kinds, self.donors[chosen], self.target[chosen], self.held_out[chosen], columns)

    @property
    def donor_count(self) -> int:
        """Distinct donors."""
        return int(numpy.unique(self.donors).size)


def write(table: TrainingTable, *, share: float, seed: int) -> BinaryIO:
    """The rows of a table in a file without a name, from its start."""
    anonymous = _anonymous()
    _, donors = numpy.unique(table.donors, return_inverse=True)
    texts = {f"codes{place}": codes for place, (codes, _) in table.texts.items()}
    about = {
        "names": table.names,
        "kinds": table.kinds,
        "values": {str(place): values for place, (_, values) in table.texts.items()},
    }
    numpy.savez(
        anonymous,
        allow_pickle=False,
        about=numpy.frombuffer(json.dumps(about).encode(), dtype=numpy.uint8),
        donors=donors.astype(numpy.int32),
        target=table.target,
        held_out=held_out(table.donors, share, seed),
        numbers=table.numbers,
        **cast("Any", texts),
    )
    anonymous.seek(0)
    return anonymous


def read(file: BinaryIO) -> Rows:
    """The inverse of `write`."""
    with numpy.load(file, allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        numbers = arrays["numbers"]
        columns: dict[str, NDArray[Any]] = {}
        for place, name in enumerate(about["names"]):
            columns[name] = numbers[:, place]
            if about["kinds"][place] == "category":
                values = numpy.array([*about["values"][str(place)], None], dtype=object)
                columns[name] = values[arrays[f"codes{place}"]]
        return Rows(
            names=tuple(about["names"]),
            kinds=tuple(about["kinds"]),
            donors=arrays["donors"],
            target=arrays["target"],
            held_out=arrays["held_out"],
            columns=columns,
        )


def _anonymous() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("rows"), "w+b")
    return cast("BinaryIO", tempfile.TemporaryFile())
