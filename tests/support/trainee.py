"""Centers that train, played by a test: on a real link with a hub, or on an in-process Grid beside it.

Each has rows of its own, [rows, 2] numbers and two classes, and does one step of gradient descent a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from connexon.clock import now_ms
from connexon.identity.keys import CenterId
from connexon.learning import models, records
from connexon.learning.moments import moments_of
from connexon.learning.preprocessing import Preprocessing, Summary
from connexon.learning.recipe import FieldFeature, LocalWork, Logistic, Recipe, Target, TargetClass, TrainingPrivacy
from connexon.link import parcel_files
from connexon.link.parcel_files import FileAssembler
from connexon.query import signed
from connexon.v1 import answer_pb2, link_pb2, query_pb2, task_pb2
from tests.support.hub import JoinedCenter, Line, id_of
from tests.support.local_grid import LocalGrid
from tests.support.receipts import with_receipt

RECIPE = Recipe(
    name="niche-score",
    target=Target("success", (TargetClass("failed", (False,)), TargetClass("succeeded", (True,)))),
    features=(FieldFeature("density"), FieldFeature("viability")),
    model=Logistic(LocalWork(learning_rate=1.0), l2=0.01),
    rounds=4,
    privacy=None,
    minimum_centers=2,
    round_seconds=20.0,
    seed=3,
)
PRIVATE = dataclasses.replace(RECIPE, privacy=TrainingPrivacy())
"""The same with noise; these centers draw none."""


@dataclass(frozen=True)
class Rows:
    """What one center trains on."""

    values: NDArray[numpy.float64]
    succeeded: NDArray[numpy.float64]

    @classmethod
    def drawn(cls, seed: int, rows: int = 60) -> Rows:
        """Rows that differ from center to center."""
        random = numpy.random.default_rng(seed)
        values = random.normal(seed, 1 + seed, (rows, 2))
        odds = (values[:, 0] - seed) / (1 + seed) - 0.5 * (values[:, 1] - seed) / (1 + seed)
        return cls(values, (random.random(rows) < 1 / (1 + numpy.exp(-2 * odds))).astype(numpy.float64))

    def work(self, action: str, content: RecordDict, recipe: Recipe = RECIPE) -> RecordDict:
        """What an honest center replies."""
        if action == "query.summary":
            told = tuple(map(moments_of, self.values.T))
            return Summary(("number", "number"), told, examples=len(self.values)).to_records()
        arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        config: Any = content.config_records["config"]
        fitted = Preprocessing.from_json(config["preprocessing"])
        inputs = fitted.encode({"density": self.values[:, 0], "viability": self.values[:, 1]})
        found = models.scores(recipe, arrays, inputs)
        metrics: dict[str, int | float | list[int] | list[float]] = {
            "num-examples": len(inputs),
            "loss": models.loss(recipe, found, self.succeeded),
        }
        if action == "evaluate" and recipe.privacy is not None:
            noisy = {"noisy-donors": 50.0, "noisy-correct": 40.0, "noisy-loss": 12.5, "noise-scale": 4.0}
            return RecordDict({"metrics": MetricRecord({"num-examples": len(inputs), **noisy})})
        if action == "evaluate":
            return RecordDict({"metrics": MetricRecord({**metrics, "accuracy": 0.5})})
        assert isinstance(recipe.model, Logistic)
        wrong, rate = models.errors(recipe, found, self.succeeded), recipe.model.work.learning_rate
        slope = wrong.T @ inputs / len(inputs) + recipe.model.l2 * arrays["coefficients"]
        stepped = {
            "coefficients": arrays["coefficients"] - rate * slope,
            "intercept": arrays["intercept"] - rate * wrong.mean(0),
        }
        trained = ArrayRecord({name: Array(values) for name, values in stepped.items()})
        return RecordDict({"arrays": trained, "metrics": MetricRecord(metrics)})


def local_grid(rows: Mapping[int, Rows], recipe: Recipe = RECIPE) -> LocalGrid:
    """The same rows without any network, by center's number."""

    def center(own: Rows) -> Callable[[Message], RecordDict]:
        return lambda message: own.work(message.metadata.message_type, message.content, recipe)

    return LocalGrid({number: center(own) for number, own in rows.items()})


Work = Callable[[task_pb2.Task, RecordDict], RecordDict | None]
"""What a trainee does with a task; None: it keeps silent."""


