"""The parts of a serving hub, put together once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from connexon.clock import now_ms
from connexon.clock_check import ClockCheck
from connexon.identity.certificates import Authority
from connexon.service.database import Database
from connexon.service.logs import Allowance
from connexon_hub.folder import HubFolder
from connexon_hub.health.events import Event, WatchStore
from connexon_hub.health.log_witness import WitnessStore
from connexon_hub.limits.call_quota import Places
from connexon_hub.limits.connections import Connections
from connexon_hub.limits.refusals import Refusals
from connexon_hub.membership.callers import Callers, ProofStore
from connexon_hub.membership.members import MemberStore
from connexon_hub.membership.roster import RosterStore
from connexon_hub.membership.standing import Standing
from connexon_hub.routing.payload_cache import Bodies
from connexon_hub.routing.revocations import Revoked
from connexon_hub.routing.routing import Routing
from connexon_hub.routing.sessions import Sessions
from connexon_hub.routing.store import QueryStore
from connexon_hub.routing.stream_quota import Lines
from connexon_hub.routing.subscriptions import Watches
from connexon_hub.routing.validity import UnderWay
from connexon_hub.routing.writes import QuerySteps
from connexon_hub.settings import HubSettings
from connexon_hub.state.writer import Writer
from connexon_hub.training.runs import Runs

LOG = logging.getLogger("connexon.hub")
NOTES = 30
"""Events of one code and center that are kept in a minute."""


class Hub:
    """State of one serving process. Make it on the event loop's thread."""

    def __init__(self, settings: HubSettings, database: Database, authority: Authority, folder: HubFolder) -> None:
        self.settings = settings
        self.database = database
        self.authority = authority
        self.members = MemberStore(database)
        self.rosters = RosterStore(database, self.members, root_fingerprint=settings.root_fingerprint)
        self.queries = QueryStore(database)
        self.watching = WatchStore(database)
        self.witness = WitnessStore(database)
        self.standing: Standing = self.rosters.standing()
        self.health: list[Callable[[bool], Awaitable[None]]] = []
        """What says outside whether the hub is healthy."""
        self.sessions = Sessions()
        self.clock = ClockCheck()
        """This clock beside those of the centers that are attached."""
        self.watches = Watches()
        self.lines = Lines()
        self.runs = Runs(self, folder.root, at_once=settings.runs_at_once)
        self.writer = Writer(database)
        self.revoked = Revoked(database, self.writer, self.sessions)
        self.under_way = UnderWay(lambda: self.standing, self.revoked)
        self.judged: tuple[object, ...] = ()
        """The revision by which all that is open was judged last."""
        self.bodies = Bodies(self.queries, self.runs.files.task, self.under_way.query)
        self.callers = Callers(self.revoked, ProofStore(database), self.writer)
        self.places = Places()
        self.connections, self.link_connections = Connections(), Connections()
        self.refusals = Refusals()
        self._notes = Allowance(NOTES)
        self.steps = QuerySteps(
            open_queries=settings.open_queries,
            queries_per_day=settings.queries_per_day,
            runs_per_researcher=settings.runs_per_researcher,
        )
        self.routing = Routing(
            writer=self.writer,
            steps=self.steps,
            bodies=self.bodies,
            sessions=self.sessions,
            watches=self.watches,
            runs=self.runs,
        )

    async def is_healthy(self, healthy: bool) -> None:
        """Say it wherever it is asked."""
        for say in self.health:
            await say(healthy)

    def note(self, code: str, *, center: str = "", detail: str = "") -> None:
        """Log something the operator should know of, and keep it for `status`; of one kind only so many in a minute."""
        fits, left_out = self._notes.take(code, center)
        if not fits:
            return
        if left_out:
            detail = f"{detail} [{left_out} more like this before]"
        LOG.warning("%s %s: %s", code, center or "-", detail, extra={"party": f"{center} {code}"})
        event = Event(at_ms=now_ms(), code=code, center_id=center, detail=detail)
        self.writer.write(self.watching.note_events, event).add_done_callback(ignore_failure)


def ignore_failure(future: asyncio.Future[None]) -> None:
    """Take note of a write's failure without doing anything: it is in the log already, and nothing depends on it."""
    if not future.cancelled():
        future.exception()
