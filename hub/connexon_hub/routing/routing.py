"""What happens to a query between researcher and centers: written down first, then told to whoever is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Protocol

from connexon.clock import now_ms
from connexon.errors import ConnexonError
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.link.frames import Parcel
from connexon.query.signed import AnswerRefused
from connexon.telemetry import TRACER, context
from connexon.v1 import link_pb2, research_pb2
from connexon_hub.routing.answer_check import check
from connexon_hub.routing.payload_cache import Bodies, Body
from connexon_hub.routing.sessions import Session, Sessions, cannot_write
from connexon_hub.routing.store import ANSWERED, CANCELLED, EXPIRED, RECEIVED, Kept, Receipt, State, Submission
from connexon_hub.routing.subscriptions import Watches
from connexon_hub.routing.writes import QuerySteps
from connexon_hub.state.writer import Writer

LOG = logging.getLogger("connexon.hub")
RECEIPT_SECONDS = 0.05
"""How long a receipt may wait to be written: mostly the answer overtakes it."""
ACKNOWLEDGE_SECONDS = 0.25
"""How long a center may wait to hear that its answer is kept: nobody waits for that, and a researcher for the rest."""


class TrainingRuns(Protocol):
    """The runs that queries begin, told what happens to these; connexon_hub.training.runs.Runs are such."""

    def begin(self, query_id: str) -> None:
        """A run's query is written down."""

    async def cancel(self, query_id: str) -> None:
        """The researcher has taken a query back; of no consequence where it is not a run's."""

    def nudge(self, query_id: str) -> None:
        """An answer to a query has come, or its time is over."""

    def connection_changed(self) -> None:
        """A center has come or gone."""


