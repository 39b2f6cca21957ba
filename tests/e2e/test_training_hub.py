"""Training at a real hub: Flower in a process of its own, centers on real links, and what bad days do to a run."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import numpy
import psutil
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from connexon.analyses.train import Train
from connexon.identity import certificates
from connexon.learning import flower, models, records
from connexon.learning.preprocessing import Preprocessing, Summary, fit
from connexon.learning.recipe import Recipe, Stopping, Strategy
from connexon.query import signed
from connexon.v1 import answer_pb2, models_pb2, models_pb2_grpc, task_pb2
from connexon.zcdp import rho_of
from tests.support.federation import Asker
from tests.support.hub import SECONDS, Desk, HubProcess, JoinedCenter, code_of, id_of, until
from tests.support.trainee import PRIVATE, RECIPE, Rows, Trainee, local_grid

FINISHED, FAILED, CANCELLED = (
    models_pb2.RUN_STATE_FINISHED,
    models_pb2.RUN_STATE_FAILED,
    models_pb2.RUN_STATE_CANCELLED,
)
CENTERS = ("boston", "kyoto", "lyon")


class School:
    """A hub with three centers that train, and a researcher."""

    def __init__(self, hub: HubProcess, joined: dict[str, JoinedCenter], folder: Path) -> None:
        self.hub = hub
        self.joined = joined
        self.folder = folder
        self.asker: Asker = joined["kyoto"].researcher()

    def trainees(self, folder: str) -> dict[str, Trainee]:
        """New trainees, each with its own rows."""
        return {
            name: Trainee(self.joined[name], Rows.drawn(number), self.folder / folder / name)
            for number, name in enumerate(CENTERS)
        }

    def query(self, recipe: Recipe = RECIPE, centers: Sequence[str] = CENTERS) -> Any:
        """A signed question to train by a recipe."""
        return self.asker.sign(self.asker.question(centers, Train(recipe), dataset="differentiation_runs"))


class Studies:
    """What a researcher sees of runs and models."""

    def __init__(self, school: School) -> None:
        self.asker = school.asker
        self.desk = Desk(school.asker, school.joined["kyoto"])
        self.stub = models_pb2_grpc.ModelsStub(self.desk.channel)

    def proof(self, method: str) -> Any:
        """Metadata for one call."""
        asker = self.asker
        return signed.prove_call(
            asker.key, asker.token, federation=asker.federation, method=f"/connexon.v1.Models/{method}"
        )

    async def begin(self, query: Any) -> str:
        """Ask for a run; its id once the hub has it."""
        updates = self.desk.ask(query)
        await updates.accepted()
        updates.call.cancel()
        return id_of(query)

    async def outcome(self, query_id: str) -> models_pb2.RunStatus:
        """How a run ended, with all its rounds."""
        reports: list[models_pb2.RoundReport] = []
        async with asyncio.timeout(3 * SECONDS):
            while True:
                try:
                    call = self.stub.FollowRun(
                        models_pb2.FollowRunRequest(query_id=query_id, wait=True), metadata=self.proof("FollowRun")
                    )
                    reports.clear()
                    async for response in call:
                        reports += response.status.reports
                        status = response.status
                    if status.state not in (models_pb2.RUN_STATE_GATHERING, models_pb2.RUN_STATE_RUNNING):
                        break
                except grpc.aio.AioRpcError as error:
                    # The hub is killed in some of the tests.
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.1)
        del status.reports[:]
        status.reports.extend(reports)
        return status

    async def model(self, model_id: str) -> tuple[models_pb2.SignedModel, models_pb2.ModelStatement, bytes]:
        """A model, what it says of itself, and its arrays' values."""
        request = models_pb2.GetModelRequest(model_id=model_id, arrays=True)
        model, data = b"", b""
        async for response in self.stub.GetModel(request, metadata=self.proof("GetModel")):
            model, data = model + response.model, data + response.data
        got = models_pb2.SignedModel.FromString(model)
        return got, models_pb2.ModelStatement.FromString(got.payload), data


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("school")
    with HubProcess(folder) as hub:
        joined = {name: hub.join(name, activate=False) for name in CENTERS}
        hub.publish()
        until(lambda: "roster 2 is in force" in hub.log, "the roster")
        yield School(hub, joined, folder)


