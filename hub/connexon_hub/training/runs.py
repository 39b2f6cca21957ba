"""All runs of a serving hub: each begins with its query, ends once, and is taken up again after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed

from connexon.clock import now_ms
from connexon.errors import ConnexonError, Unavailable
from connexon.identity.certificates import Authority
from connexon.identity.keys import CenterId
from connexon.link.frames import ParcelRefused
from connexon.link.parcel_files import Arrived, TaskId
from connexon.query import wire_question
from connexon.query.signed import AnswerRefused
from connexon.service.database import Database
from connexon.v1 import link_pb2, models_pb2
from connexon_hub.membership.standing import Standing
from connexon_hub.routing.payload_cache import Bodies
from connexon_hub.routing.run_rows import LIVE
from connexon_hub.routing.sessions import Session, Sessions, cannot_write
from connexon_hub.routing.store import QueryStore
from connexon_hub.state.writer import Writer
from connexon_hub.training import reply_check
from connexon_hub.training.files import RunFiles
from connexon_hub.training.model_store import Flag, ModelStore
from connexon_hub.training.run import Run
from connexon_hub.training.store import CANCELLED, FAILED, Ending, Reply, RunStore, StoredRun
from connexon_hub.training.worker_protocol import PartState, RunEnded

T = TypeVar("T")
LOG = logging.getLogger("connexon.hub")
AGAIN_SECONDS = 5.0
"""How long a run waits for a database that does not take anything, before it is taken up again."""
NOTICE = 0
"""The number under which a center tells what has happened to a model."""


class ServingHub(Protocol):
    """What runs need of the hub that serves; connexon_hub.assembly.Hub is one."""

    database: Database
    authority: Authority
    queries: QueryStore
    sessions: Sessions
    bodies: Bodies
    writer: Writer

    @property
    def standing(self) -> Standing:
        """Who takes part now."""

    def note(self, code: str, *, center: str = "", detail: str = "") -> None:
        """Log something the operator should know of."""


class Runs:
    """Made on the event loop of a serving hub."""

    def __init__(self, hub: ServingHub, folder: Path, *, at_once: int) -> None:
        self.hub = hub
        self.store = RunStore(hub.database)
        self.models = ModelStore(hub.database)
        self.files = RunFiles(folder)
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, set[asyncio.Event]] = {}
        self._room = asyncio.Semaphore(at_once)

    async def resume(self) -> None:
        """Take up the runs that had not ended."""
        live = await asyncio.to_thread(self.store.live)
        await asyncio.to_thread(self.files.prepare, live)
        for query_id in live:
            self.begin(query_id)

    def begin(self, query_id: str) -> None:
        """A run's query is written down."""
        self._tasks[query_id] = asyncio.create_task(self._attend(query_id))

    async def close(self) -> None:
        """End the processes of all runs; the next start takes them up again."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def cancel(self, query_id: str) -> None:
        """The researcher has taken a query back; of no consequence where it is not a run's, or the run has ended."""
        await self._stop(Ending(query_id, CANCELLED, now_ms()))

    async def stop(self, query_id: str, because: ConnexonError) -> None:
        """What the run was begun with counts no more; of no consequence as above."""
        await self._stop(Ending(query_id, FAILED, now_ms(), because.code, because.public))

    async def _stop(self, ending: Ending) -> None:
        query_id = ending.query_id
        task = self._tasks.get(query_id)
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await self._end(ending)
        except Unavailable:
            # Until its end is written down it is a run like any other.
            self.begin(query_id)
            raise

    def nudge(self, query_id: str) -> None:
        """An answer to the query of a run, or a reply to one of its tasks, has come."""
        run = self._runs.get(query_id)
        if run is not None:
            run.nudge()

    def connection_changed(self) -> None:
        """A center has come or gone."""
        for run in self._runs.values():
            run.nudge()

    async def backlog(self, center: CenterId) -> list[str]:
        """The parcels that wait for a center."""
        return [str(task) for task in await asyncio.to_thread(self.store.backlog, center, at_ms=now_ms())]

    def take_back(self, task: TaskId, center: CenterId) -> None:
        """A task is no longer waited for."""
        session = self.hub.sessions.get(center)
        if session is not None:
            session.cancel(str(task))

    async def room(self, center: CenterId, chunk: link_pb2.Chunk) -> bool:
        """Whether a reply that begins with this piece is waited for. Raises ParcelRefused where it is too large."""
        task = TaskId.parse(chunk.query_id)
        size = 0
        if task.number != NOTICE:
            found = await asyncio.to_thread(self.store.part, task, center)
            if found is None or found[0] is not PartState.OPEN:
                return False
            size = found[1]
        if chunk.total_size > reply_check.largest(size):
            raise ParcelRefused(f"A reply of {chunk.total_size} bytes is larger than its task allows.")
        return True

    async def take(self, session: Session, arrived: Arrived) -> None:
        """Check a reply, write it down, and tell the center that it need not be sent again."""
        center, task = session.center, arrived.id
        try:
            if await self._keep(center, arrived):
                self.nudge(task.run)
        except AnswerRefused as error:
            self.hub.note(error.code, center=center, detail=f"task {task}: {error.public}")
            return
        except ConnexonError as error:
            # It is sent again when the center has come back.
            session.end(error)
            return
        except OSError as error:
            LOG.error("the reply to %s from %s cannot be kept: %s", task, center, error.strerror)
            session.end(cannot_write())
            return
        finally:
            # Mostly it is in its place by now, and there is nothing to throw away.
            arrived.discard()
        self.acknowledge(session, str(task))

    async def _keep(self, center: CenterId, arrived: Arrived) -> bool:
        body = await self.hub.bodies.get(arrived.id.run)
        if body is None:
            return False
        # In one go on a thread: every change of thread takes about as long as what is done there.
        examined = await asyncio.to_thread(self._examined, center, arrived, body.payload)
        match examined:
            case Flag() as flag:
                if await self.hub.writer.write(self.models.flag, flag):
                    self.hub.note("model.flagged", center=center, detail=f"run {flag.query_id}: {flag.code}")
                return False
            case Reply() as reply:
                return await asyncio.shield(self.hub.writer.write(self.store.settle, reply))
        return False

    def _examined(self, center: CenterId, arrived: Arrived, query_payload: bytes) -> Reply | Flag | None:
        """What is to be written down of a reply, whose parcel then is in its place; None where nobody waits for it.

        Raises AnswerRefused.
        """
        roster, task = self.hub.standing.roster, arrived.id
        if task.number == NOTICE:
            said = reply_check.check_notice(arrived, center=center, roster=roster, query_payload=query_payload)
            notice = said.answer.notice
            return Flag(task.run, center, notice.code, notice.message, now_ms(), said.head)
        found = self.store.part(task, center)
        if found is None or found[0] is not PartState.OPEN:
            return None
        said = reply_check.check(
            arrived, center=center, roster=roster, query_payload=query_payload, task=self.files.task(task)
        )
        arrived.keep(self.files.reply(task, center))
        return Reply(task, center, said.head, now_ms())

    def acknowledge(self, session: Session, parcel_id: str) -> None:
        """Tell a center that its reply need not be sent again."""
        session.settle(parcel_id)
        stored = link_pb2.Stored(query_id=parcel_id, kind=link_pb2.PARCEL_KIND_REPLY)
        session.tell(link_pb2.AttachResponse(stored=stored))

    async def report(self, query_id: str, report: bytes) -> None:
        """A round of a run is done."""
        await self.hub.writer.write(self.store.report, (query_id, models_pb2.RoundReport.FromString(report)))
        self.tell(query_id)

    def round_of(self, query_id: str) -> int:
        """The round that a run is in."""
        run = self._runs.get(query_id)
        return 0 if run is None else run.round

    @contextmanager
    def watching(self, query_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something has changed about a run."""
        event = asyncio.Event()
        watches = self._watches.setdefault(query_id, set())
        watches.add(event)
        try:
            yield event
        finally:
            watches.discard(event)
            if not watches:
                self._watches.pop(query_id, None)

    def tell(self, query_id: str) -> None:
        """Something has changed about a run."""
        for event in self._watches.get(query_id, ()):
            event.set()

    async def _attend(self, query_id: str) -> None:
        """Bring a run to its end, if need be from where it was when the database did not take anything."""

        def note(failed: RetryCallState) -> None:
            LOG.error("run %s waits: %s", query_id, failed.outcome and failed.outcome.exception())

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable), wait=wait_fixed(AGAIN_SECONDS), before_sleep=note
        )
        try:
            centers: tuple[CenterId, ...] | None = await retrying(self._step, query_id, Run.gather)
            if centers is not None:
                # Only now: one that waits for a center that is away, for weeks maybe, must not keep others from work.
                async with self._room:
                    await retrying(self._step, query_id, partial(self._work, centers))
        except ConnexonError as error:
            LOG.error("run %s is left for the next start: %s", query_id, error.public)
        finally:
            self._tasks.pop(query_id, None)

    async def _step(self, query_id: str, step: Callable[[Run, StoredRun], Awaitable[T]]) -> T | None:
        """Take a run one step further, from how it stands in the database; None where it has ended."""
        try:
            stored = await asyncio.to_thread(self.store.find, query_id)
            body = await self.hub.bodies.get(query_id)
            if stored is None or stored.state not in LIVE or body is None:
                return None
            run = self._runs[query_id] = Run(self, wire_question.from_bytes(body.payload))
            return await step(run, stored)
        except RunEnded as ended:
            LOG.info("run %s has ended: %s", query_id, ended.public)
            await self._end(Ending(query_id, FAILED, now_ms(), ended.code, ended.public))
        except ConnexonError:
            raise
        except Exception:  # one run's fault is not the hub's end
            LOG.exception("run %s failed", query_id)
            message = "The hub could not go on with the run; its operator finds why in the hub's log."
            await self._end(Ending(query_id, FAILED, now_ms(), "run.failed", message))
        finally:
            self._runs.pop(query_id, None)
        return None

    async def _work(self, centers: tuple[CenterId, ...], run: Run, stored: StoredRun) -> None:
        await run.work(stored, centers)
        await self._clear(run.query_id, [])
        LOG.info("run %s is finished", run.query_id)

    async def _end(self, ending: Ending) -> None:
        await self._clear(ending.query_id, await self.hub.writer.write(self.store.end, ending))

    async def _clear(self, query_id: str, still_open: list[TaskId]) -> None:
        """After the end: tell the centers, who may let go of what they hold, and throw the parcels away."""
        for session in self.hub.sessions:
            for task in still_open:
                session.cancel(str(task))
            session.tell(link_pb2.AttachResponse(cancel=link_pb2.Cancel(query_id=query_id)))
        self.tell(query_id)
        await asyncio.to_thread(self.files.remove, query_id)
