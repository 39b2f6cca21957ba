"""A hub for the tests of training's client: real gRPC, real signatures, runs and models as a test tells them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.errors import NotFound
from connexon.identity.keys import CenterId
from connexon.learning.preprocessing import Column, Preprocessing
from connexon.query import signed
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, models_pb2, models_pb2_grpc, query_pb2, research_pb2, task_pb2
from tests.support.client_hub import Federation, ScriptedHub, count_answer
from tests.support.receipts import with_receipt

Statuses = Callable[[str], Iterator[models_pb2.RunStatus]]
PIECE = 1000
COLUMNS = (
    Column("vessel", "category", categories=("flask", "plate")),
    Column("seed_density_1e6_ml", "number", mean=0.5, sd=0.2),
    Column("log2(1 + timepoints.value[attribute=ph; day <= 3])", "number", mean=3.0, sd=0.1),
    Column("log2(1 + timepoints.value[attribute=glucose; day <= 3])", "number", mean=2.0, sd=1.0),
)
RECIPE = """\
name: niche-score
dataset: differentiation_runs
where: started_on >= 2020-01-01
target: {field: success, classes: {failed: [false], succeeded: [true]}}
features:
  - vessel
  - seed_density_1e6_ml
  - {dataset: timepoints, key: attribute, keys: [ph, glucose], value: value, where: day <= 3, log2: true}
