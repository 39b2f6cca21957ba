"""A finished run becomes a model of the registry: statement completed, signed, and written down with the run's end."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.identity.keys import CenterId
from connexon.query.question import Question
from connexon.v1 import answer_pb2, models_pb2, query_pb2
from connexon_hub.training.model_store import NewModel

if TYPE_CHECKING:
    from connexon_hub.training.runs import Runs


async def register(runs: Runs, question: Question, statement: bytes) -> None:
    """Put the model that a run's process has made into the registry."""
    # Made by the one writer, so that no two models get one version.
    await runs.hub.writer.write_made(runs.models.register, partial(_made, runs, question, statement))
    runs.tell(question.query_id)


def _made(runs: Runs, question: Question, statement: bytes) -> NewModel:
    query_id, store = question.query_id, runs.store
    run, body = store.find(query_id), runs.hub.queries.body(query_id)
    assert run is not None
    assert body is not None
    assert isinstance(question.analysis, Train)
    query = query_pb2.SignedQuery.FromString(body[0])
    name = question.analysis.recipe.name
    reports = store.rounds(query_id)
    answers = _last_used(reports, store.train_answers(query_id))
    version = runs.models.next_version(run.researcher_id, name)
    made = models_pb2.ModelStatement.FromString(statement)
    made.model_id, made.federation = f"{name}/{version}", question.federation
    made.researcher_id, made.query_id = run.researcher_id, query_id
    made.query_sha256 = hashlib.sha256(query.payload).digest()
    made.created_at_ms = now_ms()
    made.rounds.extend(reports)
    made.parts.extend(_parts(reports, answers))
    payload = made.SerializeToString(deterministic=True)
    signed = models_pb2.SignedModel(
        payload=payload,
        signature=runs.hub.authority.sign("model", payload),
        query=query,
        answers=[answers[part.center_id] for part in made.parts],
    )
    summary = models_pb2.ModelSummary(
        model_id=made.model_id,
        query_id=query_id,
        created_at_ms=made.created_at_ms,
        rounds=len(reports),
        centers=[part.center_id for part in made.parts],
        metrics=made.metrics,
        size=made.arrays_size,
    )
    return NewModel(
        query_id=query_id,
        researcher_id=run.researcher_id,
        name=name,
        version=version,
        created_ms=made.created_at_ms,
        signed=signed.SerializeToString(),
        summary=summary.SerializeToString(),
    )


def _last_used(
    reports: list[models_pb2.RoundReport], replies: dict[tuple[CenterId, int], bytes]
) -> dict[str, answer_pb2.SignedAnswer]:
    """Of each center, its signed answer to the last train task whose result is in the model."""
    last = {part.center_id: report.round for report in reports for part in report.parts if part.took_part}
    return {
        center: answer_pb2.SignedAnswer.FromString(replies[CenterId(center), number]) for center, number in last.items()
    }


def _parts(
    reports: list[models_pb2.RoundReport], answers: dict[str, answer_pb2.SignedAnswer]
) -> list[models_pb2.ModelPart]:
    """Each center's part: rounds as the reports tell, donors and provenance as it signed them last."""
    rounds = Counter(part.center_id for report in reports for part in report.parts if part.took_part)
    parts = []
    for center in sorted(rounds):
        answer = answer_pb2.Answer.FromString(answers[center].payload)
        part = models_pb2.ModelPart(center_id=center, rounds=rounds[center], provenance=answer.provenance)
        if answer.task.HasField("donors"):
            part.donors = answer.task.donors
        parts.append(part)
    return parts
