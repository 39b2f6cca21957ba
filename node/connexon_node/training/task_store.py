"""The box of tasks: what the hub sent and what became of it. Written down before anything else is done with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pyroaring import BitMap
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from connexon.clock import now_ms
from connexon.link import parcel_files
from connexon.link.parcel_files import Arrived, ParcelFile, TaskId
from connexon.query.signed import MAXIMUM_QUERY_LIFE_MS
from connexon.service.database import Database
from connexon_node.training.spool import Spool
from connexon_node.training.tables import TrainingReplyRow, TrainingRunRow, TrainingTaskRow

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_RUNS = TrainingRunRow.metadata.tables["training_runs"]
_TASKS = TrainingTaskRow.metadata.tables["training_tasks"]
_REPLIES = TrainingReplyRow.metadata.tables["training_replies"]
RELEASED = "released"
# What every task runs, put together once: SQLAlchemy takes longer to make such a statement than SQLite to run it.
_CAME = select(_TASKS.c.sha256, _TASKS.c.answered).where(_TASKS.c.task_id == bindparam("task"))
_TAKE = insert(_TASKS)
_REPLY = select(_REPLIES.c.signed_answer, _REPLIES.c.records_size).where(_REPLIES.c.task_id == bindparam("task"))
_KEEP = insert(_REPLIES)
_ANSWERED = update(_TASKS).where(_TASKS.c.task_id == bindparam("task")).values(answered=True)
_MARK = (
    update(_REPLIES)
    .where(_REPLIES.c.task_id.in_(bindparam("tasks", expanding=True)), _REPLIES.c.stored_at_ms.is_(None))
    .values(stored_at_ms=bindparam("moment"))
)
_RELEASED = select(_REPLIES.c.action, _REPLIES.c.round).where(
    _REPLIES.c.run_id == bindparam("run"), _REPLIES.c.status == RELEASED
)
_RUN = select(_RUNS.c.preprocessing_sha256, _RUNS.c.stopped_at_ms, _RUNS.c.stopped_because).where(
    _RUNS.c.run_id == bindparam("run")
)


class Came(Enum):
    """What an arrived task turned out to be."""

    NEW = "new"
    UNDER_WAY = "under_way"
    ANSWERED = "answered"
    OTHER_BYTES = "other_bytes"


@dataclass(frozen=True)
class Reply:
    """A reply as it is sent: the signed answer and, where it was released, its records."""

    task: TaskId
    signed_answer: bytes
    records: ParcelFile | None


@dataclass(frozen=True)
class Given:
    """What was given to a run already, by action: rounds of the tasks that were released."""

    rounds: dict[str, list[int]]
    preprocessing_sha256: bytes
    stopped_because: str | None


@dataclass(frozen=True)
class Outcome:
    """What a sealed task leaves behind beside its signed answer. `donors` are their numbers."""

    task: TaskId
    action: str
    round: int
    status: str
    code: str
    records_size: int = 0
    donors: NDArray[numpy.int32] | None = None


class TaskBox:
    """The tables training_tasks and training_replies, and the spool beside them."""

    def __init__(self, database: Database, spool: Spool) -> None:
        self._database = database
        self.spool = spool

    def receive(self, arrived: Arrived, *, deadline_ms: int) -> Came:
        """Write a task down, once; what this returns is durable. The parcel's file becomes the box's."""
        digest = parcel_files.read(arrived.path).sha256()
        with self._database.writing() as connection:
            row = connection.execute(_CAME, {"task": str(arrived.id)}).one_or_none()
            if row is None:
                # The file first: a row without one could not be worked on.
                arrived.path.replace(self.spool.task(arrived.id))
                parcel_files.sync(self.spool.tasks)
                values = {
                    "task_id": str(arrived.id),
                    "run_id": arrived.id.run,
                    "sha256": digest,
                    "deadline_ms": min(max(deadline_ms, 0), now_ms() + MAXIMUM_QUERY_LIFE_MS),
                    "received_at_ms": now_ms(),
                    "cancelled": False,
                    "answered": False,
                }
                connection.execute(_TAKE, values)
                return Came.NEW
        arrived.path.unlink(missing_ok=True)
        if bytes(row.sha256) != digest:
            return Came.OTHER_BYTES
        return Came.ANSWERED if row.answered else Came.UNDER_WAY

    def sha256(self, task: TaskId) -> bytes:
        """Of a task's parcel as it was received; empty for an unknown one."""
        query = select(_TASKS.c.sha256).where(_TASKS.c.task_id == str(task))
        with self._database.reading() as connection:
            return bytes(connection.execute(query).scalar_one_or_none() or b"")

    def unanswered(self) -> list[tuple[TaskId, int, bool]]:
        """Tasks without a reply, oldest first: id, deadline, and whether it was cancelled."""
        query = select(_TASKS.c.task_id, _TASKS.c.deadline_ms, _TASKS.c.cancelled).where(_TASKS.c.answered.is_(False))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(_TASKS.c.received_at_ms, _TASKS.c.task_id)).all()
        return [(TaskId.parse(row.task_id), row.deadline_ms, row.cancelled) for row in rows]

    def cancel(self, name: str) -> list[TaskId]:
        """Remember that a task, or every task of a run, is no longer wanted; those that have no reply yet."""
        wanted = ((_TASKS.c.task_id == name) | (_TASKS.c.run_id == name)) & _TASKS.c.answered.is_(False)
        with self._database.writing() as connection:
            rows = connection.execute(select(_TASKS.c.task_id).where(wanted)).scalars().all()
            connection.execute(update(_TASKS).where(wanted).values(cancelled=True))
        return [TaskId.parse(one) for one in rows]

    def reply(self, task: TaskId) -> Reply | None:
        """The stored reply to a task; None also for one whose records are gone, since the hub has said to have them."""
        with self._database.reading() as connection:
            row = connection.execute(_REPLY, {"task": str(task)}).one_or_none()
        if row is None:
            return None
        try:
            records = parcel_files.read(self.spool.reply(task)) if row.records_size else None
        except FileNotFoundError:
            return None
        return Reply(task, bytes(row.signed_answer), records)

    def unsent(self) -> list[TaskId]:
        """Replies that the hub has not said to have, oldest first."""
        query = select(_REPLIES.c.task_id).where(_REPLIES.c.stored_at_ms.is_(None)).order_by(_REPLIES.c.sealed_at_ms)
        with self._database.reading() as connection:
            return [TaskId.parse(one) for one in connection.execute(query).scalars()]

    def mark_stored(self, names: Iterable[str]) -> None:
        """The hub has these replies: their files go at once, since models may be large and rounds many."""
        names = list(names)
        with self._database.writing() as connection:
            connection.execute(_MARK, {"tasks": names, "moment": now_ms()})
        for name in names:
            self.spool.forget(TaskId.parse(name))

    def prune(self, *, before_ms: int) -> int:
        """Remove tasks whose time ended before a moment and whose reply the hub has; who stood behind them stays."""
        with self._database.writing() as connection:
            joined = _TASKS.join(_REPLIES, _TASKS.c.task_id == _REPLIES.c.task_id)
            settled = _REPLIES.c.stored_at_ms.is_not(None) & (_TASKS.c.deadline_ms < before_ms)
            old = connection.execute(select(_TASKS.c.task_id).select_from(joined).where(settled)).scalars().all()
            connection.execute(delete(_TASKS).where(_TASKS.c.task_id.in_(old)))
            connection.execute(
                update(_REPLIES).where(_REPLIES.c.task_id.in_(old)).values(signed_answer=b"", records_size=0)
            )
        for name in old:
            self.spool.forget(TaskId.parse(name))
        return len(old)

    def given(self, run: str, connection: Connection | None = None) -> Given:
        """What was released to a run, and whether the steward stopped it; in the caller's transaction where given."""
        if connection is None:
            with self._database.reading() as own:
                return self.given(run, own)
        rounds: dict[str, list[int]] = {}
        for row in connection.execute(_RELEASED, {"run": run}):
            rounds.setdefault(row.action, []).append(row.round)
        kept = connection.execute(_RUN, {"run": run}).one_or_none()
        if kept is None:
            return Given(rounds, b"", None)
        stopped = None if kept.stopped_at_ms is None else kept.stopped_because
        return Given(rounds, bytes(kept.preprocessing_sha256), stopped)


def keep_reply(connection: Connection, outcome: Outcome, signed_answer: bytes) -> None:
    """Write the reply down, within the transaction that seals it."""
    donors = BitMap([] if outcome.donors is None else outcome.donors.tolist())
    values = {
        "task_id": str(outcome.task),
        "run_id": outcome.task.run,
        "action": outcome.action[:32],
        "round": outcome.round,
        "status": outcome.status,
        "code": outcome.code[:100],
        "signed_answer": signed_answer,
        "records_size": outcome.records_size,
        "donors": len(donors),
        "bitmap": donors.serialize() if donors else b"",
        "sealed_at_ms": now_ms(),
        "stored_at_ms": None,
    }
    connection.execute(_KEEP, values)
    connection.execute(_ANSWERED, {"task": str(outcome.task)})


def kept_reply(connection: Connection, task: TaskId) -> bytes | None:
    """The signed answer of a reply that is kept already."""
    row = connection.execute(_REPLY, {"task": str(task)}).one_or_none()
    return None if row is None else bytes(row.signed_answer)