class Routing:
    """Carries queries to centers and answers to researchers. Lives on the event loop's thread."""

    def __init__(
        self,
        *,
        writer: Writer,
        steps: QuerySteps,
        bodies: Bodies,
        sessions: Sessions,
        watches: Watches,
        runs: TrainingRuns,
    ) -> None:
        self._writer = writer
        self._steps = steps
        self._bodies = bodies
        self._sessions = sessions
        self._watches = watches
        self._runs = runs
        self._receipts: dict[tuple[str, CenterId], int] = {}
        self._receipts_due: asyncio.TimerHandle | None = None
        self._acknowledged: list[tuple[Session, str]] = []
        self._cancelling: set[asyncio.Task[int]] = set()

    def submit(self, submission: Submission) -> asyncio.Future[bool]:
        """Write a query down, then hand it to every center that is attached; True where it is new.

        The handing out happens even when the researcher who asked has gone.
        """
        future = self._writer.write(self._steps.submit, submission)
        future.add_done_callback(partial(self._submitted, submission))
        return future

    def _submitted(self, submission: Submission, future: asyncio.Future[bool]) -> None:
        if future.cancelled() or future.exception() is not None or not future.result():
            return
        with TRACER.start_as_current_span("hub.deliver", context=context(submission.traceparent)):
            self._bodies.put(submission.query_id, submission.signed.SerializeToString(), submission.traceparent)
            for center in submission.centers:
                session = self._sessions.get(center)
                if session is not None:
                    session.deliver(submission.query_id)
        if submission.rounds:
            self._runs.begin(submission.query_id)
        party = {"party": submission.researcher_id}
        LOG.info("query %s accepted for %d centers", submission.query_id, len(submission.centers), extra=party)

    def received(self, session: Session, query_id: str) -> None:
        """A center has a query in its own database."""
        self._receipts[query_id, session.center] = now_ms()
        if self._receipts_due is None:
            self._receipts_due = asyncio.get_running_loop().call_later(RECEIPT_SECONDS, self._write_receipts)
        self._tell(query_id, session.center, RECEIVED)

    def _write_receipts(self) -> None:
        # A receipt that is lost costs one more delivery, which the center knows again.
        for (query_id, center), at_ms in self._receipts.items():
            self._writer.write(self._steps.receive, Receipt(query_id, center, at_ms)).add_done_callback(_look)
        self._receipts.clear()
        self._receipts_due = None

    def progressed(self, session: Session, query_id: str, stage: link_pb2.Stage.ValueType) -> None:
        """A center works on a query."""
        if session.progressed(query_id, stage):
            self._tell(query_id, session.center, RECEIVED)

    def answered(self, session: Session, parcel: Parcel, *, roster: Roster, query: Body) -> asyncio.Future[Kept]:
        """Check an answer and write it down; tell the center that it need not send it again, and the researcher.

        The future holds AnswerRefused for one that does not hold.
        """
        self._receipts.pop((parcel.query_id, session.center), None)
        checked = partial(check, parcel, center=session.center, roster=roster, query=query, at_ms=now_ms())
        future = self._writer.write_made(self._steps.answer, checked)
        future.add_done_callback(partial(self._kept, session, parcel))
        return future

    def _kept(self, session: Session, parcel: Parcel, future: asyncio.Future[Kept]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, AnswerRefused):
            return
        if future.cancelled() or error is not None:
            # The center sends the answer again when it has come back.
            session.end(cannot_write())
            return
        if future.result() is Kept.FOR_NOW:
            # Not acknowledged: the center shows it again when it returns, until the answer that follows it.
            self._tell(parcel.query_id, session.center, RECEIVED, answer=parcel.body)
            return
        session.settle(parcel.query_id)
        self._runs.nudge(parcel.query_id)
        self.acknowledge(session, parcel.query_id)
        if future.result() is Kept.CLOSED:
            # What awaits the center's steward need not be decided any more.
            session.take_back(parcel.query_id)
        if future.result() is Kept.KEPT:
            session.last_answer_ms = now_ms()
            self._tell(parcel.query_id, session.center, ANSWERED, answer=parcel.body)

    def acknowledge(self, session: Session, query_id: str) -> None:
        """Tell a center, in a moment, that its answer need not be sent again."""
        if not self._acknowledged:
            asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, self._acknowledge)
        self._acknowledged.append((session, query_id))

    def _acknowledge(self) -> None:
        # An answer whose acknowledgement is lost comes once more, and is known again.
        for session, query_id in self._acknowledged:
            stored = link_pb2.Stored(query_id=query_id, kind=link_pb2.PARCEL_KIND_ANSWER)
            session.tell(link_pb2.AttachResponse(stored=stored))
        self._acknowledged.clear()

    async def cancel(self, query_id: str, researcher_id: str) -> int:
        """End a query for its researcher; the number of centers that had not answered. Raises NotFound.

        It ends even when the researcher who asked for it has gone.
        """
        ending = asyncio.create_task(self._cancel(query_id, researcher_id))
        self._cancelling.add(ending)
        ending.add_done_callback(self._cancelling.discard)
        return await asyncio.shield(ending)

    async def _cancel(self, query_id: str, researcher_id: str) -> int:
        centers = await self._writer.write(self._steps.cancel, (query_id, researcher_id, now_ms()))
        self._ended({query_id: centers}, CANCELLED)
        await self._runs.cancel(query_id)
        return len(centers)

    async def expire(self, at_ms: int) -> None:
        """End the queries whose time is over at a moment."""
        self._ended(await self._writer.write(self._steps.expire, at_ms), EXPIRED)

    def attached(self, session: Session) -> None:
        """A center has come: tell those who wait for it."""
        self._connection_changed(session.center)

    def detached(self, session: Session) -> None:
        """A center has gone: tell those who wait for it."""
        self._connection_changed(session.center)

    def delivery(self, query_id: str, center: CenterId, state: State) -> research_pb2.Delivery:
        """One center's part as a researcher sees it, without the answer."""
        session = self._sessions.get(center)
        return research_pb2.Delivery(
            center_id=center,
            state=state,
            connected=session is not None,
            stage=session.stage(query_id) if session is not None else link_pb2.STAGE_UNSPECIFIED,
            restoring=session is not None and bool(session.introduction.restoring),
        )

    def _ended(self, ended: Mapping[str, Iterable[CenterId]], state: State) -> None:
        for query_id, centers in ended.items():
            for center in centers:
                session = self._sessions.get(center)
                if session is not None:
                    session.cancel(query_id)
                self._tell(query_id, center, state)
            self._runs.nudge(query_id)
            LOG.info("query %s %s", query_id, "cancelled" if state == CANCELLED else "expired")

    def _connection_changed(self, center: CenterId) -> None:
        self._runs.connection_changed()
        for watch in self._watches.waiting_for(center):
            watch.tell(self.delivery(watch.query_id, center, watch.pending[center]))

    def _tell(self, query_id: str, center: CenterId, state: State, *, answer: bytes | None = None) -> None:
        watches = [one for one in self._watches.of(query_id) if state != RECEIVED or center in one.pending]
        if not watches:
            return
        # One message for all: it is written as it is, and changed by nobody.
        delivery = self.delivery(query_id, center, state)
        if answer is not None:
            delivery.answer.ParseFromString(answer)
        for watch in watches:
            watch.tell(delivery)


def _look(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and isinstance(future.exception(), ConnexonError):
        LOG.warning("a receipt was not written: %s", future.exception())
