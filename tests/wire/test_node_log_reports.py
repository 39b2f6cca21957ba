"""The node tells the hub how its audit log grows, over a real socket, and notices when the hub knows another log."""

from __future__ import annotations

import time

import pytest

from connexon.clock import now_ms
from connexon.transparency import merkle, receipt
from connexon.v1 import link_pb2, log_pb2
from connexon_node.audit.witness import Witness
from connexon_node.link.session import Times
from tests.support.kyoto import Kyoto
from tests.support.receipts import SmallLog
from tests.support.small_hub import HubSession, SmallHub, until

OFTEN = Times(heartbeat=0.05, silence=60.0, first_wait=0.02, longest_wait=0.1)


def witness(session: HubSession, head: log_pb2.SignedTreeHead | None) -> None:
    """Say what the hub has witnessed."""
    witnessed = log_pb2.WitnessedHead() if head is None else log_pb2.WitnessedHead(head=head, received_at_ms=now_ms())
    session.send(link_pb2.AttachResponse(witnessed=witnessed))


def growths(session: HubSession) -> list[log_pb2.LogGrowth]:
    return [frame.log for frame in session.frames if frame.HasField("log")]


def read(kyoto: Kyoto, growth: log_pb2.LogGrowth) -> receipt.TreeHead:
    return receipt.read_head(growth.head, center=kyoto.identity.center, keys=[kyoto.answering.public])


async def ask(kyoto: Kyoto, session: HubSession) -> None:
    await session.answer(session.deliver(kyoto.federation.researcher().ask("kyoto")))


async def test_growth_is_told_once_the_hub_has_said_what_it_witnessed_and_proved_from_there(
    kyoto: Kyoto, hub: SmallHub
) -> None:
    async with hub.running(), kyoto.running(hub, OFTEN):
        session = await hub.session()
        await ask(kyoto, session)
        # Heartbeats have passed, and nothing was told to a hub that may not understand it.
        await until(lambda: sum(1 for frame in session.frames if frame.HasField("heartbeat")) >= 2)
        assert growths(session) == []
        witness(session, None)
        await until(lambda: growths(session))
        (first,) = growths(session)
        assert (read(kyoto, first).size, first.since, list(first.proof)) == (1, 0, [])
        witness(session, first.head)
        for _ in range(2):
            await ask(kyoto, session)
        await until(lambda: (read(kyoto, growths(session)[-1]).size, growths(session)[-1].since) == (3, 1))
        last = growths(session)[-1]
        before, after = read(kyoto, first), read(kyoto, last)
        assert merkle.consistent(1, before.root, 3, after.root, list(last.proof))
    assert all(state.log_problem == "" for state in kyoto.states)


async def test_what_the_hub_witnessed_is_taken_in_however_long_that_takes(
    kyoto: Kyoto, hub: SmallHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Witness.heard

    def slowly(self: Witness, witnessed: log_pb2.WitnessedHead) -> int:
        time.sleep(4 * OFTEN.heartbeat)
        return heard(self, witnessed)

    monkeypatch.setattr(Witness, "heard", slowly)

    async with hub.running(), kyoto.running(hub, OFTEN):
        session = await hub.session()
        await ask(kyoto, session)
        witness(session, None)
        await until(lambda: growths(session))
        witness(session, growths(session)[0].head)
        await ask(kyoto, session)
        await until(lambda: growths(session)[-1].since == 1)


async def test_a_hub_that_witnessed_another_log_is_heard_and_answered(kyoto: Kyoto, hub: SmallHub) -> None:
    async with hub.running(), kyoto.running(hub, OFTEN):
        session = await hub.session()
        await ask(kyoto, session)
        other = SmallLog(kyoto.identity.center, kyoto.answering)
        other.grow(5)
        witness(session, other.head())
        await until(lambda: "has only 1 now" in kyoto.log_problem)
        await until(lambda: growths(session))
        assert read(kyoto, growths(session)[0]).size == 1
        witness(session, other.head(1))
        await until(lambda: "rewritten" in kyoto.log_problem)
        # The node goes on answering: whom to believe is for people to find out.
        await ask(kyoto, session)


async def test_a_head_that_the_node_never_signed_is_not_believed(kyoto: Kyoto, hub: SmallHub) -> None:
    async with hub.running(), kyoto.running(hub, OFTEN):
        session = await hub.session()
        lyon = kyoto.federation.centers["lyon"]
        other = SmallLog(kyoto.identity.center, lyon.answering)
        other.grow(5)
        witness(session, other.head())
        await until(lambda: "not signed by kyoto" in kyoto.log_problem)
        witness(session, None)
        await until(lambda: kyoto.log_problem == "")
