"""What is written down of runs: values, reading, and steps for connexon_hub.writer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from connexon.database import Database
from connexon.errors import NotFound
from connexon.identity import CenterId
from connexon.parcel_files import TaskId
from connexon.v1 import models_pb2
from connexon_hub.queries import Submission
from connexon_hub.state.tables import MODEL_FLAGS, MODELS, RUN_CHOICES, RUN_PARTS, RUN_ROUNDS, RUN_TASKS, RUNS
from connexon_hub.training.talk import NewTask, PartState

RunState: TypeAlias = models_pb2.RunState.ValueType
GATHERING = models_pb2.RUN_STATE_GATHERING
RUNNING = models_pb2.RUN_STATE_RUNNING
FINISHED = models_pb2.RUN_STATE_FINISHED
FAILED = models_pb2.RUN_STATE_FAILED
CANCELLED = models_pb2.RUN_STATE_CANCELLED
LIVE = (GATHERING, RUNNING)
SEED_BYTES = 16

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
_CHOICE = select(RUN_CHOICES.c.value).where(
    RUN_CHOICES.c.query_id == bindparam("query"), RUN_CHOICES.c.number == bindparam("at")
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


@dataclass(frozen=True)
class NewModel:
    """A model to be put into the registry, as the run that made it."""

    query_id: str
    researcher_id: str
    name: str
    version: int
    created_ms: int
    signed: bytes
    summary: bytes

    @property
    def model_id(self) -> str:
        """<name>/<version>."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class Flag:
    """What a center said of a run's model afterwards."""

    query_id: str
    center: CenterId
    code: str
    message: str
    at_ms: int
    answer: bytes


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

    def next_version(self, researcher_id: str, name: str) -> int:
        """The version that the researcher's next model of this name gets."""
        with self._database.reading() as connection:
            return 1 + (
                connection.execute(
                    select(func.max(MODELS.c.version)).where(
                        MODELS.c.researcher_id == researcher_id, MODELS.c.name == name
                    )
                ).scalar()
                or 0
            )

    def models(self, researcher_id: str, limit: int) -> list[models_pb2.ModelSummary]:
        """A researcher's models with their flags, newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(MODELS.c.query_id, MODELS.c.summary)
                .where(MODELS.c.researcher_id == researcher_id)
                .order_by(MODELS.c.created_ms.desc(), MODELS.c.model_id)
                .limit(limit)
            ).all()
            found = []
            for row in rows:
                summary = models_pb2.ModelSummary.FromString(row.summary)
                summary.flags.extend(_flags(connection, row.query_id))
                found.append(summary)
            return found

    def model(self, researcher_id: str, model_id: str) -> tuple[str, models_pb2.SignedModel]:
        """A model with its flags, and the run it came of. Raises NotFound for anybody else's, as for none."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(MODELS.c.query_id, MODELS.c.signed).where(
                    MODELS.c.researcher_id == researcher_id, MODELS.c.model_id == model_id
                )
            ).one_or_none()
            if row is None:
                raise NotFound("You have no model of that name and version.", code="model.not_found")
            signed = models_pb2.SignedModel.FromString(row.signed)
            signed.flags.extend(_flags(connection, row.query_id))
            return row.query_id, signed

    def start(self, connection: Connection, starts: Sequence[tuple[str, tuple[CenterId, ...], int]]) -> list[None]:
        """Note who takes part; each (query id, centers, time)."""
        for query_id, centers, at_ms in starts:
            connection.execute(
                update(RUNS)
                .where(RUNS.c.query_id == query_id, RUNS.c.state == GATHERING)
                .values(state=RUNNING, centers=json.dumps(centers), started_ms=at_ms)
            )
        return [None] * len(starts)

    def push(self, connection: Connection, pushes: Sequence[tuple[str, tuple[NewTask, ...]]]) -> list[None]:
        """Write tasks down, those that are not there yet."""
        for query_id, tasks in pushes:
            wanted = {"query": query_id, "numbers": [task.number for task in tasks]}
            present = set(connection.execute(_PRESENT, wanted).scalars())
            fresh = [task for task in tasks if task.number not in present]
            if not fresh:
                continue
            connection.execute(insert(RUN_TASKS), [_task_row(query_id, task) for task in fresh])
            connection.execute(
                insert(RUN_PARTS),
                [
                    {"query_id": query_id, "number": task.number, "center_id": center, "state": PartState.OPEN}
                    for task in fresh
                    for center in task.centers
                ],
            )
        return [None] * len(pushes)

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

    def choose(self, connection: Connection, choices: Sequence[tuple[str, int, str]]) -> list[str]:
        """Write a choice down, each (query id, number, value); gives the one that was made first."""
        outcomes = []
        for query_id, number, value in choices:
            made = connection.execute(_CHOICE, {"query": query_id, "at": number}).scalar()
            if made is None:
                connection.execute(insert(RUN_CHOICES), {"query_id": query_id, "number": number, "value": value})
            outcomes.append(value if made is None else made)
        return outcomes

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
            _end(connection, ending)
            still_open = and_(RUN_PARTS.c.query_id == ending.query_id, RUN_PARTS.c.state == PartState.OPEN)
            numbers = connection.execute(select(RUN_PARTS.c.number).where(still_open).distinct()).scalars()
            outcomes.append([TaskId(ending.query_id, number) for number in numbers])
            connection.execute(
                update(RUN_PARTS).where(still_open).values(state=PartState.MISSED, settled_ms=ending.at_ms)
            )
        return outcomes

    def register(self, connection: Connection, models: Sequence[NewModel]) -> list[None]:
        """Put models into the registry and end their runs; one that is there already stays."""
        for model in models:
            known = connection.execute(select(MODELS.c.model_id).where(MODELS.c.query_id == model.query_id)).scalar()
            if known is None:
                connection.execute(
                    insert(MODELS),
                    {
                        "researcher_id": model.researcher_id,
                        "model_id": model.model_id,
                        "query_id": model.query_id,
                        "name": model.name,
                        "version": model.version,
                        "created_ms": model.created_ms,
                        "signed": model.signed,
                        "summary": model.summary,
                    },
                )
            _end(
                connection,
                Ending(model.query_id, FINISHED, model.created_ms, model_id=known or model.model_id),
            )
        return [None] * len(models)

    def flag(self, connection: Connection, flags: Sequence[Flag]) -> list[bool]:
        """Keep what centers say of models afterwards; False for what is kept already or about no run."""
        outcomes = []
        for one in flags:
            place = and_(
                MODEL_FLAGS.c.query_id == one.query_id,
                MODEL_FLAGS.c.center_id == one.center,
                MODEL_FLAGS.c.code == one.code,
            )
            run = connection.execute(select(RUNS.c.query_id).where(RUNS.c.query_id == one.query_id)).scalar()
            fresh = run is not None and connection.execute(select(MODEL_FLAGS.c.code).where(place)).scalar() is None
            if fresh:
                connection.execute(
                    insert(MODEL_FLAGS),
                    {
                        "query_id": one.query_id,
                        "center_id": one.center,
                        "code": one.code,
                        "message": one.message,
                        "at_ms": one.at_ms,
                        "answer": one.answer,
                    },
                )
            outcomes.append(fresh)
        return outcomes


