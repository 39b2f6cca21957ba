"""The live links, one per center: what waits to be said on each, and in which order."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from connexon.clock import now_ms
from connexon.errors import ConnexonError, Unavailable
from connexon.identity.keys import CenterId
from connexon.identity.roster import Protocol
from connexon.link.frames import HEARTBEAT_SECONDS, SILENCE_SECONDS
from connexon.v1 import link_pb2
from connexon_hub.health.events import SessionRecord
from connexon_hub.membership.peers import Peer
from connexon_hub.routing.payload_cache import Bodies, HeldBack

LOG = logging.getLogger("connexon.hub")
GOODBYE_SECONDS = 5.0
"""How long a center gets to take the last frame before the hub hangs up."""
MAXIMUM_CONTROL = 256
"""Control frames that may wait; beyond, the hub reads no more from that center until they are gone."""

_RETRY = frozenset(
    {
        "certificate.expired",
        "hub.database_unavailable",
        "hub.stopping",
        "link.bad_parcel",
        "link.identity_in_use",
        "link.replaced",
        "membership.not_active",
        "membership.suspended",
        "roster.expired",
    }
)


def _cancel(query_id: str) -> link_pb2.AttachResponse:
    return link_pb2.AttachResponse(cancel=link_pb2.Cancel(query_id=query_id))


def goodbye(error: ConnexonError) -> link_pb2.AttachResponse:
    """The last frame of a session, with whether it is worth trying again later."""
    return link_pb2.AttachResponse(
        goodbye=link_pb2.Goodbye(code=error.code, message=error.public, retry=error.code in _RETRY)
    )


def cannot_write() -> Unavailable:
    """Why a session ends when the hub's database or disk takes nothing: the center sends again when it is back."""
    return Unavailable("The hub cannot write now; try again.", code="hub.database_unavailable")


@dataclass(frozen=True)
class Introduction:
    """What a node said of itself, and the version agreed on; `newer` where it would like to speak a later one."""

    process_id: str
    protocol: Protocol
    software_version: str
    dictionary_version: str
    roster_serial: int
    newer: bool = False
    restoring: str = ""
    """Why the node answers nothing for now; empty where it does."""
    clock_offset_ms: int | None = None
    """How far the hub's clock was ahead of the node's; None where the node did not say what its shows."""


