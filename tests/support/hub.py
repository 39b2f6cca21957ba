"""A real hub process, and the least that a node and a researcher need to speak with it over real TLS."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from connexon.clock import DAY, now_ms
from connexon.identity import certificates, credential, invitation
from connexon.identity.certificates import TlsKey
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import Member, MemberStatus, OrganisationKind, peek
from connexon.link import frames
from connexon.link.frames import Assembler
from connexon.query import signed
from connexon.v1 import (
    answer_pb2,
    link_pb2,
    link_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    query_pb2,
    research_pb2,
    research_pb2_grpc,
    roster_pb2,
)
from deploy.local.processes import free_port
from tests.support.federation import Asker, Center
from tests.support.in_process import run_here

SECONDS = 40.0
"""How long a test waits for what must come."""
COMMAND = str(Path(sys.executable).with_name("connexon-hub"))


def until(condition: Callable[[], bool], what: str, *, seconds: float = SECONDS) -> None:
    """Wait for a condition; fail with `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@dataclass
class HubProcess:
    """A hub in its folder, served by a process of its own. Use it as a context manager."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, object] = field(default_factory=dict)

    def __enter__(self) -> HubProcess:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        policies = self.folder / "policies"
        policies.mkdir(parents=True)
        (policies / "all.cedar").write_text('@id("all") permit(principal, action, resource);\n')
        address, link_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._set_up(
            *("init", "--federation", "alliance", "--root-dir", str(self.root), "--policies", str(policies)),
            *("--address", address, "--link-address", link_address),
        )
        file = self.hub / "hub.toml"
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in self.settings.items())
        file.write_text(lines + file.read_text())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def hub(self) -> Path:
        """The hub's folder."""
        return self.folder / "hub"

    @property
    def root(self) -> Path:
        """The root key's folder."""
        return self.folder / "root"

    @property
    def log(self) -> str:
        """What the process has logged."""
        return (self.folder / "hub.log").read_text()

    def run(self, *arguments: str, accept: int = 0) -> str:
        """Run a command in the hub's folder; its output."""
        done = subprocess.run(
            [COMMAND, *arguments, "--dir", str(self.hub)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == accept, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout if accept == 0 else done.stderr

    def _set_up(self, *arguments: str) -> str:
        return run_here(["connexon-hub", *arguments, "--dir", str(self.hub)])

    def json(self, *arguments: str) -> Any:
        """The same with --json, parsed."""
        return json.loads(self.run(*arguments, "--json"))

    def events(self) -> set[str]:
        """Codes of what the hub noted."""
        return {event["code"] for event in self.json("status")["events"]}

    def publish(self) -> None:
        """Bring a roster with the members as they stand into force."""
        self._set_up(
            *("roster", "update", "--root-dir", str(self.root), "--yes"),
            *("--policies", str(self.folder / "policies")),
        )

    def start(self) -> None:
        """Serve, and wait until it does."""
        ready = self.hub / "serve.json"
        ready.unlink(missing_ok=True)
        with (self.folder / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                [COMMAND, "serve", "--dir", str(self.hub)], stdout=subprocess.DEVNULL, stderr=log
            )

        def serving() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            return ready.exists()

        until(serving, "the hub to serve")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        status = self.process.wait(timeout=SECONDS)
        self.process = None
        return status

    def join(self, center: str, *, activate: bool = True) -> JoinedCenter:
        """Invite a center and let it join."""
        code = self._set_up(
            "invite", center, "--legal-name", f"Center {center}", *("--country", "FR", "--kind", "public")
        )
        joined = JoinedCenter.join(code)
        if activate:
            self.publish()
        return joined


@dataclass
class JoinedCenter:
    """A center's keys and certificate, and where its hub is."""

    center: Center
    invitation: membership_pb2.Invitation
    link_key: TlsKey
    certificate: bytes = b""

    @classmethod
    def join(cls, code: str) -> JoinedCenter:
        """Make keys and take the invitation up."""
        content = invitation.from_code(code)
        accrediting, answering = SigningKey.generate(), SigningKey.generate()
        member = Member(
            center=CenterId(content.center_id),
            legal_name="",
            country="FR",
            organisation_kind=OrganisationKind.ACADEMIC,
            status=MemberStatus.ACTIVE,
            accrediting_keys=(accrediting.public,),
            answering_keys=(answering.public,),
        )
        joined = cls(Center(member, accrediting, answering), content, TlsKey.generate())
        joined.certificate = joined.ask_to_join().certificate
        return joined

    @property
    def authority(self) -> bytes:
        """The hub's certificate authority, PEM."""
        return certificates.to_pem(self.invitation.hub_certificate_authority)

    def ask_to_join(self, **changed: bytes) -> membership_pb2.JoinResponse:
        """One call of Join, with the center's own keys or others."""
        request = membership_pb2.JoinRequest(
            token=changed.get("token", self.invitation.token),
            certificate_request=self.link_key.request(),
            accrediting_key=changed.get("accrediting_key", self.center.accrediting.public),
            answering_key=changed.get("answering_key", self.center.answering.public),
        )
        credentials = grpc.ssl_channel_credentials(self.authority)
        with grpc.secure_channel(self.invitation.hub_address, credentials, frames.CHANNEL_OPTIONS) as channel:
            return membership_pb2_grpc.MembershipStub(channel).Join(request, timeout=SECONDS)

    def roster_serial(self) -> int:
        """Of the roster that the hub has in force; it sees a new one within two seconds."""
        credentials = grpc.ssl_channel_credentials(self.authority)
        with grpc.secure_channel(self.invitation.hub_address, credentials, frames.CHANNEL_OPTIONS) as channel:
            stub = membership_pb2_grpc.MembershipStub(channel)
            response = stub.GetRoster(membership_pb2.GetRosterRequest(), timeout=SECONDS)
        return peek(response.roster).serial

    def researcher(self, subject: str = "ada") -> Asker:
        """A researcher whom this center accredits."""
        key = SigningKey.generate()
        token = credential.issue(
            self.center.accrediting,
            center=self.center.id,
            federation=self.invitation.federation,
            subject=subject,
            name=subject.title(),
            role="researcher",
            researcher_key=key.public,
            life_ms=DAY,
        )
        return Asker(self.invitation.federation, key, token)

    def link_channel(self) -> grpc.aio.Channel:
        """A mutual TLS channel to the link port."""
        own = certificates.to_pem(self.certificate)
        credentials = grpc.ssl_channel_credentials(self.authority, self.link_key.pem(), own)
        # A pool of its own: channels of one process would share a connection, and centers do not.
        options = (*frames.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        return grpc.aio.secure_channel(self.invitation.link_address, credentials, options)

    async def attach(self, **hello: Any) -> Line:
        """Dial the hub and introduce the node; what the hub says comes from the line."""
        channel = self.link_channel()
        call = link_pb2_grpc.LinkStub(channel).Attach()
        line = Line(self.center, channel, call)
        protocol = hello.pop("protocol", frames.PROTOCOL)
        await line.say(
            hello=link_pb2.Hello(
                now_ms=now_ms(),
                protocol=roster_pb2.ProtocolVersion(major=protocol.major, minor=protocol.minor),
                software_version=hello.pop("software_version", "test"),
                process_id=hello.pop("process_id", uuid.uuid4().hex),
                **hello,
            )
        )
        return line


class Line:
    """One end of a link, held by a test."""

    def __init__(self, center: Center, channel: grpc.aio.Channel, call: Any) -> None:
        self.center = center
        self.channel = channel
        self.call = call
        self.assembler = Assembler()

    async def say(self, **frame: Any) -> None:
        """Send a frame."""
        await self.call.write(link_pb2.AttachRequest(**frame))

    async def hear(self, *kinds: str) -> Any:
        """The next frame of one of these kinds; heartbeats are answered, other frames passed over."""
        async with asyncio.timeout(SECONDS):
            while True:
                frame = await self.call.read()
                assert frame is not grpc.aio.EOF, f"the hub hung up before {kinds}"
                kind = frame.WhichOneof("frame")
                if kind == "heartbeat" and not frame.heartbeat.answer:
                    await self.say(heartbeat=link_pb2.Heartbeat(number=frame.heartbeat.number, answer=True))
                if kind in kinds:
                    return getattr(frame, kind)

    async def query(self) -> query_pb2.SignedQuery:
        """The next query, whole."""
        while True:
            parcel = self.assembler.add(await self.hear("chunk"))
            if parcel is not None:
                return query_pb2.SignedQuery.FromString(parcel.body)

    async def send(self, answer: answer_pb2.SignedAnswer, query_id: str) -> None:
        """Send an answer without waiting for what becomes of it."""
        for piece in frames.pieces(query_id, link_pb2.PARCEL_KIND_ANSWER, answer.SerializeToString()):
            await self.say(chunk=piece)

    async def answer(self, query: query_pb2.SignedQuery, **how: Any) -> answer_pb2.SignedAnswer:
        """Answer a query and wait until the hub has the answer in its database."""
        query_id = id_of(query)
        answer = self.center.answer(query, **how)
        await self.send(answer, query_id)
        while (await self.hear("stored")).query_id != query_id:
            pass
        return answer

    async def close(self) -> None:
        """Hang up."""
        self.call.cancel()
        await self.channel.close()


@dataclass
class Desk:
    """Where a researcher calls the hub from."""

    asker: Asker
    joined: JoinedCenter

    def __post_init__(self) -> None:
        credentials = grpc.ssl_channel_credentials(self.joined.authority)
        options = (*frames.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self.channel = grpc.aio.secure_channel(self.joined.invitation.hub_address, credentials, options)
        self.stub = research_pb2_grpc.ResearchStub(self.channel)

    def proof(self, method: str) -> tuple[tuple[str, str], ...]:
        """Metadata for one call."""
        return signed.prove_call(
            self.asker.key,
            self.asker.token,
            federation=self.asker.federation,
            method=f"/connexon.v1.Research/{method}",
        )

    def ask(self, query: query_pb2.SignedQuery) -> Updates:
        """Ask; what becomes of it."""
        return Updates(self.stub.Ask(research_pb2.AskRequest(query=query), metadata=self.proof("Ask")))

    def follow(self, query_id: str, *, wait: bool = True) -> Updates:
        """Follow a query asked earlier."""
        request = research_pb2.FollowRequest(query_id=query_id, wait=wait)
        return Updates(self.stub.Follow(request, metadata=self.proof("Follow")))

    async def cancel(self, query_id: str) -> int:
        """Cancel; how many centers had not answered."""
        request = research_pb2.CancelRequest(query_id=query_id)
        response = await self.stub.Cancel(request, metadata=self.proof("Cancel"), timeout=SECONDS)
        return int(response.cancelled)

    async def close(self) -> None:
        """Hang up."""
        await self.channel.close()


class Updates:
    """A stream of updates, held by a test."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.latest: dict[str, research_pb2.Delivery] = {}

    async def next(self) -> research_pb2.Update:
        """The next update. Raises what the hub refused with."""
        async with asyncio.timeout(SECONDS):
            update = await self.call.read()
        assert isinstance(update, research_pb2.Update | research_pb2.AskResponse | research_pb2.FollowResponse), (
            "the stream has ended"
        )
        content = update.update
        self._note(content)
        return content

    def _note(self, content: research_pb2.Update) -> None:
        for delivery in content.accepted.deliveries or content.news.deliveries:
            self.latest[delivery.center_id] = delivery

    async def accepted(self) -> research_pb2.Accepted:
        """The first update."""
        return (await self.next()).accepted

    async def until(self, center: str, state: research_pb2.DeliveryState.ValueType) -> research_pb2.Delivery:
        """The update that brings a center to a state."""
        while center not in self.latest or self.latest[center].state != state:
            await self.next()
        return self.latest[center]

    async def rest(self) -> dict[str, research_pb2.Delivery]:
        """Everything to the end of the stream; the last of each center."""
        async with asyncio.timeout(SECONDS):
            while (update := await self.call.read()) is not grpc.aio.EOF:
                self._note(update.update)
        return self.latest


def id_of(query: query_pb2.SignedQuery) -> str:
    """The id of a signed query."""
    return query_pb2.Query.FromString(query.payload).query_id


def code_of(error: Any) -> str:
    """The stable code of a refusal."""
    return next((str(value) for key, value in error.trailing_metadata() or () if key == "connexon-code"), "")
