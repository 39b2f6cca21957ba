"""Queries and their deliveries, written down before anybody is told.

Here are the values, what is decided about them, and reading; writing is in connexon_hub.routing.writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from sqlalchemy import bindparam, case, func, or_, select

from connexon.errors import NotFound
from connexon.identity.keys import CenterId
from connexon.link.frames import MAXIMUM_FRAME
from connexon.service.database import Database
from connexon.v1 import answer_pb2, log_pb2, query_pb2, research_pb2
from connexon_hub.state.tables import DELIVERIES, QUERIES, RUNS

State: TypeAlias = research_pb2.DeliveryState.ValueType
WAITING = research_pb2.DELIVERY_STATE_WAITING
RECEIVED = research_pb2.DELIVERY_STATE_RECEIVED
ANSWERED = research_pb2.DELIVERY_STATE_ANSWERED
CANCELLED = research_pb2.DELIVERY_STATE_CANCELLED
EXPIRED = research_pb2.DELIVERY_STATE_EXPIRED
REMOVED = research_pb2.DELIVERY_STATE_REMOVED
OPEN = (WAITING, RECEIVED)
PAGE = 500
"""Parameters of one statement, well below every database's limit."""

BODY_KEPT = func.length(QUERIES.c.signed) > 0
"""True of a query that was not forgotten; of one that was, the row stays, so that its id stays taken."""
LIST_BYTES = MAXIMUM_FRAME - 16 * 1024
"""Of one researcher's list, so that it fits a message."""
SUMMARY_BYTES = 128
"""Of a line of the list, beside the query."""
_LISTED = (
    select(QUERIES.c.query_id, QUERIES.c.accepted_ms, QUERIES.c.cancelled_ms)
    .where(QUERIES.c.researcher_id == bindparam("researcher"), BODY_KEPT)
    .order_by(QUERIES.c.accepted_ms.desc(), QUERIES.c.query_id)
    .limit(bindparam("most"))
)
_BODY = select(QUERIES.c.signed).where(QUERIES.c.query_id == bindparam("query"))


@dataclass(frozen=True)
class Submission:
    """A query that has passed admission."""

    query_id: str
    researcher_id: str
    signed: query_pb2.SignedQuery
    centers: tuple[CenterId, ...]
    accepted_ms: int
    expires_ms: int
    traceparent: str = ""
    rounds: int = 0
    """Of the training run it asks for; 0 where it asks for none."""


@dataclass(frozen=True)
class Participation:
    """One center's part of a query, with its answer where the hub has one (a serialised SignedAnswer)."""

    center: CenterId
    state: State
    status: answer_pb2.AnswerStatus.ValueType
    answer: bytes | None


@dataclass(frozen=True)
class Receipt:
    """A center has the query in its own database."""

    query_id: str
    center: CenterId
    at_ms: int


@dataclass(frozen=True)
class Arrival:
    """A checked answer of a center, as it came. `answer` is a serialised SignedAnswer."""

    query_id: str
    center: CenterId
    answer: bytes
    status: answer_pb2.AnswerStatus.ValueType
    at_ms: int
    told: log_pb2.SignedTreeHead | None = None
    """The head of the center's audit log, as its receipt has it."""


class Kept(Enum):
    """What became of an arrival."""

    KEPT = "kept"
    FOR_NOW = "for_now"
    """The center's steward has yet to decide; the delivery stays open, and what they decide follows."""
    ALREADY = "already"
    """The center has answered before; the first answer stands."""
    CLOSED = "closed"
    """The query was cancelled or had expired, or its answer was removed since."""
    UNKNOWN = "unknown"
    """That query was never addressed to that center."""


def keep(state: State | None, status: answer_pb2.AnswerStatus.ValueType) -> Kept:
    """What to do with an answer of `status` to a delivery in `state`. The first that decides stands."""
    if state is None:
        return Kept.UNKNOWN
    if state in OPEN:
        return Kept.FOR_NOW if status == answer_pb2.ANSWER_STATUS_AWAITING_STEWARD else Kept.KEPT
    return Kept.ALREADY if state == ANSWERED else Kept.CLOSED


