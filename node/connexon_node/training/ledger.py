"""The training ledger: runs, whose rows stood behind which of their tasks, and what the steward does about them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pyroaring import BitMap
from sqlalchemy import ColumnElement, Connection, bindparam, func, insert, select, update

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.errors import Conflict, InvalidQuery, NotFound
from connexon.query import purpose as purposes
from connexon.query.signed import Asked
from connexon.safe_text import plain
from connexon.service.database import Database
from connexon_node.approvals.store import MINIMUM_PREFIX
from connexon_node.training.tables import TrainingReplyRow, TrainingRunRow, TrainingWatchRow
from connexon_node.training.task_store import RELEASED

_RUNS = TrainingRunRow.metadata.tables["training_runs"]
_REPLIES = TrainingReplyRow.metadata.tables["training_replies"]
_WATCH = TrainingWatchRow.metadata.tables["training_watch"]
_BEGUN = select(_RUNS.c.preprocessing_sha256).where(_RUNS.c.run_id == bindparam("run"))
_TRAINED = (_REPLIES.c.status == RELEASED) & (_REPLIES.c.action == "train")


@dataclass(frozen=True)
class Run:
    """A run as the steward sees it. `donors` is exact: for them only."""

    run_id: str
    query_sha256: bytes
    recipe: str
    researcher: str
    purpose: str
    dataset: str
    rounds: int
    rounds_done: int
    donors: int
    began_at_ms: int
    expires_at_ms: int
    last_at_ms: int
    stopped_at_ms: int | None
    stopped_because: str
    noticed_at_ms: int | None

    @property
    def state(self) -> str:
        """running, done, stopped, or ended: its time is over."""
        if self.stopped_at_ms is not None:
            return "stopped"
        if self.rounds_done >= self.rounds:
            return "done"
        return "ended" if self.expires_at_ms < now_ms() else "running"


@dataclass(frozen=True)
class Part:
    """One donor's part in a run: how many of its released tasks rested on their rows too."""

    run_id: str
    recipe: str
    researcher: str
    purpose: str
    tasks: int
    first_at_ms: int
    last_at_ms: int


