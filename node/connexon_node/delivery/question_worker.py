"""The workshop of questions: takes deliveries in, answers a bounded number at once, and hands the answers out.

A delivery costs one hop to the thread that writes the inbox and one to the thread that works on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from connexon import telemetry
from connexon.clock import now_ms
from connexon.errors import Unavailable
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, link_pb2
from connexon_node.approvals import ApprovalStore
from connexon_node.audit.recorder import STATUS_WORDS
from connexon_node.delivery.inbox import Inbox, Receipt
from connexon_node.delivery.job_queue import Job, Workbench
from connexon_node.delivery.outbox import Outlet
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.question_pipeline import TRIES, Story, Task
from connexon_node.pipeline.values import Work

LOG = logging.getLogger("connexon.node")
DECIDED = "steward"
"""Questions that a steward has decided take turns with each researcher's, as if they were one's."""
PROGRESS_SECONDS = 0.15
"""Work that is done sooner is not announced."""


@dataclass
class _Question(Job):
    delivery: Delivery | None = None
    told: link_pb2.Stage.ValueType = link_pb2.STAGE_UNSPECIFIED
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    begun_ms: int = 0
    tries: int = 0
    """How often work on it has begun, as the inbox has it written down; 0: this time is not written down yet."""
    answer: answer_pb2.SignedAnswer | None = None

    @property
    def stage(self) -> link_pb2.Stage.ValueType:
        """What the researcher sees of it."""
        return link_pb2.STAGE_COMPUTING if self.under_way else link_pb2.STAGE_WAITING


class Workshop(Workbench[_Question]):
    """Works on what the inbox holds. Its methods are called on the event loop."""

    def __init__(self, inbox: Inbox, story: Story, outlet: Outlet, *, requests: ApprovalStore, workers: int) -> None:
        # One worker is left for others, whatever one researcher asks.
        super().__init__("questions", workers=workers, most_of_one=max(1, workers - 1))
        self._inbox = inbox
        self._requests = requests
        self._story = story
        self._outlet = outlet

    async def resume(self) -> int:
        """Begin on everything that was received and not answered; returns how many."""
        pending = await self.in_clerk(self._inbox.unanswered)
        for query in pending:
            job = _Question(query.query_id, Work(deadline_ms=query.expires_at_ms), query.researcher)
            self.begin(job, cancelled=query.cancelled)
        return len(pending)

    async def receive(self, delivery: Delivery) -> None:
        """Write a delivery down, say so, and begin on it. Raises Unavailable where it cannot be written down."""
        answer = await self.in_clerk(lambda: self._take_in(delivery))
        if answer is not None:
            self._outlet.answer(delivery.query_id, answer)
        job = self.jobs.get(delivery.query_id)
        if job is not None:
            job.timer = self._loop.call_later(PROGRESS_SECONDS, self._tell, job)

    def _take_in(self, delivery: Delivery) -> bytes | None:
        proved = self._story.prove(delivery)
        owner = proved.researcher.id if isinstance(proved, Asked) else None
        begun = owner is not None and self.begins_at_once(owner)
        receipt = self._inbox.receive(delivery, researcher=owner, begun=begun)
        # Said before the work begins, so that no answer can come before it.
        self._loop.call_soon_threadsafe(self._outlet.stored, delivery.query_id)
        match receipt:
            case Receipt.NEW:
                # Begun here, not on the event loop: one hop less.
                work = Work(deadline_ms=delivery.expires_at_ms)
                self.begin(_Question(delivery.query_id, work, owner or "", delivery=delivery, tries=int(begun)))
            case Receipt.UNDER_WAY:
                self.begin(_Question(delivery.query_id, Work(deadline_ms=delivery.expires_at_ms), owner or ""))
            case Receipt.ANSWERED:
                return self._inbox.answer(delivery.query_id)
            case Receipt.ID_REUSED:
                LOG.warning("%s: another query under a used id, refused", delivery.query_id)
                return self._story.refuse_reuse(delivery).SerializeToString()
            case Receipt.UNPROVED if not isinstance(proved, Asked):
                LOG.warning("%s: not proved to be a researcher's, refused (%s)", delivery.query_id, proved.reason.code)
                return self._story.refuse_apart(delivery, proved).SerializeToString()
            case Receipt.FORGOTTEN:
                LOG.warning("%s: answered long ago and delivered again, left alone", delivery.query_id)
            case _:
                pass
        return None

    async def cancel(self, query_id: str) -> None:
        """End the work on a query, also after a restart; unknown and answered ones are left alone.

        One that awaits the steward is answered as cancelled when it is next looked after.
        """
        if await self.in_clerk(lambda: self._inbox.cancel(query_id) or self._requests.cancel(query_id)):
            job = self.jobs.get(query_id)
            if job is not None:
                job.work.cancel()

    async def look_after_requests(self) -> None:
        """Answer what has waited for the steward and can be answered now: decided, taken back, or out of time."""
        for query_id, expires_at_ms, cancelled in await self.in_clerk(self._requests.due):
            self.begin(_Question(query_id, Work(deadline_ms=expires_at_ms), DECIDED), cancelled=cancelled)

    async def unsent(self) -> list[str]:
        """Ids of the answers the hub has not got."""
        return await self.in_clerk(self._inbox.unsent)

    async def load_answer(self, query_id: str) -> bytes | None:
        """A stored answer, serialised."""
        return await self.in_clerk(lambda: self._inbox.answer(query_id))

    async def prune(self, before_ms: int) -> int:
        """Remove what expired before a moment."""
        return await self.in_clerk(lambda: self._inbox.prune(before_ms=before_ms))

    def do(self, job: _Question) -> Callable[[], None]:
        """See Workbench."""
        job.begun_ms = now_ms()
        job.answer = self._answer(job)
        return partial(self._hand_out, job, b"" if job.answer is None else job.answer.SerializeToString())

    def leave(self, jobs: list[_Question]) -> None:
        """See Workbench."""
        self._inbox.leave([job.name for job in jobs if job.tries])

    def mark(self, names: list[str]) -> None:
        """See Workbench."""
        self._inbox.mark_stored(names)

    def afterwards(self, job: _Question) -> None:
        """See Workbench."""
        if job.answer is None:
            return
        outcome = answer_pb2.Answer.FromString(job.answer.payload)
        words = " ".join(filter(None, (STATUS_WORDS[outcome.status], outcome.reason.code)))
        LOG.info("%s: %s, %d ms", job.name, words, now_ms() - job.begun_ms)
        self._story.catch_up()

    def _answer(self, job: _Question) -> answer_pb2.SignedAnswer | None:
        delivery = job.delivery or self._inbox.delivery(job.name)
        if delivery is None:
            return None
        task = Task(delivery, job.work)
        if not job.tries:
            # INVARIANT: written down before the work, so that a question under which the node ends is known by it.
            job.tries = self._inbox.begin(job.name)
        if job.tries > TRIES:
            return self._story.refuse_stopper(task)
        with telemetry.TRACER.start_as_current_span(
            "node.answer",
            context=telemetry.context(delivery.traceparent),
            attributes={"connexon.query_id": delivery.query_id},
        ):
            try:
                return self._story.answer(task)
            except Unavailable as error:
                if not job.is_last_attempt:
                    raise
                return self._story.give_up(task, error)

    def _hand_out(self, job: _Question, body: bytes) -> None:
        if job.timer is not None:
            job.timer.cancel()
        if body:
            self._outlet.answer(job.name, body)

    def _tell(self, job: _Question) -> None:
        if job.name not in self.jobs:
            return
        if job.told != job.stage:
            job.told = job.stage
            self._outlet.progress(job.name, job.stage)
        job.timer = self._loop.call_later(1.0, self._tell, job)
