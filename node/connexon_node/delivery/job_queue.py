"""What the workshops of questions and of training have in common: jobs, a bounded number at once, tried until done.

One thread, the clerk, writes for all; others work. Everything else happens on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from connexon.errors import ConnexonError, Unavailable
from connexon_node.delivery.turns import Turns
from connexon_node.pipeline.values import Work

LOG = logging.getLogger("connexon.node")
ATTEMPTS = 8
"""How often a job is tried while the node cannot work; then it has failed."""
LONGEST_PAUSE_SECONDS = 30.0
MARKING_SECONDS = 0.2

T = TypeVar("T")


@dataclass
class Job:
    """One piece of work. `name` is its id at the hub; owners take turns."""

    name: str
    work: Work
    owner: str = ""
    attempts: int = 0
    under_way: bool = False

    @property
    def is_last_attempt(self) -> bool:
        """Whether it has failed where it fails now."""
        return self.attempts + 1 >= ATTEMPTS


J = TypeVar("J", bound=Job)


class Workbench(ABC, Generic[J]):
    """Jobs by name, each once at a time. Made and used on the event loop, but for what says otherwise."""

    def __init__(self, threads: str, *, workers: int, most_of_one: int | None = None) -> None:
        """So many `workers`, of which one owner's jobs get `most_of_one`."""
        self._places = workers
        self._turns: Turns[J] = Turns(most_of_one=most_of_one or workers)
        self.jobs: dict[str, J] = {}
        self._loop = asyncio.get_running_loop()
        self._clerk = ThreadPoolExecutor(1, f"{threads}-clerk")
        self._workers = ThreadPoolExecutor(workers, threads)
        self._lock = threading.Lock()
        self._fetched: list[str] = []
        self._closing = False

    @abstractmethod
    def do(self, job: J) -> Callable[[], None]:
        """Do a job, on a thread; what it gives is called on the event loop. What it raises has it tried again."""

    @abstractmethod
    def mark(self, names: list[str]) -> None:
        """Write down that the hub has these, on the clerk's thread. Raises Unavailable."""

    def afterwards(self, job: J) -> None:  # most have nothing to do
        """What need not be done before a job is out of the house; on the thread that did the job."""

    def leave(self, jobs: list[J]) -> None:  # most have nothing to do
        """The node stops in order, and these are left for the next start; on the clerk's thread. Raises Unavailable."""

    async def in_clerk(self, step: Callable[[], T]) -> T:
        """Do something on the clerk's thread."""
        return await self._loop.run_in_executor(self._clerk, step)

    def begin(self, job: J, *, cancelled: bool = False) -> None:
        """Begin on a job, unless it is under way; from any thread."""
        if cancelled:
            job.work.cancel()
        with self._lock:
            if job.name in self.jobs or self._closing:
                return
            self.jobs[job.name] = job
        self._submit(job)

    def hub_has(self, name: str) -> None:
        """The hub has what came of a job. Written down a little later, many at once."""
        if not self._fetched:
            self._loop.call_later(MARKING_SECONDS, self._mark)
        self._fetched.append(name)

    async def close(self, *, grace_seconds: float) -> bool:
        """Begin nothing more and let running work end. False where some still runs; it is begun again next time."""
        self._closing = True
        self._workers.shutdown(wait=False, cancel_futures=True)
        stopped = self._loop.run_in_executor(None, self._workers.shutdown)
        done, _ = await asyncio.wait({stopped}, timeout=grace_seconds)
        self._mark_now(self._fetched)
        try:
            await self.in_clerk(lambda: self.leave(list(self.jobs.values())))
        except Unavailable:
            LOG.warning("it could not be written down that %d jobs were left in order", len(self.jobs))
        self._clerk.shutdown()
        return bool(done)

    def begins_at_once(self, owner: str) -> bool:
        """Whether a job of this owner that is begun now need not wait."""
        return self._turns.could_begin(owner, self._places)

    def _submit(self, job: J) -> None:
        self._turns.put(job.owner, job)
        self._take_turn()

    def _take_turn(self) -> None:
        try:
            self._workers.submit(self._next)
        except RuntimeError:
            LOG.debug("what waits is left for the next start")

    def _next(self) -> None:
        job = self._turns.take()
        if job is None:
            # Its owner has enough under way: when one of those is done, this turn is taken.
            return
        try:
            self._run(job)
        finally:
            self._turns.done(job.owner)
            self._take_turn()

    def _run(self, job: J) -> None:
        job.under_way = True
        try:
            done = self.do(job)
        except Exception as error:  # noqa: BLE001  # nothing left the node; whatever it was, it is tried again
            self._loop.call_soon_threadsafe(self._again, job, error)
            return
        self._loop.call_soon_threadsafe(self._finish, job, done)
        self.afterwards(job)

    def _finish(self, job: J, done: Callable[[], None]) -> None:
        with self._lock:
            self.jobs.pop(job.name, None)
        done()

    def _again(self, job: J, error: Exception) -> None:
        if self._closing:
            return
        job.attempts += 1
        job.under_way = False
        pause = min(0.25 * 2**job.attempts, LONGEST_PAUSE_SECONDS)
        reason = error.public if isinstance(error, ConnexonError) else type(error).__name__
        foreseen = isinstance(error, Unavailable)
        LOG.warning(
            "%s: nothing could be written (%s); again in %.1f s",
            *(job.name, reason, pause),
            exc_info=None if foreseen else error,
        )
        self._loop.call_later(pause, self._submit, job)

    def _mark(self) -> None:
        if self._closing:
            # Closing marks them itself, when nothing more can be submitted.
            return
        names, self._fetched = self._fetched, []
        self._clerk.submit(self._mark_now, names)

    def _mark_now(self, names: list[str]) -> None:
        if not names:
            return
        try:
            self.mark(names)
        except Unavailable:
            # They are sent once more after the next attachment, which does no harm.
            LOG.warning("%d could not be marked as fetched by the hub", len(names))
