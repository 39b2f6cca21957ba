"""First-ask frames: small ones of any sizes, and the shipped one with the donors of a simulated center."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pyarrow

from connexon_node.data.synthetic import Scope, frequencies, sample
from connexon_node.privacy.first_ask import Cell, Dimension, Frame, Origin, Table
from connexon_node.privacy.first_ask.dimensions import Codes


def small_frame(sizes: Sequence[int], tables: Sequence[Table]) -> Frame:
    """Dimensions a, b, c, ... of these sizes."""
    return Frame(tuple(_axis(chr(ord("a") + place), size) for place, size in enumerate(sizes)), tuple(tables))


def shipped_frame() -> Frame:
    """The standard frame with the lists that the simulated centers use."""
    return Frame.standard(
        diseases=[disease.term for disease in frequencies.DISEASES if disease.term],
        ancestries=[term for term in frequencies.ANCESTRIES if term],
        countries=list(frequencies.COUNTRIES),
    )


def coded_center(frame: Frame, donors: int, seed: int) -> dict[str, Codes]:
    """The dimensions of every donor of a simulated center, as an edition would code them."""
    made = sample("kyoto", donors, seed, features=1, scope=Scope.SCIENCE)
    owner = {"donors": numpy.arange(donors)}
    owner["cell_lines"] = _owners(made["cell_lines"]["donor_id"], made["donors"], owner["donors"])
    owner["lots"] = _owners(made["lots"]["cell_line_id"], made["cell_lines"], owner["cell_lines"])
    runs = made["differentiation_runs"]
    owner["differentiation_runs"] = _owners(runs["lot_id"], made["lots"], owner["lots"])
    codes = {}
    for one in frame.dimensions:
        table = made[one.dataset]
        values = table[one.field].to_pylist() if one.field else [None] * table.num_rows
        codes[one.name] = one.coded(owner[one.dataset], values, donors=donors)
    return codes


def _owners(references: pyarrow.ChunkedArray, parents: pyarrow.Table, owners: Codes) -> Codes:
    place = {name: number for number, name in enumerate(parents["id"].to_pylist())}
    return numpy.array([owners[place[name]] for name in references.to_pylist()], dtype=numpy.int64)


def _axis(name: str, size: int) -> Dimension:
    cells = tuple(Cell(f"{name}{number}", frozenset({f"{name}{number}"})) for number in range(size))
    return Dimension(name=name, title=name, dataset="donors", field=name, origin=Origin.OWN, cells=cells)
