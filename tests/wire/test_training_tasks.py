"""A training run as a center's node sees it: a real process, real rows, and a hub that the test plays."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy
import psutil
import pytest
from flwr.app import ConfigRecord, RecordDict

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.conditions.filters import Filter
from connexon.errors import NotFound
from connexon.learning import models
from connexon.learning.preprocessing import Preprocessing, Summary, fit
from connexon.learning.recipe import (
    BoostedTrees,
    FieldFeature,
    LocalWork,
    Logistic,
    Strategy,
    Target,
    TargetClass,
)
from connexon.link.parcel_files import TaskId
from connexon.v1 import answer_pb2, link_pb2
from connexon_node.audit import AuditLog, verify
from connexon_node.consent.ledger import Ledger
from connexon_node.editions import Edition, Editions
from connexon_node.privacy import Account, Share
from connexon_node.privacy.training import TrainingPrice
from connexon_node.settings import PrivacySection
from connexon_node.state import open_state
from connexon_node.training.spool import Spool
from connexon_node.training.task_store import TaskBox
from tests.support.documented import assert_same_shape, documented
from tests.support.federation import HEALTH
from tests.support.small_hub import HubSession, SmallHub, until
from tests.support.training import PRIVATE, RECIPE, Run, TrainingNode, content_of, initial, played

CLASSES = (TargetClass("seed", ("seed",)), TargetClass("bank", ("MCB",)))
LEVEL = replace(
    RECIPE,
    target=Target("bank_level", CLASSES),
    features=(FieldFeature("passage_no"), FieldFeature("vials_made")),
    model=Logistic(LocalWork(0.5)),
)


@pytest.fixture
def node(tmp_path: Path) -> TrainingNode:
    return TrainingNode(tmp_path / "kyoto")


@pytest.fixture
def hub(node: TrainingNode) -> SmallHub:
    return SmallHub(node.federation)


async def refusal(run: Run, task: TaskId) -> str:
    answer, content = await run.reply(task)
    assert content is None, "it was done"
    return answer.reason.code


def withdraw(node: TrainingNode, donor: str) -> None:
    database = open_state(node.folder.default_state_url)
    Ledger(database).withdraw(donor, by="steward", on=datetime.date.today())  # noqa: DTZ011
    database.close()


def test_a_run_from_enrolment_to_evaluation(node: TrainingNode, hub: SmallHub) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        assert [column.kind for column in fitted.columns] == ["number", "number", "category"]
        arrays, losses = initial(run, fitted), []
        for number in (1, 2, 3):
            answer, content = await run.reply(run.send("train", content_of(arrays, fitted, number), number))
            assert content is not None, answer.reason
            assert (answer.task.donors, answer.task.examples, answer.task.rho) == (40, 80, 0)
            assert dict(answer.provenance.generations) == {"lots": 1, "donors": 1}
            assert set(content) == {"arrays", "metrics"}
            losses.append(content.metric_records["metrics"]["loss"])
            arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        assert losses[0] > losses[1] > losses[2]
        answer, content = await run.reply(run.send("evaluate", content_of(arrays, fitted, 3), 3))
        assert content is not None, answer.reason
        assert content.metric_records["metrics"]["loss"] < losses[2]
        assert list(content) == ["metrics"]

    played(node, hub, story)
    database = open_state(node.folder.default_state_url)
    assert verify(database).faults == ()
    told = [(entry.record.analysis, entry.record.status) for entry in AuditLog(database).entries()]
    assert sorted(told) == sorted([("train", "released")] * 4 + [("summary", "released"), ("evaluate", "released")])
    database.close()
    assert sorted(path.name for path in node.folder.training.glob("*/*") if path.suffix == ".work") == []


def test_the_hub_is_not_believed_and_gets_nothing_of_a_run_that_was_refused(node: TrainingNode, hub: SmallHub) -> None:
    """What the signed recipe does not provide for is not done, however it is asked."""

    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        sound = content_of(arrays, fitted, 1)
        wide = {**arrays, "coefficients": numpy.zeros((1, fitted.width + 1))}
        single = {name: values.astype(numpy.float32) for name, values in arrays.items()}
        other = Preprocessing((*fitted.columns[:2], replace(fitted.columns[0], name="vials")))
        stranger = "00000000-0000-4000-8000-000000000000"
        cases = [
            (run.send("train", content_of(wide, fitted, 1), 1), "task.refused"),
            (run.send("train", content_of(single, fitted, 1), 1), "task.refused"),
            (run.send("train", content_of({**arrays, "more": numpy.zeros(3)}, fitted, 1), 1), "task.refused"),
            (
                run.send("train", content_of({**arrays, "intercept": numpy.full(1, numpy.nan)}, fitted, 1), 1),
                "records.refused",
            ),
            (run.send("train", content_of(arrays, other, 1), 1), "task.refused"),
            (run.send("train", sound, 0), "task.not_due"),
            (run.send("train", content_of(arrays, fitted, 4), 4), "task.not_due"),
            (run.send("train", sound, 2), "task.refused"),
            (run.send("train", content_of(arrays, fitted, 1, **{"proximal-mu": 9.0}), 1), "task.refused"),
            (run.send("train", RecordDict({"config": ConfigRecord({})}), 1), "task.refused"),
            (run.send("query.everything", sound, 1), "task.unknown_action"),
            (run.send("train", sound, 1, change={"records_sha256": b"\0" * 32}), "task.unreadable"),
            (run.send("train", sound, 1, change={"task_id": f"{run.id}.77"}), "task.unreadable"),
            (run.send("train", sound, 1, seconds=-1), "query.expired"),
        ]
        for task, code in cases:
            assert await refusal(run, task) == code, code
        path = run.folder / f"{stranger}.1"
        path.write_bytes((run.folder / str(cases[0][0])).read_bytes())
        run.deliver(TaskId(stranger, 1))
        await until(lambda: run.replies(TaskId(stranger, 1)))
        said = answer_pb2.SignedAnswer.FromString(run.replies(TaskId(stranger, 1))[0].head)
        assert answer_pb2.Answer.FromString(said.payload).reason.code == "task.unknown_run"
        answer, content = await run.reply(run.send("train", sound, 1))
        assert content is not None, answer.reason
        assert await refusal(run, run.send("train", sound, 1)) == "task.not_due"
        moved = Preprocessing((replace(fitted.columns[0], mean=0.0), *fitted.columns[1:]))
        assert await refusal(run, run.send("train", content_of(arrays, moved, 2), 2)) == "task.refused"
        await refused(session)

    async def refused(session: HubSession) -> None:
        run = Run.asking(node, session, replace(RECIPE, target=Target("grade")))
        answer = await run.enrolment()
        assert answer.reason.code == "field.not_offered"
        assert await refusal(run, run.send("query.summary", RecordDict({"config": ConfigRecord({})}), 0)) == (
            "task.not_enrolled"
        )
        node.grant("hedy")
        question = node.researcher("hedy").question(["kyoto"], Train(RECIPE), dataset="lots", where=_few())
        few = Run.asking(node, session, question=question, subject="hedy")
        assert (await few.enrolment()).reason.code == "release.too_few_donors"
        plain = node.federation.researcher()
        session.deliver(query := plain.sign(plain.question(["kyoto"], Train(RECIPE), dataset="lots")))
        denied = await Run(node, session, query, RECIPE).enrolment()
        assert denied.reason.code == "policy.denied"
        assert "model-training" in denied.reason.message

    played(node, hub, story)


def _few() -> Filter:
    from connexon.conditions import where

    return where.parse("cells_per_vial_1e6 < 1.2")


def test_the_same_task_again_gets_the_same_reply_until_the_hub_has_it(node: TrainingNode, hub: SmallHub) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        task = run.send("train", content_of(initial(run, fitted), fitted, 1), 1)
        await run.reply(task)
        run.deliver(task)
        await until(lambda: len(run.replies(task)) == 2)
        first, again = (one.path.read_bytes() for one in run.replies(task))
        assert first == again
        session.hang_up()
        second = await hub.session(2)
        run.session = second
        await until(lambda: run.replies(task))
        assert run.replies(task)[0].path.read_bytes() == first
        for number in range(run.last + 1):
            run.confirm(TaskId(run.id, number))
        await until(lambda: _unsent(node) == 0)
        second.hang_up()
        third = await hub.session(3)
        query = node.researcher()
        await third.answer(third.deliver(query.sign(query.question(["kyoto"], dataset="lots"))))
        assert third.replies == []

    played(node, hub, story)


def _unsent(node: TrainingNode) -> int:
    database = open_state(node.folder.default_state_url)
    try:
        return len(TaskBox(database, Spool(node.folder.training)).unsent())
    finally:
        database.close()


def test_a_node_that_is_killed_with_a_task_in_hand_does_it_after_its_start(node: TrainingNode, hub: SmallHub) -> None:
    async def story() -> None:
        async with hub.running():
            with node.serving(hub):
                session = await hub.session()
                run = await Run.enrolled(node, session)
                fitted = await run.preprocessing()
                (zygote,) = psutil.Process(node.process.pid).children()
                (child,) = zygote.children()
                child.suspend()
                task = run.send("train", content_of(initial(run, fitted), fitted, 1), 1)
                await until(lambda: session.stored(str(task)))
                node.kill()
                await until(lambda: not child.is_running() and not zygote.is_running())
                assert run.replies(task) == []
                node.start(hub)
                run.session = await hub.session(2)
                answer, content = await run.reply(task)
                assert content is not None, answer.reason

    asyncio.run(story())


def test_work_that_dies_is_cancelled_or_takes_too_long_ends_and_the_node_goes_on(
    node: TrainingNode, hub: SmallHub
) -> None:
    node.settings["TRAINING__SECONDS"] = "2"

    def stopped() -> psutil.Process:
        """The process that works on tasks, stopped: what it is given lasts for ever."""
        (zygote,) = psutil.Process(node.process.pid).children()
        (child,) = zygote.children()
        assert child.nice() >= 10
        child.suspend()
        return child

    async def begun(session: HubSession) -> tuple[Run, RecordDict]:
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        return run, content_of(initial(run, fitted), fitted, 1)

    async def story(session: HubSession) -> None:
        run, content = await begun(session)
        stopped()
        task = run.send("train", content, 1)
        await until(lambda: session.stored(str(task)))
        await asyncio.sleep(0.3)
        session.send(link_pb2.AttachResponse(cancel=link_pb2.Cancel(query_id=run.id)))
        answer, _ = await run.reply(task)
        assert answer.status == answer_pb2.ANSWER_STATUS_CANCELLED

        run, content = await begun(session)
        stopped()
        assert await refusal(run, run.send("train", content, 1)) == "training.time_limit"

        run, content = await begun(session)
        child = stopped()
        task = run.send("train", content, 1)
        await until(lambda: session.stored(str(task)))
        await asyncio.sleep(0.2)
        os.kill(child.pid, signal.SIGKILL)
        assert await refusal(run, task) == "node.failed"
        answer, update = await run.reply(run.send("train", content, 1))
        assert update is not None, answer.reason

    played(node, hub, story)


def test_a_donor_who_withdraws_is_out_of_the_next_round_and_a_steward_may_stop_a_run(
    node: TrainingNode, hub: SmallHub
) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session, PRIVATE)
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        _, before = await run.reply(run.send("train", content_of(arrays, fitted, 1), 1))
        withdraw(node, "D3")
        answer, after = await run.reply(run.send("train", content_of(arrays, fitted, 2), 2))
        assert before is not None
        assert after is not None
        # What was drawn stands for the whole run: no number follows a withdrawal.
        assert answer.task.examples == before.metric_records["metrics"]["num-examples"]
        notice = TaskId(run.id, 0)
        await until(lambda: run.replies(notice))
        said = answer_pb2.SignedAnswer.FromString(run.replies(notice)[0].head)
        told = answer_pb2.Answer.FromString(said.payload)
        assert (told.notice.code, told.query_sha256) == ("consent.withdrawn", answer.query_sha256)
        withdraw(node, "D5")
        await run.reply(run.send("train", content_of(arrays, fitted, 3), 3))
        await asyncio.sleep(1.5)
        assert len(run.replies(notice)) == 1
        await stopped(session)

    async def stopped(session: HubSession) -> None:
        run = await Run.enrolled(node, session, PRIVATE)
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        await run.reply(run.send("train", content_of(arrays, fitted, 1), 1))
        listed = json.loads(await asyncio.to_thread(node.run, "training", "list", "--json"))
        assert_same_shape(listed, documented("connexon-node training list"))
        assert [(one["rounds_done"], one["donors"]) for one in listed["runs"]] == [(1, 38), (3, 40)]
        await asyncio.to_thread(node.run, "training", "stop", run.id, "--because", "the project has ended")
        answer, _ = await run.reply(run.send("train", content_of(arrays, fitted, 2), 2))
        assert answer.reason.code == "training.stopped"
        assert "the project has ended" in answer.reason.message

    played(node, hub, story)
    listed = node.run("consent", "impact", "D3", "--json")
    assert '"recipe": "passages"' in listed
    assert '"tasks": 2' in listed


@pytest.mark.parametrize("left", [0, 1])
def test_a_task_of_a_few_donors_and_one_of_nobody_are_answered_in_the_same_words(
    node: TrainingNode, hub: SmallHub, left: int
) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        database = open_state(node.folder.default_state_url)
        ledger = Ledger(database)
        donors = [f"D{number}" for number in range(200) if ledger_knows(ledger, f"D{number}")]
        database.close()
        for donor in donors[left:]:
            withdraw(node, donor)
        answer, content = await run.reply(run.send("train", content_of(initial(run, fitted), fitted, 1), 1))
        assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_REFUSED, "training.cohort_moved")
        assert content is None
        assert not answer.task.donors

    played(node, hub, story)


def ledger_knows(ledger: Ledger, donor: str) -> bool:
    try:
        return ledger.standing(donor).in_force
    except NotFound:
        return False


def test_classes_are_evaluated_on_donors_that_were_kept_apart_and_trees_grow(node: TrainingNode, hub: SmallHub) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session, replace(LEVEL, held_out=0.4, rounds=20))
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        for number in range(1, 15):
            _, content = await run.reply(run.send("train", content_of(arrays, fitted, number), number))
            assert content is not None
            arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        answer, content = await run.reply(run.send("evaluate", content_of(arrays, fitted, 14), 14))
        assert content is not None, answer.reason
        metrics = dict(content.metric_records["metrics"])
        assert 0.7 < metrics["auc"] <= 1
        assert 0 < metrics["num-examples"] < 80
        assert metrics["auc-pairs"] % 25 == 0
        await trees(session)

    async def trees(session: HubSession) -> None:
        recipe = replace(
            LEVEL, model=BoostedTrees(trees_per_round=2, depth=3), strategy=Strategy("FedXgbBagging"), held_out=0.4
        )
        run = await Run.enrolled(node, session, recipe)
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        _, content = await run.reply(run.send("train", content_of(arrays, fitted, 1), 1, seconds=120))
        assert content is not None
        arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        assert models.load_trees(arrays["0"]).num_boosted_rounds() == 2
        _, content = await run.reply(run.send("train", content_of(arrays, fitted, 2), 2))
        assert content is not None
        new = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        assert models.load_trees(new["0"]).num_boosted_rounds() == 2
        assert not numpy.array_equal(new["0"], arrays["0"])

    played(node, hub, story)


def test_a_training_with_noise_is_paid_when_the_center_takes_part_and_told_of_no_more_than_was_paid(
    node: TrainingNode, hub: SmallHub
) -> None:
    price = TrainingPrice.of(PRIVATE)

    async def story(session: HubSession) -> None:
        run = Run.asking(node, session, PRIVATE, subject="grace")
        answer = await run.enrolment()
        assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED, answer.reason
        noise = answer.protection.noise
        assert (answer.protection.edition, noise.charged, noise.rho) == (1, price.rho, price.donors)
        assert spent(node) == pytest.approx(price.rho)
        summary = await run.reply(run.send("query.summary", RecordDict({"config": ConfigRecord({})}), 0))
        told = Summary.from_records(summary[1])  # type: ignore[arg-type]
        # Nothing of the rows: what recipe and dictionary say.
        assert [(one.mean, one.sd) for one in told.moments[:2]] == [(3.0, 1.0), (35.0, 12.5)]
        assert "female" in told.categories[2]
        fitted = fit(PRIVATE, [told])
        arrays = initial(run, fitted)
        assert arrays["intercept"] == [26.0]
        huge = {**arrays, "intercept": numpy.full(1, 1e5)}
        assert await refusal(run, run.send("train", content_of(huge, fitted, 1), 1)) == "task.refused"
        assert await refusal(run, run.send("evaluate", content_of(arrays, fitted, 1), 1)) == "task.not_due"
        for number in (1, 2, 3):
            answer, content = await run.reply(run.send("train", content_of(arrays, fitted, number), number))
            assert content is not None, answer.reason
            assert (answer.task.rho, answer.task.HasField("donors")) == (price.update, False)
            assert content.metric_records["metrics"]["num-examples"] == answer.task.examples == told.examples
            assert content.metric_records["metrics"]["loss"] == 0
            arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        _, content = await run.reply(run.send("evaluate", content_of(arrays, fitted, 3), 3))
        assert content is not None
        assert set(content.metric_records["metrics"]) == {"num-examples", "noisy-donors", "noisy-loss", "noise-scale"}
        assert await refusal(run, run.send("evaluate", content_of(arrays, fitted, 3), 3)) == "task.not_due"
        assert spent(node) == pytest.approx(price.rho)
        await refused(session)

    async def refused(session: HubSession) -> None:
        """Nobody's rows decide; the account does."""
        nobody = node.researcher("grace").question(["kyoto"], Train(PRIVATE), dataset="lots", where=_nobody())
        answer = await Run.asking(node, session, PRIVATE, nobody, subject="grace").enrolment()
        assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED, "the same as with rows"
        assert answer.enrolment.donors >= 1
        for _ in range(5):
            answer = await Run.asking(node, session, PRIVATE, subject="grace").enrolment()
        assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_BUDGET_SPENT, "budget.spent")
        assert "epsilon" in answer.reason.message
        unscaled = replace(PRIVATE, features=(FieldFeature("donor.primary_disease_term"),))
        answer = await Run.asking(node, session, unscaled, subject="hedy").enrolment()
        assert answer.reason.code == "recipe.scale_missing"
        answer = await Run.asking(node, session, RECIPE, subject="grace").enrolment()
        assert answer.reason.code == "release.not_granted"
        assert spent(node) <= PrivacySection().researcher

    played(node, hub, story)
    database = open_state(node.folder.default_state_url)
    account = Account(database, PrivacySection())
    assert {entry.charge.share for entry in account.entries("lyon/grace")} == {Share.MODELS}
    assert verify(database).faults == ()
    database.close()


