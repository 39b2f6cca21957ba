"""What is written down of runs: values, reading, and steps for connexon_hub.state.writer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from connexon.identity.keys import CenterId
from connexon.link.parcel_files import TaskId
from connexon.service.database import Database
from connexon.v1 import models_pb2
from connexon_hub.routing.run_rows import GATHERING, LIVE, RUNNING
from connexon_hub.state.tables import RUN_CHOICES, RUN_PARTS, RUN_ROUNDS, RUN_TASKS, RUNS
from connexon_hub.training.worker_protocol import NewTask, PartState

RunState: TypeAlias = models_pb2.RunState.ValueType
FINISHED = models_pb2.RUN_STATE_FINISHED
FAILED = models_pb2.RUN_STATE_FAILED
CANCELLED = models_pb2.RUN_STATE_CANCELLED

_SAME_TASK = and_(RUN_TASKS.c.query_id == RUN_PARTS.c.query_id, RUN_TASKS.c.number == RUN_PARTS.c.number)
_IN_PLACE = and_(
    RUN_PARTS.c.query_id == bindparam("query"),
    RUN_PARTS.c.number == bindparam("at"),
    RUN_PARTS.c.center_id == bindparam("center"),
)
# What every task runs, put together once: SQLAlchemy takes longer to make such a statement than SQLite to run it.
_PARTS = (
    select(RUN_PARTS)
    .where(RUN_PARTS.c.query_id == bindparam("query"), RUN_PARTS.c.number.in_(bindparam("numbers", expanding=True)))
    .order_by(RUN_PARTS.c.number, RUN_PARTS.c.center_id)
)
_PART = select(RUN_PARTS.c.state, RUN_TASKS.c.size).join(RUN_TASKS, _SAME_TASK).where(_IN_PLACE)
_PRESENT = select(RUN_TASKS.c.number).where(
    RUN_TASKS.c.query_id == bindparam("query"), RUN_TASKS.c.number.in_(bindparam("numbers", expanding=True))
)
_SETTLE = (
    update(RUN_PARTS)
    .where(_IN_PLACE, RUN_PARTS.c.state == PartState.OPEN)
    .values(state=PartState.REPLIED, answer=bindparam("what"), settled_ms=bindparam("when"))
)


@dataclass(frozen=True)
class StoredRun:
    """A run as it stands."""

    query_id: str
    researcher_id: str
    state: RunState
    rounds: int
    code: str
    message: str
    centers: tuple[CenterId, ...]
    noise_seed: bytes
    model_id: str
    started_ms: int | None
    ended_ms: int | None


@dataclass(frozen=True)
class Pushed:
    """Tasks for centers, and by number the choices that led to them and are not written down yet: who was there."""

    query_id: str
    tasks: tuple[NewTask, ...]
    choices: Mapping[int, tuple[CenterId, ...]]


@dataclass(frozen=True)
class Part:
    """One center's part in a task."""

    number: int
    center: CenterId
    state: PartState
    answer: bytes | None


@dataclass(frozen=True)
class Reply:
    """A center's checked reply, whose parcel is in the run's folder. `answer` is a serialised SignedAnswer."""

    task: TaskId
    center: CenterId
    answer: bytes
    at_ms: int


@dataclass(frozen=True)
class Ending:
    """How a run ends."""

    query_id: str
    state: RunState
    at_ms: int
    code: str = ""
    message: str = ""
    model_id: str = ""


