"""Attacks on the doors of a real hub with shipped settings, by strangers and by members, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from connexon.clock import now_ms
from connexon.identity import revocation
from connexon.identity.revocation import Revocation
from connexon.link import frames
from connexon.v1 import research_pb2, revocation_pb2
from connexon_hub.limits.connections import UNPROVED_PER_SOURCE
from tests.support.hub import SECONDS, Desk, HubProcess, JoinedCenter, code_of, id_of, until

ANSWERED, CANCELLED = research_pb2.DELIVERY_STATE_ANSWERED, research_pb2.DELIVERY_STATE_CANCELLED
ATTACK = Path(__file__).with_name("hostile_calls.py")
CONNECTIONS = 50
GROWTH_MIB = 160
"""That 50 hostile connections may cost the hub: without a bound on what is unproved they cost more than 2,600."""


class Besieged:
    """A hub with two centers, and programs that attack it."""

    def __init__(self, hub: HubProcess, folder: Path) -> None:
        self.hub = hub
        self.lyon, self.kyoto = hub.join("lyon", activate=False), hub.join("kyoto")
        until(lambda: self.lyon.roster_serial() == 2, "the roster to be in force")
        self._authority = folder / "authority.pem"
        self._authority.write_bytes(self.lyon.authority)

    @property
    def memory_mib(self) -> int:
        """Resident memory of the hub."""
        assert self.hub.process is not None
        status = Path(f"/proc/{self.hub.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    @contextlib.contextmanager
    def attacked(self, name: str, connections: int = CONNECTIONS) -> Iterator[None]:
        """While a program attacks, by name as in hostile_calls.py."""
        host, _, port = self.lyon.invitation.hub_address.rpartition(":")
        command = [sys.executable, str(ATTACK), name, host, port, str(self._authority), str(connections)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as attack:
            try:
                assert attack.stdout is not None
                assert attack.stdout.readline() == b"begun\n"
                yield
            finally:
                attack.kill()


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    folder = tmp_path_factory.mktemp("doors")
    with HubProcess(folder / "hub") as hub:
        yield Besieged(hub, folder)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Besieged]:
    with HubProcess(tmp_path / "hub") as hub:
        yield Besieged(hub, tmp_path)


async def ask(desk: Desk, center: JoinedCenter, times: int) -> None:
    """Ask and have answered, so many times; raises where the hub refuses."""
    line = await center.attach()
    for _ in range(times):
        updates = desk.ask(desk.asker.ask("lyon"))
        query = await line.query()
        await line.answer(query)
        await updates.until("lyon", ANSWERED)
    await line.close()


async def refused(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call  # type: ignore[misc]  # a call of gRPC's
    return code_of(refusal.value)


@pytest.mark.parametrize("attack", ["endless-ask", "endless-join", "headers", "roster", "nowhere", "silent", "idle"])
def test_strangers_take_neither_memory_nor_the_places_of_researchers(besieged: Besieged, attack: str) -> None:
    before = besieged.memory_mib

    async def story() -> None:
        known = Desk(besieged.lyon.researcher("ada"), besieged.lyon)
        await ask(known, besieged.lyon, 1)
        with besieged.attacked(attack, 200 if attack in ("silent", "idle") else CONNECTIONS):
            await ask(known, besieged.lyon, 5)
            # Who comes now is let in, too.
            fresh = Desk(besieged.kyoto.researcher("ren"), besieged.kyoto)
            await ask(fresh, besieged.lyon, 5)
            assert besieged.memory_mib - before < GROWTH_MIB
            held = await asyncio.to_thread(connections_of, besieged)
            assert held < 2 * UNPROVED_PER_SOURCE, "unproved connections are few"
        await known.close()
        await fresh.close()

    asyncio.run(story())


def connections_of(besieged: Besieged) -> int:
    """Connections to the public port that the hub holds, after it has had time to look them over."""
    assert besieged.hub.process is not None
    files = Path(f"/proc/{besieged.hub.process.pid}/fd")
    counts = []
    for _ in range(5):
        counts.append(sum("socket" in str(file.readlink()) for file in files.iterdir() if file.is_symlink()))
    return min(counts)


def test_a_connection_to_the_link_port_without_a_handshake_ends(besieged: Besieged) -> None:
    host, _, port = besieged.lyon.invitation.link_address.rpartition(":")
    silent = [socket.create_connection((host, int(port)), timeout=SECONDS) for _ in range(UNPROVED_PER_SOURCE + 20)]
    try:
        # Those beyond the bound end at once, the oldest first; the others when their time is over.
        assert silent[0].recv(1) == b""
        assert silent[-1].recv(1) == b""

        async def story() -> None:
            line = await besieged.lyon.attach()
            await line.hear("welcome")
            await line.close()

        asyncio.run(story())
    finally:
        for one in silent:
            one.close()


def test_reflection_is_for_the_proved(besieged: Besieged) -> None:
    credentials = grpc.ssl_channel_credentials(besieged.lyon.authority)
    with grpc.secure_channel(besieged.lyon.invitation.hub_address, credentials) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_what_strangers_send_neither_fills_nor_forges_the_log(own: Besieged) -> None:
    forged = "\n2026-01-01T00:00:00Z WARNING forged\x1b[31m"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = own.lyon.invitation.hub_address.rpartition(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(forged.encode() * 100)
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname="forged-name") as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\n\r\n" + forged.encode())
    before = len(own.hub.log)
    credentials = grpc.ssl_channel_credentials(own.lyon.authority)
    options = (*frames.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    for _ in range(20):
        with grpc.secure_channel(own.lyon.invitation.hub_address, credentials, options) as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/connexon.v1.Research/ListQueries")
            for _ in range(20):
                metadata = (("connexon-credential", f"{'x' * 4_000}.y.z"), ("connexon-proof", "forged" * 100))
                with pytest.raises(grpc.RpcError):
                    ask(b"", metadata=metadata, timeout=SECONDS)
    log = own.hub.log
    assert "forged" not in log, [line for line in log.splitlines() if "forged" in line]
    assert "\x1b" not in log
    assert len(log) - before < 4_000, "400 refusals are a sum, not 400 lines"


def test_a_proof_counts_once_also_after_the_hub_was_killed(own: Besieged) -> None:
    async def story() -> None:
        desk = Desk(own.lyon.researcher("ada"), own.lyon)
        used = desk.proof("ListQueries")
        await desk.stub.ListQueries(research_pb2.ListQueriesRequest(), metadata=used)
        own.hub.kill()
        await asyncio.to_thread(own.hub.start)
        await desk.close()
        again = Desk(desk.asker, own.lyon)
        call = again.stub.ListQueries(research_pb2.ListQueriesRequest(), metadata=used, wait_for_ready=True)
        assert await refused(call) == "call.replayed"
        await again.stub.ListQueries(research_pb2.ListQueriesRequest(), metadata=again.proof("ListQueries"))
        await again.close()

    asyncio.run(story())


def test_a_suspended_centers_researcher_gets_nothing_of_what_waited(own: Besieged) -> None:
    async def story() -> None:
        desk = Desk(own.lyon.researcher("ada"), own.lyon)
        waits, works = desk.asker.ask("kyoto"), desk.asker.ask("kyoto")
        kyoto = await own.kyoto.attach()
        open_stream = desk.ask(works)
        await open_stream.accepted()
        assert await kyoto.query() == works
        await asyncio.to_thread(own.hub.run, "suspend", "lyon", "--because", "audit")
        # The stream that is open is cut; the answer that comes now is kept, and told to nobody.
        assert await refused(open_stream.rest()) == "membership.suspended"
        await kyoto.answer(works)
        assert await refused(desk.follow(id_of(works)).next()) == "membership.suspended"
        await kyoto.close()
        await asyncio.to_thread(own.hub.run, "reinstate", "lyon")
        await readmitted(desk)
        waiting = desk.ask(waits)
        await waiting.accepted()
        await asyncio.to_thread(own.hub.run, "suspend", "lyon", "--because", "again")
        assert await refused(waiting.rest()) == "membership.suspended"
        # What waits is not handed out before its home center takes part again; what others ask is.
        line, other = await own.kyoto.attach(), Desk(own.kyoto.researcher("ren"), own.kyoto)
        theirs = other.asker.ask("kyoto")
        await other.ask(theirs).accepted()
        assert await line.query() == theirs
        await line.answer(theirs)
        await asyncio.to_thread(own.hub.run, "reinstate", "lyon")
        assert await line.query() == waits
        await line.answer(waits)
        await readmitted(desk)
        assert (await desk.follow(id_of(waits)).rest())["kyoto"].state == ANSWERED
        assert (await desk.follow(id_of(works)).rest())["kyoto"].state == ANSWERED
        for end in (line, desk, other):
            await end.close()

    asyncio.run(story())


async def readmitted(desk: Desk) -> None:
    """Wait until the hub has seen that a center takes part again."""
    async with asyncio.timeout(SECONDS):
        while True:
            call = desk.stub.ListQueries(research_pb2.ListQueriesRequest(), metadata=desk.proof("ListQueries"))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call
                return
            await asyncio.sleep(0.2)


def test_a_revoked_credential_ends_what_is_open_and_what_waits(own: Besieged) -> None:
    async def story() -> None:
        desk = Desk(own.lyon.researcher("ada"), own.lyon)
        query = desk.asker.ask("lyon", "kyoto")
        updates = desk.ask(query)
        await updates.accepted()
        lyon = await own.lyon.attach()
        assert await lyon.query() == query
        said = Revocation("alliance", own.lyon.center.id, "ada", now_ms() + 1000)
        word = revocation.sign(said, own.lyon.center.accrediting)
        await lyon.say(revocations=revocation_pb2.Revocations(revocations=[word]))
        assert await refused(updates.rest()) == "credential.revoked"
        assert (await lyon.hear("cancel")).query_id == id_of(query)
        kyoto, other = await own.kyoto.attach(), Desk(own.kyoto.researcher("ren"), own.kyoto)
        theirs = other.asker.ask("kyoto")
        await other.ask(theirs).accepted()
        assert await kyoto.query() == theirs, "what was asked with the revoked credential is not handed out"
        for end in (lyon, kyoto, desk, other):
            await end.close()

    asyncio.run(story())


def test_a_member_that_makes_noise_fills_neither_log_nor_database(own: Besieged) -> None:
    async def story() -> None:
        line = await own.kyoto.attach()
        await line.hear("welcome")
        said = Revocation("alliance", own.lyon.center.id, "ada", now_ms())
        forged = revocation.sign(said, own.kyoto.center.accrediting)
        for _ in range(500):
            await line.say(revocations=revocation_pb2.Revocations(revocations=[forged]))
        desk = Desk(own.kyoto.researcher("ren"), own.kyoto)
        await desk.ask(desk.asker.ask("kyoto")).accepted()
        await line.query()
        await line.close()
        await desk.close()

    asyncio.run(story())
    assert 0 < own.hub.log.count("revocation.") <= 30
    events = [event for event in own.hub.json("status")["events"] if event["code"].startswith("revocation.")]
    assert 0 < len(events) <= 30


def test_a_center_still_joins_while_strangers_crowd_the_hub(besieged: Besieged) -> None:
    with besieged.attacked("headers"):
        boston = besieged.hub.join("boston", activate=False)
    assert boston.certificate
