"""The hub as witness of audit logs: a real process, spoken to over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from connexon.identity.keys import SigningKey
from connexon.transparency import receipt
from connexon.v1 import link_pb2, link_pb2_grpc, log_pb2
from tests.support.hub import SECONDS, HubProcess, JoinedCenter, Line, until
from tests.support.receipts import SmallLog


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def centers(hub: HubProcess) -> dict[str, JoinedCenter]:
    centers = {name: hub.join(name, activate=False) for name in ("lyon", "kyoto", "oslo")}
    hub.publish()
    until(lambda: "roster 2 is in force" in hub.log, "the roster")
    return centers


def log_of(joined: JoinedCenter) -> SmallLog:
    return SmallLog(joined.center.id, joined.center.answering)


async def told(line: Line, growth: log_pb2.LogGrowth) -> int:
    """Tell the hub how a log grew; the size it has witnessed then."""
    await line.say(log=growth)
    return size_of(await line.hear("witnessed"))


def size_of(witnessed: log_pb2.WitnessedHead) -> int:
    return log_pb2.TreeHead.FromString(witnessed.head.payload).size


async def kept(joined: JoinedCenter, below: int = 0) -> list[int]:
    """Sizes of the heads that the hub shows this center."""
    async with joined.link_channel() as channel:
        request = link_pb2.GetWitnessRequest(below=below)
        response = await link_pb2_grpc.LinkStub(channel).GetWitness(request, timeout=SECONDS)
    return [size_of(head) for head in response.heads]


def status_of(hub: HubProcess, center: str) -> dict[str, Any]:
    return next(one for one in hub.json("status")["centers"] if one["center"] == center)


def test_a_growing_log_is_witnessed_and_shown_to_its_center_only(
    hub: HubProcess, centers: dict[str, JoinedCenter]
) -> None:
    async def story() -> None:
        lyon = centers["lyon"]
        log, line = log_of(lyon), await lyon.attach()
        assert not (await line.hear("witnessed")).HasField("head")
        log.grow(5)
        assert await told(line, log.growth(0)) == 5
        log.grow(4)
        assert await told(line, log.growth(5)) == 9
        await line.close()
        # Also in the next session, the hub says at once what it knows.
        line = await lyon.attach()
        head = await line.hear("witnessed")
        read = receipt.read_head(head.head, center=lyon.center.id, keys=[lyon.center.answering.public])
        assert read.size == 9
        await line.close()
        assert (await kept(lyon))[0] == 9
        assert await kept(lyon, below=5) == []
        assert await kept(centers["kyoto"]) == []

    asyncio.run(story())
    assert status_of(hub, "lyon")["log_size"] == 9
    assert status_of(hub, "lyon")["log_contradicted_ms"] is None


def test_a_log_put_back_is_an_event_for_the_operator_once_and_its_node_learns_of_it(
    hub: HubProcess, centers: dict[str, JoinedCenter]
) -> None:
    async def story() -> None:
        kyoto = centers["kyoto"]
        log = log_of(kyoto)
        log.grow(12)
        line = await kyoto.attach()
        assert await told_first(line, log.growth(0)) == 12
        assert await told(line, log.growth(0, 7)) == 12
        log.leaves[3] = bytes(32)
        log.grow(3)
        assert await told(line, log.growth(12)) == 12
        await line.close()

    async def told_first(line: Line, growth: log_pb2.LogGrowth) -> int:
        assert not (await line.hear("witnessed")).HasField("head")
        return await told(line, growth)

    asyncio.run(story())
    until(lambda: "audit.inconsistent" in hub.events(), "the event")
    events = [event for event in hub.json("status")["events"] if event["code"] == "audit.inconsistent"]
    assert [event["center"] for event in events] == ["kyoto"]
    assert "from 12 records to 7" in events[0]["detail"]
    assert status_of(hub, "kyoto")["log_contradicted_ms"] is not None
    assert "kyoto: its audit log contradicts what was witnessed" in " ".join(hub.run("status").split())


def test_a_head_that_the_center_did_not_sign_ends_the_session(
    hub: HubProcess, centers: dict[str, JoinedCenter]
) -> None:
    async def story() -> None:
        oslo = centers["oslo"]
        forged = SmallLog(oslo.center.id, SigningKey.generate())
        forged.grow(3)
        for growth, code in ((forged.growth(0), "receipt.bad_signature"), (lyons(), "receipt.bad_signature")):
            line = await oslo.attach()
            await line.say(log=growth)
            assert (await line.hear("goodbye")).code == code
            await line.close()
        assert await kept(oslo) == []

    def lyons() -> log_pb2.LogGrowth:
        log = log_of(centers["lyon"])
        log.grow(2)
        return log.growth(0)

    asyncio.run(story())
