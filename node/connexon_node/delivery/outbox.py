"""What the node has to say to the hub: short frames first, then answers in pieces. Used on the event loop only."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator

from connexon.identity import revocation
from connexon.identity.roster import Protocol
from connexon.link import frames
from connexon.link.parcel_files import TaskId
from connexon.v1 import link_pb2, revocation_pb2

LOG = logging.getLogger("connexon.node")
MAXIMUM_BODIES = 64
MAXIMUM_BYTES_HELD = 16 * 1024 * 1024
"""Answers held in memory, in number and bytes; the others are read again from the database when their turn comes."""
STORED_SECONDS = 0.03
"""An answer that comes sooner saves the hub a frame and a write."""


class Outbox:
    """The outbound queue of one session. Bounded: of answers that wait, all but a few are held by id only."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[bytes | None]],
        load_reply: Callable[[TaskId], Awaitable[Iterator[link_pb2.Chunk] | None]] | None = None,
        *,
        protocol: Protocol = frames.PROTOCOL,
    ) -> None:
        """`protocol` is the version that both sides speak: frames of later ones are not said."""
        self._protocol = protocol
        self._untold: set[str] = set()
        self._load = load
        self._load_reply = load_reply
        self._replies: dict[TaskId, None] = {}
        self._reply_pieces: Iterator[link_pb2.Chunk] = iter(())
        self._control: deque[link_pb2.AttachRequest] = deque()
        self._waiting: dict[str, bytes | None] = {}
        self._held = 0
        self._revoked: set[bytes] = set()
        self._pieces: Iterator[link_pb2.Chunk] = iter(())
        self._something = asyncio.Event()

    def say(self, frame: link_pb2.AttachRequest) -> None:
        """Queue a short frame; it overtakes the pieces of answers. One that the hub does not know is left out."""
        kind = frame.WhichOneof("frame") or ""
        if self._protocol < frames.SINCE.get(kind, frames.LOWEST):
            if kind not in self._untold:
                self._untold.add(kind)
                LOG.warning("the hub speaks version %s, which has no %s: it is not told", self._protocol, kind)
            return
        self._control.append(frame)
        self._something.set()

    def revoke(self, own: Iterable[revocation_pb2.SignedRevocation]) -> None:
        """Queue those of the center's own revocations that were not said in this session."""
        new = [one for one in own if one.payload not in self._revoked]
        self._revoked.update(one.payload for one in new)
        for frame in revocation.batches(new):
            self.say(link_pb2.AttachRequest(revocations=frame))

    def answer(self, query_id: str, body: bytes | None = None) -> None:
        """Queue an answer, once."""
        if query_id in self._waiting:
            # Another may have followed the one that is held: what is kept when its turn comes is sent.
            self._held -= len(self._waiting[query_id] or b"")
            self._waiting[query_id] = None
            return
        bodies = sum(1 for kept in self._waiting.values() if kept is not None)
        if body is not None and (bodies >= MAXIMUM_BODIES or self._held + len(body) > MAXIMUM_BYTES_HELD):
            body = None
        self._held += len(body or b"")
        self._waiting[query_id] = body
        self._something.set()

    def answers(self, query_ids: Iterable[str]) -> None:
        """Queue answers that lie in the database."""
        for query_id in query_ids:
            self.answer(query_id)

    def reply(self, task: TaskId) -> None:
        """Queue the reply to a task of a training run, once. It lies on disk; answers overtake its pieces."""
        self._replies[task] = None
        self._something.set()

    async def next(self) -> link_pb2.AttachRequest:
        """The next frame to write; waits until there is one."""
        while True:
            if self._control:
                return self._control.popleft()
            piece = next(self._pieces, None)
            if piece is not None:
                return link_pb2.AttachRequest(chunk=piece)
            if self._waiting:
                await self._begin_answer()
                continue
            piece = next(self._reply_pieces, None)
            if piece is not None:
                return link_pb2.AttachRequest(chunk=piece)
            if self._replies and self._load_reply is not None:
                task = next(iter(self._replies))
                del self._replies[task]
                self._reply_pieces = await self._load_reply(task) or iter(())
                continue
            self._something.clear()
            await self._something.wait()

    async def _begin_answer(self) -> None:
        query_id = next(iter(self._waiting))
        body = self._waiting.pop(query_id)
        if body is None:
            body = await self._load(query_id)
        else:
            self._held -= len(body)
        if body is not None:
            self._pieces = frames.pieces(query_id, link_pb2.PARCEL_KIND_ANSWER, body)


class Outlet:
    """Where the rest of the node speaks to the hub: into the present session, or to nobody.

    Nothing is lost by speaking to nobody: a new session begins with every answer that the hub has not got.
    """

    def __init__(self) -> None:
        self.outbox: Outbox | None = None
        self._stored: dict[str, asyncio.TimerHandle] = {}

    def stored(self, query_id: str) -> None:
        """Say that a query is written down, unless its answer, which says so too, comes within a moment."""
        if query_id not in self._stored:
            timer = asyncio.get_running_loop().call_later(STORED_SECONDS, self._say_stored, query_id)
            self._stored[query_id] = timer

    def _say_stored(self, query_id: str) -> None:
        del self._stored[query_id]
        kind = link_pb2.PARCEL_KIND_QUERY
        self._say(link_pb2.AttachRequest(stored=link_pb2.Stored(query_id=query_id, kind=kind)))

    def progress(self, query_id: str, stage: link_pb2.Stage.ValueType) -> None:
        """Say how far the work on a query is."""
        self._say(link_pb2.AttachRequest(progress=link_pb2.Progress(query_id=query_id, stage=stage)))

    def answer(self, query_id: str, body: bytes) -> None:
        """Send a serialised SignedAnswer."""
        timer = self._stored.pop(query_id, None)
        if timer is not None:
            timer.cancel()
        if self.outbox is not None:
            self.outbox.answer(query_id, body)

    def task_stored(self, task: TaskId) -> None:
        """Say that a task of a training run is written down."""
        kind = link_pb2.PARCEL_KIND_TASK
        self._say(link_pb2.AttachRequest(stored=link_pb2.Stored(query_id=str(task), kind=kind)))

    def reply(self, task: TaskId) -> None:
        """Send the reply to a task, or a notice."""
        if self.outbox is not None:
            self.outbox.reply(task)

    def revoke(self, own: Iterable[revocation_pb2.SignedRevocation]) -> None:
        """Say what this center has revoked; every session hears all of it once."""
        if self.outbox is not None:
            self.outbox.revoke(own)

    def _say(self, frame: link_pb2.AttachRequest) -> None:
        if self.outbox is not None:
            self.outbox.say(frame)
