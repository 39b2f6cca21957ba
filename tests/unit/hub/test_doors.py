"""Who may hold a call or a connection at the hub, and for how long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from connexon.errors import ConnexonError, Refused, Unavailable
from connexon.v1 import link_pb2, membership_pb2, models_pb2, research_pb2
from connexon_hub.limits.call_quota import Place, Places
from connexon_hub.limits.connections import STRANGER_CALLS, SUSPECT_AFTER, Connections
from connexon_hub.membership.callers import Once, Rates
from connexon_hub.rpc.methods import RULES, Caller


def test_every_method_has_a_rule_and_only_joining_is_open() -> None:
    services = [
        module.DESCRIPTOR.services_by_name[name]
        for module, name in (
            *((membership_pb2, "Membership"), (research_pb2, "Research")),
            *((models_pb2, "Models"), (link_pb2, "Link")),
        )
    ]
    methods = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert methods == {name for name in RULES if name.startswith("/connexon.")}
    assert {name for name in methods if RULES[name].caller is Caller.ANYBODY} == {
        *("/connexon.v1.Membership/Join", "/connexon.v1.Membership/GetRoster"),
        # It takes the key behind a certificate of the hub's own authority, which has run out.
        "/connexon.v1.Membership/RenewExpired",
    }


def test_a_call_of_a_stranger_has_a_size_and_a_time() -> None:
    for rule in RULES.values():
        if rule.caller is Caller.ANYBODY:
            assert rule.message_bytes <= 32 * 1024
            assert rule.message_seconds <= 20
            assert rule.call_seconds is not None


class TestPlaces:
    def test_the_oldest_stranger_makes_room_and_researchers_keep_theirs(self) -> None:
        async def story() -> None:
            places, ended = Places(strangers=2), []

            async def stranger(name: str) -> None:
                with places.stranger() as place:
                    try:
                        await asyncio.Event().wait()
                    except asyncio.CancelledError:
                        assert place.ended is not None
                        ended.append((name, place.ended.code))

            tasks = []
            for name in "abc":
                tasks.append(asyncio.create_task(stranger(name)))
                await asyncio.sleep(0)
            with places.researcher("lyon/ada", "token"):
                await asyncio.wait(tasks[:1])
                assert ended == [("a", "hub.busy")]
                assert places.strangers == 2
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(story())

    def test_one_researcher_does_not_take_the_others_places(self) -> None:
        async def story() -> None:
            places = Places(per_researcher=2)
            with places.researcher("lyon/ada", "t"), places.researcher("lyon/ada", "t"):
                with pytest.raises(Unavailable) as refusal, places.researcher("lyon/ada", "t"):
                    pass
                assert refusal.value.code == "hub.too_many_calls"
                with places.researcher("lyon/bob", "t"):
                    pass
            with places.researcher("lyon/ada", "t"):
                pass

        asyncio.run(story())

    def test_calls_whose_credential_counts_no_more_end(self) -> None:
        async def story() -> None:
            places, held = Places(), []

            async def call(credential: str) -> None:
                with places.researcher(f"lyon/{credential}", credential) as place:
                    held.append(place)
                    await asyncio.Event().wait()

            tasks = [asyncio.create_task(call(name)) for name in ("good", "bad")]
            await asyncio.sleep(0)

            def judge(credential: str) -> ConnexonError | None:
                return Refused("no", code="membership.suspended") if credential == "bad" else None

            places.reconsider(judge)
            await asyncio.wait(tasks, timeout=0.1)
            assert [task.done() for task in tasks] == [False, True]
            assert [_code(place) for place in held] == ["", "membership.suspended"]
            tasks[0].cancel()

        asyncio.run(story())


def _code(place: Place) -> str:
    return "" if place.ended is None else place.ended.code


class TestCallers:
    def test_a_proof_is_forgotten_when_it_can_no_longer_be_used(self) -> None:
        once = Once(10.0)
        seen = [once.first("lyon/ada", "a", at=at) for at in (0.0, 5.0, 9.9, 10.0, 11.0)]
        assert seen == [True, False, False, True, False]

    def test_a_researcher_who_calls_too_fast_waits_and_others_do_not(self) -> None:
        rates = Rates(per_second=1, at_once=3)
        assert [rates.take("lyon/ada", at=0.0) for _ in range(4)] == [True, True, True, False]
        assert rates.take("lyon/bob", at=0.0)
        assert [rates.take("lyon/ada", at=at) for at in (0.5, 1.2, 1.3)] == [False, True, False]
        assert rates.take("lyon/ada", at=100.0)


class Port:
    """A port that takes connections, as gRPC's does: all ends are in this process."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.number = self.server.getsockname()[1]
        self.accepted: list[socket.socket] = []

    def connect(self) -> tuple[socket.socket, str]:
        """A client's end, and how gRPC names it."""
        client = socket.create_connection(("127.0.0.1", self.number))
        self.accepted.append(self.server.accept()[0])
        return client, f"ipv4:127.0.0.1:{client.getsockname()[1]}"


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    for one in (made.server, *made.accepted):
        one.close()


def is_cut(client: socket.socket) -> bool:
    client.settimeout(0)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


class TestConnections:
    def test_beyond_the_bound_the_oldest_unproved_go(self, port: Port) -> None:
        connections = Connections(port.number, unproved=3)
        clients = []
        for _ in range(5):
            clients.append(port.connect())
            connections.look()
        assert [is_cut(client) for client, _ in clients] == [True, True, False, False, False]

    def test_who_is_proved_stays(self, port: Port) -> None:
        connections = Connections(port.number, unproved=1, seconds=0)
        (known, peer), (stranger, _) = port.connect(), port.connect()
        connections.proved(peer, "lyon/ada")
        connections.look()
        assert not is_cut(known)
        assert is_cut(stranger)

    def test_a_stranger_who_calls_and_calls_is_cut_and_then_suspect(self, port: Port) -> None:
        connections = Connections(port.number)
        for _ in range(SUSPECT_AFTER):
            client, peer = port.connect()
            assert all(connections.stranger_called(peer) for _ in range(STRANGER_CALLS))
            connections.look()
            assert not connections.stranger_called(peer)
            assert is_cut(client)
        client, peer = port.connect()
        connections.look()
        assert connections.stranger_called(peer)
        assert not connections.stranger_called(peer)
        assert is_cut(client)

    def test_a_researcher_on_a_suspect_address_is_left_alone(self, port: Port) -> None:
        connections = Connections(port.number)
        client, peer = port.connect()
        connections.proved(peer, "lyon/ada")
        connections.look()
        assert all(connections.stranger_called(peer) for _ in range(5 * STRANGER_CALLS))
        assert not is_cut(client)

    def test_a_port_of_another_server_is_none_of_its_business(self, port: Port) -> None:
        client, _ = port.connect()
        Connections(port.number + 1, seconds=0).look()
        assert not is_cut(client)
