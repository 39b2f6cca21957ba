"""What a center's node does with revocations: a real process, real rows, and a hub that the test plays."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from connexon.client.home import accreditation_request
from connexon.clock import DAY, SECOND, now_ms
from connexon.errors import ConnexonError
from connexon.identity import revocation
from connexon.identity.keys import SigningKey, center_id
from connexon.identity.revocation import Revocation
from connexon.query.purpose import CONTROL
from connexon.v1 import answer_pb2, link_pb2, revocation_pb2
from connexon_node.cli import app
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.revocations import RevocationStore
from connexon_node.state import open_state
from tests.support.documented import assert_same_shape, documented
from tests.support.federation import HEALTH, Asker
from tests.support.small_hub import HubSession, SmallHub, until
from tests.support.training import COMMAND, Run, TrainingNode, content_of, initial, played

KYOTO, LYON = center_id("kyoto"), center_id("lyon")


@pytest.fixture
def node(tmp_path: Path) -> TrainingNode:
    return TrainingNode(tmp_path / "kyoto")


@pytest.fixture
def hub(node: TrainingNode) -> SmallHub:
    return SmallHub(node.federation)


def said(*signed: revocation_pb2.SignedRevocation) -> link_pb2.AttachResponse:
    """What the hub says of revocations."""
    return link_pb2.AttachResponse(revocations=revocation_pb2.Revocations(revocations=signed))


def lyons(node: TrainingNode, subject: str = "ada", *, before: int | None = None) -> revocation_pb2.SignedRevocation:
    """Lyon's word on one of its researchers, of the next second."""
    moment = (now_ms() // SECOND + 1) * SECOND if before is None else before
    one = Revocation("alliance", LYON, subject, moment)
    return revocation.sign(one, node.federation.centers["lyon"].accrediting)


async def outcome(session: HubSession, asker: Asker) -> answer_pb2.Answer:
    """What becomes of a count of lots."""
    question = asker.question(["kyoto"], dataset="lots")
    return read(await session.answer(session.deliver(asker.sign(question))))


def read(body: bytes) -> answer_pb2.Answer:
    return answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(body).payload)


async def test_a_revoked_researcher_is_refused_until_accredited_anew_also_by_a_node_that_was_killed(
    node: TrainingNode, hub: SmallHub
) -> None:
    async with hub.running():
        with node.serving(hub):
            session = await hub.session()
            ada, bob = node.researcher(), node.researcher("bob")
            assert (await outcome(session, ada)).status == answer_pb2.ANSWER_STATUS_RELEASED
            session.send(said(lyons(node)))
            refused = await outcome(session, ada)
            assert (refused.status, refused.reason.code) == (
                answer_pb2.ANSWER_STATUS_REFUSED,
                "credential.revoked",
            )
            assert (await outcome(session, bob)).status == answer_pb2.ANSWER_STATUS_RELEASED
            # Written down before anything else was read: what comes in one breath with it is refused.
            session.send(said(lyons(node, "bob")))
            assert (await outcome(session, bob)).reason.code == "credential.revoked"
            node.kill()
            node.start(hub)
            again = await hub.session(2)
            assert (await outcome(again, ada)).reason.code == "credential.revoked"
            anew = node.federation.researcher("lyon", "ada", issued_at_ms=now_ms() + 2 * SECOND)
            assert (await outcome(again, anew)).status == answer_pb2.ANSWER_STATUS_RELEASED


def test_what_waits_for_the_steward_and_what_trains_ends_with_the_credential(node: TrainingNode, hub: SmallHub) -> None:
    async def story(session: HubSession) -> None:
        ada = node.researcher()
        control = replace(HEALTH, research=(*HEALTH.research, CONTROL))
        question = ada.question(["kyoto"], dataset="lots", purpose=control)
        waiting = session.deliver(ada.sign(question))
        assert read(await session.answer(waiting)).status == answer_pb2.ANSWER_STATUS_AWAITING_STEWARD
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        arrays = initial(run, fitted)
        _, done = await run.reply(run.send("train", content_of(arrays, fitted, 1), 1))
        assert done is not None
        session.send(said(lyons(node)))
        await until(lambda: len(session.answers(waiting)) == 2)
        assert read(session.answers(waiting)[1]).reason.code == "credential.revoked"
        assert json.loads(await asyncio.to_thread(node.run, "requests", "--json"))["requests"] == []
        answer, refused = await run.reply(run.send("train", content_of(arrays, fitted, 2), 2))
        assert (answer.reason.code, refused) == ("credential.revoked", None)

    played(node, hub, story)


def test_an_update_that_was_under_way_when_its_researcher_was_revoked_does_not_leave(
    node: TrainingNode, hub: SmallHub
) -> None:
    async def story(session: HubSession) -> None:
        run = await Run.enrolled(node, session)
        fitted = await run.preprocessing()
        (zygote,) = psutil.Process(node.process.pid).children()
        (child,) = zygote.children()
        child.suspend()
        task = run.send("train", content_of(initial(run, fitted), fitted, 1), 1)
        await until(lambda: session.stored(str(task)))
        session.send(said(lyons(node)))
        database = open_state(node.folder.default_state_url)
        await until(lambda: RevocationStore(database).issued_before(LYON, "ada"))
        database.close()
        child.resume()
        answer, content = await run.reply(task)
        assert (answer.reason.code, content) == ("credential.revoked", None)

    played(node, hub, story)