@dataclass(frozen=True)
class Stored:
    """A query as it stands: its bytes, and every center's state."""

    query_id: str
    researcher_id: str
    signed: query_pb2.SignedQuery
    traceparent: str
    expires_ms: int
    states: Mapping[CenterId, State]


@dataclass(frozen=True)
class Summary:
    """One line of a researcher's list."""

    query_id: str
    payload: bytes
    accepted_ms: int
    centers: int
    answered: int
    cancelled: bool


class QueryStore:
    """Reading of queries and deliveries in the hub's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, query_id: str, researcher_id: str) -> Stored:
        """A query of this researcher as it stands.

        Raises NotFound for anybody else's, as for none; for one that was forgotten, with a code of its own.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(QUERIES).where(QUERIES.c.query_id == query_id)).one_or_none()
            if row is None or row.researcher_id != researcher_id:
                raise no_such_query()
            if not row.signed:
                raise NotFound(
                    "This query ended long ago; the hub keeps neither it nor its answers any longer. Ask again.",
                    code="query.not_kept",
                )
            states = connection.execute(
                select(DELIVERIES.c.center_id, DELIVERIES.c.state)
                .where(DELIVERIES.c.query_id == query_id)
                .order_by(DELIVERIES.c.center_id)
            )
            return Stored(
                query_id=row.query_id,
                researcher_id=row.researcher_id,
                signed=query_pb2.SignedQuery.FromString(row.signed),
                traceparent=row.traceparent,
                expires_ms=row.expires_ms,
                states={CenterId(center): state for center, state in states},
            )

    def answer_sizes(self, query_id: str) -> dict[CenterId, int]:
        """Bytes of every answer that the hub still has, by center."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(DELIVERIES.c.center_id, func.length(DELIVERIES.c.answer))
                .where(DELIVERIES.c.query_id == query_id, DELIVERIES.c.answer.is_not(None))
                .order_by(DELIVERIES.c.center_id)
            )
            return {CenterId(center): size for center, size in rows}

    def answers(self, query_id: str, centers: Sequence[CenterId]) -> dict[CenterId, answer_pb2.SignedAnswer]:
        """Answers of these centers, where the hub still has them."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(DELIVERIES.c.center_id, DELIVERIES.c.answer).where(
                    DELIVERIES.c.query_id == query_id,
                    DELIVERIES.c.center_id.in_(centers),
                    DELIVERIES.c.answer.is_not(None),
                )
            )
            return {CenterId(row.center_id): answer_pb2.SignedAnswer.FromString(row.answer) for row in rows}

    def answered_by(self, center: CenterId) -> list[str]:
        """Ids of the queries to which the hub still has a center's last word, oldest answer first."""
        kept = DELIVERIES.c.center_id == center, DELIVERIES.c.state == ANSWERED, DELIVERIES.c.answer.is_not(None)
        with self._database.reading() as connection:
            ids = select(DELIVERIES.c.query_id).where(*kept).order_by(DELIVERIES.c.answered_ms)
            return list(connection.execute(ids).scalars())

    def answer_of(self, query_id: str, center: CenterId) -> tuple[bytes, bytes] | None:
        """A query (a serialised SignedQuery; empty where it was forgotten) and a center's SignedAnswer, serialised."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(QUERIES.c.signed, DELIVERIES.c.answer)
                .join(DELIVERIES, QUERIES.c.query_id == DELIVERIES.c.query_id)
                .where(
                    QUERIES.c.query_id == query_id, DELIVERIES.c.center_id == center, DELIVERIES.c.answer.is_not(None)
                )
            ).one_or_none()
            return None if row is None else (bytes(row.signed), bytes(row.answer))

    def backlog(self, center: CenterId, *, at_ms: int) -> list[str]:
        """Ids of the queries that a center has not answered and still may, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(DELIVERIES.c.query_id)
                .join(QUERIES, QUERIES.c.query_id == DELIVERIES.c.query_id)
                .where(DELIVERIES.c.center_id == center, DELIVERIES.c.state.in_(OPEN), QUERIES.c.expires_ms > at_ms)
                .order_by(QUERIES.c.accepted_ms)
            )
            return list(rows.scalars())

    def under_way(self) -> list[tuple[str, str]]:
        """Query id and researcher id of all that has not ended: open queries, and those of runs that go on."""
        live = select(RUNS.c.query_id).where(RUNS.c.ended_ms.is_(None))
        with self._database.reading() as connection:
            rows = connection.execute(
                select(QUERIES.c.query_id, QUERIES.c.researcher_id).where(
                    or_(QUERIES.c.closed_ms.is_(None), QUERIES.c.query_id.in_(live))
                )
            )
            return [(row.query_id, row.researcher_id) for row in rows]

    def participation(self, query_id: str) -> list[Participation]:
        """How every center stands to a query, with its answer."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(DELIVERIES).where(DELIVERIES.c.query_id == query_id).order_by(DELIVERIES.c.center_id)
            )
            return [Participation(CenterId(row.center_id), row.state, row.answer_status, row.answer) for row in rows]

    def body(self, query_id: str) -> tuple[bytes, str] | None:
        """A query's signed bytes and trace context, for delivery; None also for one that was forgotten."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(QUERIES.c.signed, QUERIES.c.traceparent).where(QUERIES.c.query_id == query_id, BODY_KEPT)
            ).one_or_none()
            return None if row is None else (row.signed, row.traceparent)

    def of_researcher(self, researcher_id: str, limit: int, *, room: int = LIST_BYTES) -> list[Summary]:
        """A researcher's queries that are kept, newest first, as many as fit `room` bytes."""
        with self._database.reading() as connection:
            listed = connection.execute(_LISTED, {"researcher": researcher_id, "most": limit}).all()
            payloads: dict[str, bytes] = {}
            for row in listed:
                # One by one: a body may have 256 KiB, and few of those fit.
                body = connection.execute(_BODY, {"query": row.query_id}).scalar_one()
                payload = query_pb2.SignedQuery.FromString(body).payload
                room -= len(payload) + SUMMARY_BYTES
                if room < 0:
                    break
                payloads[row.query_id] = payload
            answered = func.sum(case((DELIVERIES.c.state.in_((ANSWERED, REMOVED)), 1), else_=0))
            counts = {
                row.query_id: row
                for ids in pages(list(payloads))
                for row in connection.execute(
                    select(DELIVERIES.c.query_id, func.count().label("centers"), answered.label("answered"))
                    .where(DELIVERIES.c.query_id.in_(ids))
                    .group_by(DELIVERIES.c.query_id)
                )
            }
        return [
            Summary(
                query_id=row.query_id,
                payload=payloads[row.query_id],
                accepted_ms=row.accepted_ms,
                centers=counts[row.query_id].centers,
                answered=int(counts[row.query_id].answered),
                cancelled=row.cancelled_ms is not None,
            )
            for row in listed[: len(payloads)]
        ]

    def waiting_by_center(self) -> dict[str, int]:
        """How many open deliveries each center has."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(DELIVERIES.c.center_id, func.count().label("open"))
                .where(DELIVERIES.c.state.in_(OPEN))
                .group_by(DELIVERIES.c.center_id)
            )
            return {row.center_id: row.open for row in rows}


def no_such_query() -> NotFound:
    """The same for a query that is another researcher's as for none."""
    return NotFound("No query with this id.", code="query.not_found")


def pages(items: Sequence[str], size: int = PAGE) -> Iterator[Sequence[str]]:
    """The items in slices that one statement can take."""
    return (items[start : start + size] for start in range(0, len(items), size))
