"""Why a model is believed: the hub signed what it is, the researcher what was asked, each center its part.

The hub is not believed for the centers: whoever it says took part must have signed, for this very question, an answer
to a task of the run, and written it into its audit log.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from connexon import strict
from connexon.analyses.train import Train
from connexon.errors import ConnexonError, InvalidQuery, Refused
from connexon.identity import certificates
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.learning.recipe import Recipe
from connexon.link.frames import ParcelRefused
from connexon.link.parcel_files import TaskId
from connexon.query import signed, wire_question
from connexon.query.question import Question
from connexon.transparency import receipt
from connexon.v1 import answer_pb2, models_pb2, query_pb2
from connexon.zcdp import rho_of

MODEL_USE = "model"
MAXIMUM_STATEMENT = 64 * 1024 * 1024
"""Bytes of a signed statement, from the hub and in a file."""


class ModelRefused(Refused):
    """A model that must not be believed."""

    code = "model.refused"


@dataclass(frozen=True)
class Proved:
    """A model's statement with the question behind it. Only `verify` makes one that is `believed`."""

    signed: models_pb2.SignedModel
    statement: models_pb2.ModelStatement
    question: Question
    recipe: Recipe
    believed: bool


def read(data: bytes) -> models_pb2.SignedModel:
    """A signed model from its bytes; not yet believed. Raises ModelRefused."""
    try:
        return strict.read(models_pb2.SignedModel, data, what="model")
    except InvalidQuery as error:
        raise ModelRefused("The model cannot be read.", code="model.unreadable") from error


def opened(model: models_pb2.SignedModel) -> Proved:
    """What a model says of itself, without proof. Raises ModelRefused where that does not hold together."""
    try:
        statement = strict.read(models_pb2.ModelStatement, model.payload, what="model")
        question = wire_question.from_bytes(model.query.payload)
    except InvalidQuery as error:
        raise ModelRefused("The model, or the question behind it, cannot be read.", code="model.unreadable") from error
    digest = hashlib.sha256(model.query.payload).digest()
    if statement.query_sha256 != digest or statement.query_id != question.query_id:
        raise ModelRefused("The question shown is not the one this model came of.", code="model.other_query")
    if not isinstance(question.analysis, Train):
        raise ModelRefused("The question behind this model asks for no training.", code="model.other_query")
    recipe = question.analysis.recipe
    if statement.model_id.rpartition("/")[0] != recipe.name:
        raise ModelRefused("The model is called otherwise than its recipe says.", code="model.other_query")
    return Proved(model, statement, question, recipe, believed=False)


def verify(model: models_pb2.SignedModel, roster: Roster) -> Proved:
    """Prove a model by the roster. Raises ModelRefused with what does not hold."""
    found = opened(model)
    statement, question = found.statement, found.question
    if statement.federation != roster.federation or question.federation != roster.federation:
        raise ModelRefused("The model is of another federation.", code="model.other_federation")
    if not certificates.verify(roster.hub_certificate_authority, MODEL_USE, model.payload, model.signature):
        raise ModelRefused("The model is not signed by the federation's hub.", code="model.bad_signature")
    _require_asked(model.query, statement, question, roster)
    answers = _answers(model, statement, question, roster)
    _require_privacy(found.recipe, statement)
    _require_parts(found.recipe, statement, answers)
    return Proved(model, statement, question, found.recipe, believed=True)


def require_arrays(statement: models_pb2.ModelStatement, size: int, sha256: bytes) -> None:
    """Raise ModelRefused where the arrays are not those of the statement."""
    if statement.arrays_size != size or statement.arrays_sha256 != sha256:
        raise ModelRefused("The model's numbers are not those that the hub signed.", code="model.bad_arrays")


def _require_asked(
    query: query_pb2.SignedQuery, statement: models_pb2.ModelStatement, question: Question, roster: Roster
) -> None:
    """The question is one that this researcher signed, when their accreditation held."""
    try:
        asked = signed.verify_query(query, roster, NOTHING_REVOKED, at_ms=question.issued_at_ms)
    except ConnexonError as error:
        raise ModelRefused(
            f"The question behind this model is not proved to be a researcher's: {error.public}", code="model.bad_query"
        ) from error
    if asked.researcher.id != statement.researcher_id:
        raise ModelRefused(
            f"The question behind this model is {asked.researcher.id}'s, not {statement.researcher_id}'s.",
            code="model.bad_query",
        )


