"""How a task becomes a reply: the story of one step of a run, in the order of pipeline/values.py, anew for every task.

So a donor who withdrew between two rounds is in the first and not in the second, and an approval that was taken back
ends the run here. As with questions, whatever happens is a signed answer that is written down first.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from connexon.clock import now_ms
from connexon.errors import ConnexonError, Refused
from connexon.identity.keys import CenterId
from connexon.link import parcel_files
from connexon.link.parcel_files import TaskId
from connexon.query.signed import Asked, parcel_sha256
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.audit.recorder import STATUS_WORDS, SigningRecorder
from connexon_node.delivery.inbox import Inbox
from connexon_node.pipeline.delivery import payload_sha256
from connexon_node.pipeline.question_pipeline import MAXIMUM_RECOMPUTATIONS, Steps, is_for_later, reason_of, status_of
from connexon_node.pipeline.values import (
    ConsentMoved,
    Ordered,
    Referred,
    Released,
    ReleaseMoved,
    TrainingTable,
    Work,
    Worked,
)
from connexon_node.training import ledger
from connexon_node.training.task_store import Outcome, TaskBox, keep_reply, kept_reply
from connexon_node.training.task_verification import ACTIONS, Orders, TaskRefused, require_round
from connexon_node.training.worker_pool import Crew, Errand

if TYPE_CHECKING:
    from connexon_node.release.updates import UpdateRelease

LOG = logging.getLogger("connexon.node")


@dataclass
class Due:
    """A task being worked on."""

    task: TaskId
    work: Work
    started_at_ms: int = field(default_factory=now_ms)


@dataclass(frozen=True)
class TrainingSteps:
    """The rooms a task passes through, beside those of questions."""

    orders: Orders
    crew: Crew
    updates: Callable[[], UpdateRelease]
    recorder: SigningRecorder


class TaskStory:
    """Answers tasks for one center."""

    def __init__(
        self,
        center: CenterId,
        steps: Steps,
        training: TrainingSteps,
        *,
        database: Database,
        box: TaskBox,
        epoch: Callable[[Connection], int],
        roster_serial: Callable[[], int],
    ) -> None:
        """`epoch` reads the consent ledger's state within the sealing transaction."""
        self._center = center
        self._steps = steps
        self._training = training
        self._database = database
        self._box = box
        self._inbox = Inbox(database)
        self._epoch = epoch
        self._roster_serial = roster_serial

    def answer(self, due: Due) -> None:
        """Do a task and keep its reply. Raises Unavailable where it must be tried again later."""
        last: ConnexonError
        for _ in range(1 + MAXIMUM_RECOMPUTATIONS):
            try:
                return self._once(due)
            except (ConsentMoved, ReleaseMoved) as moved:
                LOG.info("%s: working again (%s)", due.task, moved.code)
                last = moved
        return self.give_up(due, last)

    def _once(self, due: Due) -> None:
        steps, training, order = self._steps, self._training, None
        try:
            order = training.orders.prove(due.task)
            due.work.require_wanted()
            preprocessing = training.orders.preprocessing_sha256(order)
            permit = steps.access.authorise(order.asked)
            steps.able(order.asked.question)
            cohort = steps.consent.cohort(permit)
            computed = steps.engine.training_table(order.asked.question, cohort, due.work)
            assert isinstance(computed.shape, TrainingTable)
            folder = self._box.spool.worked(due.task).parent
            released = training.updates().before_work(order, computed, folder)
            if released is None:
                worked = Worked(order, computed, self._work(order, computed.shape, due.work))
                released = training.updates().protect(worked)
            due.work.require_wanted()
        except Refused as refusal:
            if isinstance(refusal, Referred):
                refusal = TaskRefused("The steward's approval is no longer in force.", code="steward.not_in_force")
            return self._seal(due, order, self._refusal(due, order, refusal))
        except (ConsentMoved, ReleaseMoved):
            raise
        except Exception as error:  # the one place where the unforeseen becomes a reply
            if is_for_later(error):
                raise
            return self._seal(due, order, self._failure(due, order, error))
        finally:
            self._box.spool.worked(due.task).unlink(missing_ok=True)

        def commit(connection: Connection) -> None:
            if self._epoch(connection) != cohort.epoch:
                raise ConsentMoved("Donors' consent changed while the task was done.")
            steps.verifier.require_counting(connection, order.asked)
            steps.steward.require_in_force(connection, cohort.approvals)
            given = self._box.given(due.task.run, connection)
            if given.stopped_because is not None or given.preprocessing_sha256 not in (b"", preprocessing or b""):
                raise ConsentMoved("The run was stopped while the task was done.", code="training.moved")
            # Two tasks of one round may be under way at once: the second finds here that the first was released.
            require_round(order.recipe, order.action, order.round, given)
            if released.commit is not None:
                released.commit(connection)
            ledger.begin(connection, order.asked, preprocessing)

        return self._seal(due, order, self._complete(order, released), released=released, commit=commit)

    def _work(self, order: Ordered, table: TrainingTable, work: Work) -> parcel_files.ParcelFile:
        out = self._box.spool.worked(order.task)
        errand = Errand(
            *(order.task.run, str(order.task), order.action, order.parcel.path, out),
            share=order.recipe.kept_apart_at(self._center),
        )
        self._training.crew.do(errand, order.recipe, table, work, minimum=self._training.updates().minimum)
        return parcel_files.read(out)

    def give_up(self, due: Due, error: ConnexonError) -> None:
        """Reply that it failed, after every attempt. Raises Unavailable where not even that can be written down."""
        answer = self._address(due, None, answer_pb2.ANSWER_STATUS_FAILED)
        answer.reason.code, answer.reason.message = error.code, error.public
        self._seal(due, None, answer)

    def _complete(self, order: Ordered, released: Released) -> answer_pb2.Answer:
        answer = answer_pb2.Answer()
        answer.CopyFrom(released.answer)
        answer.query_id, answer.center_id, answer.query_sha256 = order.task.run, self._center, order.asked.sha256
        answer.task.task_id, answer.task.task_sha256 = str(order.task), order.sha256
        answer.provenance.roster_serial = self._roster_serial()
        return answer

    def _refusal(self, due: Due, order: Ordered | None, refusal: Refused) -> answer_pb2.Answer:
        answer = self._address(due, order, status_of(refusal))
        answer.reason.CopyFrom(reason_of(refusal))
        return answer

    def _failure(self, due: Due, order: Ordered | None, error: Exception) -> answer_pb2.Answer:
        answer = self._address(due, order, answer_pb2.ANSWER_STATUS_FAILED)
        reference = uuid.uuid4().hex[:8]
        LOG.error("%s: failed, reference %s", due.task, reference, exc_info=error)
        answer.reason.code = "node.failed"
        answer.reason.message = (
            f"The center could not do this task. Its steward finds the cause in the node's log under {reference}."
        )
        return answer

    def _address(self, due: Due, order: Ordered | None, status: answer_pb2.AnswerStatus.ValueType) -> answer_pb2.Answer:
        answer = answer_pb2.Answer(
            query_id=due.task.run,
            center_id=self._center,
            query_sha256=order.asked.sha256 if order is not None else self._query_sha256(due.task),
            status=status,
            provenance=answer_pb2.Provenance(roster_serial=self._roster_serial()),
        )
        answer.task.task_id, answer.task.task_sha256 = str(due.task), self._box.sha256(due.task)
        return answer

    def _query_sha256(self, task: TaskId) -> bytes:
        delivery = self._inbox.delivery(task.run)
        return (delivery and payload_sha256(delivery.body)) or parcel_sha256(b"")

    def _seal(
        self,
        due: Due,
        order: Ordered | None,
        answer: answer_pb2.Answer,
        *,
        released: Released | None = None,
        commit: Callable[[Connection], None] | None = None,
    ) -> None:
        """Record, keep and sign the reply in one transaction; where one is kept already, that one stays."""
        asked: Asked | None = order.asked if order is not None else None
        outcome = Outcome(
            due.task,
            ACTIONS[order.action] if order is not None else "task",
            order.round if order is not None else 0,
            STATUS_WORDS[answer.status],
            answer.reason.code,
        )
        if released is not None and released.records is not None:
            assert isinstance(released.computed.shape, TrainingTable)
            outcome = Outcome(
                *(outcome.task, outcome.action, outcome.round, outcome.status, outcome.code),
                records_size=released.records.records_size,
                donors=released.computed.shape.donors,
            )
        try:
            with self._database.writing() as connection:
                if kept_reply(connection, due.task) is not None:
                    return
                if commit is not None:
                    commit(connection)
                sealed = self._training.recorder.write_down(
                    connection, asked, answer, started_at_ms=due.started_at_ms, analysis=outcome.action
                )
                keep_reply(connection, outcome, sealed.SerializeToString())
            self._training.recorder.mark(sealed)
        except Refused as refusal:
            if commit is None:
                raise
            # The budget does not cover it, or the same round was released meanwhile: nothing was written.
            self._seal(due, order, self._refusal(due, order, refusal))
            return
        words = " ".join(filter(None, (outcome.action, outcome.status, outcome.code)))
        LOG.info("%s: %s, %d ms", due.task, words, now_ms() - due.started_at_ms)