class TrainingLedger:
    """The tables training_runs and training_replies as a record of who contributed to what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def runs(self) -> list[Run]:
        """Every run, newest first."""
        return self._runs()

    def running(self) -> list[Run]:
        """The runs that may bring more tasks, newest first."""
        open_still = _RUNS.c.stopped_at_ms.is_(None) & (_RUNS.c.expires_at_ms >= now_ms())
        return [run for run in self._runs(open_still) if run.state == "running"]

    def run(self, run_id: str) -> Run:
        """One run. Raises NotFound."""
        with self._database.reading() as connection:
            row = connection.execute(select(_RUNS).where(_RUNS.c.run_id == run_id)).one_or_none()
            if row is None:
                raise NotFound(
                    "This center has had no task of such a run; connexon-node training list shows those it has had.",
                    code="training.unknown_run",
                )
            return self._run(connection, row)

    def stop(self, named: str, *, by: str, because: str) -> Run:
        """Do no further task of a run, named by its id or the beginning of it.

        Raises NotFound, InvalidQuery where several begin so, Conflict where the run is stopped or over already.
        """
        run = self.run(self._whole_id(named))
        if run.state == "stopped":
            raise Conflict("The run is stopped already.", code="training.stopped")
        if run.state != "running":
            over = "all its rounds are done" if run.state == "done" else "its time is over"
            raise Conflict(
                f"The run has ended already: {over}. What was given to it cannot be called back.", code="training.over"
            )
        with self._database.writing() as connection:
            values = {"stopped_at_ms": now_ms(), "stopped_by": by, "stopped_because": because}
            connection.execute(update(_RUNS).where(_RUNS.c.run_id == run.run_id).values(**values))
        return self.run(run.run_id)

    def _whole_id(self, named: str) -> str:
        """The id that begins so; what fits none stays as it is. Raises InvalidQuery where it is too short for that."""
        if len(named) < MINIMUM_PREFIX:
            raise InvalidQuery(f"Give at least {MINIMUM_PREFIX} letters of the run's id.", code="training.too_short")
        fitting = select(_RUNS.c.run_id).where(_RUNS.c.run_id.startswith(named.lower(), autoescape=True)).limit(2)
        with self._database.reading() as connection:
            found = connection.execute(fitting).scalars().all()
        if len(found) > 1:
            raise InvalidQuery(f"Several runs begin with {named}; give more of the id.", code="training.ambiguous")
        return found[0] if found else named

    def counting(self, donor: int) -> list[Part]:
        """The runs that rest on this donor's rows, oldest first."""
        query = select(_REPLIES.c.run_id, _REPLIES.c.bitmap, _REPLIES.c.sealed_at_ms).where(
            _REPLIES.c.status == RELEASED
        )
        found: dict[str, list[int]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query.order_by(_REPLIES.c.sealed_at_ms)):
                if row.bitmap and donor in BitMap.deserialize(bytes(row.bitmap)):
                    found.setdefault(row.run_id, []).append(row.sealed_at_ms)
        runs = {run: self.run(run) for run in found}
        return [
            Part(run, runs[run].recipe, runs[run].researcher, runs[run].purpose, len(times), times[0], times[-1])
            for run, times in found.items()
        ]

    def watched(self) -> int | None:
        """Up to which consent epoch withdrawals were looked at; None where nobody has yet."""
        with self._database.reading() as connection:
            return connection.execute(select(_WATCH.c.epoch)).scalar_one_or_none()

    def contributed(self, donors: Collection[int]) -> list[Run]:
        """The runs that were trained on rows of one of these donors, and of which the hub was not told yet."""
        wanted = BitMap(donors)
        query = select(_REPLIES.c.run_id, _REPLIES.c.bitmap).where(
            _TRAINED, _REPLIES.c.run_id.in_(select(_RUNS.c.run_id).where(_RUNS.c.noticed_at_ms.is_(None)))
        )
        found: dict[str, None] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                if row.run_id not in found and wanted & BitMap.deserialize(bytes(row.bitmap)):
                    found[row.run_id] = None
        return [self.run(run) for run in found]

    def _runs(self, *wanted: ColumnElement[bool]) -> list[Run]:
        query = select(_RUNS).where(*wanted).order_by(_RUNS.c.began_at_ms.desc(), _RUNS.c.run_id)
        with self._database.reading() as connection:
            return [self._run(connection, row) for row in connection.execute(query).all()]

    def _run(self, connection: Connection, row: object) -> Run:
        mine = _REPLIES.c.run_id == row.run_id  # type: ignore[attr-defined]  # a row of training_runs
        bitmaps = connection.execute(select(_REPLIES.c.bitmap).where(mine, _TRAINED)).scalars()
        everybody = BitMap()
        rounds = 0
        for bitmap in bitmaps:
            everybody |= BitMap.deserialize(bytes(bitmap))
            rounds += 1
        last = connection.execute(select(func.max(_REPLIES.c.sealed_at_ms)).where(mine)).scalar_one()
        kept = row._mapping  # type: ignore[attr-defined]  # as above
        names = Run.__dataclass_fields__.keys() & kept.keys()
        return Run(
            **{name: kept[name] for name in names},
            rounds_done=rounds,
            donors=len(everybody),
            last_at_ms=last or kept["began_at_ms"],
        )


def begin(connection: Connection, asked: Asked, preprocessing_sha256: bytes) -> None:
    """Write a run down with its first task, and its preprocessing with the first that brings one."""
    question, analysis = asked.question, asked.question.analysis
    assert isinstance(analysis, Train)
    begun = connection.execute(_BEGUN, {"run": question.query_id}).one_or_none()
    if begun is not None:
        if preprocessing_sha256 and not begun.preprocessing_sha256:
            own = update(_RUNS).where(_RUNS.c.run_id == question.query_id)
            connection.execute(own.values(preprocessing_sha256=preprocessing_sha256))
        return
    values = {
        "run_id": question.query_id,
        "query_sha256": asked.sha256,
        "researcher": plain(asked.researcher.id),
        "purpose": plain(purposes.describe(question.purpose))[:1000],
        "dataset": question.dataset,
        "recipe": analysis.recipe.name,
        "rounds": analysis.recipe.rounds,
        "began_at_ms": now_ms(),
        "expires_at_ms": question.expires_at_ms,
        "preprocessing_sha256": preprocessing_sha256,
        "stopped_by": "",
        "stopped_because": "",
    }
    connection.execute(insert(_RUNS), values)


def noticed(connection: Connection, run_id: str) -> None:
    """The hub is told of a run, within the transaction that seals the notice."""
    connection.execute(update(_RUNS).where(_RUNS.c.run_id == run_id).values(noticed_at_ms=now_ms()))


def set_watched(connection: Connection, epoch: int) -> None:
    """Withdrawals up to this epoch were looked at."""
    if connection.execute(update(_WATCH).values(epoch=epoch)).rowcount == 0:
        connection.execute(insert(_WATCH), {"id": 1, "epoch": epoch})
