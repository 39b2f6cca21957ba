"""How a question becomes an answer: the story of one request, in the order of values.py.

Whatever happens, the outcome is a signed answer with a status and a reason, and it is written down first. Only a
database that cannot be used makes no answer: then the question stays in the inbox and is tried again.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from connexon.clock import now_ms
from connexon.errors import Conflict, ConnexonError, Refused, Unavailable
from connexon.identity.keys import CenterId
from connexon.link import frames
from connexon.query.question import Question
from connexon.query.signed import Asked, parcel_sha256
from connexon.v1 import answer_pb2
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.values import (
    AccessPolicy,
    Consent,
    ConsentMoved,
    Engine,
    Recorder,
    Referred,
    Release,
    Released,
    ReleaseMoved,
    Steward,
    Verifier,
    Work,
)
from connexon_node.pipeline.verification import open_parcel, require_delivered_as

LOG = logging.getLogger("connexon.node")
MAXIMUM_RECOMPUTATIONS = 5
NO_DATASET = "dataset.not_offered"
ID_REUSED = "query.id_reused"
NOT_OFFERED = "This center does not offer that dataset; the catalog shows what it offers."

TRIES = 2
"""How often work on a question begins without coming to an end; after that the question is refused."""


class NodeStopped(Refused):
    """The node ended each time it worked on the question."""

    code = "query.stopped_node"

    def __init__(self) -> None:
        super().__init__(
            f"The center's node stopped {TRIES} times while it worked on this question, so it does not try again. This "
            "is not a zero. Ask for less at once, or ask the center's steward."
        )


_STATUS_OF_CODE = {
    "query.expired": answer_pb2.ANSWER_STATUS_TOO_OLD,
    "query.cancelled": answer_pb2.ANSWER_STATUS_CANCELLED,
    Referred.code: answer_pb2.ANSWER_STATUS_REFERRED,
    "budget.spent": answer_pb2.ANSWER_STATUS_BUDGET_SPENT,
}
_KEPT_MOVING = {
    ConsentMoved.code: "Donors' consent kept changing while this was computed",
    ReleaseMoved.code: "Other answers kept being released while this was computed",
}


@dataclass
class Task:
    """A delivery being worked on."""

    delivery: Delivery
    work: Work
    started_at_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class Steps:
    """The rooms a question passes through, in their order."""

    verifier: Verifier
    access: AccessPolicy
    consent: Consent
    steward: Steward
    engine: Engine
    release: Release
    recorder: Recorder
    able: Callable[[Question], None] = lambda _: None
    """Raises Refused where this node cannot do at all what is asked, for want of a library or by its settings."""


class Story:
    """Answers questions for one center. `roster_serial` gives that of the roster in force."""

    def __init__(self, center: CenterId, steps: Steps, *, roster_serial: Callable[[], int]) -> None:
        self._center = center
        self._steps = steps
        self._roster_serial = roster_serial

    def answer(self, task: Task) -> answer_pb2.SignedAnswer:
        """Return the signed answer, already written down. Raises Unavailable where it must be tried again later."""
        last: ConnexonError
        for _ in range(1 + MAXIMUM_RECOMPUTATIONS):
            try:
                return self._once(task)
            except (ConsentMoved, ReleaseMoved) as moved:
                LOG.info("%s: computing again (%s)", task.delivery.query_id, moved.code)
                last = moved
        return self.give_up(task, type(last)(f"{_KEPT_MOVING[type(last).code]}; ask again."))

    def catch_up(self) -> None:
        """Do what is better done when an answer is on its way than when the next is waited for."""
        with contextlib.suppress(Unavailable):  # then the next question does it
            self._steps.release.catch_up()

    def _once(self, task: Task) -> answer_pb2.SignedAnswer:
        steps, asked = self._steps, None
        try:
            asked = self._prove(task.delivery)
            task.work.require_wanted()
            permit = steps.access.authorise(asked)
            steps.able(asked.question)
            cohort = steps.consent.cohort(permit)
            computed = steps.engine.run(asked.question, cohort, task.work)
            released = steps.release.protect(computed)
            answer = self._complete(task, released)
            task.work.require_wanted()
        except Referred as referred:
            return self._refer(task, asked, referred)
        except Refused as refusal:
            return self._seal(task, asked, self._refusal(task.delivery, asked, refusal))
        except (ConsentMoved, ReleaseMoved):
            raise
        except Exception as error:  # the one place where the unforeseen becomes an answer
            if is_for_later(error):
                raise
            return self._seal(task, asked, self._failure(task.delivery, asked, error))

        proved = cohort.permit.asked

        def commit(connection: Connection) -> None:
            steps.verifier.require_counting(connection, proved)
            steps.steward.require_in_force(connection, cohort.approvals)
            if released.commit is not None:
                released.commit(connection)

        return steps.recorder.seal(asked, answer, epoch=cohort.epoch, started_at_ms=task.started_at_ms, commit=commit)

    def give_up(self, task: Task, error: ConnexonError) -> answer_pb2.SignedAnswer:
        """Answer that it failed, after every attempt. Raises Unavailable where not even that can be written down."""
        asked = self._asked(task)
        return self._seal(task, asked, self._failure(task.delivery, asked, error))

    def refuse_stopper(self, task: Task) -> answer_pb2.SignedAnswer:
        """Refuse a question under which the node has ended as often as it is tried."""
        asked = self._asked(task)
        LOG.error("%s: the node ended %d times while it worked on this, refused", task.delivery.query_id, TRIES)
        return self._seal(task, asked, self._refusal(task.delivery, asked, NodeStopped()))

    def _refer(self, task: Task, asked: Asked | None, referred: Referred) -> answer_pb2.SignedAnswer:
        """Answer that the steward has it, and keep it for them; a mere description is not worth their time."""
        answer = self._refusal(task.delivery, asked, referred)
        if asked is None or not self._steps.steward.decides_on(asked.question):
            return self._seal(task, asked, answer)
        question: Asked = asked
        answer.status = answer_pb2.ANSWER_STATUS_AWAITING_STEWARD

        def commit(connection: Connection) -> None:
            self._steps.verifier.require_counting(connection, question)
            self._steps.steward.put_before(connection, question, referred.referrals)

        return self._steps.recorder.seal(asked, answer, epoch=None, started_at_ms=task.started_at_ms, commit=commit)

    def _seal(self, task: Task, asked: Asked | None, answer: answer_pb2.Answer) -> answer_pb2.SignedAnswer:
        return self._steps.recorder.seal(asked, answer, epoch=None, started_at_ms=task.started_at_ms)

    def _asked(self, task: Task) -> Asked | None:
        try:
            return self._prove(task.delivery)
        except Refused:
            return None

    def _prove(self, delivery: Delivery) -> Asked:
        asked = self._steps.verifier.verify(open_parcel(delivery.body))
        require_delivered_as(asked, delivery.query_id)
        return asked

    def _complete(self, task: Task, released: Released) -> answer_pb2.Answer:
        computed = released.computed
        cohort = computed.cohort
        answer = self._address(task.delivery, cohort.permit.asked, released.answer.status)
        answer.MergeFrom(released.answer)
        answer.query_sha256 = cohort.permit.asked.sha256
        answer.query_id, answer.center_id = task.delivery.query_id, self._center
        provenance = answer.provenance
        provenance.generations.update(computed.generations)
        provenance.ontologies.update(cohort.ontologies)
        provenance.dictionary_version = computed.dictionary_version
        provenance.policy_version = cohort.permit.policy_version
        provenance.roster_serial = self._roster_serial()
        del answer.obligations[:]
        answer.obligations.extend(
            answer_pb2.Obligation(term=duty.term, message=duty.message) for duty in cohort.obligations
        )
        # What time, signature and receipt add is small beside the four kibibytes left for it.
        if answer.ByteSize() > frames.MAXIMUM_ANSWER - 4096:
            raise Refused("The answer is too large to send; group by fewer fields.", code="answer.too_large")
        return answer

    def _refusal(self, delivery: Delivery, asked: Asked | None, refusal: Refused) -> answer_pb2.Answer:
        answer = self._address(delivery, asked, status_of(refusal))
        answer.reason.CopyFrom(reason_of(refusal))
        return answer

    def _failure(self, delivery: Delivery, asked: Asked | None, error: Exception) -> answer_pb2.Answer:
        answer = self._address(delivery, asked, answer_pb2.ANSWER_STATUS_FAILED)
        if isinstance(error, (ConsentMoved, ReleaseMoved)):
            answer.reason.code, answer.reason.message = error.code, error.public
            return answer
        reference = uuid.uuid4().hex[:8]
        LOG.error("%s: failed, reference %s", delivery.query_id, reference, exc_info=error)
        answer.reason.code = "node.failed"
        answer.reason.message = (
            f"The center could not work this out. This is not a zero. Its steward finds the cause in the node's log "
            f"under {reference}."
        )
        return answer

    def _address(
        self, delivery: Delivery, asked: Asked | None, status: answer_pb2.AnswerStatus.ValueType
    ) -> answer_pb2.Answer:
        return answer_pb2.Answer(
            query_id=delivery.query_id,
            center_id=self._center,
            # INVARIANT: only of a proved question its digest; else the hub gets a refusal that it can show for one.
            query_sha256=asked.sha256 if asked is not None else parcel_sha256(delivery.body),
            status=status,
            provenance=answer_pb2.Provenance(roster_serial=self._roster_serial()),
        )

    def prove(self, delivery: Delivery) -> Asked | answer_pb2.Answer:
        """The question, where a researcher is proved to have asked it, now and under this id; else what is to be said.

        Raises Unavailable where that cannot be found out now.
        """
        try:
            return self._prove(delivery)
        except Refused as refusal:
            return self._refusal(delivery, None, refusal)
        except Exception as error:  # as in _once
            if is_for_later(error):
                raise
            return self._failure(delivery, None, error)

    def refuse_apart(self, delivery: Delivery, objection: answer_pb2.Answer) -> answer_pb2.SignedAnswer:
        """Say what is to be said of a delivery that is not proved. Its id stays free for the question it belongs to."""
        return self._steps.recorder.seal_apart(objection, started_at_ms=delivery.received_at_ms)

    def refuse_reuse(self, delivery: Delivery) -> answer_pb2.SignedAnswer:
        """Refuse a query whose id belongs to another one, which stays untouched."""
        reused = Conflict("Another query was asked under this id; make a new one.", code=ID_REUSED)
        return self.refuse_apart(delivery, self._refusal(delivery, None, reused))


def is_for_later(error: Exception) -> bool:
    """Whether only the database is in the way, which may pass: locked, full, or its server away."""
    return isinstance(error, Unavailable) and error.code == "database.unavailable"


def status_of(refusal: Refused) -> answer_pb2.AnswerStatus.ValueType:
    """The status that a refusal travels as, by its code."""
    if refusal.code.endswith(".not_offered"):
        return answer_pb2.ANSWER_STATUS_NOT_OFFERED
    return _STATUS_OF_CODE.get(refusal.code, answer_pb2.ANSWER_STATUS_REFUSED)


def reason_of(refusal: Refused) -> answer_pb2.Reason:
    """What the researcher is told. An absent and a forbidden dataset get the same words, and nothing names a rule."""
    if status_of(refusal) == answer_pb2.ANSWER_STATUS_NOT_OFFERED:
        message = NOT_OFFERED if refusal.code == NO_DATASET else refusal.public
        return answer_pb2.Reason(code=refusal.code, message=message)
    return answer_pb2.Reason(code=refusal.code, message=refusal.public, rule=refusal.rule)