class RunStore:
    """Runs and models in the hub's database. Methods with a connection and a sequence are the writer's steps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, query_id: str) -> StoredRun | None:
        """A run, or None."""
        with self._database.reading() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.query_id == query_id)).one_or_none()
            return None if row is None else _run(row)

    def live(self) -> list[str]:
        """Ids of the runs that have not ended, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(RUNS.c.query_id).where(RUNS.c.state.in_(LIVE)).order_by(RUNS.c.created_ms, RUNS.c.query_id)
            )
            return list(rows.scalars())

    def latest(self, limit: int) -> list[tuple[StoredRun, int, int]]:
        """The newest runs, each with the time it was begun and the number of rounds that are done."""
        with self._database.reading() as connection:
            done = (
                select(func.count())
                .where(RUN_ROUNDS.c.query_id == RUNS.c.query_id)
                .correlate(RUNS)
                .scalar_subquery()
                .label("done")
            )
            rows = connection.execute(
                select(RUNS, done).order_by(RUNS.c.created_ms.desc(), RUNS.c.query_id).limit(limit)
            )
            return [(_run(row), row.created_ms, row.done) for row in rows]

    def choices(self, query_id: str) -> dict[int, tuple[CenterId, ...]]:
        """The centers that the tasks of a run were chosen from, by the number of the choice."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(RUN_CHOICES.c.number, RUN_CHOICES.c.value).where(RUN_CHOICES.c.query_id == query_id)
            )
            return {number: tuple(map(CenterId, json.loads(value))) for number, value in rows}

    def parts(self, query_id: str, numbers: Sequence[int]) -> list[Part]:
        """Every center's part in these tasks, in order of number and center."""
        with self._database.reading() as connection:
            rows = connection.execute(_PARTS, {"query": query_id, "numbers": list(numbers)})
            return [Part(row.number, CenterId(row.center_id), PartState(row.state), row.answer) for row in rows]

    def part(self, task: TaskId, center: CenterId) -> tuple[PartState, int] | None:
        """How a center's part in a task stands and the size of the task's parcel, or None."""
        with self._database.reading() as connection:
            place = {"query": task.run, "at": task.number, "center": center}
            row = connection.execute(_PART, place).one_or_none()
            return None if row is None else (PartState(row.state), row.size)

    def backlog(self, center: CenterId, *, at_ms: int) -> list[TaskId]:
        """The open tasks of a center, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(RUN_PARTS.c.query_id, RUN_PARTS.c.number)
                .join(RUN_TASKS, _SAME_TASK)
                .join(RUNS, RUNS.c.query_id == RUN_PARTS.c.query_id)
                .where(
                    RUN_PARTS.c.center_id == center,
                    RUN_PARTS.c.state == PartState.OPEN,
                    RUN_TASKS.c.deadline_ms > at_ms,
                    RUNS.c.state.in_(LIVE),
                )
                .order_by(RUN_TASKS.c.deadline_ms, RUN_PARTS.c.number)
            )
            return [TaskId(query_id, number) for query_id, number in rows]

    def train_answers(self, query_id: str) -> dict[tuple[CenterId, int], bytes]:
        """The signed heads of all replies to train tasks, by center and round."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(RUN_PARTS.c.center_id, RUN_TASKS.c.round, RUN_PARTS.c.answer)
                .join(RUN_TASKS, _SAME_TASK)
                .where(
                    RUN_PARTS.c.query_id == query_id,
                    RUN_PARTS.c.state == PartState.REPLIED,
                    RUN_TASKS.c.action == "train",
                )
                .order_by(RUN_PARTS.c.number)
            )
            return {(CenterId(center), number): answer for center, number, answer in rows}

    def rounds(self, query_id: str, *, after: int = 0) -> list[models_pb2.RoundReport]:
        """The rounds that are done, from the one after `after` on."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(RUN_ROUNDS.c.report)
                .where(RUN_ROUNDS.c.query_id == query_id, RUN_ROUNDS.c.round > after)
                .order_by(RUN_ROUNDS.c.round)
            )
            return [models_pb2.RoundReport.FromString(report) for report in rows.scalars()]

    def start(self, connection: Connection, starts: Sequence[tuple[str, tuple[CenterId, ...], int]]) -> list[None]:
        """Note who takes part; each (query id, centers, time)."""
        for query_id, centers, at_ms in starts:
            connection.execute(
                update(RUNS)
                .where(RUNS.c.query_id == query_id, RUNS.c.state == GATHERING)
                .values(state=RUNNING, centers=json.dumps(centers), started_ms=at_ms)
            )
        return [None] * len(starts)

    def push(self, connection: Connection, pushes: Sequence[Pushed]) -> list[list[tuple[TaskId, CenterId]]]:
        """Write tasks down, those that are not there yet. Gives all open parts of them, to be delivered."""
        outcomes = []
        for push in pushes:
            wanted = {"query": push.query_id, "numbers": [task.number for task in push.tasks]}
            present = set(connection.execute(_PRESENT, wanted).scalars())
            fresh = [task for task in push.tasks if task.number not in present]
            parts = [(task.number, center) for task in fresh for center in task.centers]
            if fresh:
                connection.execute(insert(RUN_TASKS), [_task_row(push.query_id, task) for task in fresh])
                connection.execute(insert(RUN_PARTS), [_part_row(push.query_id, *part) for part in parts])
            if push.choices:
                connection.execute(insert(RUN_CHOICES), _choice_rows(push))
            if present:
                rows = connection.execute(_PARTS, wanted)
                parts = [(row.number, CenterId(row.center_id)) for row in rows if row.state == PartState.OPEN]
            outcomes.append([(TaskId(push.query_id, number), center) for number, center in parts])
        return outcomes

    def settle(self, connection: Connection, replies: Sequence[Reply]) -> list[bool]:
        """Keep replies; False where the part is settled already, or none."""
        return [
            connection.execute(
                _SETTLE,
                {
                    "query": reply.task.run,
                    "at": reply.task.number,
                    "center": reply.center,
                    "what": reply.answer,
                    "when": reply.at_ms,
                },
            ).rowcount
            == 1
            for reply in replies
        ]

    def miss(self, connection: Connection, misses: Sequence[tuple[str, tuple[int, ...], int]]) -> list[None]:
        """Settle what is still open of these tasks as missed; each (query id, numbers, time)."""
        for query_id, numbers, at_ms in misses:
            connection.execute(
                update(RUN_PARTS)
                .where(
                    RUN_PARTS.c.query_id == query_id,
                    RUN_PARTS.c.number.in_(numbers),
                    RUN_PARTS.c.state == PartState.OPEN,
                )
                .values(state=PartState.MISSED, settled_ms=at_ms)
            )
        return [None] * len(misses)

    def report(self, connection: Connection, reports: Sequence[tuple[str, models_pb2.RoundReport]]) -> list[bool]:
        """Keep a round's outcome; False where it is kept already."""
        outcomes = []
        for query_id, report in reports:
            place = and_(RUN_ROUNDS.c.query_id == query_id, RUN_ROUNDS.c.round == report.round)
            fresh = connection.execute(select(RUN_ROUNDS.c.round).where(place)).scalar() is None
            if fresh:
                row = {"query_id": query_id, "round": report.round, "report": report.SerializeToString()}
                connection.execute(insert(RUN_ROUNDS), row)
            outcomes.append(fresh)
        return outcomes

    def end(self, connection: Connection, endings: Sequence[Ending]) -> list[list[TaskId]]:
        """End runs that have not ended. Gives the tasks of each that were still open somewhere."""
        outcomes = []
        for ending in endings:
            end_run(connection, ending)
            still_open = and_(RUN_PARTS.c.query_id == ending.query_id, RUN_PARTS.c.state == PartState.OPEN)
            numbers = connection.execute(select(RUN_PARTS.c.number).where(still_open).distinct()).scalars()
            outcomes.append([TaskId(ending.query_id, number) for number in numbers])
            connection.execute(
                update(RUN_PARTS).where(still_open).values(state=PartState.MISSED, settled_ms=ending.at_ms)
            )
        return outcomes