@asynccontextmanager
async def attending(trainees: dict[str, Trainee]) -> AsyncIterator[None]:
    """The trainees on their links while the block runs."""
    tasks = [asyncio.create_task(trainee.attend()) for trainee in trainees.values()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(story: Callable[[], Any]) -> Any:
    """Play a story."""
    return asyncio.run(story())


def trained(
    school: School, recipe: Recipe, change: Callable[[dict[str, Trainee]], None] = lambda _: None, *, name: str
) -> tuple[models_pb2.RunStatus, dict[str, Trainee], dict[str, Any]]:
    """One run to its end: how it ended, who was asked what, and the model's arrays by name."""
    trainees = school.trainees(name)
    change(trainees)

    async def story() -> tuple[models_pb2.RunStatus, dict[str, Any]]:
        studies = Studies(school)
        async with attending(trainees):
            status = await studies.outcome(await studies.begin(school.query(recipe)))
        arrays = await arrays_of(studies, status.model_id, school.folder / f"{name}.arrays") if status.model_id else {}
        await studies.desk.close()
        return status, arrays

    status, arrays = run(story)
    return status, trainees, arrays


async def arrays_of(studies: Studies, model_id: str, path: Path) -> dict[str, Any]:
    """A model's arrays by name, checked against what the hub has signed."""
    _, statement, data = await studies.model(model_id)
    assert hashlib.sha256(data).digest() == statement.arrays_sha256
    path.write_bytes(data)
    header = records.header_from(statement.records_header)
    got = records.from_header(header, path, 0, len(data)).array_records["arrays"]
    return {name: array.numpy() for name, array in got.items()}


def locally(recipe: Recipe) -> dict[str, Any]:
    """The same recipe on an in-process Grid with Flower's own FedAvg."""
    flower.identify()
    rows = {100 + number: Rows.drawn(number) for number in range(len(CENTERS))}
    fitted = fit(recipe, [Summary.from_records(one.work("query.summary", RecordDict())) for one in rows.values()])
    random.seed(recipe.seed)
    initial = models.initial_arrays(recipe, fitted)
    config = ConfigRecord({"preprocessing": fitted.to_json()})
    result = FedAvg(min_train_nodes=2, min_evaluate_nodes=2, min_available_nodes=2).start(
        local_grid(rows, recipe),
        ArrayRecord({name: Array(values) for name, values in initial.items()}),
        num_rounds=recipe.rounds,
        train_config=config,
        evaluate_config=ConfigRecord(dict(config)),
    )
    return {name: array.numpy() for name, array in result.arrays.items()}


class TestTraining:
    def test_the_network_comes_to_what_an_in_process_grid_comes_to_bit_for_bit(self, school: School) -> None:
        status, trainees, arrays = trained(school, RECIPE, name="equal")
        assert status.state == FINISHED, status
        assert [report.round for report in status.reports] == [1, 2, 3, 4]
        assert all(part.took_part for report in status.reports for part in report.parts)
        expected = locally(RECIPE)
        assert arrays.keys() == expected.keys()
        for name, values in expected.items():
            assert arrays[name].tobytes() == values.tobytes(), name
        # One summary, then training and evaluation in each round, and nothing twice.
        assert all(len(one.asked) == len(set(one.asked)) == 9 for one in trainees.values())

    def test_the_model_says_where_it_comes_from_and_the_hub_has_signed_it(self, school: School) -> None:
        status, _, _ = trained(school, RECIPE, name="signed")

        async def story() -> None:
            studies = Studies(school)
            model, statement, _ = await studies.model(status.model_id)
            authority = school.joined["kyoto"].invitation.hub_certificate_authority
            assert certificates.verify(authority, "model", model.payload, model.signature)
            assert not certificates.verify(authority, "model", model.payload + b" ", model.signature)
            assert statement.query_id == status.query_id
            assert statement.query_sha256 == hashlib.sha256(model.query.payload).digest()
            assert [(part.center_id, part.rounds, part.donors) for part in statement.parts] == [
                (center, RECIPE.rounds, 60) for center in CENTERS
            ]
            assert len(model.answers) == 3
            request = models_pb2.ListModelsRequest()
            listed = await studies.stub.ListModels(request, metadata=studies.proof("ListModels"))
            assert status.model_id in [one.model_id for one in listed.models]
            await studies.desk.close()

        run(story)

    def test_a_column_that_is_large_and_varies_little_is_scaled_as_over_all_rows(self, school: School) -> None:
        every: list[numpy.ndarray] = []

        def far(trainees: dict[str, Trainee]) -> None:
            for trainee in trainees.values():
                values = trainee.rows.values * [0.05, 1.0] + [1e5, 0.0]
                trainee.rows = dataclasses.replace(trainee.rows, values=values)
                every.append(values)

        status, _, _ = trained(school, dataclasses.replace(RECIPE, rounds=1), far, name="far")
        assert status.state == FINISHED, status

        async def story() -> None:
            studies = Studies(school)
            _, statement, _ = await studies.model(status.model_id)
            await studies.desk.close()
            pooled = numpy.concatenate(every)
            columns = Preprocessing.from_json(statement.preprocessing).columns
            assert [one.sd for one in columns] == pytest.approx(pooled.std(axis=0), rel=1e-9)
            assert [one.mean for one in columns] == pytest.approx(pooled.mean(axis=0), rel=1e-12)

        run(story)

    def test_somebody_elses_run_and_model_are_as_none(self, school: School) -> None:
        status, _, _ = trained(school, RECIPE, name="others")

        async def story() -> None:
            studies = Studies(school)
            studies.asker = school.joined["lyon"].researcher("eve")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await studies.model(status.model_id)
            assert code_of(refused.value) == "model.not_found"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in studies.stub.FollowRun(
                    models_pb2.FollowRunRequest(query_id=status.query_id), metadata=studies.proof("FollowRun")
                ):
                    pass
            assert code_of(refused.value) == "run.not_found"
            await studies.desk.close()

        run(story)

    @pytest.mark.parametrize(
        "strategy",
        [
            Strategy("FedProx", {"proximal_mu": 0.1}),
            Strategy("FedAdam", {"eta": 0.1}),
            Strategy("FedYogi"),
            Strategy("FedAdagrad"),
            Strategy("FedAvgM", {"server_momentum": 0.5}),
            Strategy("FedMedian"),
            Strategy("FedTrimmedAvg", {"beta": 0.34}),
            Strategy("MultiKrum", {"num_nodes_to_select": 2.0}),
            Strategy("Bulyan"),
            Strategy("QFedAvg", {"client_learning_rate": 1.0, "q": 0.1}),
        ],
        ids=lambda strategy: strategy.name,
    )
    def test_flowers_strategies_run_unchanged(self, school: School, strategy: Strategy) -> None:
        recipe = dataclasses.replace(RECIPE, strategy=strategy, rounds=2)
        status, _, arrays = trained(school, recipe, name=strategy.name)
        assert status.state == FINISHED, status
        assert all(numpy.isfinite(values).all() for values in arrays.values())
        assert any(values.any() for values in arrays.values())

    def test_a_run_with_noise_is_evaluated_once_and_states_what_it_cost(self, school: School) -> None:
        def private(trainees: dict[str, Trainee]) -> None:
            for one in trainees.values():
                one.work = lambda task, content, rows=one.rows: rows.work(task.action, content, PRIVATE)  # type: ignore[misc]

        status, trainees, arrays = trained(school, PRIVATE, private, name="noise")
        assert status.state == FINISHED, status
        # A summary, four updates and one evaluation.
        assert all(len(one.asked) == 6 for one in trainees.values())
        assert [bool(report.metrics) for report in status.reports] == [False, False, False, True]
        last = status.reports[-1].metrics
        # 3 x 50 donors, 40 of 50 right, a loss of a quarter of 2 ln 2.
        assert (last["accuracy"], last["loss"]) == (pytest.approx(0.8), pytest.approx(0.5 * math.log(2)))
        assert last["accuracy-low"] < 0.8 < last["accuracy-high"]
        plain = locally(RECIPE)
        assert all(numpy.allclose(arrays[name], plain[name]) for name in plain)

        async def story() -> None:
            studies = Studies(school)
            _, statement, _ = await studies.model(status.model_id)
            assert statement.privacy.epsilon == 1.5
            assert statement.privacy.rho == rho_of(1.5, 1e-6)
            await studies.desk.close()

        run(story)

    def test_it_stops_when_it_does_not_get_better(self, school: School) -> None:
        recipe = dataclasses.replace(RECIPE, rounds=50, stopping=Stopping("accuracy", patience=2))
        status, _, _ = trained(school, recipe, name="stops")
        assert status.state == FINISHED, status
        assert len(status.reports) == 3

    def test_held_out_centers_are_asked_at_the_end_and_never_train(self, school: School) -> None:
        recipe = dataclasses.replace(RECIPE, held_out_centers=(school.joined["lyon"].center.id,))
        status, trainees, _ = trained(school, recipe, name="held-out")
        assert status.state == FINISHED, status
        assert len(trainees["lyon"].asked) == 1

        async def story() -> None:
            studies = Studies(school)
            _, statement, _ = await studies.model(status.model_id)
            assert list(statement.held_out) == ["lyon"]
            assert statement.held_out["lyon"].metrics["loss"] > 0
            await studies.desk.close()

        run(story)

    def test_a_center_flags_a_model_afterwards_once_and_only_for_what_can_happen(self, school: School) -> None:
        status, trainees, _ = trained(school, RECIPE, name="flag")

        async def story() -> list[models_pb2.ModelFlag]:
            line = await school.joined["lyon"].attach(roster_serial=2)
            await trainees["lyon"].notify(line, status.query_id, "center.displeased")
            for _ in range(2):
                await trainees["lyon"].tell(line, status.query_id, "consent.withdrawn")
            await line.close()
            studies = Studies(school)
            model, _, _ = await studies.model(status.model_id)
            await studies.desk.close()
            return list(model.flags)

        flags = run(story)
        assert [(flag.code, flag.center_id) for flag in flags] == [("consent.withdrawn", "lyon")]
        assert "answer.no_notice" in school.hub.events()


def honest_but(center: str, **how: Any) -> Callable[[dict[str, Trainee]], None]:
    """Let one center misbehave."""

    def change(trainees: dict[str, Trainee]) -> None:
        for name, value in how.items():
            setattr(trainees[center], name, value(trainees[center]) if name == "work" else value)

    return change


def bending(action: str, bend: Callable[[RecordDict], RecordDict | None]) -> Callable[[Trainee], Any]:
    """A center that is honest but for one action."""

    def make(trainee: Trainee) -> Any:
        def work(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
            reply = trainee.honest(task, content)
            assert reply is not None
            return bend(reply) if task.action == action else reply

        return work

    return make


def with_array(reply: RecordDict, values: Any) -> RecordDict:
    """A reply with other coefficients."""
    reply.array_records["arrays"]["coefficients"] = Array(values)
    return reply


def with_count(reply: RecordDict, count: int) -> RecordDict:
    """A reply that claims so many rows."""
    reply.metric_records["metrics"]["num-examples"] = count
    return reply


class TestBadReplies:
    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (bending("train", lambda reply: with_array(reply, numpy.array([[numpy.nan, 1.0]]))), "records.refused"),
            (bending("train", lambda reply: with_array(reply, numpy.ones((1, 3)))), "reply.other_shape"),
            (bending("train", lambda reply: with_array(reply, numpy.ones((1, 2), dtype="f4"))), "reply.other_shape"),
            (bending("train", lambda reply: with_count(reply, 0)), "reply.other_count"),
        ],
        ids=["not finite", "wrong shape", "wrong type", "no rows"],
    )
    def test_a_bad_reply_is_that_centers_failure_and_nobody_elses(
        self, school: School, change: Callable[[Trainee], Any], code: str, request: pytest.FixtureRequest
    ) -> None:
        recipe = dataclasses.replace(RECIPE, rounds=2)
        name = request.node.callspec.id.replace(" ", "-")
        status, _, arrays = trained(school, recipe, honest_but("lyon", work=change), name=name)
        assert status.state == FINISHED, status
        parts = {part.center_id: part for part in status.reports[0].parts}
        assert (parts["lyon"].took_part, parts["lyon"].reason.code) == (False, code)
        assert parts["kyoto"].took_part
        assert all(numpy.isfinite(values).all() for values in arrays.values())

    def test_a_center_that_has_more_rows_than_at_first_counts_for_those_it_had(self, school: School) -> None:
        more = honest_but("lyon", work=bending("train", lambda reply: with_count(reply, 1_000_000)))
        status, _, arrays = trained(school, RECIPE, more, name="more-rows")
        assert status.state == FINISHED, status
        assert all(part.took_part for report in status.reports for part in report.parts)
        for name, values in locally(RECIPE).items():
            assert arrays[name].tobytes() == values.tobytes(), name

    def test_a_count_that_was_not_signed_is_refused(self, school: School) -> None:
        status, _, _ = trained(school, RECIPE, honest_but("lyon", claims=5), name="claims")
        assert status.state == FINISHED, status
        for report in status.reports:
            (part,) = [part for part in report.parts if part.center_id == "lyon"]
            assert (part.took_part, part.reason.code) == (False, "reply.other_count")

    def test_a_center_that_holds_a_column_otherwise_is_left_out_and_the_others_train(self, school: School) -> None:
        def other(reply: RecordDict) -> RecordDict:
            reply.config_records["categories"]["kinds"] = ["number", "boolean"]
            return reply

        recipe = dataclasses.replace(RECIPE, rounds=1)
        change = honest_but("boston", work=bending("query.summary", other))
        status, trainees, _ = trained(school, recipe, change, name="other-kind")
        assert status.state == FINISHED, status
        parts = {part.center_id: part for part in status.reports[0].parts}
        assert (parts["boston"].took_part, parts["boston"].reason.code) == (False, "reply.other_kind")
        assert parts["lyon"].took_part
        assert len(trainees["boston"].asked) == 1

    def test_an_evaluation_with_noise_says_how_wide_it_is(self, school: School) -> None:
        def private(trainees: dict[str, Trainee]) -> None:
            for name, one in trainees.items():

                def work(
                    task: task_pb2.Task, content: RecordDict, rows: Rows = one.rows, name: str = name
                ) -> RecordDict:
                    reply = rows.work(task.action, content, PRIVATE)
                    if task.action == "evaluate" and name == "lyon":
                        del reply.metric_records["metrics"]["noise-scale"]
                    return reply

                one.work = work

        status, _, _ = trained(school, PRIVATE, private, name="noise-unsaid")
        assert status.state == FINISHED, status
        parts = {part.center_id: part for part in status.reports[-1].parts}
        assert parts["lyon"].reason.code == "reply.bad_metric"
        assert "noisy-donors" in parts["kyoto"].metrics

    def test_a_silent_center_costs_its_part_and_the_deadline_holds(self, school: School) -> None:
        recipe = dataclasses.replace(RECIPE, rounds=1, round_seconds=2.0)
        silent = honest_but("lyon", work=bending("train", lambda _: None))
        status, _, _ = trained(school, recipe, silent, name="silent")
        assert status.state == FINISHED, status
        parts = {part.center_id: part for part in status.reports[0].parts}
        assert parts["lyon"].reason.code == "run.no_reply"
        assert parts["boston"].took_part

    def test_a_model_shows_the_last_word_of_a_center_that_is_in_it(self, school: School) -> None:

        def only_at_first(trainee: Trainee) -> Any:
            def work(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
                reply = trainee.honest(task, content)
                assert reply is not None
                spoilt = task.action == "train" and task.round > 2
                return with_count(reply, 0) if spoilt else reply

            return work

        status, _, _ = trained(school, RECIPE, honest_but("lyon", work=only_at_first), name="last-word")
        assert status.state == FINISHED, status

        async def story() -> None:
            studies = Studies(school)
            model, statement, _ = await studies.model(status.model_id)
            await studies.desk.close()
            assert {part.center_id: part.rounds for part in statement.parts} == {"boston": 4, "kyoto": 4, "lyon": 2}
            words = [answer_pb2.Answer.FromString(one.payload) for one in model.answers]
            examples = {word.center_id: word.task.examples for word in words}
            assert examples == {"boston": 60, "kyoto": 60, "lyon": 60}

        run(story)

    def test_too_few_updates_end_the_run_and_say_why(self, school: School) -> None:
        def change(trainees: dict[str, Trainee]) -> None:
            for center in ("lyon", "kyoto"):
                honest_but(center, work=bending("train", lambda reply: with_count(reply, 0)))(trainees)

        status, _, _ = trained(school, RECIPE, change, name="too-few")
        assert (status.state, status.reason.code) == (FAILED, "run.too_few_centers")
        assert "lyon" in status.reason.message

    def test_too_few_that_take_part_end_it_before_it_begins(self, school: School) -> None:
        def change(trainees: dict[str, Trainee]) -> None:
            trainees["lyon"].enrols = trainees["kyoto"].enrols = False

        status, trainees, _ = trained(school, RECIPE, change, name="unwilling")
        assert (status.state, status.reason.code) == (FAILED, "run.too_few_centers")
        assert not trainees["boston"].asked

    def test_an_option_that_flower_does_not_know_is_named(self, school: School) -> None:
        recipe = dataclasses.replace(RECIPE, strategy=Strategy("FedAvg", {"momentum": 1.0}))
        status, _, _ = trained(school, recipe, name="option")
        assert (status.state, status.reason.code) == (FAILED, "recipe.strategy")
        assert "momentum" in status.reason.message


def run_process(hub: HubProcess) -> psutil.Process | None:
    """The process of the hub's one run, if there is one."""
    assert hub.process is not None
    # The forkserver's children are the runs' processes.
    for helper in psutil.Process(hub.process.pid).children():
        for child in helper.children():
            return child
    return None


class TestBadDays:
    def test_runs_that_wait_for_a_center_keep_no_other_from_its_work(self, school: School) -> None:
        trainees = school.trainees("waiting")
        del trainees["lyon"]

        async def story() -> models_pb2.RunStatus:
            studies = Studies(school)
            async with attending(trainees):
                # As many as may be under way at once.
                waiting = [await studies.begin(school.query(centers=("boston", "lyon"))) for _ in range(2)]
                status = await studies.outcome(await studies.begin(school.query(centers=("boston", "kyoto"))))
                for query_id in waiting:
                    await studies.desk.cancel(query_id)
                    assert (await studies.outcome(query_id)).state == CANCELLED
            await studies.desk.close()
            return status

        assert run(story).state == FINISHED

    def test_a_hub_that_is_killed_takes_the_run_up_and_comes_to_the_same(self, school: School) -> None:
        trainees = school.trainees("killed")
        reached = asyncio.Event()

        def watching(trainee: Trainee) -> Any:
            def work(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
                if task.action == "train" and task.round == 3:
                    reached.set()
                return trainee.honest(task, content)

            return work

        trainees["kyoto"].work = watching(trainees["kyoto"])

        async def story() -> tuple[models_pb2.RunStatus, dict[str, Any]]:
            studies = Studies(school)
            async with attending(trainees):
                query_id = await studies.begin(school.query())
                await asyncio.wait_for(reached.wait(), SECONDS)
                await asyncio.to_thread(school.hub.kill)
                await asyncio.to_thread(school.hub.start)
                status = await studies.outcome(query_id)
            arrays = await arrays_of(studies, status.model_id, school.folder / "killed.arrays")
            await studies.desk.close()
            return status, arrays

        status, arrays = run(story)
        assert status.state == FINISHED, status
        assert [report.round for report in status.reports] == [1, 2, 3, 4]
        for name, values in locally(RECIPE).items():
            assert arrays[name].tobytes() == values.tobytes(), name
        # Tasks are delivered again, under the same ids: nobody was asked anything twice.
        assert all(len(one.asked) == 9 for one in trainees.values())

    def test_a_reply_that_cannot_be_kept_ends_the_session_and_comes_again(self, school: School) -> None:
        def finding_no_room(trainee: Trainee) -> Any:
            def work(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
                reply = trainee.honest(task, content)
                if task.action == "train" and task.round == 2:
                    run_id, _, number = task.task_id.partition(".")
                    in_the_way = school.hub.hub / "runs" / run_id / f"{number}.lyon.reply"
                    in_the_way.mkdir()
                    threading.Timer(1.0, in_the_way.rmdir).start()
                return reply

            return work

        status, trainees, arrays = trained(school, RECIPE, honest_but("lyon", work=finding_no_room), name="unkept")
        assert status.state == FINISHED, status
        assert "cannot be kept" in school.hub.log
        assert all(part.took_part for report in status.reports for part in report.parts)
        assert all(len(one.asked) == len(set(one.asked)) for one in trainees.values())
        for name, values in locally(RECIPE).items():
            assert arrays[name].tobytes() == values.tobytes(), name

    def test_a_run_goes_on_once_the_database_can_be_used_again(self, school: School) -> None:
        recipe = dataclasses.replace(RECIPE, round_seconds=60.0)
        trainees = school.trainees("locked")
        paused: list[psutil.Process] = []

        def pausing(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
            if task.action == "train" and task.round == 2 and not paused:
                process = run_process(school.hub)
                assert process is not None
                process.suspend()
                paused.append(process)
            return trainees["kyoto"].honest(task, content)

        trainees["kyoto"].work = pausing

        def lock() -> None:
            """From the moment when all replies are in, and until the run has found that it cannot go on."""
            with closing(sqlite3.connect(school.hub.hub / "state.db", isolation_level=None)) as database:
                replies = "select count(*) from run_parts where answer is not null"
                (before,) = database.execute(f"{replies} and query_id <> ?", (query_ids[0],)).fetchone()
                # Summaries, and training and evaluation of the first round, and training of the second.
                until(lambda: database.execute(replies).fetchone()[0] == before + 12, "the replies")
                database.execute("begin immediate")
                paused[0].resume()
                until(lambda: f"run {query_ids[0]} waits" in school.hub.log, "the run to wait")

        query_ids: list[str] = []

        async def story() -> tuple[models_pb2.RunStatus, dict[str, Any]]:
            studies = Studies(school)
            async with attending(trainees):
                query_ids.append(await studies.begin(school.query(recipe)))
                await asyncio.to_thread(until, lambda: bool(paused), "the second round")
                await asyncio.to_thread(lock)
                status = await studies.outcome(query_ids[0])
            arrays = await arrays_of(studies, status.model_id, school.folder / "locked.arrays")
            await studies.desk.close()
            return status, arrays

        status, arrays = run(story)
        assert status.state == FINISHED, status
        assert [report.round for report in status.reports] == [1, 2, 3, 4]
        for name, values in locally(recipe).items():
            assert arrays[name].tobytes() == values.tobytes(), name
        assert all(len(one.asked) == 9 for one in trainees.values())

    def test_a_run_whose_process_dies_ends_and_the_hub_goes_on(self, school: School) -> None:
        trainees = school.trainees("crash")
        reached = asyncio.Event()

        def held(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
            if task.round == 2:
                reached.set()
                return None
            return trainees["lyon"].honest(task, content)

        trainees["lyon"].work = held

        async def story() -> models_pb2.RunStatus:
            studies = Studies(school)
            async with attending(trainees):
                query_id = await studies.begin(school.query())
                await asyncio.wait_for(reached.wait(), SECONDS)
                process = run_process(school.hub)
                assert process is not None
                process.kill()
                status = await studies.outcome(query_id)
            await studies.desk.close()
            return status

        status = run(story)
        assert (status.state, status.reason.code) == (FAILED, "run.crashed")
        assert trained(school, RECIPE, name="after-crash")[0].state == FINISHED

    def test_a_run_is_cancelled_and_its_centers_hear_it(self, school: School) -> None:
        trainees = school.trainees("cancel")
        reached = asyncio.Event()

        def held(task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
            if task.round == 1:
                reached.set()
                return None
            return trainees["lyon"].honest(task, content)

        trainees["lyon"].work = held

        async def story() -> models_pb2.RunStatus:
            studies = Studies(school)
            async with attending(trainees):
                query_id = await studies.begin(school.query())
                await asyncio.wait_for(reached.wait(), SECONDS)
                await studies.desk.cancel(query_id)
                status = await studies.outcome(query_id)
            await studies.desk.close()
            return status

        status = run(story)
        assert status.state == CANCELLED
        listed = school.hub.json("runs")["runs"]
        assert (listed[0]["query_id"], listed[0]["state"]) == (status.query_id, "cancelled")
        assert {one["state"] for one in listed} == {"finished", "failed", "cancelled"}
        assert not (school.hub.hub / "runs" / status.query_id).exists()
        until(lambda: run_process(school.hub) is None, "the run's process to end")