def spent(node: TrainingNode) -> float:
    database = open_state(node.folder.default_state_url)
    try:
        return Account(database, PrivacySection()).researchers()["lyon/grace"].spent
    finally:
        database.close()


def _nobody() -> Filter:
    from connexon.conditions import where

    return where.parse("cells_per_vial_1e6 > 1000")


def test_the_price_of_a_training_is_told_and_nothing_is_charged(node: TrainingNode, hub: SmallHub) -> None:
    async def story(session: HubSession) -> None:
        question = node.researcher("grace").question(["kyoto"], Train(PRIVATE), dataset="lots")
        asked = replace(question, price_only=True)
        answer = await Run.asking(node, session, PRIVATE, asked, subject="grace").enrolment()
        price = answer.price
        assert price.rho == price.charge == TrainingPrice.of(PRIVATE).rho
        section = PrivacySection()
        assert (price.left_of_researcher, price.left_of_center) == (section.researcher, section.models)
        exact = node.researcher("grace").question(["kyoto"], Train(RECIPE), dataset="lots")
        refused = await Run.asking(node, session, RECIPE, replace(exact, price_only=True), subject="grace").enrolment()
        assert refused.reason.code == "release.not_granted"

    played(node, hub, story)
    database = open_state(node.folder.default_state_url)
    assert Account(database, PrivacySection()).entries() == []
    database.close()


