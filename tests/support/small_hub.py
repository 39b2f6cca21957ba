"""The hub's end of the link and of joining on a real socket with mutual TLS, steered by a test."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from connexon.clock import now_ms
from connexon.identity import certificates
from connexon.identity.certificates import TlsKey
from connexon.identity.keys import SpiffeId, center_id
from connexon.link import frames
from connexon.link.frames import Parcel
from connexon.link.parcel_files import Arrived, FileAssembler
from connexon.v1 import link_pb2, link_pb2_grpc, membership_pb2, membership_pb2_grpc, query_pb2
from deploy.local.processes import free_port
from tests.support.federation import Federation

PATIENCE_SECONDS = 40.0
T = TypeVar("T")


async def soon(waiting: Awaitable[T]) -> T:
    """Wait with a deadline."""
    return await asyncio.wait_for(waiting, PATIENCE_SECONDS)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds, with a deadline."""

    async def poll() -> None:
        while not condition():  # noqa: ASYNC110  # what is awaited happens in another process or thread
            await asyncio.sleep(0.005)

    await soon(poll())


@dataclass
class HubSession:
    """One attached node as the hub sees it."""

    hello: link_pb2.Hello
    certificate: x509.Certificate
    outgoing: asyncio.Queue[link_pb2.AttachResponse | None] = field(default_factory=asyncio.Queue)
    frames: list[link_pb2.AttachRequest] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    replies: list[Arrived] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, frame: link_pb2.AttachResponse) -> None:
        """Queue a frame for the node."""
        self.outgoing.put_nowait(frame)

    def hang_up(self) -> None:
        """End the stream without a word."""
        self.outgoing.put_nowait(None)

    def deliver(self, query: query_pb2.SignedQuery, *, query_id: str = "") -> str:
        """Send a query as the hub would; returns its id."""
        body = query.SerializeToString()
        query_id = query_id or query_pb2.Query.FromString(query.payload).query_id
        for piece in frames.pieces(query_id, link_pb2.PARCEL_KIND_QUERY, body):
            self.send(link_pb2.AttachResponse(chunk=piece))
        return query_id

    def confirm(self, query_id: str) -> None:
        """Say that an answer is stored."""
        stored = link_pb2.Stored(query_id=query_id, kind=link_pb2.PARCEL_KIND_ANSWER)
        self.send(link_pb2.AttachResponse(stored=stored))

    def stored(self, query_id: str) -> int:
        """How often the node said that it has the query."""
        return sum(1 for frame in self.frames if frame.stored.query_id == query_id)

    def answers(self, query_id: str) -> list[bytes]:
        """The answers that came, serialised."""
        return [parcel.body for parcel in self.parcels if parcel.query_id == query_id]

    async def answer(self, query_id: str) -> bytes:
        """The first answer, once it has come."""
        await until(lambda: self.answers(query_id))
        return self.answers(query_id)[0]


