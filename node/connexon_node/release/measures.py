"""What noise is added to, by the shape of a result: whole numbers of each group, each donor within its bound.

INVARIANT: a donor moves each number of a group by one of its steps at most, and is in as many groups as the price says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy
from numpy.typing import NDArray

from connexon.analyses.mean import STEPS
from connexon.analyses.spec import Unit
from connexon.conditions.filters import Scalar
from connexon.conditions.wire_filter import value_from_wire
from connexon.errors import Refused
from connexon.v1 import answer_pb2
from connexon_node.analyses.spec import NoisyTable
from connexon_node.pipeline.values import Cell, CellTable, Shape, SumTable
from connexon_node.privacy.contributions import bounded_groups, bounded_records, kept_groups
from connexon_node.release.donor_multiset import Donors
from connexon_node.release.wire import add_cell, add_sums

Key = tuple[Scalar | None, ...]
Numbers = tuple[int, ...]
N = TypeVar("N", bound=numpy.generic)


class UnknownShape(Refused):
    """A result that the release step does not understand."""

    code = "release.unknown_result"

    def __init__(self) -> None:
        super().__init__("The center does not know how to release such a result, so it does not leave.")


@dataclass(frozen=True)
class Measured:
    """`groups` has the exact numbers of each group; `steps` says of each number in how many units one of it is counted.

    `cells` are the groups as the steward may see them, `behind` the donors of each.
    """

    by: tuple[str, ...]
    steps: Numbers
    groups: Mapping[Key, Numbers]
    cells: Mapping[Key, Cell]
    behind: Sequence[Donors]


def measured(shape: Shape, table: NoisyTable, contributions: int) -> Measured:
    """The numbers of a result. Raises UnknownShape where there is no form with noise for its shape."""
    match shape:
        case CellTable():
            return _counts(shape, table, contributions)
        case SumTable():
            return _sums(shape, table, contributions)
        case _:
            raise UnknownShape


def write(
    shape: Shape, table: NoisyTable, groups: Mapping[Key, Numbers], answer: answer_pb2.Answer, *, withheld: bool
) -> None:
    """Write what leaves into an answer; `withheld`: groups may have been left out. Raises UnknownShape."""
    match shape:
        case CellTable(by):
            answer.count.by.extend(by)
            answer.count.groups_withheld = withheld
            for key, (number,) in groups.items():
                add_cell(answer.count, key, number)
        case SumTable(field, by):
            answer.mean.field = field
            answer.mean.by.extend(by)
            answer.mean.groups_withheld = withheld
            answer.mean.low, answer.mean.high = _range(table)
            for key, (number, steps) in groups.items():
                add_sums(answer.mean, key, number, steps=steps)
        case _:
            raise UnknownShape


def read(answer: answer_pb2.Answer) -> tuple[tuple[str, ...], dict[Key, Numbers]]:
    """The inverse of `write`: the fields grouped by, and the numbers that left."""
    match answer.WhichOneof("result"):
        case "count":
            counted: dict[Key, Numbers] = {
                tuple(map(value_from_wire, cell.key)): (cell.number,) for cell in answer.count.cells
            }
            return tuple(answer.count.by), counted
        case "mean":
            summed: dict[Key, Numbers] = {
                tuple(map(value_from_wire, cell.key)): (cell.number, cell.steps) for cell in answer.mean.cells
            }
            return tuple(answer.mean.by), summed
        case None:
            return (), {}
        case _:
            raise UnknownShape


def _counts(shape: CellTable, table: NoisyTable, contributions: int) -> Measured:
    keys, behind = [cell.key for cell in shape.cells], [_behind(cell) for cell in shape.cells]
    bound = bounded_records if table.unit is Unit.RECORDS else bounded_groups
    numbers = bound(keys, behind, contributions)
    groups = {key: (number,) for key, number in zip(keys, numbers, strict=True)}
    return Measured(shape.by, (1,), groups, {cell.key: cell for cell in shape.cells}, behind)


def _sums(shape: SumTable, table: NoisyTable, contributions: int) -> Measured:
    low, high = _range(table)
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    keys = [cell.key for cell in shape.cells]
    donors = [_known(cell.donors) for cell in shape.cells]
    kept = kept_groups(keys, donors, contributions)
    groups, cells = {}, {}
    for cell, behind, stay in zip(shape.cells, donors, kept, strict=True):
        own = _known(cell.own)[stay]
        # A value that is none, or beyond every number, counts as the middle: it must not spoil the others'.
        place = numpy.nan_to_num((own - middle) / half, nan=0.0, posinf=1.0, neginf=-1.0)
        units = numpy.rint(numpy.clip(place, -1.0, 1.0) * STEPS).astype(numpy.int64)
        groups[cell.key] = (int(stay.sum()), int(units.sum()))
        cells[cell.key] = Cell(cell.key, behind.size, behind.size, behind)
    return Measured(shape.by, (1, STEPS), groups, cells, donors)


def _range(table: NoisyTable) -> tuple[float, float]:
    if table.range is None:
        raise UnknownShape
    return table.range


def _known(array: NDArray[N] | None) -> NDArray[N]:
    if array is None:
        raise UnknownShape
    return array


def _behind(cell: Cell) -> Donors:
    if cell.behind is None:
        raise UnknownShape
    return cell.behind
