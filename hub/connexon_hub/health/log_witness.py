"""The witness: the centers' audit logs as they were signed from time to time, so that none can be put back unseen.

The hub sees no record: a head is a number and a hash. It takes a new head of a center only with a proof that the log
behind it begins with the one witnessed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError
from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, text, tuple_

from connexon.clock import DAY, HOUR, MINUTE
from connexon.errors import Conflict, ConnexonError
from connexon.identity.keys import CenterId
from connexon.service.database import Database
from connexon.transparency import merkle
from connexon.transparency.receipt import TreeHead
from connexon.v1 import log_pb2
from connexon_hub.state.tables import LOG_CONTRADICTIONS, LOG_GIVEN_UP, LOG_HEADS, LOG_TOLD

PAGE = 1_000
# One statement for both databases: a longer log replaces a shorter one.
_NOTE_TOLD = text(
    "insert into log_told (center_id, size, signed) values (:center, :of, :as) on conflict (center_id) do update "
    "set size = excluded.size, signed = excluded.signed where excluded.size > log_told.size"
)
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


@dataclass(frozen=True)
class GivenUp:
    """That a center's log goes on as `head`, which continues the witnessed head of `kept` records and not `lost`."""

    lost: TreeHead
    kept: int
    head: TreeHead
    signed: log_pb2.SignedTreeHead
    received_ms: int


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

    def told(self, center: CenterId) -> log_pb2.SignedTreeHead | None:
        """The longest log that a center has shown, in an answer or as a witnessed head, as it signed it."""
        with self._database.reading() as connection:
            return _told(connection, center)

    def give_up(self, connection: Connection, statements: Sequence[GivenUp]) -> list[str | ConnexonError]:
        """Step: let logs go on from an earlier state. What was witnessed beyond is kept apart. Gives a sentence each.

        Conflict where the hub has seen a longer log than the statement names.
        """
        return [_give_up(connection, one) for one in statements]

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


def note_told(connection: Connection, heads: Sequence[tuple[CenterId, log_pb2.SignedTreeHead]]) -> None:
    """Remember the longest log of each center, as it came with answers. Only that center's node relies on it."""
    longest: dict[CenterId, tuple[int, bytes]] = {}
    for center, signed in heads:
        size = _size(signed)
        if size > longest.get(center, (0, b""))[0]:
            longest[center] = (size, signed.SerializeToString())
    rows = [{"center": center, "of": size, "as": signed} for center, (size, signed) in sorted(longest.items())]
    if rows:
        connection.execute(_NOTE_TOLD, rows)


def _size(signed: log_pb2.SignedTreeHead) -> int:
    try:
        size = log_pb2.TreeHead.FromString(signed.payload).size
    except DecodeError:
        return 0
    return size if size < 2**63 else 0


def _told(connection: Connection, center: CenterId) -> log_pb2.SignedTreeHead | None:
    kept = connection.execute(select(LOG_TOLD.c.signed).where(LOG_TOLD.c.center_id == center)).scalar_one_or_none()
    row = _newest(connection, center)
    known = [log_pb2.SignedTreeHead.FromString(bytes(one)) for one in (kept, row and row.signed) if one is not None]
    return max(known, key=_size, default=None)


def _give_up(connection: Connection, statement: GivenUp) -> str | ConnexonError:
    center = statement.head.center
    told = _told(connection, center)
    if told is None or _size(told) > statement.lost.size:
        return Conflict(
            "The hub has seen a longer log of this center than the one given up; run connexon-node recover again.",
            code="recovery.newer_log",
        )
    beyond = _is(center), LOG_HEADS.c.size > statement.kept
    rows = connection.execute(select(LOG_HEADS.c.size, LOG_HEADS.c.signed).where(*beyond)).all()
    evidence = {row.size: bytes(row.signed) for row in rows} | {_size(told): told.SerializeToString()}
    connection.execute(
        insert(LOG_GIVEN_UP),
        [
            {"center_id": center, "size": size, "given_up_ms": statement.received_ms, "signed": signed}
            for size, signed in evidence.items()
        ],
    )
    connection.execute(delete(LOG_HEADS).where(*beyond))
    connection.execute(delete(LOG_TOLD).where(LOG_TOLD.c.center_id == center))
    head = {"center": center, "of": statement.head.size, "as": statement.signed.SerializeToString()}
    connection.execute(_NOTE_TOLD, [head])
    return f"restored: its log of {_size(told)} records goes on from {statement.kept} of those witnessed"


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
