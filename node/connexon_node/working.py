"""The workshop: takes deliveries in, works on a bounded number at once, and hands the answers out.

A delivery costs one hop to the thread that writes the inbox and one to the thread that works on it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from connexon import telemetry
from connexon.clock import now_ms
from connexon.errors import ConnexonError, Unavailable
from connexon.v1 import answer_pb2, link_pb2
from connexon_node.answering import Story, Task
from connexon_node.approvals import ApprovalStore
from connexon_node.inbox import Delivery, Inbox, Receipt
from connexon_node.outlet import Outlet
from connexon_node.pipeline import Work
from connexon_node.recorder import STATUS_WORDS

LOG = logging.getLogger("connexon.node")
ATTEMPTS = 8
"""How often a question is tried while the node cannot work; then it has failed."""
LONGEST_PAUSE_SECONDS = 30.0
PROGRESS_SECONDS = 0.15
"""Work that is done sooner is not announced."""
MARKING_SECONDS = 0.2

T = TypeVar("T")


@dataclass
class _Job:
    query_id: str
    work: Work
    delivery: Delivery | None
    stage: link_pb2.Stage.ValueType = link_pb2.STAGE_WAITING
    told: link_pb2.Stage.ValueType = link_pb2.STAGE_UNSPECIFIED
    attempts: int = 0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Workshop:
    """Works on what the inbox holds. Its methods are called on the event loop."""

    def __init__(self, inbox: Inbox, story: Story, outlet: Outlet, *, requests: ApprovalStore, workers: int) -> None:
        self._inbox = inbox
        self._requests = requests
        self._story = story
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._clerk = ThreadPoolExecutor(1, "inbox")
        self._workers = ThreadPoolExecutor(workers, "work")
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._stored: list[str] = []
        self._closing = False

    async def resume(self) -> int:
        """Begin on everything that was received and not answered; returns how many."""
        pending = await self._in_clerk(self._inbox.unanswered)
        for query in pending:
            self._begin(query.query_id, query.expires_at_ms, None, cancelled=query.cancelled)
        return len(pending)

    async def receive(self, delivery: Delivery) -> None:
        """Write a delivery down, say so, and begin on it. Raises Unavailable where it cannot be written down."""
        receipt, answer = await self._in_clerk(lambda: self._take_in(delivery))
        if receipt is Receipt.UNDER_WAY:
            self._begin(delivery.query_id, delivery.expires_at_ms, None)
        if answer is not None:
            self._outlet.answer(delivery.query_id, answer)
        job = self._jobs.get(delivery.query_id)
        if job is not None:
            job.timer = self._loop.call_later(PROGRESS_SECONDS, self._tell, job)

    def _take_in(self, delivery: Delivery) -> tuple[Receipt, bytes | None]:
        receipt = self._inbox.receive(delivery)
        # Said before the work begins, so that no answer can come before it.
        self._loop.call_soon_threadsafe(self._outlet.stored, delivery.query_id)
        match receipt:
            case Receipt.NEW:
                # Begun here, not on the event loop: one hop less.
                self._begin(delivery.query_id, delivery.expires_at_ms, delivery)
            case Receipt.ANSWERED:
                return receipt, self._inbox.answer(delivery.query_id)
            case Receipt.OTHER_BYTES:
                LOG.warning("%s: another query under a used id, refused", delivery.query_id)
                return receipt, self._story.refuse_reuse(delivery).SerializeToString()
            case Receipt.UNDER_WAY:
                pass
        return receipt, None

    async def cancel(self, query_id: str) -> None:
        """End the work on a query, also after a restart; unknown and answered ones are left alone.

        One that awaits the steward is answered as cancelled when it is next looked after.
        """
        if await self._in_clerk(lambda: self._inbox.cancel(query_id) or self._requests.cancel(query_id)):
            job = self._jobs.get(query_id)
            if job is not None:
                job.work.cancel()

    async def look_after_requests(self) -> None:
        """Answer what has waited for the steward and can be answered now: decided, taken back, or out of time."""
        for query_id, expires_at_ms, cancelled in await self._in_clerk(self._requests.due):
            self._begin(query_id, expires_at_ms, None, cancelled=cancelled)

    def hub_has(self, query_id: str) -> None:
        """The hub has an answer. Written down a little later, many at once."""
        if not self._stored:
            self._loop.call_later(MARKING_SECONDS, self._mark)
        self._stored.append(query_id)

    async def unsent(self) -> list[str]:
        """Ids of the answers the hub has not got."""
        return await self._in_clerk(self._inbox.unsent)

    async def load_answer(self, query_id: str) -> bytes | None:
        """A stored answer, serialised."""
        return await self._in_clerk(lambda: self._inbox.answer(query_id))

    async def prune(self, keep_ms: int) -> int:
        """Remove what expired long ago."""
        return await self._in_clerk(lambda: self._inbox.prune(keep_ms=keep_ms))

    async def close(self, *, grace_seconds: float) -> bool:
        """Begin nothing more and let running work end. False where some still runs; it is begun again next time."""
        self._closing = True
        self._workers.shutdown(wait=False, cancel_futures=True)
        stopped = asyncio.get_running_loop().run_in_executor(None, self._workers.shutdown)
        done, _ = await asyncio.wait({stopped}, timeout=grace_seconds)
        self._mark_now(self._stored)
        self._clerk.shutdown()
        return bool(done)

    async def _in_clerk(self, step: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._clerk, step)

    def _begin(self, query_id: str, expires_at_ms: int, delivery: Delivery | None, *, cancelled: bool = False) -> None:
        job = _Job(query_id, Work(deadline_ms=expires_at_ms), delivery)
        if cancelled:
            job.work.cancel()
        with self._lock:
            if query_id in self._jobs or self._closing:
                return
            self._jobs[query_id] = job
        self._submit(job)

    def _submit(self, job: _Job) -> None:
        try:
            self._workers.submit(self._run, job)
        except RuntimeError:
            LOG.debug("%s: left for the next start", job.query_id)

    def _run(self, job: _Job) -> None:
        job.stage = link_pb2.STAGE_COMPUTING
        started_ms = now_ms()
        try:
            answer = self._answer(job)
        except Exception as error:  # noqa: BLE001  # nothing left the node; whatever it was, it is tried again
            self._loop.call_soon_threadsafe(self._again, job, error)
            return
        body = answer.SerializeToString() if answer is not None else b""
        self._loop.call_soon_threadsafe(self._finish, job, body)
        if answer is not None:
            outcome = answer_pb2.Answer.FromString(answer.payload)
            words = " ".join(filter(None, (STATUS_WORDS[outcome.status], outcome.reason.code)))
            LOG.info("%s: %s, %d ms", job.query_id, words, now_ms() - started_ms)
            self._story.catch_up()

    def _answer(self, job: _Job) -> answer_pb2.SignedAnswer | None:
        delivery = job.delivery or self._inbox.delivery(job.query_id)
        if delivery is None:
            return None
        task = Task(delivery, job.work)
        with telemetry.TRACER.start_as_current_span(
            "node.answer",
            context=telemetry.context(delivery.traceparent),
            attributes={"connexon.query_id": delivery.query_id},
        ):
            try:
                return self._story.answer(task)
            except Unavailable as error:
                if job.attempts + 1 < ATTEMPTS:
                    raise
                return self._story.give_up(task, error)

    def _finish(self, job: _Job, body: bytes) -> None:
        with self._lock:
            self._jobs.pop(job.query_id, None)
        if job.timer is not None:
            job.timer.cancel()
        if body:
            self._outlet.answer(job.query_id, body)

    def _again(self, job: _Job, error: Exception) -> None:
        if self._closing:
            return
        job.attempts += 1
        job.stage = link_pb2.STAGE_WAITING
        pause = min(0.25 * 2**job.attempts, LONGEST_PAUSE_SECONDS)
        reason = error.public if isinstance(error, ConnexonError) else type(error).__name__
        foreseen = isinstance(error, Unavailable)
        LOG.warning(
            "%s: no answer could be written (%s); again in %.1f s",
            *(job.query_id, reason, pause),
            exc_info=None if foreseen else error,
        )
        self._loop.call_later(pause, self._submit, job)

    def _tell(self, job: _Job) -> None:
        if job.query_id not in self._jobs:
            return
        if job.told != job.stage:
            job.told = job.stage
            self._outlet.progress(job.query_id, job.stage)
        job.timer = self._loop.call_later(1.0, self._tell, job)

    def _mark(self) -> None:
        if self._closing:
            # Closing marks them itself, when nothing more can be submitted.
            return
        ids, self._stored = self._stored, []
        self._clerk.submit(self._mark_now, ids)

    def _mark_now(self, ids: list[str]) -> None:
        if not ids:
            return
        try:
            self._inbox.mark_stored(ids)
        except Unavailable:
            # They are sent once more after the next attachment, which does no harm.
            LOG.warning("%d answers could not be marked as fetched", len(ids))
