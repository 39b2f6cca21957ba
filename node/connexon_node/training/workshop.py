"""The workshop of training: takes tasks in, works on a bounded number at once, and hands the replies out.

It is apart from that of questions, so that counts never wait behind training.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from connexon import parcel_files
from connexon.errors import ConnexonError, Unavailable
from connexon.frames import ParcelRefused
from connexon.parcel_files import Arrived, TaskId
from connexon.v1 import link_pb2
from connexon_node.outlet import Outlet
from connexon_node.pipeline import Work
from connexon_node.training.box import Came, TaskBox
from connexon_node.training.crew import Crew
from connexon_node.training.orders import claimed_deadline
from connexon_node.training.spool import reply_pieces
from connexon_node.training.story import Due, TaskStory

LOG = logging.getLogger("connexon.node")
ATTEMPTS = 8
"""How often a task is tried while the node cannot work; then it has failed."""
LONGEST_PAUSE_SECONDS = 30.0
MARKING_SECONDS = 0.2

T = TypeVar("T")


@dataclass
class _Job:
    task: TaskId
    work: Work
    attempts: int = 0


class TaskWorkshop:
    """Works on what the box of tasks holds (session.Tasks). Its methods are called on the event loop."""

    def __init__(self, box: TaskBox, story: TaskStory, crew: Crew, outlet: Outlet, *, workers: int) -> None:
        self._box = box
        self._story = story
        self._crew = crew
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._clerk = ThreadPoolExecutor(1, "tasks")
        self._workers = ThreadPoolExecutor(workers, "training")
        self._jobs: dict[TaskId, _Job] = {}
        self._lock = threading.Lock()
        self._stored: list[str] = []
        self._closing = False

    @property
    def arriving(self) -> Path:
        """See session.Tasks."""
        return self._box.spool.arriving

    async def resume(self) -> int:
        """Begin on every task that was received and has no reply; returns how many."""
        pending = await self._in_clerk(self._box.unanswered)
        for task, deadline_ms, cancelled in pending:
            self._begin(task, deadline_ms, cancelled=cancelled)
        return len(pending)

    async def receive(self, arrived: Arrived) -> None:
        """Write a task down, say so, and begin on it. Raises Unavailable where it cannot be written down."""
        came, deadline_ms = await self._in_clerk(lambda: self._take_in(arrived))
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
        for task in await self._in_clerk(lambda: self._box.cancel(name)):
            job = self._jobs.get(task)
            if job is not None:
                job.work.cancel()
        await asyncio.to_thread(self._crew.forget, name)

    def hub_has(self, name: str) -> None:
        """The hub has a reply. Written down a little later, many at once."""
        if not self._stored:
            self._loop.call_later(MARKING_SECONDS, self._mark)
        self._stored.append(name)

    async def tidy(self) -> None:
        """Let go of processes that have long had nothing to do."""
        await asyncio.to_thread(self._crew.tidy)

    def say(self, task: TaskId) -> None:
        """Send what was kept under this id without a task, a notice."""
        self._outlet.reply(task)

    async def unsent(self) -> list[TaskId]:
        """The replies that the hub has not got."""
        return await self._in_clerk(self._box.unsent)

    async def load(self, task: TaskId) -> Iterator[link_pb2.Chunk] | None:
        """A stored reply, in frames."""
        reply = await self._in_clerk(lambda: self._box.reply(task))
        return None if reply is None else reply_pieces(task, reply.signed_answer, reply.records)

    async def prune(self, keep_ms: int) -> int:
        """Remove what was settled long ago."""
        return await self._in_clerk(lambda: self._box.prune(keep_ms=keep_ms))

    async def close(self, *, grace_seconds: float) -> bool:
        """Begin nothing more and let running work end. False where some still runs; it is begun again next time."""
        self._closing = True
        self._workers.shutdown(wait=False, cancel_futures=True)
        stopped = asyncio.get_running_loop().run_in_executor(None, self._workers.shutdown)
        done, _ = await asyncio.wait({stopped}, timeout=grace_seconds)
        self._mark_now(self._stored)
        self._clerk.shutdown()
        await asyncio.to_thread(self._crew.close)
        return bool(done)

    async def _in_clerk(self, step: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._clerk, step)

    def _begin(self, task: TaskId, deadline_ms: int, *, cancelled: bool = False) -> None:
        job = _Job(task, Work(deadline_ms=deadline_ms))
        if cancelled:
            job.work.cancel()
        with self._lock:
            if task in self._jobs or self._closing:
                return
            self._jobs[task] = job
        self._submit(job)

    def _submit(self, job: _Job) -> None:
        try:
            self._workers.submit(self._run, job)
        except RuntimeError:
            LOG.debug("%s: left for the next start", job.task)

    def _run(self, job: _Job) -> None:
        try:
            self._answer(job)
        except Exception as error:  # noqa: BLE001  # nothing left the node; whatever it was, it is tried again
            self._loop.call_soon_threadsafe(self._again, job, error)
            return
        self._loop.call_soon_threadsafe(self._finish, job)

    def _answer(self, job: _Job) -> None:
        due = Due(job.task, job.work)
        try:
            self._story.answer(due)
        except Unavailable as error:
            if job.attempts + 1 < ATTEMPTS:
                raise
            self._story.give_up(due, error)

    def _finish(self, job: _Job) -> None:
        with self._lock:
            self._jobs.pop(job.task, None)
        self._outlet.reply(job.task)

    def _again(self, job: _Job, error: Exception) -> None:
        if self._closing:
            return
        job.attempts += 1
        pause = min(0.25 * 2**job.attempts, LONGEST_PAUSE_SECONDS)
        reason = error.public if isinstance(error, ConnexonError) else type(error).__name__
        foreseen = isinstance(error, Unavailable)
        LOG.warning(
            "%s: no reply could be written (%s); again in %.1f s",
            *(job.task, reason, pause),
            exc_info=None if foreseen else error,
        )
        self._loop.call_later(pause, self._submit, job)

    def _mark(self) -> None:
        if self._closing:
            # Closing marks them itself, when nothing more can be submitted.
            return
        names, self._stored = self._stored, []
        self._clerk.submit(self._mark_now, names)

    def _mark_now(self, names: list[str]) -> None:
        if not names:
            return
        try:
            self._box.mark_stored(names)
        except Unavailable:
            # They are sent once more after the next attachment, which does no harm.
            LOG.warning("%d replies could not be marked as fetched", len(names))
