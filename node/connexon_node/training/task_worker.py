"""The workshop of training: takes tasks in, works on a bounded number at once, and hands the replies out.

It is apart from that of questions, so that counts never wait behind training.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from connexon.errors import Unavailable
from connexon.link import parcel_files
from connexon.link.frames import ParcelRefused
from connexon.link.parcel_files import Arrived, TaskId
from connexon.v1 import link_pb2
from connexon_node.delivery.job_queue import Job, Workbench
from connexon_node.delivery.outbox import Outlet
from connexon_node.pipeline.values import Work
from connexon_node.training.spool import reply_pieces
from connexon_node.training.task_pipeline import Due, TaskStory
from connexon_node.training.task_store import Came, TaskBox
from connexon_node.training.task_verification import claimed_deadline
from connexon_node.training.worker_pool import Crew

LOG = logging.getLogger("connexon.node")


class TaskWorkshop(Workbench[Job]):
    """Works on what the box of tasks holds (session.Tasks). Its methods are called on the event loop."""

    def __init__(self, box: TaskBox, story: TaskStory, crew: Crew, outlet: Outlet, *, workers: int) -> None:
        super().__init__("training", workers=workers)
        self._box = box
        self._story = story
        self._crew = crew
        self._outlet = outlet

    @property
    def arriving(self) -> Path:
        """See session.Tasks."""
        return self._box.spool.arriving

    async def resume(self) -> int:
        """Begin on every task that was received and has no reply; returns how many."""
        pending = await self.in_clerk(self._box.unanswered)
        for task, deadline_ms, cancelled in pending:
            self._begin(task, deadline_ms, cancelled=cancelled)
        return len(pending)

    async def receive(self, arrived: Arrived) -> None:
        """Write a task down, say so, and begin on it. Raises Unavailable where it cannot be written down."""
        came, deadline_ms = await self.in_clerk(lambda: self._take_in(arrived))
        self._outlet.task_stored(arrived.id)
        match came:
            case Came.NEW | Came.UNDER_WAY:
                self._begin(arrived.id, deadline_ms)
            case Came.ANSWERED:
                self._outlet.reply(arrived.id)
            case Came.OTHER_BYTES:
                # The first one under this id counts; the reply to it says which that was.
                LOG.warning("%s: another task under a used id, left alone", arrived.id)

    def _take_in(self, arrived: Arrived) -> tuple[Came, int]:
        try:
            deadline_ms = claimed_deadline(parcel_files.read(arrived.path))
        except ParcelRefused:
            deadline_ms = 0
        return self._box.receive(arrived, deadline_ms=deadline_ms), deadline_ms

    async def cancel(self, name: str) -> None:
        """End the work on a task, or on every task of a run, also after a restart."""
        for task in await self.in_clerk(lambda: self._box.cancel(name)):
            job = self.jobs.get(str(task))
            if job is not None:
                job.work.cancel()
        await asyncio.to_thread(self._crew.forget, name)

    async def tidy(self) -> None:
        """Let go of processes that have long had nothing to do."""
        await asyncio.to_thread(self._crew.tidy)

    def say(self, task: TaskId) -> None:
        """Send what was kept under this id without a task, a notice."""
        self._outlet.reply(task)

    async def unsent(self) -> list[TaskId]:
        """The replies that the hub has not got."""
        return await self.in_clerk(self._box.unsent)

    async def load(self, task: TaskId) -> Iterator[link_pb2.Chunk] | None:
        """A stored reply, in frames."""
        reply = await self.in_clerk(lambda: self._box.reply(task))
        return None if reply is None else reply_pieces(task, reply.signed_answer, reply.records)

    async def prune(self, before_ms: int) -> int:
        """Remove what was settled before a moment."""
        return await self.in_clerk(lambda: self._box.prune(before_ms=before_ms))

    async def close(self, *, grace_seconds: float) -> bool:
        """See Workbench."""
        done = await super().close(grace_seconds=grace_seconds)
        await asyncio.to_thread(self._crew.close)
        return done

    def do(self, job: Job) -> Callable[[], None]:
        """See Workbench."""
        due = Due(TaskId.parse(job.name), job.work)
        try:
            self._story.answer(due)
        except Unavailable as error:
            if not job.is_last_attempt:
                raise
            self._story.give_up(due, error)
        return partial(self._outlet.reply, due.task)

    def mark(self, names: list[str]) -> None:
        """See Workbench."""
        self._box.mark_stored(names)

    def _begin(self, task: TaskId, deadline_ms: int, *, cancelled: bool = False) -> None:
        self.begin(Job(str(task), Work(deadline_ms=deadline_ms)), cancelled=cancelled)