def test_a_run_with_noise_ends_with_the_edition_it_began_in(node: TrainingNode, hub: SmallHub) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session, PRIVATE)
        fitted = await run.preprocessing()
        database = open_state(node.folder.default_state_url)
        with database.writing() as connection:
            generations = dict.fromkeys(("donors", "consents", "cell_lines", "lots"), 1)
            Editions(database).write(connection, Edition(2, now_ms(), "steward", "a new year", generations))
        database.close()
        task = run.send("train", content_of(initial(run, fitted), fitted, 1), 1)
        assert await refusal(run, task) == "training.edition_ended"

    played(node, hub, story)


def test_a_run_that_waits_for_the_steward_begins_when_they_approve_and_ends_when_they_take_it_back(
    node: TrainingNode, hub: SmallHub
) -> None:
    node.settings["APPROVALS__FIRST_USE_OF_PROJECT"] = "true"
    purpose = replace(HEALTH, project="atlas")

    async def story(session: HubSession) -> None:
        question = node.researcher().question(["kyoto"], Train(RECIPE), dataset="lots", purpose=purpose)
        run = Run.asking(node, session, RECIPE, question)
        assert (await run.enrolment()).status == answer_pb2.ANSWER_STATUS_AWAITING_STEWARD
        summary = RecordDict({"config": ConfigRecord({})})
        assert await refusal(run, run.send("query.summary", summary, 0)) == "task.not_enrolled"
        shown = await asyncio.to_thread(node.run, "requests")
        assert "train passages on lots: passage_no from cells_per_vial_1e6" in " ".join(shown.split())
        await asyncio.to_thread(node.run, "approve", run.id, "--scope", "project", "--because", "we know them")
        await until(lambda: len(session.answers(run.id)) == 2)
        signed = answer_pb2.SignedAnswer.FromString(session.answers(run.id)[1])
        assert answer_pb2.Answer.FromString(signed.payload).enrolment.donors == 40
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        _, content = await run.reply(run.send("train", content_of(arrays, fitted, 1), 1))
        assert content is not None
        (approval,) = json.loads(await asyncio.to_thread(node.run, "approvals", "list", "--json"))["approvals"]
        await asyncio.to_thread(node.run, "approvals", "revoke", approval["approval"], "--because", "no longer")
        assert await refusal(run, run.send("train", content_of(arrays, fitted, 2), 2)) == "steward.not_in_force"

    played(node, hub, story)