class Session:
    """One center's link. Control frames overtake parcels; of waiting parcels only the ids are held."""

    def __init__(
        self,
        peer: Peer,
        introduction: Introduction,
        send: Callable[[link_pb2.AttachResponse], Awaitable[None]],
        bodies: Bodies,
    ) -> None:
        self.peer = peer
        self.introduction = introduction
        self.connected_ms = now_ms()
        self.ended_ms: int | None = None
        self.last_answer_ms: int | None = None
        self.noted: SessionRecord | None = None
        """What of it is written down."""
        self.latency_ms: float | None = None
        self.gone = asyncio.Event()
        """Set when the hub hangs up, whatever the center does."""
        self.storing: set[asyncio.Future[Any]] = set()
        """Answers of this center that are being written."""
        self._send = send
        self._bodies = bodies
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, link_pb2.Stage.ValueType] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._again: set[str] = set()
        self._held: set[str] = set()
        """Parcels that may go no further now; see connexon_hub.routing.validity."""
        self._over: set[str] | None = set()
        self._sending = ""
        self._pieces: Iterator[link_pb2.AttachResponse] = iter(())
        self._after: deque[link_pb2.AttachResponse] = deque()
        self._control: deque[link_pb2.AttachResponse] = deque()
        self._goodbye: link_pb2.AttachResponse | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._heard = self._said = self._loop.time()
        # Beside the loop's time, which no clock that is set moves: this is shown, and the same until more is heard.
        self._heard_ms = now_ms()
        self._beats: dict[int, tuple[float, asyncio.Future[None]]] = {}
        self._beat_number = 0

    @property
    def center(self) -> CenterId:
        """Whose link it is, by certificate."""
        return self.peer.identity.center

    @property
    def ending(self) -> bool:
        """Whether the hub has said goodbye or hung up."""
        return self._goodbye is not None or self.gone.is_set()

    def tell(self, frame: link_pb2.AttachResponse) -> None:
        """Say something before any waiting parcel."""
        if not self.ending:
            self._control.append(frame)
            self._wake.set()

    def deliver(self, query_id: str, *, again: bool = False) -> None:
        """Send a query when its turn comes, once in this session. `again`: the center may have it from an earlier one.

        One that was taken back since the backlog was read is not sent, and a node that is being restored gets none.
        """
        if self.introduction.restoring:
            return
        if query_id not in self._open and query_id not in (self._over or ()) and not self.ending:
            if again:
                self._again.add(query_id)
            self._open[query_id] = link_pb2.STAGE_UNSPECIFIED
            self._waiting[query_id] = None
            self._wake.set()

    def stage(self, query_id: str) -> link_pb2.Stage.ValueType:
        """How far the center's work on a query is, as far as it has said."""
        return self._open.get(query_id, link_pb2.STAGE_UNSPECIFIED)

    def progressed(self, query_id: str, stage: link_pb2.Stage.ValueType) -> bool:
        """Note a step of the center's work; False for a query that is not with it."""
        if query_id not in self._open:
            return False
        self._open[query_id] = stage
        return True

    def settle(self, query_id: str) -> None:
        """The center has answered: the query is no longer with it."""
        self._open.pop(query_id, None)
        self._waiting.pop(query_id, None)
        self._held.discard(query_id)
        self._again.discard(query_id)

    def cancel(self, query_id: str) -> None:
        """Take a query back. A center that never got it hears nothing."""
        if self._over is not None:
            self._over.add(query_id)
        known = self._open.pop(query_id, None) is not None
        if query_id in self._waiting or query_id in self._held:
            self._waiting.pop(query_id, None)
            self._held.discard(query_id)
            known = query_id in self._again
        if known and self._sending == query_id:
            # A cancellation must not overtake the query it cancels.
            self._after.append(_cancel(query_id))
        elif known:
            self.take_back(query_id)

    def take_back(self, query_id: str) -> None:
        """Tell the center that a query is over which it has from an earlier session, or may have."""
        self.tell(_cancel(query_id))

    def deliver_held(self) -> None:
        """Judgements may have changed: what was held back is judged again when its turn comes."""
        for query_id in tuple(self._held):
            self._held.discard(query_id)
            self.deliver(query_id)

    def caught_up(self) -> None:
        """The backlog is handed out: what ends from now on needs no remembering."""
        self._over = None

    def end(self, error: ConnexonError) -> None:
        """Say goodbye with the error's code, then hang up; at once where the center does not listen."""
        if not self.ending:
            self._goodbye = goodbye(error)
            self._wake.set()
            self._loop.call_later(GOODBYE_SECONDS, self.cut)

    def cut(self) -> None:
        """Hang up without a word."""
        self.gone.set()
        self._wake.set()

    def heard(self) -> None:
        """The center has said something."""
        self._heard, self._heard_ms = self._loop.time(), now_ms()

    def keep_alive(self) -> None:
        """Send a heartbeat where nothing else was said; hang up on a center that is silent for too long."""
        now = self._loop.time()
        if now - self._heard >= SILENCE_SECONDS:
            self.cut()
        elif now - max(self._said, self._last_beat) >= HEARTBEAT_SECONDS:
            self.beat()

    @property
    def _last_beat(self) -> float:
        return next(reversed(self._beats.values()))[0] if self._beats else 0.0

    def beat(self) -> asyncio.Future[None]:
        """Send a heartbeat; the future is done when the center has answered it."""
        self._beat_number += 1
        answered: asyncio.Future[None] = self._loop.create_future()
        self._beats[self._beat_number] = (self._loop.time(), answered)
        while len(self._beats) > 8:
            self._beats.pop(next(iter(self._beats)))[1].cancel()
        self.tell(link_pb2.AttachResponse(heartbeat=link_pb2.Heartbeat(number=self._beat_number, now_ms=now_ms())))
        return answered

    def beaten(self, number: int) -> None:
        """The center has answered a heartbeat."""
        sent, answered = self._beats.pop(number, (0.0, None))
        if answered is not None:
            self.latency_ms = round((self._loop.time() - sent) * 1000, 2)
            if not answered.done():
                answered.set_result(None)

    async def lives(self, seconds: float) -> bool:
        """Whether the center answers a heartbeat within `seconds`."""
        done, _ = await asyncio.wait({self.beat()}, timeout=seconds)
        return bool(done) and not self.ending

    async def write_all(self) -> None:
        """Write what waits, until goodbye is said. Waits with every frame until the center has room for it."""
        while not self.gone.is_set():
            frame = await self._next()
            if frame is not None:
                await self._send(frame)
                self._said = self._loop.time()
                if frame is self._goodbye:
                    return
            else:
                await self._wake.wait()
                self._wake.clear()

    async def _next(self) -> link_pb2.AttachResponse | None:
        if self._control:
            frame = self._control.popleft()
            if len(self._control) < MAXIMUM_CONTROL:
                self._room.set()
            return frame
        if self._goodbye is not None:
            return self._goodbye
        while (piece := self._next_piece()) is None:
            self._sending = ""
            if not self._waiting:
                # A goodbye or a control frame that came meanwhile is not forgotten: the wake-up is still set.
                return None
            await self._load()
        return piece

    def _next_piece(self) -> link_pb2.AttachResponse | None:
        try:
            piece = next(self._pieces, None)
        except OSError as error:
            # A task's file that is gone: its run has ended.
            LOG.warning("%s cannot be sent to %s: %s", self._sending, self.center, error.strerror)
            self._pieces, piece = iter(()), None
        if piece is None and self._after:
            return self._after.popleft()
        return piece

    async def _load(self) -> None:
        query_id, _ = self._waiting.popitem(last=False)
        self._sending = query_id
        try:
            pieces = await self._bodies.frames(query_id)
        except HeldBack:
            if self._open.pop(query_id, None) is not None:
                self._held.add(query_id)
            pieces = None
        if query_id in self._held:
            self._pieces = iter(())
        elif query_id in self._open:
            self._pieces = pieces or iter(())
        else:
            # Taken back while it was read: unless the center has it already, it need not hear that.
            if query_id in self._again:
                self._control.extend(self._after)
                self._wake.set()
            self._after.clear()

    async def room(self) -> None:
        """Wait while too much is unsaid, so that a center that does not listen cannot fill the hub's memory."""
        while len(self._control) >= MAXIMUM_CONTROL and not self.gone.is_set():
            self._room.clear()
            await self._room.wait()

    def record(self) -> SessionRecord:
        """The session as `status` shows it."""
        return SessionRecord(
            center_id=self.center,
            process_id=self.introduction.process_id,
            connected_ms=self.connected_ms,
            ended_ms=self.ended_ms,
            seen_ms=self._heard_ms,
            last_answer_ms=self.last_answer_ms,
            latency_ms=self.latency_ms,
            software_version=self.introduction.software_version,
            protocol=str(self.introduction.protocol),
            dictionary_version=self.introduction.dictionary_version,
            roster_serial=self.introduction.roster_serial,
            certificate_expires_ms=self.peer.expires_ms,
            clock_offset_ms=self.introduction.clock_offset_ms,
        )


class Sessions:
    """The link of each center that is attached now."""

    def __init__(self) -> None:
        self._by_center: dict[CenterId, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_center.values()))

    def __len__(self) -> int:
        return len(self._by_center)

    def get(self, center: CenterId) -> Session | None:
        """The center's link, or None."""
        return self._by_center.get(center)

    def put(self, session: Session) -> None:
        """The center's link is this one from now on; a former one is cut."""
        former = self._by_center.get(session.center)
        if former is not None:
            former.cut()
        self._by_center[session.center] = session

    def remove(self, session: Session) -> bool:
        """Forget a link that has ended; False where another has taken its place."""
        if self._by_center.get(session.center) is not session:
            return False
        del self._by_center[session.center]
        return True
