"""The inbox: the proved questions that the hub delivered, and what became of them.

Written down before anything else is done with them. What no researcher is proved to have asked is refused and not kept,
so that it takes no question's place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from connexon.clock import now_ms
from connexon.service.database import Database
from connexon_node.approvals import store as approvals
from connexon_node.pipeline.delivery import Delivery, payload_sha256
from connexon_node.state.requests import AnswerRow, AuditRow, InboxRow

_INBOX = InboxRow.__table__  # type: ignore[attr-defined]  # SQLModel gives a table class its __table__ at run time
_ANSWERS = AnswerRow.__table__  # type: ignore[attr-defined]  # as above
_AUDIT = AuditRow.__table__  # type: ignore[attr-defined]  # as above

# Built once: building a statement costs about as much as running it.
_KNOWN = select(_INBOX.c.body_sha256, _INBOX.c.answered).where(_INBOX.c.query_id == bindparam("id"))
_RECEIVE = insert(_INBOX).values(cancelled=False, answered=False)
_BODY = select(_INBOX.c.body).where(_INBOX.c.query_id == bindparam("id"))
# A record that names no researcher is of something that was not proved.
_RECORDED = (
    select(_AUDIT.c.query_sha256).where(_AUDIT.c.query_id == bindparam("id"), _AUDIT.c.researcher != "").limit(1)
)
_BEGIN = update(_INBOX).where(_INBOX.c.query_id == bindparam("id")).values(attempts=_INBOX.c.attempts + 1)
_ATTEMPTS = select(_INBOX.c.attempts).where(_INBOX.c.query_id == bindparam("id"))
_DELIVERY = select(_INBOX).where(_INBOX.c.query_id == bindparam("id"))
_ANSWER = select(_ANSWERS.c.signed_answer).where(_ANSWERS.c.query_id == bindparam("id"))


class Receipt(Enum):
    """What a delivery turned out to be."""

    NEW = "new"
    UNDER_WAY = "under_way"
    ANSWERED = "answered"
    ID_REUSED = "id_reused"
    """The id belongs to another question, in the inbox or in the audit log."""
    FORGOTTEN = "forgotten"
    """It was answered and removed long ago. Nothing more is said of it: two answers would be signed to one question."""
    UNPROVED = "unproved"


@dataclass(frozen=True)
class Pending:
    """A query that waits for its answer."""

    query_id: str
    expires_at_ms: int
    cancelled: bool
    researcher: str


class Inbox:
    """The tables inbox and answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def receive(self, delivery: Delivery, *, researcher: str | None, begun: bool = False) -> Receipt:
        """Write a delivery down, once, where it is proved to be a question of this id; `researcher` is whose, or None.

        What this returns is durable. The same payload is the same question, also where what stands beside it differs
        and proves nothing. Of one that is `begun` at once that is written down with it.
        """
        digest = hashlib.sha256(delivery.body).digest()
        with self._database.writing() as connection:
            row = connection.execute(_KNOWN, {"id": delivery.query_id}).one_or_none()
            if row is not None:
                if bytes(row.body_sha256) != digest and not _same_question(connection, delivery):
                    return Receipt.ID_REUSED
                return Receipt.ANSWERED if row.answered else Receipt.UNDER_WAY
            recorded = connection.execute(_RECORDED, {"id": delivery.query_id}).scalar_one_or_none()
            if recorded is not None:
                same = bytes(recorded) == payload_sha256(delivery.body)
                return Receipt.FORGOTTEN if same else Receipt.ID_REUSED
            if researcher is None:
                return Receipt.UNPROVED
            values = {**vars(delivery), "body_sha256": digest, "researcher": researcher, "attempts": int(begun)}
            connection.execute(_RECEIVE, values)
        return Receipt.NEW

    def begin(self, query_id: str) -> int:
        """Write down that work on a query begins, before it does; returns how often it has begun without an answer."""
        with self._database.writing() as connection:
            connection.execute(_BEGIN, {"id": query_id})
            return connection.execute(_ATTEMPTS, {"id": query_id}).scalar_one_or_none() or 0

    def leave(self, query_ids: list[str]) -> None:
        """Work that had begun on these is left because the node stops in order: that does not count."""
        left = _INBOX.c.query_id.in_(query_ids) & (_INBOX.c.attempts > 0)
        with self._database.writing() as connection:
            connection.execute(update(_INBOX).where(left).values(attempts=_INBOX.c.attempts - 1))

    def cancel(self, query_id: str) -> bool:
        """Remember that a query is no longer wanted. False where it is unknown or answered already."""
        unanswered = (_INBOX.c.query_id == query_id) & _INBOX.c.answered.is_(False)
        with self._database.writing() as connection:
            return connection.execute(update(_INBOX).where(unanswered).values(cancelled=True)).rowcount > 0

    def unanswered(self) -> list[Pending]:
        """What was received and not answered, oldest first."""
        statement = (
            select(_INBOX.c.query_id, _INBOX.c.expires_at_ms, _INBOX.c.cancelled, _INBOX.c.researcher)
            .where(_INBOX.c.answered.is_(False))
            .order_by(_INBOX.c.received_at_ms, _INBOX.c.query_id)
        )
        with self._database.reading() as connection:
            return [Pending(*row) for row in connection.execute(statement)]

    def delivery(self, query_id: str) -> Delivery | None:
        """One query, unless there is none of that id."""
        with self._database.reading() as connection:
            row = connection.execute(_DELIVERY, {"id": query_id}).one_or_none()
        if row is None:
            return None
        return Delivery(row.query_id, bytes(row.body), row.traceparent, row.received_at_ms, row.expires_at_ms)

    def answer(self, query_id: str) -> bytes | None:
        """The stored SignedAnswer, serialised, or None."""
        with self._database.reading() as connection:
            found = connection.execute(_ANSWER, {"id": query_id}).scalar_one_or_none()
        return None if found is None else bytes(found)

    def unsent(self) -> list[str]:
        """Ids of the answers that the hub has not said to have, oldest first."""
        statement = (
            select(_ANSWERS.c.query_id).where(_ANSWERS.c.stored_at_ms.is_(None)).order_by(_ANSWERS.c.sealed_at_ms)
        )
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())

    def mark_stored(self, query_ids: Iterable[str]) -> None:
        """The hub has these answers. Losing this mark costs one more sending, nothing else."""
        mark = update(_ANSWERS).where(_ANSWERS.c.query_id.in_(list(query_ids)), _ANSWERS.c.stored_at_ms.is_(None))
        with self._database.writing() as connection:
            connection.execute(mark.values(stored_at_ms=now_ms()))

    def counts(self) -> tuple[int, int]:
        """How many queries wait for an answer, and how many answers wait to be fetched by the hub."""
        waiting = select(func.count()).where(_INBOX.c.answered.is_(False))
        # What awaits the steward is with the hub and stays unsettled there.
        unsent = select(func.count()).where(_ANSWERS.c.stored_at_ms.is_(None), _ANSWERS.c.status != "awaiting_steward")
        with self._database.reading() as connection:
            return connection.execute(waiting).scalar_one(), connection.execute(unsent).scalar_one()

    def prune(self, *, before_ms: int) -> int:
        """Remove answered queries, with their answers, that expired before a moment; returns how many.

        An id that was removed cannot be used again: the audit log has it for ever, and `receive` looks there.
        """
        old = (_INBOX.c.expires_at_ms < before_ms) & _INBOX.c.answered.is_(True)
        with self._database.writing() as connection:
            ids = select(_INBOX.c.query_id).where(old)
            connection.execute(delete(_ANSWERS).where(_ANSWERS.c.query_id.in_(ids)))
            approvals.forget(connection, ids)
            return connection.execute(delete(_INBOX).where(old)).rowcount


def _same_question(connection: Connection, delivery: Delivery) -> bool:
    kept = bytes(connection.execute(_BODY, {"id": delivery.query_id}).scalar_one())
    sha256 = payload_sha256(kept)
    return sha256 is not None and sha256 == payload_sha256(delivery.body)
