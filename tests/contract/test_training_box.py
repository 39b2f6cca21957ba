"""Tasks, replies, runs and withdrawals in the node's database, on SQLite and on PostgreSQL."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from connexon.analyses.train import Train
from connexon.clock import DAY, MINUTE, now_ms
from connexon.errors import Conflict, InvalidQuery, NotFound
from connexon.identity.credential import NOTHING_REVOKED
from connexon.link import parcel_files
from connexon.link.parcel_files import Arrived, TaskId
from connexon.query import signed
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon.v1 import answer_pb2, link_pb2
from connexon_node.audit import AuditLog
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.state import open_state
from connexon_node.training import ledger as ledgers
from connexon_node.training.ledger import TrainingLedger
from connexon_node.training.spool import Spool, reply_pieces
from connexon_node.training.task_store import Came, Outcome, TaskBox, keep_reply
from connexon_node.training.task_verification import Orders, TaskRefused, require_round
from connexon_node.training.withdrawals import Withdrawals
from tests.support.federation import Federation, new_federation
from tests.support.training import RECIPE

TASK = link_pb2.PARCEL_KIND_TASK


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_state(database_url)
    yield database
    database.close()


@pytest.fixture
def box(database: Database, tmp_path: Path) -> TaskBox:
    return TaskBox(database, Spool(tmp_path / "training").make())


@pytest.fixture(scope="module")
def federation() -> Federation:
    return new_federation()


@pytest.fixture
def asked(federation: Federation) -> Asked:
    ada = federation.researcher()
    return signed.verify_query(
        ada.sign(ada.question(["kyoto"], Train(RECIPE), dataset="lots")), federation.roster(), NOTHING_REVOKED
    )


def arrive(box: TaskBox, task: TaskId, body: bytes = b"one") -> Arrived:
    path = box.spool.arriving / uuid.uuid4().hex
    parcel_files.write(path, body)
    return Arrived(task, TASK, path)


def reply(
    database: Database,
    box: TaskBox,
    task: TaskId,
    *,
    action: str = "train",
    number: int = 1,
    status: str = "released",
    donors: tuple[int, ...] = (1, 2, 3),
    records: bytes = b"",
    asked: Asked | None = None,
) -> None:
    if records:
        parcel_files.write(box.spool.reply(task), b"", [records])
    outcome = Outcome(task, action, number, status, "", len(records), numpy.array(donors, dtype=numpy.int32))
    with database.writing() as connection:
        keep_reply(connection, outcome, b"signed")
        if asked is not None:
            ledgers.begin(connection, asked, b"p" * 32)


def some_task(number: int = 1, run: str = "") -> TaskId:
    return TaskId(run or str(uuid.uuid4()), number)


def test_a_task_is_written_down_once_and_its_file_is_the_boxs(box: TaskBox) -> None:
    task = some_task()
    first = arrive(box, task)
    assert box.receive(first, deadline_ms=now_ms() + MINUTE) is Came.NEW
    assert not first.path.exists()
    assert parcel_files.read(box.spool.task(task)).head == b"one"
    assert box.receive(arrive(box, task), deadline_ms=0) is Came.UNDER_WAY
    assert box.receive(arrive(box, task, b"other"), deadline_ms=0) is Came.OTHER_BYTES
    assert parcel_files.read(box.spool.task(task)).head == b"one"
    assert [*box.spool.arriving.iterdir()] == []
    assert [one for one, _, _ in box.unanswered()] == [task]


def test_cancelling_a_run_ends_its_tasks_and_no_others(box: TaskBox) -> None:
    run = str(uuid.uuid4())
    mine, other, single = some_task(1, run), some_task(), some_task()
    for task in (mine, some_task(2, run), other, single):
        box.receive(arrive(box, task), deadline_ms=now_ms() + MINUTE)
    assert sorted(map(str, box.cancel(run))) == [f"{run}.1", f"{run}.2"]
    assert box.cancel(str(single)) == [single]
    assert {str(task): cancelled for task, _, cancelled in box.unanswered()}[str(other)] is False


def test_a_reply_is_unsent_until_the_hub_has_it_and_pruned_when_its_time_is_over(
    database: Database, box: TaskBox
) -> None:
    task, young = some_task(), some_task()
    box.receive(arrive(box, task), deadline_ms=now_ms() - 2 * DAY)
    box.receive(arrive(box, young), deadline_ms=now_ms())
    reply(database, box, task, records=b"x" * 300_000)
    reply(database, box, young, records=b"y")
    assert box.receive(arrive(box, task), deadline_ms=0) is Came.ANSWERED
    kept = box.reply(task)
    assert kept is not None
    frames = [*reply_pieces(task, kept.signed_answer, kept.records)]
    assert [frame.total_size for frame in frames] == [4 + 6 + 300_000] * len(frames)
    assert b"".join(frame.data for frame in frames)[10:] == b"x" * 300_000
    assert len(frames) == 3
    assert set(box.unsent()) == {task, young}
    assert box.prune(before_ms=now_ms() - DAY) == 0
    box.mark_stored([str(task), str(young)])
    assert box.unsent() == []
    assert not box.spool.task(task).exists()
    assert not box.spool.reply(task).exists()
    assert box.reply(task) is None
    assert box.prune(before_ms=now_ms() - DAY) == 1
    assert [one for one, _, _ in box.unanswered()] == []
    # Who stood behind it is known for ever.
    assert box.given(task.run).rounds == {"train": [1]}


def test_what_a_crash_left_is_removed_and_what_is_written_down_stays(box: TaskBox) -> None:
    task = some_task()
    box.receive(arrive(box, task), deadline_ms=now_ms() + MINUTE)
    arrive(box, some_task())
    box.spool.worked(task).write_bytes(b"half")
    box.spool.make()
    assert [*box.spool.arriving.iterdir()] == []
    assert not box.spool.worked(task).exists()
    assert box.spool.task(task).exists()


def test_each_step_of_a_recipe_is_done_once(database: Database, box: TaskBox) -> None:
    run = str(uuid.uuid4())
    require_round(RECIPE, "train", 3, box.given(run))
    reply(database, box, some_task(1, run), number=2)
    reply(database, box, some_task(2, run), number=3, status="failed")
    given = box.given(run)
    for action, number in (("train", 3), ("train", 1), ("query.summary", 0), ("evaluate", 0)):
        require_round(RECIPE, action, number, given)
    for action, number in (
        ("train", 2),
        ("train", 0),
        ("train", 4),
        ("query.summary", 1),
        ("evaluate", 4),
        ("dump", 1),
    ):
        with pytest.raises(TaskRefused):
            require_round(RECIPE, action, number, given)
    for place in range(RECIPE.rounds + 3):
        require_round(RECIPE, "evaluate", 1, box.given(run))
        reply(database, box, some_task(10 + place, run), action="evaluate", number=1)
    with pytest.raises(TaskRefused, match="no evaluate of round 1"):
        require_round(RECIPE, "evaluate", 1, box.given(run))


def test_a_run_is_known_with_its_first_task_and_can_be_stopped_once(
    database: Database, box: TaskBox, asked: Asked
) -> None:
    run, ledger = asked.question.query_id, TrainingLedger(database)
    with pytest.raises(NotFound):
        ledger.run(run)
    reply(database, box, some_task(1, run), action="summary", number=0, asked=asked)
    reply(database, box, some_task(2, run), donors=(1, 2), asked=asked)
    reply(database, box, some_task(3, run), number=2, donors=(2, 5))
    found = ledger.run(run)
    assert (found.rounds_done, found.donors, found.state, found.recipe) == (2, 3, "running", "passages")
    assert [part.tasks for part in ledger.counting(2)] == [3]
    assert [part.tasks for part in ledger.counting(5)] == [1]
    assert ledger.counting(9) == []
    with pytest.raises(InvalidQuery):
        ledger.stop(run[:5], by="steward", because="enough")
    with pytest.raises(NotFound):
        ledger.stop(f"{run[:6]}%", by="steward", because="enough")
    assert ledger.stop(run[:8], by="steward", because="enough").state == "stopped"
    assert box.given(run).stopped_because == "enough"
    with pytest.raises(Conflict, match="stopped already"):
        ledger.stop(run, by="steward", because="again")


def test_a_run_that_has_ended_is_not_stopped_and_stays_what_it_is(
    database: Database, box: TaskBox, asked: Asked
) -> None:
    run, ledger = asked.question.query_id, TrainingLedger(database)
    for number in range(1, RECIPE.rounds + 1):
        reply(database, box, some_task(number, run), number=number, asked=asked)
    with pytest.raises(Conflict, match="has ended"):
        ledger.stop(run, by="steward", because="too late")
    assert ledger.run(run).state == "done"


def test_a_task_of_a_run_that_was_not_asked_is_refused(
    database: Database, box: TaskBox, federation: Federation
) -> None:
    from connexon_node.delivery.inbox import Inbox
    from connexon_node.pipeline.verification import QueryVerifier

    center = federation.centers["kyoto"].id
    orders = Orders(center, QueryVerifier(center, federation.roster, NOTHING_REVOKED), Inbox(database), box)
    with pytest.raises(TaskRefused, match="nobody asked"):
        orders.prove(some_task())


def test_a_withdrawal_is_told_once_for_each_run_that_was_trained_on_the_donor(
    database: Database, box: TaskBox, asked: Asked, federation: Federation
) -> None:
    consents = Ledger(database)
    profile = ConsentProfile.parse("DUO:0000042")
    for donor in ("D1", "D2", "D3"):
        consents.record(ConsentRecord(donor, profile, datetime.date(2024, 1, 1)), by="steward")
    numbers = dict(zip(("D1", "D2", "D3"), consents.number_donors(["D1", "D2", "D3"]).tolist(), strict=True))
    kyoto = federation.centers["kyoto"]
    recorder = SigningRecorder(database, AuditLog(database), kyoto.answering, epoch=consents.epoch)
    watching = Withdrawals(database, consents, recorder, kyoto.id)
    assert watching.look() == []
    run = asked.question.query_id
    reply(database, box, some_task(1, run), donors=(numbers["D1"], numbers["D2"]), asked=asked)
    reply(database, box, some_task(2, run), action="evaluate", donors=(numbers["D3"],))
    day = datetime.datetime.now(datetime.UTC).date()
    consents.withdraw("D3", by="steward", on=day)
    assert watching.look() == []
    consents.withdraw("D1", by="steward", on=day)
    assert watching.look() == [TaskId(run, 0)]
    kept = box.reply(TaskId(run, 0))
    assert kept is not None
    answer = answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(kept.signed_answer).payload)
    assert (answer.notice.code, answer.query_sha256) == ("consent.withdrawn", asked.sha256)
    assert TaskId(run, 0) in box.unsent()
    consents.withdraw("D2", by="steward", on=day)
    assert watching.look() == []
    assert [entry.record.analysis for entry in AuditLog(database).entries()] == ["notice"]