def accredit(node: TrainingNode, subject: str) -> None:
    """A researcher of kyoto, as its steward accredits them."""
    request = json.dumps(accreditation_request(SigningKey.generate()))
    node.run("accredit", request, "--subject", subject)


def own_words(session: HubSession) -> list[Revocation]:
    """What the node has told the hub of its own researchers."""
    return [revocation.peek(one) for frame in session.frames for one in frame.revocations.revocations]


def listed(node: TrainingNode) -> dict[str, object]:
    (one,) = json.loads(node.run("accredit", "--list", "--json"))["accreditations"]
    return dict(one["revoked"] or {})


async def test_a_stewards_word_goes_to_the_hub_in_every_session_and_comes_back(
    node: TrainingNode, hub: SmallHub
) -> None:
    center = node.federation.centers["kyoto"]
    keys = (NodeKeys.load(node.folder).accrediting.public,)
    node.federation.centers["kyoto"] = replace(center, member=replace(center.member, accrediting_keys=keys))
    hub.roster = node.federation.signed_roster(node.federation.roster(serial=2))

    async with hub.running():
        with node.serving(hub):
            session = await hub.session()
            session.send(link_pb2.AttachResponse(roster=hub.roster))
            await asyncio.to_thread(accredit, node, "ren")
            told = await asyncio.to_thread(node.run, "revoke", "ren", "--yes", "--because", "has left")
            assert "tells the hub within seconds" in told
            await until(lambda: own_words(session))
            (word,) = own_words(session)
            assert (word.center, word.subject) == (KYOTO, "ren")
            assert "not yet heard" in await asyncio.to_thread(node.run, "accredit", "--list")
            # Neither was the hub's word that it has it, nor could it be: a second session hears it again.
            node.kill()
            node.start(hub)
            again = await hub.session(2)
            await until(lambda: own_words(again) == [word])
            frame = next(one for one in again.frames if one.HasField("revocations"))
            again.send(link_pb2.AttachResponse(revocations=frame.revocations))
            again.send(link_pb2.AttachResponse(roster=hub.roster))
            await outcome(again, node.researcher())
            assert (await asyncio.to_thread(listed, node))["hub_has_at_ms"] is not None
            assert "not yet heard" not in await asyncio.to_thread(node.run, "accredit", "--list")
            # It may have lost it since, with its database: who has it says it.
            again.hang_up()
            third = await hub.session(3)
            await until(lambda: own_words(third) == [word])


def test_a_steward_revokes_while_nothing_serves(node: TrainingNode) -> None:
    node.configure()
    accredit(node, "ren")
    told = json.loads(node.run("revoke", "ren", "--yes", "--json", "--because", "has left", "--by", "mia"))
    assert_same_shape(told, documented("connexon-node revoke"))
    assert (told["new"], told["revoked"]["because"], told["revoked"]["revoked_by"]) == (True, "has left", "mia")
    database = open_state(node.folder.default_state_url)
    assert RevocationStore(database).issued_before(KYOTO, "ren") > now_ms() - DAY
    database.close()
    assert json.loads(node.run("revoke", "kyoto/ren", "--yes", "--json"))["new"] is False
    assert "was revoked" in node.run("revoke", "ren", "--yes")
    accredit(node, "mai")
    assert "once this node serves" in node.run("revoke", "mai", "--yes")
    assert node.run("accredit", "--list").count("revoked 2") == 2


def test_a_steward_is_told_that_the_key_is_the_one_of_before(node: TrainingNode) -> None:
    node.configure()
    request, other = (json.dumps(accreditation_request(SigningKey.generate())) for _ in range(2))

    def told(text: str) -> bool:
        words = ["accredit", text, "--subject", "ren", "--dir", str(node.root)]
        done = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
        assert done.exit_code == 0, done.exception
        return "when you revoked them" in done.stderr

    assert not told(request)
    assert not told(request)
    node.run("revoke", "ren", "--yes")
    assert told(request)
    assert not told(other)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("rem", "--yes"), "revocation.unknown_subject", "Did you mean 'ren'?"),
        (("lyon/ada", "--yes"), "revocation.other_center", "only their own center can revoke them"),
        (("Ren", "--yes"), "credential.subject", "cannot name a researcher"),
        (("ren",), "revocation.unconfirmed", "add --yes"),
        (("ren", "--yes", "--because", "x" * 301), "revocation.because", "at most 300"),
    ],
)
def test_a_word_that_cannot_be_said_is_refused_with_what_to_do(
    node: TrainingNode, arguments: tuple[str, ...], code: str, words: str
) -> None:
    node.configure()
    accredit(node, "ren")
    done = CliRunner().invoke(app, ["revoke", *arguments, "--dir", str(node.root)])
    assert isinstance(done.exception, ConnexonError)
    assert done.exception.code == code
    assert words in done.exception.public
    assert listed(node) == {}


def test_the_shell_completes_who_can_be_revoked(node: TrainingNode) -> None:
    node.configure()
    accredit(node, "ren")
    accredit(node, "mai")
    line = f"connexon-node revoke --dir {node.root} r"
    words = {"_CONNEXON_NODE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run([COMMAND], env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["ren"], done.stderr