class SmallHub(link_pb2_grpc.LinkServicer, membership_pb2_grpc.MembershipServicer):
    """Welcomes every node with a certificate of its authority. `greet` may answer a hello otherwise."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.sessions: list[HubSession] = []
        self.roster = federation.signed_roster()
        self.greet: Callable[[link_pb2.Hello], link_pb2.AttachResponse] = lambda _: welcome()
        self.certificate_life = datetime.timedelta(days=1)
        self.joined: list[membership_pb2.JoinRequest] = []
        self.fail_joins = 0
        self.port = free_port()
        self.public_port = free_port()
        self._server: grpc.aio.Server | None = None
        self._key = TlsKey.generate()
        self._spool = tempfile.TemporaryDirectory()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SmallHub]:
        """Serve on loopback for the length of the block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    @property
    def address(self) -> str:
        """Where nodes dial, for the link."""
        return f"127.0.0.1:{self.port}"

    @property
    def public_address(self) -> str:
        """Where centers join; no client certificate is asked for."""
        return f"127.0.0.1:{self.public_port}"

    async def start(self) -> None:
        """Listen, always on the same ports."""
        self._server = grpc.aio.server(options=[*frames.CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)])
        link_pb2_grpc.add_LinkServicer_to_server(self, self._server)
        membership_pb2_grpc.add_MembershipServicer_to_server(self, self._server)
        self._server.add_secure_port(self.address, self._credentials(mutual=True))
        self._server.add_secure_port(self.public_address, self._credentials(mutual=False))
        await self._server.start()

    def _credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        life = datetime.timedelta(days=1)
        certificate = self.federation.authority.issue_server(self._key, ["127.0.0.1"], life=life)
        return grpc.ssl_server_credentials(
            [(self._key.pem(), certificate.public_bytes(Encoding.PEM))],
            root_certificates=certificates.to_pem(self.federation.authority.der) if mutual else None,
            require_client_auth=mutual,
        )

    async def stop(self) -> None:
        """Break every connection and stop listening."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def session(self, number: int = 1) -> HubSession:
        """The `number`-th session, counted from 1, once it is there."""
        await until(lambda: len(self.sessions) >= number)
        return self.sessions[number - 1]

    async def Attach(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Hold a session."""
        first = await request_iterator.__anext__()
        greeting = self.greet(first.hello)
        yield greeting
        if greeting.WhichOneof("frame") != "welcome":
            return
        pem = context.auth_context()["x509_pem_cert"][0]
        session = HubSession(first.hello, certificates.parse(pem))
        self.sessions.append(session)
        reading = asyncio.create_task(self._read(session, request_iterator))
        try:
            while (frame := await session.outgoing.get()) is not None:
                yield frame
        finally:
            reading.cancel()
            session.ended.set()

    async def _read(self, session: HubSession, requests: AsyncIterator[link_pb2.AttachRequest]) -> None:
        assembler = frames.Assembler()
        files = FileAssembler(Path(self._spool.name), link_pb2.PARCEL_KIND_REPLY)
        async for frame in requests:
            session.frames.append(frame)
            if frame.chunk.kind == link_pb2.PARCEL_KIND_REPLY:
                reply = files.add(frame.chunk)
                if reply is not None:
                    session.replies.append(replace(reply, path=self._kept(reply.path)))
            elif frame.HasField("chunk"):
                parcel = assembler.add(frame.chunk)
                if parcel is not None:
                    session.parcels.append(parcel)
        session.ended.set()

    def _kept(self, path: Path) -> Path:
        return path.rename(path.with_name(uuid.uuid4().hex))

    async def Renew(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Issue another certificate to the center that asks."""
        held = certificates.parse(context.auth_context()["x509_pem_cert"][0])
        issued = self.issue(request.certificate_request, certificates.spiffe_id(held))
        return link_pb2.RenewResponse(certificate=issued)

    async def GetWitness(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """It has witnessed nothing."""
        return link_pb2.GetWitnessResponse()

    async def Join(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Admit kyoto, whoever it is."""
        self.joined.append(request)
        if self.fail_joins:
            self.fail_joins -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        identity = SpiffeId(self.federation.name, center_id("kyoto"))
        return membership_pb2.JoinResponse(
            certificate=self.issue(request.certificate_request, identity), roster=self.roster
        )

    def issue(self, request: bytes, identity: SpiffeId) -> bytes:
        """A link certificate in DER."""
        issued = self.federation.authority.issue_link(request, identity, life=self.certificate_life)
        return issued.public_bytes(Encoding.DER)


def welcome(*, now: int | None = None) -> link_pb2.AttachResponse:
    """The usual greeting."""
    frame = link_pb2.AttachResponse()
    frame.welcome.protocol.major, frame.welcome.protocol.minor = frames.PROTOCOL.major, frames.PROTOCOL.minor
    frame.welcome.software_version = "0.1.0"
    frame.welcome.now_ms = now_ms() if now is None else now
    return frame


def goodbye(code: str, message: str, *, retry: bool) -> link_pb2.AttachResponse:
    """The hub's last word."""
    return link_pb2.AttachResponse(goodbye=link_pb2.Goodbye(code=code, message=message, retry=retry))