def begin(connection: Connection, submissions: Sequence[Submission]) -> None:
    """Write new runs down within the transaction of their queries."""
    if submissions:
        connection.execute(
            insert(RUNS).values(code="", message="", centers="", model_id=""),
            [
                {
                    "query_id": one.query_id,
                    "researcher_id": one.researcher_id,
                    "state": GATHERING,
                    "rounds": one.rounds,
                    "noise_seed": secrets.token_bytes(SEED_BYTES),
                    "created_ms": one.accepted_ms,
                }
                for one in submissions
            ],
        )


def _end(connection: Connection, ending: Ending) -> None:
    connection.execute(
        update(RUNS)
        .where(RUNS.c.query_id == ending.query_id, RUNS.c.state.in_(LIVE))
        .values(
            state=ending.state,
            code=ending.code,
            message=ending.message,
            model_id=ending.model_id,
            ended_ms=ending.at_ms,
        )
    )


def _flags(connection: Connection, query_id: str) -> list[models_pb2.ModelFlag]:
    rows = connection.execute(
        select(MODEL_FLAGS).where(MODEL_FLAGS.c.query_id == query_id).order_by(MODEL_FLAGS.c.at_ms)
    )
    return [
        models_pb2.ModelFlag(code=row.code, message=row.message, center_id=row.center_id, at_ms=row.at_ms)
        for row in rows
    ]


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
