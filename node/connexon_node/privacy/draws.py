"""What was drawn stands: the same question gets the same numbers, whoever asks, and is not paid for again."""

from __future__ import annotations

from dataclasses import dataclass

from pyroaring import BitMap
from sqlalchemy import Connection, func, insert, select

from connexon.clock import now_ms
from connexon.database import Database
from connexon_node.consent.ledger import Ledger
from connexon_node.privacy.tables import PrivacyDrawRow

_DRAWS = PrivacyDrawRow.metadata.tables[str(PrivacyDrawRow.__tablename__)]

_CHUNK = 1_000


@dataclass(frozen=True)
class Draw:
    """A noisy outcome: `outcome` is a serialised Answer without its addresses, `bitmap` the donors counted in it."""

    question: bytes
    dataset: str
    epoch: int
    query_id: str
    outcome: bytes
    bitmap: bytes
    id: int = 0


def standing(connection: Connection, ledger: Ledger, question: bytes, *, fewer_than: int) -> Draw | None:
    """The draw that stands for a question, while the consent of fewer than so many donors has changed since."""
    query = select(_DRAWS).where(_DRAWS.c.question == question).order_by(_DRAWS.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None or ledger.changed_since(connection, row.epoch) >= fewer_than:
        return None
    return Draw(
        bytes(row.question), row.dataset, row.epoch, row.query_id, bytes(row.outcome), bytes(row.bitmap), row.id
    )


def counting(database: Database, donor: int) -> list[tuple[str, str, int]]:
    """Dataset (empty for a catalog), query id and time of every draw that counted this donor number, oldest first."""
    query = select(_DRAWS.c.dataset, _DRAWS.c.query_id, _DRAWS.c.at_ms, _DRAWS.c.bitmap).order_by(_DRAWS.c.id)
    with database.reading() as connection:
        rows = connection.execute(query).yield_per(_CHUNK)
        return [
            (row.dataset, row.query_id, row.at_ms) for row in rows if donor in BitMap.deserialize(bytes(row.bitmap))
        ]


def keep(connection: Connection, draw: Draw) -> None:
    """Write a draw down, within the transaction that lets it out."""
    last = connection.execute(select(func.max(_DRAWS.c.id))).scalar_one() or 0
    connection.execute(insert(_DRAWS), {**vars(draw), "id": last + 1, "at_ms": now_ms()})
