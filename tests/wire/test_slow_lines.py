"""Lines that are slow, stalled, or end at a proxy whose other end is down: waited for and retried, never distrusted."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import connexon
from connexon.client.home import Home
from connexon.errors import Unavailable
from connexon_node.health import connection_probes
from connexon_node.link.session import Times
from deploy.local.line import Line
from tests.support.client_hub import Federation as ClientFederation
from tests.support.client_hub import ScriptedHub
from tests.support.kyoto import Kyoto
from tests.support.small_hub import HubSession, SmallHub, soon, until

FAR_SECONDS = 1.5
"""One way, as by satellite and a crowded proxy."""
ALERT = bytes([21, 3, 3, 0, 2, 2, 80])
"""A TLS record: fatal, internal_error."""
NO_BACKEND = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
Behaviour = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Far:
    """A hub as it is seen at the near end of a line."""

    address: str


@pytest.fixture
def asked() -> Iterator[ScriptedHub]:
    hub = ScriptedHub(ClientFederation())
    yield hub
    hub.stop()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "ada")


def log_in(hub: ScriptedHub, home: Home, near: str, *, host: str = "localhost") -> Home:
    """A researcher's folder whose hub is at the near end of a line, by default under its certificate's name."""
    key, _ = home.make_key()
    home.keep_login(hub.federation.login(f"{host}:{near.rpartition(':')[2]}", key))
    return home


@contextmanager
def after(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_researcher_asks_over_a_line_of_one_and_a_half_seconds_one_way(asked: ScriptedHub, home: Home) -> None:
    with (
        Line(asked.address, delay=FAR_SECONDS) as line,
        connexon.connect(log_in(asked, home, line.address)) as network,
    ):
        assert network.study(purpose="health").dataset("cell_lines").count().complete
    assert len(asked.asks) == 1


def test_a_node_and_its_doctor_reach_the_hub_over_a_line_of_one_and_a_half_seconds_one_way(
    kyoto: Kyoto, hub: SmallHub
) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    def serving() -> list[HubSession]:
        return [session for session in hub.sessions if session.hello.dictionary_version]

    async def story() -> None:
        async with hub.running():
            with Line(hub.address, delay=FAR_SECONDS) as line:
                async with kyoto.running(Far(line.address), Times()):
                    doctor = asyncio.create_task(
                        asyncio.to_thread(connection_probes.attach_once, kyoto.folder, line.address, 1)
                    )
                    await until(serving)
                    await serving()[0].answer(serving()[0].deliver(query))
                    assert (await soon(doctor)).hub_version == "0.1.0"
                    assert not any(state.problem for state in kyoto.states)
        assert len(serving()) == 1

    asyncio.run(story())


def test_a_hub_that_stalls_is_waited_for(asked: ScriptedHub, home: Home) -> None:
    with Line(asked.address) as line:
        log_in(asked, home, line.address)
        line.freeze()
        # Longer than a second: connecting was given up then, and the hub called an impostor.
        with after(2.5, line.mend), connexon.connect(home) as network:
            assert network.study(purpose="health").dataset("cell_lines").count().complete


def test_a_question_outlives_a_proxy_whose_other_end_is_down(asked: ScriptedHub, home: Home) -> None:
    # The proxy accepts, finds nobody behind it, and breaks off.
    with Line(asked.address) as line, connexon.connect(log_in(asked, home, line.address)) as network:
        asked.stop()
        with after(2.0, asked.start):
            assert network.study(purpose="health").dataset("cell_lines").count().complete


def test_a_node_comes_back_through_a_proxy_whose_other_end_was_down(kyoto: Kyoto, hub: SmallHub) -> None:
    async def story() -> None:
        with Line(hub.address) as line:
            async with kyoto.running(Far(line.address)):
                await until(lambda: kyoto.states)
                assert "(hub.no_tls)" in kyoto.states[0].problem
                async with hub.running():
                    await soon(hub.session())

    asyncio.run(story())


def _close(near: socket.socket) -> None:
    near.recv(4096)


def _reset(near: socket.socket) -> None:
    near.recv(16)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _say(words: bytes) -> Behaviour:
    def say(near: socket.socket) -> None:
        near.recv(4096)
        near.sendall(words)

    return say


@contextmanager
def _answering(behaviour: Behaviour) -> Iterator[str]:
    """Something that listens, does this with each connection, and closes it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = listening.accept()
            except OSError:
                return
            with near:
                behaviour(near)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


@pytest.mark.parametrize(
    "behaviour", [_close, _reset, _say(NO_BACKEND), _say(ALERT)], ids=["close", "reset", "503", "alert"]
)
def test_whoever_shows_no_certificate_is_unavailable_and_not_distrusted(
    asked: ScriptedHub, home: Home, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour
) -> None:
    monkeypatch.setattr("connexon.client.network.CONNECT_SECONDS", 0.3)
    with _answering(behaviour) as near, pytest.raises(Unavailable, match="breaks off before it proves") as caught:
        # By number: where a name has several addresses, gRPC tells only of the last one that failed.
        connexon.connect(log_in(asked, home, near, host="127.0.0.1"))
    assert caught.value.code == "hub.no_tls"