def end_run(connection: Connection, ending: Ending) -> None:
    """Write an ending down, unless the run has ended; the seed of its noise is forgotten."""
    connection.execute(
        update(RUNS)
        .where(RUNS.c.query_id == ending.query_id, RUNS.c.state.in_(LIVE))
        .values(
            state=ending.state,
            code=ending.code,
            message=ending.message,
            model_id=ending.model_id,
            ended_ms=ending.at_ms,
            # Whoever finds it later could take the noise off the model again.
            noise_seed=b"",
        )
    )


def _run(row: Any) -> StoredRun:
    return StoredRun(
        query_id=row.query_id,
        researcher_id=row.researcher_id,
        state=row.state,
        rounds=row.rounds,
        code=row.code,
        message=row.message,
        centers=tuple(CenterId(center) for center in json.loads(row.centers or "[]")),
        noise_seed=row.noise_seed,
        model_id=row.model_id,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
    )


def _task_row(query_id: str, task: NewTask) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "number": task.number,
        "action": task.action,
        "round": task.round,
        "deadline_ms": task.deadline_ms,
        "size": task.size,
    }


def _part_row(query_id: str, number: int, center: CenterId) -> dict[str, Any]:
    return {"query_id": query_id, "number": number, "center_id": center, "state": PartState.OPEN}


def _choice_rows(push: Pushed) -> list[dict[str, Any]]:
    return [
        {"query_id": push.query_id, "number": number, "value": json.dumps(centers)}
        for number, centers in push.choices.items()
    ]
