"""Group commit: one thread writes, and each transaction takes all that is waiting.

A thousand centers that answer at once cost a few commits, not a thousand, and the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from connexon.errors import ConnexonError, Unavailable
from connexon.service.database import Database

LOG = logging.getLogger("connexon.hub")
MAXIMUM_BATCH = 2_000

I = TypeVar("I")  # noqa: E741  # item
O = TypeVar("O")  # noqa: E741  # outcome
Step = Callable[[Connection, Sequence[I]], Sequence[O | ConnexonError]]
"""Writes several items of one kind; gives one outcome per item, in order. An error given, not raised, is that item's
alone; INVARIANT: the step has then written nothing for it. Must not be remembered outside the database: a transaction
that fails is tried again item by item."""


@dataclass(frozen=True)
class _Job:
    step: Step[Any, Any]
    make: Callable[[], Any]
    future: asyncio.Future[Any]


class Writer:
    """The one writer of a serving hub. Made and used on the event loop's thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def write(self, step: Step[I, O], item: I) -> asyncio.Future[O]:
        """Have `item` written; the future is done when that is durable, or holds the error.

        The future goes on when whoever awaits it is cancelled only if awaited through asyncio.shield.
        """
        return self.write_made(step, lambda: item)

    def write_made(self, step: Step[I, O], make: Callable[[], I]) -> asyncio.Future[O]:
        """The same for an item that takes work to make: that is done on the writer's thread, before the transaction.

        Where `make` raises a ConnexonError, nothing is written and the future holds it.
        """
        future: asyncio.Future[O] = self._loop.create_future()
        if self._closed:
            future.set_exception(Unavailable("The hub is stopping; try again shortly.", code="hub.stopping"))
        else:
            self._jobs.put(_Job(step, make, future))
        return future

    async def close(self) -> None:
        """Write what is waiting, then end."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs: list[_Job] = [first]
            last = False
            while len(jobs) < MAXIMUM_BATCH:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                    break
                jobs.append(job)
            self._loop.call_soon_threadsafe(_settle, jobs, self._commit(jobs))
            if last:
                return

    def _commit(self, jobs: list[_Job]) -> list[Any]:
        try:
            items = [_made(job) for job in jobs]
            if all(isinstance(item, ConnexonError) for item in items):
                return items
            with self._database.writing() as connection:
                return _write(connection, jobs, items)
        except Unavailable as error:
            LOG.error("The database does not take anything now: %s", error.__cause__)
            return [error] * len(jobs)
        except Exception as error:  # one bad item must not fail the others, nor end the thread
            if len(jobs) > 1:
                return [outcome for job in jobs for outcome in self._commit([job])]
            LOG.exception("Something could not be written")
            return [error]


def _made(job: _Job) -> Any:
    try:
        return job.make()
    except ConnexonError as error:
        return error


def _write(connection: Connection, jobs: list[_Job], items: list[Any]) -> list[Any]:
    """One outcome per job: the error where its item could not be made, what its step gives otherwise."""
    outcomes = list(items)
    places: dict[Step[Any, Any], list[int]] = {}
    for place, item in enumerate(items):
        if not isinstance(item, ConnexonError):
            places.setdefault(jobs[place].step, []).append(place)
    for step, taken in places.items():
        for place, outcome in zip(taken, step(connection, [items[place] for place in taken]), strict=True):
            outcomes[place] = outcome
    return outcomes


def _settle(jobs: list[_Job], outcomes: list[Any]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.future.done():
            continue
        if isinstance(outcome, BaseException):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
