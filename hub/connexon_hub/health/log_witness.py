"""The witness: the centers' audit logs as they were signed from time to time, so that none can be put back unseen.

The hub sees no record: a head is a number and a hash. It takes a new head of a center only with a proof that the log
behind it begins with the one witnessed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, tuple_

from connexon.clock import DAY, HOUR, MINUTE
from connexon.identity.keys import CenterId
from connexon.service.database import Database
from connexon.transparency import merkle
from connexon.transparency.receipt import TreeHead
from connexon.v1 import log_pb2
from connexon_hub.state.tables import LOG_CONTRADICTIONS, LOG_HEADS

PAGE = 1_000
EVERY_MINUTE_MS = 2 * DAY
"""For so long one head a minute is kept; after that, one an hour."""


@dataclass(frozen=True)
class Growth:
    """A head that a center sends: proved to be its own, and claimed by `proof` to continue that of `since` records."""

    head: TreeHead
    signed: log_pb2.SignedTreeHead
    since: int
    proof: tuple[bytes, ...]
    received_ms: int


@dataclass(frozen=True)
class Judgement:
    """What became of it: the head witnessed now, and a sentence where the center contradicts itself.

    `first` tells that this center never did before.
    """

    newest: log_pb2.WitnessedHead
    contradiction: str = ""
    first: bool = False


@dataclass(frozen=True)
class Seen:
    """For `status`: the newest head of a center, and when it first contradicted itself, if it did."""

    size: int
    received_ms: int
    contradicted_ms: int | None


class WitnessStore:
    """The heads in the hub's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, connection: Connection, growths: Sequence[Growth]) -> list[Judgement]:
        """Step: keep each head that continues the one before; a contradiction is kept apart, as evidence."""
        return [_judge(connection, growth) for growth in growths]

    def newest(self, center: CenterId) -> log_pb2.WitnessedHead:
        """The head witnessed last; an empty message where there is none."""
        with self._database.reading() as connection:
            return _wire(_newest(connection, center))

    def page(self, center: CenterId, *, below: int = 0) -> list[log_pb2.WitnessedHead]:
        """Heads of a center, newest first, at most PAGE: all, or those of fewer than `below` records."""
        statement = select(LOG_HEADS).where(LOG_HEADS.c.center_id == center)
        if below:
            statement = statement.where(LOG_HEADS.c.size < below)
        with self._database.reading() as connection:
            rows = connection.execute(statement.order_by(LOG_HEADS.c.size.desc()).limit(PAGE)).all()
        return [_wire(row) for row in rows]

    def seen(self) -> dict[str, Seen]:
        """The newest head of every center, with whether it ever contradicted itself."""
        newest = select(LOG_HEADS.c.center_id, func.max(LOG_HEADS.c.size), func.max(LOG_HEADS.c.received_ms))
        contradicted = select(LOG_CONTRADICTIONS.c.center_id, LOG_CONTRADICTIONS.c.received_ms)
        with self._database.reading() as connection:
            when = {row.center_id: row.received_ms for row in connection.execute(contradicted)}
            heads = connection.execute(newest.group_by(LOG_HEADS.c.center_id)).all()
        return {center: Seen(size, received_ms, when.get(center)) for center, size, received_ms in heads}

    def thin(self, connection: Connection, moments: Sequence[int]) -> list[int]:
        """Step: of heads that were old at a moment keep each hour's last; returns how many went."""
        return [_thin(connection, at_ms) for at_ms in moments]


def _judge(connection: Connection, growth: Growth) -> Judgement:
    row = _newest(connection, growth.head.center)
    size, root = (row.size, bytes(row.root_sha256)) if row else (0, merkle.EMPTY)
    head = growth.head
    if head.size < size:
        return _contradicted(connection, growth, row, f"its log shrank from {size} records to {head.size}")
    if head.size == size:
        if head.root != root:
            return _contradicted(connection, growth, row, f"two different logs of {size} records")
        return Judgement(_wire(row))
    if growth.since != size:
        # It does not know yet what was witnessed last: told, it proves from there.
        return Judgement(_wire(row))
    if not merkle.consistent(size, root, head.size, head.root, growth.proof):
        return _contradicted(
            connection, growth, row, f"its log of {head.size} records does not begin with those {size}"
        )
    if row is not None and row.received_ms // MINUTE == growth.received_ms // MINUTE:
        connection.execute(delete(LOG_HEADS).where(_is(head.center), LOG_HEADS.c.size == size))
    connection.execute(insert(LOG_HEADS), _row(growth))
    return Judgement(log_pb2.WitnessedHead(head=growth.signed, received_at_ms=growth.received_ms))


def _contradicted(connection: Connection, growth: Growth, row: Any, sentence: str) -> Judgement:
    known = select(LOG_CONTRADICTIONS.c.center_id).where(LOG_CONTRADICTIONS.c.center_id == growth.head.center)
    first = connection.execute(known).one_or_none() is None
    if first:
        connection.execute(insert(LOG_CONTRADICTIONS), _row(growth))
    return Judgement(_wire(row), sentence, first)


def _newest(connection: Connection, center: CenterId) -> Any:
    statement = select(LOG_HEADS).where(_is(center)).order_by(LOG_HEADS.c.size.desc()).limit(1)
    return connection.execute(statement).one_or_none()


def _is(center: CenterId) -> ColumnElement[bool]:
    return LOG_HEADS.c.center_id == center


def _row(growth: Growth) -> dict[str, object]:
    return {
        "center_id": growth.head.center,
        "size": growth.head.size,
        "root_sha256": growth.head.root,
        "received_ms": growth.received_ms,
        "signed": growth.signed.SerializeToString(),
    }


def _wire(row: Any) -> log_pb2.WitnessedHead:
    if row is None:
        return log_pb2.WitnessedHead()
    head = log_pb2.SignedTreeHead.FromString(bytes(row.signed))
    return log_pb2.WitnessedHead(head=head, received_at_ms=row.received_ms)


def _thin(connection: Connection, at_ms: int) -> int:
    hour = LOG_HEADS.c.received_ms // HOUR
    last = select(LOG_HEADS.c.center_id, func.max(LOG_HEADS.c.size)).group_by(LOG_HEADS.c.center_id, hour)
    old = LOG_HEADS.c.received_ms < (at_ms - EVERY_MINUTE_MS) // HOUR * HOUR
    gone = delete(LOG_HEADS).where(old, tuple_(LOG_HEADS.c.center_id, LOG_HEADS.c.size).not_in(last))
    return connection.execute(gone).rowcount
