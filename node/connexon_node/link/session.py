"""One attachment to the hub: introduce, read, write, keep alive, until it ends with a reason."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

import grpc

from connexon import errors
from connexon.clock import now_ms
from connexon.errors import ConnexonError, Refused, Unavailable
from connexon.identity.roster import Protocol, RosterRefused
from connexon.link import frames
from connexon.link.parcel_files import Arrived, FileAssembler, TaskId
from connexon.query import wire_question
from connexon.safe_text import plain
from connexon.v1 import link_pb2, link_pb2_grpc, revocation_pb2, roster_pb2
from connexon_node.delivery.outbox import Outbox
from connexon_node.link.log_reports import LogReporter
from connexon_node.pipeline.delivery import Delivery

LOG = logging.getLogger("connexon.node")
CLOCK_TOLERANCE_MS = 30_000

Call = grpc.aio.StreamStreamCall[link_pb2.AttachRequest, link_pb2.AttachResponse]


class LinkEnded(Unavailable):
    """The session is over. `retry` is false where the hub said not to come back soon."""

    code = "link.ended"

    def __init__(self, public: str, *, code: str | None = None, retry: bool = True) -> None:
        super().__init__(public, code=code)
        self.retry = retry


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds of the link's life; tests shorten them."""

    welcome: float = 20.0
    heartbeat: float = frames.HEARTBEAT_SECONDS
    silence: float = frames.SILENCE_SECONDS
    first_wait: float = 0.2
    longest_wait: float = 30.0
    refused_wait: float = 60.0
    settled: float = 60.0


class Deliveries(Interface):
    """What the session does with what the hub says."""

    async def receive(self, delivery: Delivery) -> None:
        """Write a query down and begin on it."""
        ...

    async def cancel(self, query_id: str) -> None:
        """End the work on a query."""
        ...

    def hub_has(self, query_id: str) -> None:
        """The hub has the answer."""
        ...


class Tasks(Interface):
    """What the session does with the tasks of training runs."""

    @property
    def arriving(self) -> Path:
        """The folder where their parcels are put together."""
        ...

    async def receive(self, arrived: Arrived) -> None:
        """Write a task down and begin on it."""
        ...

    async def cancel(self, name: str) -> None:
        """End the work on a task, or on every task of a run."""
        ...

    def hub_has(self, name: str) -> None:
        """The hub has the reply."""
        ...


