"""Whether a task is one to be done: of a run whose question was signed, that this center takes part in, and in bounds.

The hub is not believed. A task says only which of the steps that the signed recipe provides for is due; what is done in
it, on which rows, and how often, stands in the recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from connexon import strict
from connexon.analyses.train import Train
from connexon.errors import Refused
from connexon.identity.keys import CenterId
from connexon.learning.recipe import Recipe
from connexon.learning.wire_recipe import MAXIMUM_ROUNDS
from connexon.link import parcel_files
from connexon.link.frames import ParcelRefused
from connexon.link.parcel_files import ParcelFile, TaskId
from connexon.v1 import answer_pb2, task_pb2
from connexon_node.delivery.inbox import Inbox
from connexon_node.pipeline.values import Ordered, Verifier
from connexon_node.pipeline.verification import open_parcel, require_delivered_as
from connexon_node.training.task_store import Given, TaskBox

SUMMARY, TRAIN, EVALUATE = "query.summary", "train", "evaluate"
ACTIONS = {SUMMARY: "summary", TRAIN: "train", EVALUATE: "evaluate"}
"""What a task may ask for, and what the audit log calls it."""
SPARE = 2
"""Summaries and evaluations beyond what a run needs, for a hub that was restarted."""


class TaskRefused(Refused):
    """A task that this center does not do."""

    code = "task.refused"


class Orders:
    """Proves tasks (pipeline.Ordered). `center` is this one."""

    def __init__(self, center: CenterId, verifier: Verifier, inbox: Inbox, box: TaskBox) -> None:
        self._center = center
        self._verifier = verifier
        self._inbox = inbox
        self._box = box

    def prove(self, task: TaskId) -> Ordered:
        """Return the task as one to be done. Raises TaskRefused, or what the query's own proof raises."""
        delivery = self._inbox.delivery(task.run)
        if delivery is None:
            raise TaskRefused("The task is of a run that nobody asked this center about.", code="task.unknown_run")
        asked = self._verifier.verify(open_parcel(delivery.body))
        require_delivered_as(asked, task.run)
        enrolled = self._enrolled(task.run)
        if not isinstance(asked.question.analysis, Train) or enrolled is None:
            raise TaskRefused("This center does not take part in the run.", code="task.not_enrolled")
        recipe = asked.question.analysis.recipe
        parcel, wire = read_task(task, self._box)
        self._require_provided_for(recipe, wire, self._box.given(task.run))
        return Ordered(asked, enrolled, task, wire.action, wire.round, parcel, parcel.sha256())

    def preprocessing_sha256(self, order: Ordered) -> bytes:
        """Of the preprocessing that a task brings; empty where it brings none. Raises TaskRefused.

        It is the same in all tasks of a run: another each time would tell more of the rows.
        """
        if order.action == SUMMARY:
            return b""
        # Loaded when it is needed: see opening.
        from connexon.learning import records

        config: Mapping[str, object] = records.read(order.parcel).config_records.get("config") or {}
        text, told = config.get("preprocessing"), config.get("server-round", order.round)
        if not isinstance(text, str) or told != order.round:
            raise TaskRefused("The task's config does not fit it.")
        digest = hashlib.sha256(text.encode()).digest()
        if self._box.given(order.task.run).preprocessing_sha256 not in (b"", digest):
            raise TaskRefused("The task's preprocessing is not that of the run's earlier tasks.")
        return digest

    def _enrolled(self, run: str) -> answer_pb2.Answer | None:
        """The answer by which this center takes part; None where it does not."""
        kept = self._inbox.answer(run)
        if kept is None:
            return None
        answer = answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(kept).payload)
        takes_part = answer.status == answer_pb2.ANSWER_STATUS_RELEASED and answer.HasField("enrolment")
        return answer if takes_part else None

    def _require_provided_for(self, recipe: Recipe, wire: task_pb2.Task, given: Given) -> None:
        require_round(recipe, wire.action, wire.round, given)
        if wire.action == TRAIN and self._center in recipe.held_out_centers:
            raise TaskRefused("The recipe holds this center out: its rows are never trained on.", code="task.held_out")
        if given.stopped_because is not None:
            raise TaskRefused(f"The center's steward stopped the run: {given.stopped_because}", code="training.stopped")


def require_round(recipe: Recipe, action: str, number: int, given: Given) -> None:
    """Raise TaskRefused where the recipe provides for no such step, or for no further one."""
    done = given.rounds.get(ACTIONS.get(action, ""), [])
    match action:
        case "query.summary":
            allowed = number == 0 and len(done) <= SPARE
        case "train":
            allowed = 1 <= number <= recipe.rounds and number not in done
        case "evaluate" if recipe.privacy is not None:
            # Paid for once.
            allowed = number == recipe.rounds and not done
        case "evaluate":
            allowed = 0 <= number <= recipe.rounds and len(done) < recipe.rounds + 1 + SPARE
        case _:
            raise TaskRefused("The task is none that a recipe provides for.", code="task.unknown_action")
    if not allowed:
        raise TaskRefused(
            f"The recipe provides for no {ACTIONS[action]} of round {number}, or it was done.", code="task.not_due"
        )


def read_task(task: TaskId, box: TaskBox) -> tuple[ParcelFile, task_pb2.Task]:
    """The parcel of a task and its head, held against each other. Raises TaskRefused."""
    try:
        parcel = parcel_files.read(box.spool.task(task))
        wire = strict.parse(task_pb2.Task, parcel.head, what="task")
    except (ParcelRefused, FileNotFoundError) as error:
        raise TaskRefused("The task cannot be read.", code="task.unreadable") from error
    if (
        wire.task_id != str(task)
        or wire.records_size != parcel.records_size
        or wire.records_sha256 != parcel.records_sha256()
        or wire.round > MAXIMUM_ROUNDS
    ):
        raise TaskRefused("The task is not what its head says.", code="task.unreadable")
    return parcel, wire


def claimed_deadline(parcel: ParcelFile) -> int:
    """When a task says that its reply is no longer waited for; 0 for what cannot be read."""
    try:
        return task_pb2.Task.FromString(parcel.head).deadline_ms
    except DecodeError:
        return 0
