"""The hub's runs and models on SQLite and PostgreSQL: written once, ended once, and each researcher's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.clock import now_ms
from connexon.errors import NotFound
from connexon.identity.keys import CenterId
from connexon.link.parcel_files import TaskId
from connexon.service.database import Database
from connexon.v1 import models_pb2, query_pb2
from connexon_hub.routing import run_rows
from connexon_hub.routing.run_rows import GATHERING, RUNNING
from connexon_hub.routing.store import Submission
from connexon_hub.state import open_state
from connexon_hub.training import store as runs
from connexon_hub.training.files import RunFiles
from connexon_hub.training.model_store import Flag, ModelStore, NewModel
from connexon_hub.training.store import (
    CANCELLED,
    FAILED,
    FINISHED,
    Ending,
    Pushed,
    Reply,
    RunStore,
)
from connexon_hub.training.worker_protocol import NewTask, PartState

KYOTO, LYON = CenterId("kyoto"), CenterId("lyon")
RUN = "123e4567-e89b-12d3-a456-426614174000"


class Desk:
    """The store, with each step in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = RunStore(database)
        self.models = ModelStore(database)
        self.delivered: list[tuple[TaskId, CenterId]] = []

    def begin(self, query_id: str = RUN, researcher: str = "kyoto/ada") -> None:
        submission = Submission(
            query_id, researcher, query_pb2.SignedQuery(), (KYOTO, LYON), now_ms(), now_ms() + 1000, rounds=3
        )
        with self.database.writing() as connection:
            run_rows.begin(connection, [submission])

    def push(
        self,
        number: int = 1,
        *,
        action: str = "train",
        late_ms: int = 60_000,
        choices: dict[int, tuple[CenterId, ...]] | None = None,
    ) -> NewTask:
        task = NewTask(number, action, 1, now_ms() + late_ms, 100, (KYOTO, LYON))
        with self.database.writing() as connection:
            (self.delivered,) = self.store.push(connection, [Pushed(RUN, (task,), choices or {})])
        return task

    def settle(self, center: CenterId, answer: bytes, number: int = 1) -> bool:
        with self.database.writing() as connection:
            (kept,) = self.store.settle(connection, [Reply(TaskId(RUN, number), center, answer, now_ms())])
        return kept

    def end(self, state: runs.RunState, code: str = "") -> list[TaskId]:
        with self.database.writing() as connection:
            (still_open,) = self.store.end(connection, [Ending(RUN, state, now_ms(), code, "why")])
        return still_open

    def register(self, query_id: str, version: int, researcher: str = "kyoto/ada") -> None:
        summary = models_pb2.ModelSummary(model_id=f"niche/{version}", query_id=query_id)
        model = NewModel(query_id, researcher, "niche", version, now_ms(), b"", summary.SerializeToString())
        with self.database.writing() as connection:
            self.models.register(connection, [model])

    def flag(self, center: CenterId, query_id: str = RUN) -> bool:
        with self.database.writing() as connection:
            (kept,) = self.models.flag(connection, [Flag(query_id, center, "consent.withdrawn", "x", now_ms(), b"")])
        return kept


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    database = open_state(database_url)
    yield Desk(database)
    database.close()


def test_the_seed_of_the_noise_is_forgotten_with_the_runs_end(desk: Desk) -> None:
    for number, state in enumerate((FAILED, CANCELLED, FINISHED)):
        query_id = RUN[:-1] + str(number)
        desk.begin(query_id)
        run = desk.store.find(query_id)
        assert run is not None
        assert len(run.noise_seed) >= 16
        if state == FINISHED:
            desk.register(query_id, 1)
        else:
            with desk.database.writing() as connection:
                desk.store.end(connection, [Ending(query_id, state, now_ms())])
        ended = desk.store.find(query_id)
        assert ended is not None
        assert (ended.state, ended.noise_seed) == (state, b"")


