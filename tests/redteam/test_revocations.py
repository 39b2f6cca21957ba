"""Attacks on revocations: who is not a researcher's own center ends nobody's credential, whoever is in league with it.

The hub that attacks is played by the test against a real node; the center that attacks speaks to a real hub.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from connexon.clock import DAY, HOUR, now_ms
from connexon.identity import revocation
from connexon.identity.keys import CenterId, SigningKey, center_id
from connexon.identity.revocation import MOST_PER_CENTER, Revocation
from connexon.v1 import answer_pb2, link_pb2, research_pb2, revocation_pb2
from connexon_node.membership.revocations import RevocationStore
from connexon_node.state import open_state
from tests.support.federation import Asker
from tests.support.hub import Desk, HubProcess, code_of
from tests.support.hub import until as until_hub
from tests.support.small_hub import HubSession, SmallHub
from tests.support.training import TrainingNode

LYON, KYOTO = center_id("lyon"), center_id("kyoto")
Signed = revocation_pb2.SignedRevocation


def word(key: SigningKey, subject: str, *, center: CenterId = LYON, before: int | None = None) -> Signed:
    """A revocation of everything issued so far, whoever signs it."""
    moment = now_ms() + HOUR if before is None else before
    return revocation.sign(Revocation("alliance", center, subject, moment), key)


async def released(session: HubSession, asker: Asker) -> bool:
    body = await session.answer(session.deliver(asker.sign(asker.question(["kyoto"], dataset="lots"))))
    answer = answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(body).payload)
    return answer.status == answer_pb2.ANSWER_STATUS_RELEASED


def test_a_hub_can_neither_make_nor_alter_a_revocation(tmp_path: Path) -> None:
    node = TrainingNode(tmp_path / "kyoto")
    lyon, boston = node.federation.centers["lyon"], node.federation.centers["boston"]
    hub = SmallHub(node.federation)
    genuine = word(lyon.accrediting, "bob")
    ada_now = word(SigningKey.generate(), "ada")
    later = word(SigningKey.generate(), "bob", before=now_ms() + 80 * DAY)
    attacks = {
        "forged with a key of its own": ada_now,
        "forged by a center that is in league with it": word(boston.accrediting, "ada"),
        "of another researcher under a genuine signature": Signed(payload=ada_now.payload, signature=genuine.signature),
        "of a later moment under a genuine signature": Signed(payload=later.payload, signature=genuine.signature),
        "signed for something else by the right key": Signed(
            payload=ada_now.payload, signature=lyon.accrediting.sign("query", ada_now.payload)
        ),
        "with more behind it": Signed(payload=genuine.payload + b"\xc2\x3e\x03new", signature=genuine.signature),
        "empty": Signed(),
    }

    async def story() -> None:
        async with hub.running():
            with node.serving(hub):
                session = await hub.session()
                for attack in attacks.values():
                    said = revocation_pb2.Revocations(revocations=[attack])
                    session.send(link_pb2.AttachResponse(revocations=said))
                assert await released(session, node.researcher("ada"))
                # Among forgeries, and after all of them, the genuine one counts.
                mixed = revocation_pb2.Revocations(revocations=[*attacks.values(), genuine])
                session.send(link_pb2.AttachResponse(revocations=mixed))
                assert not await released(session, node.researcher("bob"))
                assert await released(session, node.researcher("ada"))
                # To say an older word of a researcher again takes nothing back.
                older = revocation_pb2.Revocations(revocations=[word(lyon.accrediting, "bob", before=now_ms() - DAY)])
                session.send(link_pb2.AttachResponse(revocations=older))
                assert not await released(session, node.researcher("bob"))

    asyncio.run(story())
    assert len(hub.sessions) == 1, "no forgery ends the session"
    database = open_state(node.folder.default_state_url)
    store = RevocationStore(database)
    assert store.issued_before(LYON, "ada") == 0
    assert store.issued_before(LYON, "bob") == revocation.peek(genuine).issued_before_ms
    database.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path) as process:
        yield process


async def may_ask(desk: Desk) -> str:
    """Empty, or the code with which the hub refuses."""
    call = desk.stub.ListQueries(research_pb2.ListQueriesRequest(), metadata=desk.proof("ListQueries"))
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return code_of(error)
    return ""


def test_a_member_center_ends_no_researcher_of_another(hub: HubProcess) -> None:
    lyon, kyoto = hub.join("lyon", activate=False), hub.join("kyoto")
    until_hub(lambda: lyon.roster_serial() == 2, "the roster to be in force")

    async def story() -> None:
        desk = Desk(lyon.researcher("ada"), lyon)
        witness = await lyon.attach()
        await witness.hear("welcome")
        own, theirs = kyoto.center.accrediting, lyon.center.accrediting
        line = await kyoto.attach()
        ren = word(own, "ren", center=KYOTO)
        # Forged; with lyon's own word in hand, which comes from lyon only; and what is kyoto's to say beside them.
        said = [word(own, "ada"), word(theirs, "ada"), ren]
        for one in said:
            await line.say(revocations=revocation_pb2.Revocations(revocations=[one]))
        await line.say(revocations=revocation_pb2.Revocations(revocations=[*said, *said]))
        for hearer in (witness, line):
            assert list((await hearer.hear("revocations")).revocations) == [ren]
        assert await may_ask(desk) == ""
        for end in (line, witness, desk):
            await end.close()

    asyncio.run(story())
    assert {"revocation.bad_signature", "revocation.other_center"} <= hub.events()


def test_a_center_that_floods_meets_its_measure_and_takes_nobody_elses(hub: HubProcess) -> None:
    lyon, kyoto = hub.join("lyon", activate=False), hub.join("kyoto")
    until_hub(lambda: lyon.roster_serial() == 2, "the roster to be in force")
    start = now_ms()

    async def story() -> None:
        flood = await kyoto.attach()
        await flood.hear("welcome")
        for first in range(0, MOST_PER_CENTER + 1000, 1000):
            many = [word(kyoto.center.accrediting, "ren", center=KYOTO, before=start + first + n) for n in range(1000)]
            await flood.say(revocations=revocation_pb2.Revocations(revocations=many))
        ada, line = word(lyon.center.accrediting, "ada"), await lyon.attach()
        await line.say(revocations=revocation_pb2.Revocations(revocations=[ada]))
        while ada not in (heard := list((await line.hear("revocations")).revocations)):
            pass
        until_hub(lambda: "revocation.too_many" in hub.events(), "the measure to be met")
        # A center that comes hears one word of each researcher, not all that were ever said.
        late = await lyon.attach(process_id="late")
        told = list((await late.hear("revocations")).revocations)
        last = word(kyoto.center.accrediting, "ren", center=KYOTO, before=start + MOST_PER_CENTER - 1)
        assert sorted(one.payload for one in told) == sorted([ada.payload, last.payload])
        assert heard
        for end in (flood, line, late):
            await end.close()

    asyncio.run(story())