def _answers(
    model: models_pb2.SignedModel, statement: models_pb2.ModelStatement, question: Question, roster: Roster
) -> dict[CenterId, answer_pb2.Answer]:
    """Each center's own word, proved."""
    answers: dict[CenterId, answer_pb2.Answer] = {}
    for one in model.answers:
        center = CenterId(_claimed(one))
        if center in answers or center not in question.centers:
            raise ModelRefused(
                f"The model shows a word of {center[:63]!r} that does not belong to it.", code="model.bad_answer"
            )
        try:
            answer = signed.verify_answer(one, roster, center=center, query_payload=model.query.payload)
            receipt.verify(one, roster, center=center, query_sha256=answer.query_sha256)
        except Refused as error:
            raise ModelRefused(
                f"{center}'s part in the model is not proved: {error.public}", code="model.bad_answer"
            ) from error
        if not _is_part(answer, statement.query_id):
            raise ModelRefused(f"What {center} signed is not a part in this model.", code="model.bad_answer")
        answers[center] = answer
    return answers


def _claimed(one: answer_pb2.SignedAnswer) -> str:
    try:
        return strict.read(answer_pb2.Answer, one.payload, what="answer").center_id
    except InvalidQuery as error:
        raise ModelRefused("A center's part in the model cannot be read.", code="model.bad_answer") from error


def _is_part(answer: answer_pb2.Answer, query_id: str) -> bool:
    """Whether this is a released result of a task of this run."""
    return (
        answer.query_id == query_id
        and answer.status == answer_pb2.ANSWER_STATUS_RELEASED
        and answer.WhichOneof("result") == "task"
        and _task_number(answer, query_id) > 0
    )


def _task_number(answer: answer_pb2.Answer, query_id: str) -> int:
    """Which task of the run; 0 where it is of none."""
    try:
        task = TaskId.parse(answer.task.task_id)
    except ParcelRefused:
        return 0
    return task.number if task.run == query_id else 0


def _require_privacy(recipe: Recipe, statement: models_pb2.ModelStatement) -> None:
    """What is claimed of privacy is what the researcher signed, and every center went by and charged."""
    asked, claimed = recipe.privacy, statement.privacy
    if asked is None:
        right = not statement.HasField("privacy")
    else:
        same = (claimed.epsilon, claimed.delta, claimed.clip) == (asked.epsilon, asked.delta, asked.clip)
        right = same and math.isclose(claimed.rho, rho_of(asked.epsilon, asked.delta), rel_tol=1e-9)
    if not right:
        raise ModelRefused("The model claims other privacy than its recipe asks for.", code="model.overstated")


def _require_parts(
    recipe: Recipe, statement: models_pb2.ModelStatement, answers: Mapping[CenterId, answer_pb2.Answer]
) -> None:
    """No center is claimed that has not signed, and none for more than it signed."""
    claimed = {CenterId(part.center_id): part for part in statement.parts}
    took = Counter(CenterId(part.center_id) for report in statement.rounds for part in report.parts if part.took_part)
    if len(claimed) != len(statement.parts) or len(statement.rounds) > recipe.rounds:
        raise ModelRefused("The model claims more rounds or centers than there were.", code="model.overstated")
    unsigned = sorted((set(took) - set(claimed)) | (set(claimed) - set(answers)))
    if unsigned:
        raise ModelRefused(
            f"The model claims a part of {unsigned[0][:63]!r}, of whom it shows no signed word.",
            code="model.unsigned_part",
        )
    if set(claimed) & set(recipe.held_out_centers):
        raise ModelRefused("A center that was to be held out has a part in the model.", code="model.overstated")
    for center, part in claimed.items():
        _require_no_more(center, part, answers[center], took[center], statement.query_id)


def _require_no_more(
    center: CenterId, part: models_pb2.ModelPart, answer: answer_pb2.Answer, rounds: int, query_id: str
) -> None:
    """Raise ModelRefused where a center's part is claimed to be more than it signed."""
    # A center answers one task in a round at the least, and the tasks of a run are numbered.
    if part.rounds > rounds or part.rounds > _task_number(answer, query_id):
        raise ModelRefused(f"The model claims more rounds of {center} than it took part in.", code="model.overstated")
    if part.HasField("donors") and (not answer.task.HasField("donors") or part.donors != answer.task.donors):
        raise ModelRefused(
            f"The model claims another number of {center}'s donors than {center} signed.", code="model.overstated"
        )
    if part.provenance != answer.provenance:
        raise ModelRefused(f"The model claims other data of {center} than {center} signed.", code="model.overstated")