def test_parcels_of_runs_that_have_ended_do_not_outlive_a_killed_hub(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.prepare([])
    for run in ("ended", "live"):
        (files.begin(run) / "1.task").write_bytes(b"x")
    (files.arriving / "piece").write_bytes(b"x")
    files.model("ended").write_bytes(b"x")
    files.prepare(["live"])
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["models/ended.arrays", "runs/live/1.task"]
    assert files.arriving.is_dir()


def test_a_run_begins_is_started_and_ends_once(desk: Desk) -> None:
    desk.begin()
    run = desk.store.find(RUN)
    assert run is not None
    assert (run.state, run.rounds, run.centers, len(run.noise_seed)) == (GATHERING, 3, (), 16)
    assert desk.store.live() == [RUN]
    with desk.database.writing() as connection:
        desk.store.start(connection, [(RUN, (KYOTO, LYON), now_ms())])
    started = desk.store.find(RUN)
    assert started is not None
    assert (started.state, started.centers, started.noise_seed) == (RUNNING, (KYOTO, LYON), run.noise_seed)
    desk.end(FAILED, "run.crashed")
    desk.end(CANCELLED)
    ended = desk.store.find(RUN)
    assert ended is not None
    assert (ended.state, ended.code, ended.message) == (FAILED, "run.crashed", "why")
    assert desk.store.live() == []


def test_who_takes_part_is_decided_once(desk: Desk) -> None:
    desk.begin()
    for centers in ((KYOTO, LYON), (KYOTO,)):
        with desk.database.writing() as connection:
            desk.store.start(connection, [(RUN, centers, now_ms())])
    run = desk.store.find(RUN)
    assert run is not None
    assert run.centers == (KYOTO, LYON)


def test_a_task_that_is_pushed_again_stays_as_it_is(desk: Desk) -> None:
    desk.begin()
    desk.push()
    assert desk.delivered == [(TaskId(RUN, 1), KYOTO), (TaskId(RUN, 1), LYON)]
    assert desk.settle(LYON, b"answer")
    desk.push()
    assert desk.delivered == [(TaskId(RUN, 1), KYOTO)]
    assert [(part.center, part.state, part.answer) for part in desk.store.parts(RUN, [1])] == [
        (KYOTO, PartState.OPEN, None),
        (LYON, PartState.REPLIED, b"answer"),
    ]


def test_the_first_reply_stands(desk: Desk) -> None:
    desk.begin()
    desk.push()
    assert desk.settle(LYON, b"first")
    assert not desk.settle(LYON, b"second")
    assert not desk.settle(LYON, b"to nothing", number=9)
    assert desk.store.train_answers(RUN) == {(LYON, 1): b"first"}


def test_what_is_late_is_missed_and_stays_so(desk: Desk) -> None:
    desk.begin()
    desk.push()
    with desk.database.writing() as connection:
        desk.store.miss(connection, [(RUN, (1,), now_ms())])
    assert not desk.settle(KYOTO, b"too late")
    assert {part.state for part in desk.store.parts(RUN, [1])} == {PartState.MISSED}


def test_the_backlog_is_what_is_open_in_time_and_of_a_live_run(desk: Desk) -> None:
    desk.begin()
    desk.push(1)
    desk.push(2, late_ms=-1)
    desk.settle(LYON, b"done")
    assert desk.store.backlog(KYOTO, at_ms=now_ms()) == [TaskId(RUN, 1)]
    assert desk.store.backlog(LYON, at_ms=now_ms()) == []
    assert desk.store.part(TaskId(RUN, 1), KYOTO) == (PartState.OPEN, 100)
    assert desk.store.part(TaskId(RUN, 3), KYOTO) is None
    assert desk.end(CANCELLED) == [TaskId(RUN, 1), TaskId(RUN, 2)]
    assert desk.store.backlog(KYOTO, at_ms=now_ms()) == []


def test_choices_are_kept_with_the_tasks_that_follow_them(desk: Desk) -> None:
    desk.begin()
    desk.push(choices={1: (KYOTO,), 2: (KYOTO, LYON)})
    desk.push(2)
    assert desk.store.choices(RUN) == {1: (KYOTO,), 2: (KYOTO, LYON)}
    assert desk.store.choices("another") == {}


def test_a_round_is_reported_once(desk: Desk) -> None:
    desk.begin()
    for loss in (0.5, 0.9):
        report = models_pb2.RoundReport(round=1, metrics={"loss": loss})
        with desk.database.writing() as connection:
            desk.store.report(connection, [(RUN, report)])
    assert [report.metrics["loss"] for report in desk.store.rounds(RUN)] == [0.5]
    assert desk.store.rounds(RUN, after=1) == []


def test_models_are_numbered_by_researcher_and_name(desk: Desk) -> None:
    desk.begin()
    assert desk.models.next_version("kyoto/ada", "niche") == 1
    desk.register(RUN, 1)
    assert desk.models.next_version("kyoto/ada", "niche") == 2
    assert desk.models.next_version("lyon/eve", "niche") == 1
    run = desk.store.find(RUN)
    assert run is not None
    assert (run.state, run.model_id) == (FINISHED, "niche/1")
    # Registered again, after a crash between this and the process's end: the first stays.
    desk.register(RUN, 2)
    assert [one.model_id for one in desk.models.models("kyoto/ada", 10)] == ["niche/1"]
    with pytest.raises(NotFound):
        desk.models.model("lyon/eve", "niche/1")


def test_a_flag_is_kept_once_and_shown_with_the_model(desk: Desk) -> None:
    desk.begin()
    desk.register(RUN, 1)
    assert desk.flag(LYON)
    assert not desk.flag(LYON)
    assert not desk.flag(LYON, "no such run")
    (summary,) = desk.models.models("kyoto/ada", 10)
    assert [flag.center_id for flag in summary.flags] == ["lyon"]
    assert len(desk.models.model("kyoto/ada", "niche/1")[1].flags) == 1
