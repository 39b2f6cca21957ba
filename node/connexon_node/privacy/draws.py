"""What was drawn stands: the same question gets the same numbers and is not paid for again; accuracy is added to them.

The draws of a question are independent, each paid for by itself. Their mean, weighted by what each has cost, is as
close as one draw at the price of all of them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyroaring import BitMap
from sqlalchemy import Connection, func, insert, select

from connexon.clock import now_ms
from connexon.conditions.filters import Scalar
from connexon.conditions.wire_filter import value_from_wire, write_value
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.privacy.tables import PrivacyDrawRow

Key = tuple[Scalar | None, ...]

_DRAWS = PrivacyDrawRow.metadata.tables[str(PrivacyDrawRow.__tablename__)]
_CHUNK = 1_000
NOBODY = BitMap().serialize()
"""The donors of a draw that was brought back to an older copy: the node does not know them any more."""


@dataclass(frozen=True)
class Draw:
    """Noisy numbers by group, also those that are too small to show; `bitmap` has the donors counted in them."""

    question: bytes
    dataset: str
    query_id: str
    rho: float
    scale: float
    numbers: Mapping[Key, int]
    bitmap: bytes
    id: int = 0


def of(connection: Connection, question: bytes) -> tuple[Draw, ...]:
    """Every draw of a question, oldest first."""
    query = select(_DRAWS).where(_DRAWS.c.question == question).order_by(_DRAWS.c.id)
    return tuple(
        Draw(
            question,
            row.dataset,
            row.query_id,
            row.rho,
            row.scale,
            _numbers(bytes(row.numbers)),
            bytes(row.bitmap),
            row.id,
        )
        for row in connection.execute(query)
    )


def paid(draws: Sequence[Draw]) -> float:
    """What the numbers have cost, in rho."""
    return sum(draw.rho for draw in draws)


def mean(draws: Sequence[Draw]) -> dict[Key, int]:
    """The numbers of groups that every draw has, to the nearest whole number.

    A group can be in one draw and not in another only where names are not public and its last donor has withdrawn.
    """
    whole = paid(draws)
    keys = [key for key in draws[0].numbers if all(key in draw.numbers for draw in draws)]
    return {key: round(sum(draw.rho * draw.numbers[key] for draw in draws) / whole) for key in keys}


def counting(database: Database, donor: int) -> list[tuple[str, str, int]]:
    """Dataset, query id and time of every draw that counted this donor number, oldest first."""
    query = select(_DRAWS.c.dataset, _DRAWS.c.query_id, _DRAWS.c.at_ms, _DRAWS.c.bitmap).order_by(_DRAWS.c.id)
    with database.reading() as connection:
        rows = connection.execute(query).yield_per(_CHUNK)
        return [
            (row.dataset, row.query_id, row.at_ms) for row in rows if donor in BitMap.deserialize(bytes(row.bitmap))
        ]


def keep(connection: Connection, draw: Draw) -> None:
    """Write a draw down, within the transaction that lets it out."""
    last = connection.execute(select(func.max(_DRAWS.c.id))).scalar_one() or 0
    row = {**vars(draw), "id": last + 1, "numbers": _to_bytes(draw.numbers), "at_ms": now_ms()}
    connection.execute(insert(_DRAWS), row)


def _to_bytes(numbers: Mapping[Key, int]) -> bytes:
    kept = answer_pb2.CountResult()
    for key, number in numbers.items():
        cell = kept.cells.add(number=number)
        for value in key:
            write_value(value, cell.key.add())
    return kept.SerializeToString(deterministic=True)


def _numbers(kept: bytes) -> dict[Key, int]:
    cells = answer_pb2.CountResult.FromString(kept).cells
    return {tuple(value_from_wire(value) for value in cell.key): cell.number for cell in cells}