class Session:
    """An attached stream. Get one from `attach`."""

    def __init__(self, channel: grpc.aio.Channel, call: Call, welcome: link_pb2.Welcome, times: Times) -> None:
        self.channel = channel
        self.welcome = welcome
        self.protocol = Protocol(welcome.protocol.major, welcome.protocol.minor)
        """What both sides speak."""
        self.clock_offset_ms = now_ms() - welcome.now_ms
        self._call = call
        self._times = times
        self._assembler = frames.Assembler(maximum_body=frames.MAXIMUM_QUERY)
        self._heard = asyncio.get_running_loop().time()
        self._spoke = self._heard
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.on_time: Callable[[int], None] = lambda _: None
        """Hears the hub's clock now and then, ms since 1970-01-01 UTC."""
        self._training: Tasks | None = None
        self._files: FileAssembler | None = None

    @classmethod
    async def attach(
        cls, address: str, credentials: grpc.ChannelCredentials, hello: link_pb2.Hello, times: Times
    ) -> Session:
        """Dial, introduce the node and wait to be welcomed. Raises what the hub says (connexon.errors)."""
        options = (*frames.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        channel = grpc.aio.secure_channel(address, credentials, options=options)
        try:
            call: Call = link_pb2_grpc.LinkStub(channel).Attach()
            await call.write(link_pb2.AttachRequest(hello=hello))
            # Not wait_for: in Python 3.11 it forgets a cancellation that comes together with the frame.
            async with asyncio.timeout(times.welcome):
                first = await _read(call)
            return cls(channel, call, _welcomed(first), times)
        except TimeoutError as error:
            await channel.close()
            raise LinkEnded("The hub does not answer.", code="hub.silent") from error
        except grpc.RpcError as error:
            await channel.close()
            raise errors.from_rpc(error) from error
        except BaseException:
            await channel.close()
            raise

    def begin(
        self,
        outbox: Outbox,
        deliveries: Deliveries,
        on_roster: Callable[[roster_pb2.SignedRoster], Awaitable[None]],
        on_revocations: Callable[[revocation_pb2.Revocations], Awaitable[None]],
        reporter: LogReporter,
        training: Tasks | None = None,
    ) -> None:
        """Start to read, write, keep alive and tell of the audit log. Without `training` a task ends the session."""
        if training is not None:
            self._training = training
            self._files = FileAssembler(training.arriving, link_pb2.PARCEL_KIND_TASK)
        self._tasks = (
            asyncio.create_task(self._read_all(outbox, deliveries, on_roster, on_revocations, reporter)),
            asyncio.create_task(self._write_all(outbox)),
            asyncio.create_task(self._keep_alive(outbox)),
            asyncio.create_task(reporter.run(outbox)),
        )

    def begin_silent(self) -> None:
        """Keep alive and do nothing else: what the hub says is left alone, and it says it again another time."""
        outbox = Outbox(_nothing)
        self._tasks = (
            asyncio.create_task(self._read_silently(outbox)),
            asyncio.create_task(self._write_all(outbox)),
            asyncio.create_task(self._keep_alive(outbox)),
        )

    async def ended(self) -> None:
        """Wait for the end and raise why: LinkEnded or another ConnexonError."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._tasks[0] not in done:
            # What the hub said last explains more than a write that failed.
            more, _ = await asyncio.wait({self._tasks[0]}, timeout=0.5)
            done |= more
        for task in sorted(done, key=self._tasks.index):
            if task.cancelled():
                raise LinkEnded("The connection to the hub broke.", code="link.broken")
            try:
                task.result()
            except (grpc.RpcError, asyncio.InvalidStateError, OSError) as error:
                raise _broken(error) from error

    async def close(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._files is not None:
            self._files.close()
        self._call.cancel()
        await self.channel.close()

    async def _read_all(
        self,
        outbox: Outbox,
        deliveries: Deliveries,
        on_roster: Callable[[roster_pb2.SignedRoster], Awaitable[None]],
        on_revocations: Callable[[revocation_pb2.Revocations], Awaitable[None]],
        reporter: LogReporter,
    ) -> None:
        while True:
            frame = await _read(self._call)
            self._heard = asyncio.get_running_loop().time()
            if frame.heartbeat.now_ms:
                self.on_time(frame.heartbeat.now_ms)
            match frame.WhichOneof("frame"):
                case "chunk":
                    await self._add(frame.chunk, deliveries)
                case ("stored" | "cancel") as kind if not _is_id(getattr(frame, kind).query_id):
                    # Nothing here has such a name; and no text that is no id gets to the database.
                    continue
                case "stored" if frame.stored.kind == link_pb2.PARCEL_KIND_ANSWER:
                    deliveries.hub_has(frame.stored.query_id)
                case "stored" if frame.stored.kind == link_pb2.PARCEL_KIND_REPLY and self._training is not None:
                    self._training.hub_has(frame.stored.query_id)
                case "cancel":
                    await deliveries.cancel(frame.cancel.query_id)
                    if self._training is not None:
                        await self._training.cancel(frame.cancel.query_id)
                case "heartbeat" if not frame.heartbeat.answer:
                    outbox.say(_heartbeat(frame.heartbeat.number, answer=True))
                case "roster":
                    await _receive_roster(frame.roster, on_roster)
                case "revocations":
                    # Before the next frame is read: no question that follows finds it unwritten.
                    await on_revocations(frame.revocations)
                case "witnessed":
                    reporter.hear(frame.witnessed)
                case "goodbye":
                    raise _farewell(frame.goodbye)
                case _:
                    # A frame of a newer minor version: it may be left alone.
                    continue

    async def _read_silently(self, outbox: Outbox) -> None:
        while True:
            frame = await _read(self._call)
            self._heard = asyncio.get_running_loop().time()
            match frame.WhichOneof("frame"):
                case "heartbeat" if not frame.heartbeat.answer:
                    outbox.say(_heartbeat(frame.heartbeat.number, answer=True))
                case "goodbye":
                    raise _farewell(frame.goodbye)
                case _:
                    continue

    async def _add(self, chunk: link_pb2.Chunk, deliveries: Deliveries) -> None:
        if chunk.kind == link_pb2.PARCEL_KIND_TASK and self._files is not None and self._training is not None:
            # Its pieces are written to disk: not on the event loop.
            arrived = await asyncio.to_thread(self._files.add, chunk)
            if arrived is not None:
                await self._training.receive(arrived)
            return
        if chunk.kind != link_pb2.PARCEL_KIND_QUERY:
            raise frames.ParcelRefused("The hub sent a parcel that is not a query.")
        wire_question.query_id(chunk.query_id)
        parcel = self._assembler.add(chunk)
        if parcel is None:
            return
        await deliveries.receive(Delivery.arrived(parcel.query_id, parcel.body, parcel.traceparent))

    async def _write_all(self, outbox: Outbox) -> None:
        while True:
            frame = await outbox.next()
            await self._call.write(frame)
            self._spoke = asyncio.get_running_loop().time()

    async def _keep_alive(self, outbox: Outbox) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(self._times.heartbeat)
            now = asyncio.get_running_loop().time()
            if now - self._heard > self._times.silence:
                raise LinkEnded("The hub has fallen silent.", code="hub.silent")
            if now - self._spoke >= self._times.heartbeat * 0.9 or now - self._heard >= self._times.heartbeat * 0.9:
                outbox.say(_heartbeat(number, answer=False))


async def _nothing(_: str) -> bytes | None:
    return None


def _broken(error: Exception) -> ConnexonError:
    if isinstance(error, grpc.RpcError):
        return errors.from_rpc(error)
    if isinstance(error, OSError):
        return LinkEnded(f"This machine is in the way: {error.strerror or error}.", code="node.io")
    # gRPC says so of a write into a stream that has ended.
    return LinkEnded("The connection to the hub broke.", code="link.broken")


async def _read(call: Call) -> link_pb2.AttachResponse:
    try:
        frame = await call.read()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # gRPC reports a call that the other side cancelled as if this task were.
        raise LinkEnded("The hub broke the connection.", code="link.broken") from error
    if isinstance(frame, link_pb2.AttachResponse):
        return frame
    raise LinkEnded("The hub hung up.")


def _welcomed(frame: link_pb2.AttachResponse) -> link_pb2.Welcome:
    match frame.WhichOneof("frame"):
        case "welcome":
            theirs = Protocol(frame.welcome.protocol.major, frame.welcome.protocol.minor)
            frames.agree(theirs)
            return frame.welcome
        case "goodbye":
            raise _farewell(frame.goodbye)
        case _:
            raise LinkEnded("The hub did not welcome the node first.", code="link.bad_frame")


def _farewell(goodbye: link_pb2.Goodbye) -> LinkEnded:
    # Made plain here, for it goes to the log, to serve.json and to the steward's terminal.
    message, code = plain(goodbye.message) or "The hub said goodbye.", plain(goodbye.code) or None
    return LinkEnded(message, code=code, retry=goodbye.retry)


def _is_id(text: str) -> bool:
    """Whether this can be the id of a query or of a task."""
    try:
        TaskId.parse(text) if "." in text else wire_question.query_id(text)
    except Refused:
        return False
    return True


def _heartbeat(number: int, *, answer: bool) -> link_pb2.AttachRequest:
    return link_pb2.AttachRequest(heartbeat=link_pb2.Heartbeat(number=number, answer=answer))


async def _receive_roster(
    signed: roster_pb2.SignedRoster, on_roster: Callable[[roster_pb2.SignedRoster], Awaitable[None]]
) -> None:
    try:
        await on_roster(signed)
    except RosterRefused as refusal:
        LOG.error("roster ignored: %s (%s)", refusal.public, refusal.code)
    except Refused as refusal:
        LOG.error("roster ignored, it cannot be read: %s (%s)", refusal.public, refusal.code)