@dataclass
class Trainee:
    """A center on a real link. `work` may be replaced; `asked` are the ids of the tasks it got, once each."""

    joined: JoinedCenter
    rows: Rows
    folder: Path
    work: Work = lambda task, content: None
    enrols: bool = True
    claims: int | None = None
    """The number of rows it signs, where that is not what its reply says."""
    asked: list[str] = field(default_factory=list)
    answers: dict[str, Path] = field(default_factory=dict)
    query: query_pb2.SignedQuery | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.work = self.honest

    def honest(self, task: task_pb2.Task, content: RecordDict) -> RecordDict | None:
        """What an honest center does."""
        return self.rows.work(task.action, content)

    async def attend(self) -> None:
        """Dial the hub again and again, enrol in every run and do its tasks, until cancelled."""
        while True:
            # The hub may be away: it is killed now and then.
            with contextlib.suppress(Exception):
                line = await self.joined.attach(roster_serial=2)
                try:
                    await self._serve(line)
                finally:
                    await line.close()
            await asyncio.sleep(0.1)

    async def _serve(self, line: Line) -> None:
        tasks = FileAssembler(self.folder, link_pb2.PARCEL_KIND_TASK)
        while True:
            chunk = await line.hear("chunk")
            if chunk.kind == link_pb2.PARCEL_KIND_QUERY:
                parcel = line.assembler.add(chunk)
                if parcel is not None:
                    self.query = query_pb2.SignedQuery.FromString(parcel.body)
                    await line.send(self._enrolment(self.query), id_of(self.query))
            elif (arrived := tasks.add(chunk)) is not None:
                await self._do(line, str(arrived.id), arrived.path)

    def _enrolment(self, query: query_pb2.SignedQuery) -> answer_pb2.SignedAnswer:
        answer = self._answer(query)
        if self.enrols:
            answer.enrolment.donors = 60
        else:
            answer.status = answer_pb2.ANSWER_STATUS_REFUSED
            answer.reason.code, answer.reason.message = "consent.not_covered", "No donor consented to this."
        return self._sealed(answer)

    async def _do(self, line: Line, task_id: str, path: Path) -> None:
        if task_id not in self.answers:
            self.asked.append(task_id)
            parcel = parcel_files.read(path)
            task = task_pb2.Task.FromString(parcel.head)
            assert task.task_id == task_id
            assert parcel.records_sha256() == task.records_sha256
            content = self.work(task, records.read(parcel))
            if content is None:
                return
            self.answers[task_id] = self._reply(task, parcel, content)
        for piece in parcel_files.pieces(task_id, link_pb2.PARCEL_KIND_REPLY, self.answers[task_id]):
            await line.say(chunk=piece)

    def _reply(self, task: task_pb2.Task, parcel: parcel_files.ParcelFile, content: RecordDict) -> Path:
        pieces = [bytes(piece) for piece in records.to_pieces(content)]
        assert self.query is not None
        answer = self._answer(self.query)
        claimed: Any = content.metric_records["metrics"]["num-examples"]
        answer.task.CopyFrom(
            answer_pb2.TaskResult(
                task_id=task.task_id,
                task_sha256=parcel.sha256(),
                records_sha256=parcel_files.sha256(pieces),
                records_size=sum(map(len, pieces)),
                examples=self.claims if self.claims is not None else claimed,
                donors=60,
            )
        )
        path = self.folder / f"{task.task_id}.reply"
        parcel_files.write(path, self._sealed(answer).SerializeToString(), pieces)
        return path

    async def tell(self, line: Line, query_id: str, code: str) -> None:
        """Say that something has happened to a model, and wait until the hub has it."""
        await self.notify(line, query_id, code)
        while (await line.hear("stored")).query_id != f"{query_id}.0":
            pass

    async def notify(self, line: Line, query_id: str, code: str) -> None:
        """Say that something has happened to a model."""
        assert self.query is not None
        answer = self._answer(self.query)
        answer.notice.code, answer.notice.message = code, "Donors have withdrawn."
        path = self.folder / "notice"
        parcel_files.write(path, self._sealed(answer).SerializeToString())
        for piece in parcel_files.pieces(f"{query_id}.0", link_pb2.PARCEL_KIND_REPLY, path):
            await line.say(chunk=piece)

    def _answer(self, query: query_pb2.SignedQuery) -> answer_pb2.Answer:
        return answer_pb2.Answer(
            query_id=id_of(query),
            center_id=self.joined.center.id,
            query_sha256=hashlib.sha256(query.payload).digest(),
            status=answer_pb2.ANSWER_STATUS_RELEASED,
            answered_at_ms=now_ms(),
        )

    def _sealed(self, answer: answer_pb2.Answer) -> answer_pb2.SignedAnswer:
        key = self.joined.center.answering
        return with_receipt(signed.sign_answer(answer, key), key)


def center_ids(trainees: Iterable[Trainee]) -> list[CenterId]:
    """Their ids, in order."""
    return sorted(trainee.joined.center.id for trainee in trainees)