model: {kind: logistic, learning_rate: 0.5, l2: 0.01}
rounds: 3
evaluate: {held_out: 0.2}
privacy: exact
purpose: health
project: P-1
"""


def arrays() -> dict[str, NDArray[Any]]:
    """A logistic model of COLUMNS: five inputs."""
    return {"coefficients": numpy.array([[0.2, -0.1, 0.7, -1.5, 0.25]]), "intercept": numpy.array([0.3])}


def enrolled(asked: Asked, center: CenterId, donors: int | None = 40) -> answer_pb2.Answer:
    """An unsigned word that the center takes part."""
    answer = count_answer(asked, center, {})
    answer.ClearField("count")
    answer.enrolment.SetInParent()
    if donors is not None:
        answer.enrolment.donors = donors
    return answer


def task_answer(asked: Asked, center: CenterId, *, number: int = 5, donors: int | None = 40) -> answer_pb2.Answer:
    """An unsigned answer to one task of the run."""
    answer = count_answer(asked, center, {})
    answer.ClearField("count")
    answer.task.task_id = f"{asked.question.query_id}.{number}"
    answer.task.examples = 55
    if donors is not None:
        answer.task.donors = donors
    return answer


def report(
    number: int, centers: Mapping[str, float], *, missing: Mapping[str, str] | None = None
) -> models_pb2.RoundReport:
    """One round: the loss of each center that took part, and why others did not."""
    one = models_pb2.RoundReport(round=number, ended_at_ms=now_ms())
    one.metrics["loss"] = sum(centers.values()) / len(centers)
    one.metrics["auc"] = 1 - one.metrics["loss"] / 2
    one.metrics["auc-low"], one.metrics["auc-high"] = one.metrics["auc"] - 0.1, one.metrics["auc"] + 0.1
    for center, loss in centers.items():
        one.parts.add(center_id=center, took_part=True, metrics={"loss": loss, "num-examples": 55})
    for center, code in (missing or {}).items():
        reason = answer_pb2.Reason(code=code, message="It did not answer in time.")
        one.parts.add(center_id=center, took_part=False, reason=reason)
    return one


@dataclass
class Made:
    """A model in the making: what a test may spoil before it is signed."""

    statement: models_pb2.ModelStatement
    answers: list[answer_pb2.Answer]
    query: query_pb2.SignedQuery
    data: bytes
    keys: Mapping[CenterId, Any]
    flags: list[models_pb2.ModelFlag] = field(default_factory=list)

    def sign(self, federation: Federation) -> models_pb2.SignedModel:
        """As the hub and the centers sign it."""
        payload = self.statement.SerializeToString(deterministic=True)
        key = federation.authority.key.private
        signature = key.sign(b"connexon/v1/model\0" + payload, ec.ECDSA(hashes.SHA256()))
        answers = [
            with_receipt(
                signed.sign_answer(one, self.keys[CenterId(one.center_id)]),
                self.keys[CenterId(one.center_id)],
                before=6,
            )
            for one in self.answers
        ]
        return models_pb2.SignedModel(
            payload=payload, signature=signature, query=self.query, answers=answers, flags=self.flags
        )


class TrainingHub(ScriptedHub, models_pb2_grpc.ModelsServicer):
    """Enrols every center, runs as `statuses` says, and hands out `models`."""

    def __init__(self, federation: Federation) -> None:
        self.statuses: Statuses = self.three_rounds
        self.models: dict[str, tuple[models_pb2.SignedModel, bytes]] = {}
        self.flags: list[models_pb2.ModelFlag] = []
        self.run_calls: list[bool] = []
        self.fail_runs: list[Exception] = []
        super().__init__(federation)
        self.script = self.everyone_enrols

    def serve_more(self) -> None:
        models_pb2_grpc.add_ModelsServicer_to_server(self, self.server)

    def everyone_enrols(self, asked: Asked) -> Iterator[research_pb2.Update]:
        for number, center in enumerate(asked.question.centers):
            yield self.answered(enrolled(asked, center, 40 + number))

    def status(self, query_id: str, state: str, *reports: models_pb2.RoundReport, **more: Any) -> models_pb2.RunStatus:
        return models_pb2.RunStatus(
            query_id=query_id,
            state=models_pb2.RunState.Value(f"RUN_STATE_{state}"),
            rounds=3,
            reports=reports,
            **{"started_at_ms": now_ms(), **more},
        )

    def three_rounds(self, query_id: str) -> Iterator[models_pb2.RunStatus]:
        """The whole of a run that ends well."""
        yield self.status(query_id, "RUNNING")
        for number in (1, 2, 3):
            losses = {str(center): 0.6 / number + 0.01 * place for place, center in enumerate(self.centers(query_id))}
            yield self.status(query_id, "RUNNING", report(number, losses), round=number)
        model_id = self.publish(query_id)
        yield self.status(query_id, "FINISHED", model_id=model_id, round=3, ended_at_ms=now_ms())

    def centers(self, query_id: str) -> tuple[CenterId, ...]:
        return self.asked[query_id][0].question.centers

    def make(self, query_id: str, *, values: Mapping[str, NDArray[Any]] | None = None, version: int = 1) -> Made:
        """A model of this run, right in everything."""
        asked, query = self.asked[query_id]
        assert isinstance(asked.question.analysis, Train)
        centers = asked.question.centers
        values = arrays() if values is None else values
        header = task_pb2.Records(
            arrays=[
                task_pb2.NamedArrays(
                    name="arrays",
                    arrays=[
                        task_pb2.ArrayHeader(name=name, dtype=one.dtype.name, shape=one.shape)
                        for name, one in values.items()
                    ],
                )
            ]
        )
        data = b"".join(one.tobytes() for one in values.values())
        answers = [task_answer(asked, center, number=5 + place) for place, center in enumerate(centers)]
        losses = [{str(center): 0.6 / number for center in centers} for number in (1, 2, 3)]
        statement = models_pb2.ModelStatement(
            model_id=f"{asked.question.analysis.recipe.name}/{version}",
            federation=asked.question.federation,
            researcher_id=asked.researcher.id,
            query_id=query_id,
            query_sha256=asked.sha256,
            created_at_ms=now_ms(),
            rounds=[report(number, loss) for number, loss in enumerate(losses, start=1)],
            parts=[
                models_pb2.ModelPart(center_id=one.center_id, donors=40, rounds=3, provenance=one.provenance)
                for one in answers
            ],
            preprocessing=Preprocessing(COLUMNS).to_json(),
            records_header=header.SerializeToString(deterministic=True),
            arrays_sha256=hashlib.sha256(data).digest(),
            arrays_size=len(data),
            metrics={"loss": 0.2, "auc": 0.9, "auc-low": 0.8, "auc-high": 0.95},
            software=["connexon 0.1.0", "flwr 1.41.0"],
        )
        return Made(statement, answers, query, data, self.federation.keys)

    def publish(self, query_id: str, made: Made | None = None) -> str:
        """Put a model into the registry."""
        made = made or self.make(query_id)
        self.models[made.statement.model_id] = (made.sign(self.federation), made.data)
        return made.statement.model_id

    def FollowRun(self, request: Any, context: Any) -> Iterator[models_pb2.FollowRunResponse]:  # noqa: N802 - gRPC's name
        self._prove("FollowRun", context, service="Models")
        self.run_calls.append(request.wait)
        if self.fail_runs:
            self._refuse(self.fail_runs.pop(0), context)  # type: ignore[arg-type]
        if request.query_id not in self.asked:
            self._refuse(NotFound("No such run.", code="run.not_found"), context)
        statuses = self.statuses(request.query_id)
        if not request.wait:
            first = next(statuses)
            yield models_pb2.FollowRunResponse(status=first)
            return
        for status in statuses:
            yield models_pb2.FollowRunResponse(status=status)

    def ListModels(self, request: Any, context: Any) -> models_pb2.ListModelsResponse:  # noqa: N802 - gRPC's name
        self._prove("ListModels", context, service="Models")
        found = []
        for model, _ in self.models.values():
            statement = models_pb2.ModelStatement.FromString(model.payload)
            found.append(
                models_pb2.ModelSummary(
                    model_id=statement.model_id,
                    query_id=statement.query_id,
                    created_at_ms=statement.created_at_ms,
                    rounds=len(statement.rounds),
                    centers=[part.center_id for part in statement.parts],
                    metrics=statement.metrics,
                    size=statement.arrays_size,
                    flags=model.flags,
                )
            )
        return models_pb2.ListModelsResponse(models=found[: request.limit or 50])

    def GetModel(self, request: Any, context: Any) -> Iterator[models_pb2.GetModelResponse]:  # noqa: N802 - gRPC's name
        self._prove("GetModel", context, service="Models")
        if request.model_id not in self.models:
            self._refuse(NotFound("You have no model of that name.", code="model.not_found"), context)
        model, data = self.models[request.model_id]
        for piece in _pieces(model.SerializeToString()):
            yield models_pb2.GetModelResponse(model=piece)
        for piece in _pieces(data) if request.arrays else ():
            yield models_pb2.GetModelResponse(data=piece)


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
