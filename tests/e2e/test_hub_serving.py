"""A real hub process, spoken to over real sockets and TLS by the least that a node and a researcher need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from connexon.clock import now_ms
from connexon.identity import certificates, revocation
from connexon.identity.keys import SigningKey
from connexon.identity.revocation import Revocation
from connexon.identity.roster import Protocol, from_text_file, peek
from connexon.link import frames
from connexon.link.frames import MAXIMUM_ANSWER
from connexon.query import signed
from connexon.v1 import (
    answer_pb2,
    link_pb2,
    link_pb2_grpc,
    query_pb2,
    research_pb2,
    revocation_pb2,
)
from connexon_hub.limits.call_quota import PER_RESEARCHER
from connexon_hub.routing.stream_quota import MAXIMUM_STREAMS
from tests.support.federation import Asker
from tests.support.hub import SECONDS, Desk, HubProcess, JoinedCenter, code_of, id_of, until

WAITING = research_pb2.DELIVERY_STATE_WAITING
RECEIVED = research_pb2.DELIVERY_STATE_RECEIVED
ANSWERED = research_pb2.DELIVERY_STATE_ANSWERED
CANCELLED = research_pb2.DELIVERY_STATE_CANCELLED
EXPIRED = research_pb2.DELIVERY_STATE_EXPIRED
REMOVED = research_pb2.DELIVERY_STATE_REMOVED
Story = Callable[..., Coroutine[Any, Any, None]]


class Served:
    """One hub for all tests of the module, with two centers; each test asks as a researcher of its own."""

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub
        self.lyon = hub.join("lyon", activate=False)
        self.kyoto = hub.join("kyoto")
        # The hub sees a new roster within two seconds.
        until(lambda: self.roster_serial() == 2, "the roster to be in force")
        self._researchers = 0

    def roster_serial(self) -> int:
        return self.lyon.roster_serial()

    def researcher(self) -> Asker:
        self._researchers += 1
        return self.lyon.researcher(f"r{self._researchers}")

    def desk(self) -> Desk:
        return Desk(self.researcher(), self.lyon)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with HubProcess(tmp_path_factory.mktemp("hub")) as hub:
        yield Served(hub)


def reflection_proof(asker: Asker) -> tuple[tuple[str, str], ...]:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    return signed.prove_call(asker.key, asker.token, federation=asker.federation, method=method)


async def refused(call: Awaitable[object]) -> str:
    """The code with which the hub refuses a call."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return code_of(refusal.value)


async def dismissed(joined: JoinedCenter, **hello: Any) -> link_pb2.Goodbye:
    """The goodbye with which the hub answers an introduction."""
    line = await joined.attach(**hello)
    try:
        goodbye: link_pb2.Goodbye = await line.hear("goodbye")
        return goodbye
    finally:
        await line.close()


def _received(query_id: str) -> link_pb2.AttachRequest:
    return link_pb2.AttachRequest(stored=link_pb2.Stored(query_id=query_id, kind=link_pb2.PARCEL_KIND_QUERY))


def _piece(query_id: str = "0b7c2f0e-5a1f-4a43-9f0e-5d2a6d1f3b11", **fields: Any) -> link_pb2.AttachRequest:
    return link_pb2.AttachRequest(chunk=link_pb2.Chunk(query_id=query_id, **fields))


class TestAsking:
    def test_a_question_goes_to_the_centers_and_their_answers_come_back(self, served: Served) -> None:
        async def story() -> None:
            lyon, desk = await served.lyon.attach(), served.desk()
            query = desk.asker.ask("lyon", "kyoto")
            updates = desk.ask(query)
            accepted = await updates.accepted()
            assert accepted.query_payload == query.payload
            assert {delivery.center_id: delivery.state for delivery in accepted.deliveries} == {
                "kyoto": WAITING,
                "lyon": WAITING,
            }
            assert await lyon.query() == query
            await lyon.say(stored=link_pb2.Stored(query_id=id_of(query), kind=link_pb2.PARCEL_KIND_QUERY))
            await lyon.say(progress=link_pb2.Progress(query_id=id_of(query), stage=link_pb2.STAGE_COMPUTING))
            assert (await updates.until("lyon", RECEIVED)).stage == link_pb2.STAGE_COMPUTING
            answer = await lyon.answer(query)
            assert (await updates.until("lyon", ANSWERED)).answer == answer
            # Kyoto comes late, and the query waits for it.
            kyoto = await served.kyoto.attach()
            assert await kyoto.query() == query
            await kyoto.answer(query)
            assert {center: part.state for center, part in (await updates.rest()).items()} == {
                "lyon": ANSWERED,
                "kyoto": ANSWERED,
            }
            for end in (lyon, kyoto, desk):
                await end.close()

        asyncio.run(story())

    def test_asking_again_resumes_and_other_bytes_conflict(self, served: Served) -> None:
        async def story() -> None:
            desk = served.desk()
            question = desk.asker.question(["lyon"])
            query = desk.asker.sign(question)
            assert (await desk.ask(query).accepted()).query_id == question.query_id
            assert (await desk.ask(query).accepted()).query_payload == query.payload
            other = desk.asker.sign(desk.asker.question(["kyoto"], query_id=question.query_id))
            assert await refused(desk.ask(other).next()) == "query.id_reused"
            stranger = served.desk()
            theirs = stranger.asker.sign(stranger.asker.question(["lyon"], query_id=question.query_id))
            assert await refused(stranger.ask(theirs).next()) == "query.id_reused"
            await desk.cancel(question.query_id)
            await desk.close()
            await stranger.close()

        asyncio.run(story())

    def test_a_query_that_expires_is_taken_back(self, served: Served) -> None:
        async def story() -> None:
            lyon, desk = await served.lyon.attach(), served.desk()
            query = desk.asker.sign(desk.asker.question(["lyon"], issued_at_ms=now_ms(), life_ms=6_000))
            updates = desk.ask(query)
            await lyon.query()
            assert (await updates.rest())["lyon"].state == EXPIRED
            assert (await lyon.hear("cancel")).query_id == id_of(query)
            # Too late is too late; the center need not send it again.
            await lyon.answer(query)
            assert (await desk.follow(id_of(query)).rest())["lyon"].state == EXPIRED
            # The same bytes still lead to what became of them.
            assert (await desk.ask(query).rest())["lyon"].state == EXPIRED
            await lyon.close()
            await desk.close()

        asyncio.run(story())

    def test_cancelling_reaches_the_centers_that_have_it_and_nobody_else(self, served: Served) -> None:
        async def story() -> None:
            lyon, desk, stranger = await served.lyon.attach(), served.desk(), served.desk()
            query = desk.asker.ask("lyon", "kyoto")
            updates = desk.ask(query)
            await lyon.query()
            assert await refused(stranger.cancel(id_of(query))) == "query.not_found"
            assert await desk.cancel(id_of(query)) == 2
            assert {part.state for part in (await updates.rest()).values()} == {CANCELLED}
            assert (await lyon.hear("cancel")).query_id == id_of(query)
            assert await desk.cancel(id_of(query)) == 0
            kyoto = await served.kyoto.attach()
            await kyoto.hear("welcome")
            later = desk.asker.ask("kyoto")
            desk.ask(later)
            assert await kyoto.query() == later
            await kyoto.answer(later)
            for end in (lyon, kyoto, desk, stranger):
                await end.close()

        asyncio.run(story())

    def test_a_center_that_was_away_hears_what_was_taken_back_and_again_when_it_answers(self, served: Served) -> None:
        async def story() -> None:
            lyon, desk = await served.lyon.attach(), served.desk()
            query = desk.asker.ask("lyon")
            updates = desk.ask(query)
            assert await lyon.query() == query
            await lyon.send(
                served.lyon.center.answer(query, status=answer_pb2.ANSWER_STATUS_AWAITING_STEWARD), id_of(query)
            )
            await updates.until("lyon", RECEIVED)
            await lyon.close()
            assert await desk.cancel(id_of(query)) == 1
            again = await served.lyon.attach()
            assert (await again.hear("cancel")).query_id == id_of(query)
            await again.send(served.lyon.center.answer(query), id_of(query))
            told = [await again.hear("stored", "cancel") for _ in range(2)]
            assert {type(one) for one in told} == {link_pb2.Stored, link_pb2.Cancel}
            assert {one.query_id for one in told} == {id_of(query)}
            for end in (again, desk):
                await end.close()

        asyncio.run(story())

    def test_only_who_asked_may_follow(self, served: Served) -> None:
        async def story() -> None:
            desk, stranger = served.desk(), served.desk()
            query = desk.asker.ask("lyon")
            await desk.ask(query).accepted()
            assert await refused(stranger.follow(id_of(query)).next()) == "query.not_found"
            assert await refused(stranger.follow("nothing").next()) == "query.not_found"
            now = await desk.follow(id_of(query), wait=False).rest()
            assert now["lyon"].state == WAITING
            listed = await desk.stub.ListQueries(research_pb2.ListQueriesRequest(), metadata=desk.proof("ListQueries"))
            assert [(one.query_id, one.centers, one.answered) for one in listed.queries] == [(id_of(query), 1, 0)]
            theirs = await stranger.stub.ListQueries(
                research_pb2.ListQueriesRequest(), metadata=stranger.proof("ListQueries")
            )
            assert not theirs.queries
            await desk.cancel(id_of(query))
            await desk.close()
            await stranger.close()

        asyncio.run(story())

    def test_a_researcher_follows_only_so_many_streams_at_once(self, served: Served) -> None:
        async def story() -> None:
            desk, stranger = served.desk(), served.desk()
            query = desk.asker.ask("lyon")
            asking = desk.ask(query)
            await asking.accepted()
            following = [desk.follow(id_of(query)) for _ in range(MAXIMUM_STREAMS - 1)]
            for updates in following:
                await updates.accepted()
            assert await refused(desk.follow(id_of(query)).next()) == "hub.too_many_streams"
            assert await refused(desk.ask(desk.asker.ask("lyon")).next()) == "hub.too_many_streams"
            await stranger.ask(stranger.asker.ask("lyon")).accepted()
            # The others go on, and one that has ended makes room.
            await desk.cancel(id_of(query))
            await asking.rest()
            for updates in following:
                assert (await updates.rest())["lyon"].state == CANCELLED
            assert (await desk.follow(id_of(query)).rest())["lyon"].state == CANCELLED
            await desk.close()
            await stranger.close()

        asyncio.run(story())

    def test_a_question_that_does_not_hold_is_refused_with_its_code(self, served: Served) -> None:
        async def story() -> None:
            desk, stranger = served.desk(), served.desk()
            good = desk.asker.ask("lyon")
            altered = query_pb2.SignedQuery()
            altered.CopyFrom(good)
            altered.payload = desk.asker.ask("kyoto").payload
            expired = desk.asker.sign(desk.asker.question(["lyon"], issued_at_ms=1_000, life_ms=1_000))
            unknown = query_pb2.SignedQuery.FromString(good.SerializeToString() + b"\x98\x06\x01")
            for query, code in (
                (altered, "query.bad_signature"),
                (expired, "query.expired"),
                (unknown, "query.unknown_field"),
                (stranger.asker.ask("lyon"), "query.other_researcher"),
                (desk.asker.ask("lyon", "tokyo"), "membership.not_a_member"),
                (query_pb2.SignedQuery(), "credential.unreadable"),
            ):
                assert await refused(desk.ask(query).next()) == code
            await desk.close()
            await stranger.close()

        asyncio.run(story())

    def test_a_call_is_proved_once_and_for_itself(self, served: Served) -> None:
        async def story() -> None:
            desk = served.desk()
            request, proof = research_pb2.ListQueriesRequest(), desk.proof("ListQueries")
            await desk.stub.ListQueries(request, metadata=proof)
            assert await refused(desk.stub.ListQueries(request, metadata=proof)) == "call.replayed"
            assert await refused(desk.stub.ListQueries(request, metadata=desk.proof("Cancel"))) == "call.stale"
            assert await refused(desk.stub.ListQueries(request)) == "call.unproved"
            await desk.close()

        asyncio.run(story())

    def test_a_message_above_the_limit_is_refused(self, served: Served) -> None:
        async def story() -> None:
            desk = served.desk()
            credentials = grpc.ssl_channel_credentials(served.lyon.authority)
            async with grpc.aio.secure_channel(served.lyon.invitation.hub_address, credentials) as channel:
                ask: grpc.aio.UnaryStreamMultiCallable[research_pb2.AskRequest, bytes] = channel.unary_stream(
                    "/connexon.v1.Research/Ask", request_serializer=research_pb2.AskRequest.SerializeToString
                )
                query = query_pb2.SignedQuery(payload=bytes(frames.MAXIMUM_FRAME + 1))
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await ask(research_pb2.AskRequest(query=query), metadata=desk.proof("Ask")).read()
            assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await desk.close()

        asyncio.run(story())


class TestLink:
    def test_a_second_process_of_one_identity_is_refused_while_the_first_lives(self, served: Served) -> None:
        async def story() -> None:
            first = await served.lyon.attach(process_id="first")
            await first.hear("welcome")
            probed = asyncio.create_task(first.hear("goodbye"))
            goodbye = await dismissed(served.lyon, process_id="second")
            assert (goodbye.code, goodbye.retry) == ("link.identity_in_use", True)
            probed.cancel()
            await asyncio.gather(probed, return_exceptions=True)
            # The same process that dials again takes its own place at once.
            again = await served.lyon.attach(process_id="first")
            await again.hear("welcome")
            await first.close()
            await again.close()

        asyncio.run(story())
        assert "link.identity_in_use" in served.hub.events()

    def test_a_process_takes_the_place_of_one_that_is_dead(self, served: Served) -> None:
        async def story() -> None:
            # It never reads again: the connection is up and nobody is there.
            dead = await served.lyon.attach(process_id="dead")
            await dead.hear("welcome")
            alive = await served.lyon.attach(process_id="alive")
            await alive.hear("welcome")
            await dead.close()
            await alive.close()

        asyncio.run(story())

    def test_a_version_that_cannot_be_spoken_is_refused_and_a_neighbour_is_welcome(self, served: Served) -> None:
        async def story() -> None:
            goodbye = await dismissed(served.lyon, protocol=Protocol(2, 0))
            assert (goodbye.code, goodbye.retry) == ("link.version_unsupported", False)
            newer = await served.lyon.attach(protocol=Protocol(1, 2))
            welcome = await newer.hear("welcome")
            assert (welcome.protocol.major, welcome.protocol.minor) == (1, 1)
            await newer.close()

        asyncio.run(story())
        assert "link.version_unsupported" in served.hub.events()

    def test_what_is_revoked_is_told_at_once_and_to_who_comes_later_before_any_question(self, served: Served) -> None:
        async def story() -> None:
            desk, other = served.desk(), served.desk()
            query = desk.asker.ask("kyoto")
            updates = desk.ask(query)
            await updates.accepted()
            lyon = await served.lyon.attach()
            subject = jwt.decode(desk.asker.token, options={"verify_signature": False})["sub"]
            said = Revocation("alliance", served.lyon.center.id, subject, now_ms() + 1000)
            word = revocation.sign(said, served.lyon.center.accrediting)
            await lyon.say(revocations=revocation_pb2.Revocations(revocations=[word]))
            # Lyon hears its own: the hub has written it down.
            assert word in (await lyon.hear("revocations")).revocations
            assert await refused(desk.follow(id_of(query)).next()) == "credential.revoked"
            assert await refused(desk.ask(desk.asker.ask("lyon")).next()) == "credential.revoked"
            assert await refused(desk.cancel(id_of(query))) == "credential.revoked"
            accepted = await other.ask(other.asker.ask("lyon")).accepted()
            assert await other.cancel(accepted.query_id) == 1
            kyoto = await served.kyoto.attach()
            first = await kyoto.hear("revocations", "chunk")
            assert isinstance(first, revocation_pb2.Revocations)
            assert word in first.revocations
            # What was asked with the revoked credential is over; what others asked goes on.
            later = other.asker.ask("kyoto")
            await other.ask(later).accepted()
            assert await kyoto.query() == later
            await kyoto.answer(later)
            for end in (lyon, kyoto, desk, other):
                await end.close()

        asyncio.run(story())

    def test_an_older_roster_is_brought_up_to_date(self, served: Served) -> None:
        async def story() -> None:
            line = await served.lyon.attach(roster_serial=1)
            assert peek(await line.hear("roster")).serial == served.roster_serial()
            await line.close()

        asyncio.run(story())

    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            (link_pb2.AttachRequest.FromString(b"\x98\x06\x01"), "link.unknown_field"),
            (link_pb2.AttachRequest(), "link.bad_frame"),
            (link_pb2.AttachRequest(hello=link_pb2.Hello()), "link.bad_frame"),
            (_piece(kind=link_pb2.PARCEL_KIND_ANSWER, total_size=9, offset=5), "link.bad_parcel"),
            (_piece(kind=link_pb2.PARCEL_KIND_QUERY, total_size=1, data=b"x"), "link.bad_parcel"),
            (_piece(query_id="q\0", kind=link_pb2.PARCEL_KIND_ANSWER, total_size=1, data=b"x"), "link.bad_frame"),
            (_received("Q" * 36), "link.bad_frame"),
            (_received("\0"), "link.bad_frame"),
        ],
    )
    def test_a_frame_that_is_not_understood_ends_the_session(
        self, served: Served, frame: link_pb2.AttachRequest, code: str
    ) -> None:
        async def story() -> None:
            line = await served.lyon.attach()
            await line.hear("welcome")
            await line.call.write(frame)
            assert (await line.hear("goodbye")).code == code
            await line.close()

        asyncio.run(story())

    def test_what_a_newer_node_says_beyond_this_version_is_left_alone(self, served: Served) -> None:
        async def story() -> None:
            line = await served.lyon.attach(protocol=Protocol(1, 2))
            await line.hear("welcome")
            await line.call.write(link_pb2.AttachRequest.FromString(b"\x98\x06\x01"))
            later = link_pb2.AttachRequest(heartbeat=link_pb2.Heartbeat(number=7))
            later.heartbeat.MergeFromString(b"\x98\x06\x01")
            await line.call.write(later)
            while not (await line.hear("heartbeat")).answer:
                pass
            await line.close()

        asyncio.run(story())

    def test_who_does_not_introduce_itself_is_not_let_in(self, served: Served) -> None:
        async def story() -> None:
            async with served.lyon.link_channel() as channel:
                call = link_pb2_grpc.LinkStub(channel).Attach()
                await call.write(link_pb2.AttachRequest(heartbeat=link_pb2.Heartbeat(number=1)))
                frame: Any = await call.read()
                assert frame.goodbye.code == "link.no_hello"

        asyncio.run(story())

    @pytest.mark.parametrize(
        "hello",
        [
            {"roster_serial": 2**63},
            {"software_version": "1.0\x1b[2J"},
            {"dictionary_version": "1\n2"},
            {"process_id": "\0"},
            {"process_id": "p" * 65},
        ],
        ids=["serial", "version", "dictionary", "process", "long"],
    )
    def test_an_introduction_that_can_be_neither_kept_nor_shown_is_refused(
        self, served: Served, hello: dict[str, Any]
    ) -> None:
        assert asyncio.run(dismissed(served.lyon, **hello)).code == "link.bad_hello"

    def test_status_shows_what_a_node_says_of_itself_letter_by_letter(self, served: Served) -> None:
        async def story() -> None:
            line = await served.lyon.attach(software_version="1 [/x] [red]")
            await line.hear("welcome")
            shown = "1 [/x] [red]"
            await asyncio.to_thread(until, lambda: shown in served.hub.run("status"), "the version in the status")
            await line.close()

        asyncio.run(story())

    def test_answers_that_do_not_hold_are_noted_and_not_kept(self, served: Served) -> None:
        async def story() -> None:
            line, desk = await served.lyon.attach(), served.desk()
            query = desk.asker.ask("lyon")
            updates = desk.ask(query)
            # Another test's question may wait for the center, too; this one must be accepted before it is answered.
            while await line.query() != query:
                pass
            good = line.center.answer(query)
            forged = answer_pb2.SignedAnswer(payload=good.payload, signature=bytes(64))
            huge = answer_pb2.SignedAnswer(payload=bytes(MAXIMUM_ANSWER))
            await line.send(forged, id_of(query))
            await line.send(served.kyoto.center.answer(query), id_of(query))
            await line.send(huge, id_of(query))
            await line.send(good, id_of(query))
            assert (await updates.until("lyon", ANSWERED)).answer == good
            await line.close()
            await desk.close()

        asyncio.run(story())
        # What is noted of an answer may be written after the next one is.
        until(lambda: {"answer.bad_signature", "answer.too_large"} <= served.hub.events(), "the events")

    def test_an_answer_that_is_too_large_is_told_of_once_in_a_session(self, served: Served) -> None:
        def told() -> int:
            return served.hub.log.count("answer.too_large kyoto")

        async def story() -> None:
            line = await served.kyoto.attach()
            for _ in range(9):
                await line.call.write(_piece(kind=link_pb2.PARCEL_KIND_ANSWER, total_size=2**40))
            await line.say(heartbeat=link_pb2.Heartbeat(number=1))
            while not (await line.hear("heartbeat")).answer:
                pass
            await line.close()

        before = told()
        asyncio.run(story())
        assert told() == before + 1

    def test_an_answer_of_a_query_that_went_elsewhere_is_not_kept(self, served: Served) -> None:
        async def story() -> None:
            kyoto, desk = await served.kyoto.attach(), served.desk()
            query = desk.asker.ask("lyon")
            await desk.ask(query).accepted()
            await kyoto.answer(query)
            assert set(await desk.follow(id_of(query), wait=False).rest()) == {"lyon"}
            await desk.cancel(id_of(query))
            await kyoto.close()
            await desk.close()

        asyncio.run(story())

    def test_heartbeats_are_answered_and_status_tells_of_the_link(self, served: Served) -> None:
        def lyon() -> dict[str, Any]:
            return next(one for one in served.hub.json("status")["centers"] if one["center"] == "lyon")

        async def story() -> None:
            line = await served.lyon.attach(dictionary_version="7")
            await line.say(heartbeat=link_pb2.Heartbeat(number=42))
            echo = await line.hear("heartbeat")
            while not echo.answer:
                echo = await line.hear("heartbeat")
            assert echo.number == 42
            await asyncio.to_thread(
                until, lambda: lyon()["connected"] and lyon()["latency_ms"] is not None, "the link in the status"
            )
            found = await asyncio.to_thread(lyon)
            assert (found["software_version"], found["dictionary_version"], found["protocol"]) == ("test", "7", "1.1")
            assert 6 < found["certificate_days_left"] <= 7
            await line.close()
            await asyncio.to_thread(until, lambda: not lyon()["connected"], "the end of the link in the status")

        asyncio.run(story())


class TestMembership:
    def test_without_a_certificate_the_link_port_lets_nobody_in(self, served: Served) -> None:
        async def story() -> None:
            credentials = grpc.ssl_channel_credentials(served.lyon.authority)
            async with grpc.aio.secure_channel(served.lyon.invitation.link_address, credentials) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await link_pb2_grpc.LinkStub(channel).Renew(link_pb2.RenewRequest(), timeout=5)
            assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE

        asyncio.run(story())

    def test_a_certificate_is_renewed_for_the_same_key_only(self, served: Served) -> None:
        async def story() -> None:
            async with served.lyon.link_channel() as channel:
                stub = link_pb2_grpc.LinkStub(channel)
                request = link_pb2.RenewRequest(certificate_request=served.lyon.link_key.request())
                renewed = certificates.parse((await stub.Renew(request)).certificate)
                former = certificates.parse(served.lyon.certificate)
                assert certificates.spiffe_id(renewed) == certificates.spiffe_id(former)
                assert certificates.serial(renewed) != certificates.serial(former)
                other = link_pb2.RenewRequest(certificate_request=certificates.TlsKey.generate().request())
                assert await refused(stub.Renew(other)) == "certificate.other_key"

        asyncio.run(story())

    def test_an_invitation_is_used_once_and_repeated_by_who_used_it(self, served: Served) -> None:
        again = served.lyon.ask_to_join()
        assert certificates.spiffe_id(certificates.parse(again.certificate)).center == "lyon"
        for changed, code in (
            ({"answering_key": SigningKey.generate().public}, "invitation.used"),
            ({"token": bytes(32)}, "invitation.refused"),
            ({"accrediting_key": b"short"}, "membership.bad_keys"),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                served.lyon.ask_to_join(**changed)
            assert code_of(refusal.value) == code

    def test_health_and_reflection_answer(self, served: Served) -> None:
        credentials = grpc.ssl_channel_credentials(served.lyon.authority)
        with grpc.secure_channel(served.lyon.invitation.hub_address, credentials) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "connexon.v1.Research", "connexon.v1.Membership"):
                response = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS)
                assert response.status == health_pb2.HealthCheckResponse.SERVING
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            replies = stub.ServerReflectionInfo(iter([request]), metadata=reflection_proof(served.researcher()))
            names = {one.name for one in next(replies).list_services_response.service}
            with pytest.raises(grpc.RpcError) as refusal:
                next(stub.ServerReflectionInfo(iter([request])))
        assert {"connexon.v1.Research", "connexon.v1.Membership", "grpc.health.v1.Health"} <= names
        assert code_of(refusal.value) == "call.unproved"

    def test_nobody_stays_on_the_line_to_watch_the_hubs_health(self, served: Served) -> None:
        credentials = grpc.ssl_channel_credentials(served.lyon.authority)
        with grpc.secure_channel(served.lyon.invitation.hub_address, credentials) as channel:
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            with pytest.raises(grpc.RpcError) as refusal:
                next(watching)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_a_researcher_holds_only_so_many_calls_at_once(self, served: Served) -> None:
        async def story() -> None:
            desk = served.desk()
            stub = reflection_pb2_grpc.ServerReflectionStub(desk.channel)

            async def hold() -> Any:
                call = stub.ServerReflectionInfo(metadata=reflection_proof(desk.asker))
                await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                assert await call.read() is not grpc.aio.EOF, await call.details()
                return call

            held = [await hold() for _ in range(PER_RESEARCHER)]
            # Over another connection: on one, gRPC itself lets more wait.
            other = Desk(desk.asker, served.lyon)
            stub = reflection_pb2_grpc.ServerReflectionStub(other.channel)
            turned_away = stub.ServerReflectionInfo(metadata=reflection_proof(desk.asker))
            assert await refused(turned_away.read()) == "hub.too_many_calls"
            held[0].cancel()
            # One that has ended makes room, as soon as the hub has heard of it.
            async with asyncio.timeout(SECONDS):
                while (again := stub.ServerReflectionInfo(metadata=reflection_proof(desk.asker))) is not None:
                    await again.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        if await again.read() is not grpc.aio.EOF:
                            break
            await other.close()
            await desk.close()

        asyncio.run(story())


class TestOperating:
    """Tests that change the hub, each on a hub of its own."""

    @pytest.fixture
    def own(self, tmp_path: Path) -> Callable[..., HubProcess]:
        return lambda **settings: HubProcess(tmp_path, settings=settings)

    def test_a_killed_hub_delivers_what_it_had_accepted_and_keeps_what_was_answered(
        self, own: Callable[..., HubProcess]
    ) -> None:
        with own() as hub:
            lyon = hub.join("lyon")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")

            async def before() -> query_pb2.SignedQuery:
                desk = Desk(lyon.researcher(), lyon)
                query = desk.asker.ask("lyon")
                await desk.ask(query).accepted()
                hub.kill()
                await desk.close()
                return query

            query = asyncio.run(before())
            hub.start()
            researcher = lyon.researcher()

            async def after() -> None:
                line = await lyon.attach()
                assert await line.query() == query
                answer = line.center.answer(query)
                await line.send(answer, id_of(query))
                while (await line.hear("stored")).kind != link_pb2.PARCEL_KIND_ANSWER:
                    pass
                hub.kill()
                await line.close()
                hub.start()
                desk = Desk(researcher, lyon)
                found = await desk.follow(id_of(query)).rest()
                assert (found["lyon"].state, found["lyon"].answer) == (ANSWERED, answer)
                # Answered is answered: it is not delivered again.
                again = await lyon.attach()
                other = desk.asker.ask("lyon")
                desk.ask(other)
                assert await again.query() == other
                await again.close()
                await desk.close()

            asyncio.run(after())

    def test_suspension_ends_a_live_session_and_reinstatement_lets_the_center_back(
        self, own: Callable[..., HubProcess]
    ) -> None:
        with own() as hub:
            lyon, kyoto = hub.join("lyon", activate=False), hub.join("kyoto")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")

            async def story() -> None:
                line, desk = await lyon.attach(), Desk(kyoto.researcher(), kyoto)
                await line.hear("welcome")
                # Listening meanwhile: the hub waits a moment only for its last word to be taken.
                last = asyncio.create_task(line.hear("goodbye"))
                await asyncio.to_thread(hub.run, "suspend", "lyon", "--because", "audit")
                goodbye = await last
                assert (goodbye.code, goodbye.retry) == ("membership.suspended", True)
                assert (await dismissed(lyon)).code == "membership.suspended"
                # Researchers go by the roster, which does not say so yet: what they ask waits, as for one that is away.
                await desk.ask(desk.asker.ask("lyon")).accepted()
                assert (await dismissed(lyon)).code == "membership.suspended"
                await asyncio.to_thread(hub.run, "reinstate", "lyon")
                while (line := await lyon.attach()) is not None:
                    frame = await line.call.read()
                    if frame.WhichOneof("frame") == "welcome":
                        break
                    await line.close()
                last = asyncio.create_task(line.hear("goodbye"))
                await asyncio.to_thread(hub.run, "revoke", "lyon", "--yes")
                goodbye = await last
                assert goodbye.code in ("membership.revoked", "certificate.revoked")
                assert not goodbye.retry
                await desk.close()

            asyncio.run(story())

    def test_a_center_waits_for_the_roster_and_is_told_so(self, own: Callable[..., HubProcess]) -> None:
        with own() as hub:
            lyon = hub.join("lyon", activate=False)
            goodbye = asyncio.run(dismissed(lyon))
            assert (goodbye.code, goodbye.retry) == ("membership.not_active", True)
            hub.publish()
            until(lambda: "roster 2 is in force" in hub.log, "the roster")

            async def story() -> None:
                line = await lyon.attach(roster_serial=2)
                await line.hear("welcome")
                await asyncio.to_thread(hub.publish)
                assert peek(await line.hear("roster")).serial == 3
                # A stop tells everybody to come back.
                stopping = asyncio.create_task(asyncio.to_thread(hub.stop))
                goodbye = await line.hear("goodbye")
                assert (goodbye.code, goodbye.retry) == ("hub.stopping", True)
                assert await stopping == 0

            asyncio.run(story())
            assert not (hub.hub / "serve.json").exists()

    def test_old_answers_are_removed(self, own: Callable[..., HubProcess]) -> None:
        with own(answers_kept_days=1 / 86_400) as hub:
            lyon = hub.join("lyon")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")
            researcher = lyon.researcher()

            async def answered() -> str:
                line, desk = await lyon.attach(), Desk(researcher, lyon)
                query = desk.asker.ask("lyon")
                updates = desk.ask(query)
                await line.query()
                await line.answer(query)
                assert (await updates.rest())["lyon"].state == ANSWERED
                await line.close()
                await desk.close()
                return id_of(query)

            async def state(query_id: str) -> int:
                desk = Desk(researcher, lyon)
                found = await desk.follow(query_id).rest()
                await desk.close()
                return found["lyon"].state

            query_id = asyncio.run(answered())
            hub.stop()
            hub.start()

            async def removed() -> None:
                # A hub removes nothing by its clock before it has compared it with a center's.
                line = await lyon.attach()
                await asyncio.to_thread(
                    until, lambda: asyncio.run(state(query_id)) == REMOVED, "the answer to be removed"
                )
                await line.close()

            asyncio.run(removed())

    def test_old_queries_are_forgotten_and_it_is_said(self, own: Callable[..., HubProcess]) -> None:
        with own(answers_kept_days=0.05 / 86_400) as hub:
            lyon = hub.join("lyon")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")

            async def story() -> None:
                desk = Desk(lyon.researcher(), lyon)
                query = desk.asker.sign(desk.asker.question(["lyon"], issued_at_ms=now_ms(), life_ms=2_000))
                await desk.ask(query).rest()
                line = await lyon.attach()
                await asyncio.to_thread(until, lambda: "1 queries forgotten" in hub.log, "the query to be forgotten")
                assert await refused(desk.follow(id_of(query)).next()) == "query.not_kept"
                assert await refused(desk.ask(query).next()) == "query.expired"
                assert await desk.cancel(id_of(query)) == 0
                listed = await desk.stub.ListQueries(
                    research_pb2.ListQueriesRequest(), metadata=desk.proof("ListQueries")
                )
                assert not listed.queries
                await line.close()
                await desk.close()

            asyncio.run(story())

    def test_a_certificate_that_runs_out_ends_its_session(self, own: Callable[..., HubProcess]) -> None:
        with own(link_certificate_seconds=10) as hub:
            lyon = hub.join("lyon")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")

            async def story() -> None:
                # A fresh one: the first may have run out while the roster was made.
                lyon.certificate = lyon.ask_to_join().certificate
                line = await lyon.attach()
                await line.hear("welcome")
                goodbye = await line.hear("goodbye")
                assert (goodbye.code, goodbye.retry) == ("certificate.expired", True)
                # The connection is still up, and helps nobody who has let the certificate run out.
                stub = link_pb2_grpc.LinkStub(line.channel)
                request = link_pb2.RenewRequest(certificate_request=lyon.link_key.request())
                assert await refused(stub.Renew(request)) == "certificate.expired"
                again = stub.Attach()
                last: Any = await again.read()
                assert last.goodbye.code == "certificate.expired"
                await line.close()

            asyncio.run(story())

    def test_a_center_that_renews_without_end_is_told_when_to_come_back_and_stays_connected(
        self, own: Callable[..., HubProcess]
    ) -> None:
        with own(certificates_per_day=4) as hub:
            lyon = hub.join("lyon")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")

            async def story() -> None:
                line = await lyon.attach()
                await line.hear("welcome")
                stub = link_pb2_grpc.LinkStub(line.channel)
                request = link_pb2.RenewRequest(certificate_request=lyon.link_key.request())
                for _ in range(3):
                    await stub.Renew(request)
                for _ in range(2):
                    assert await refused(stub.Renew(request)) == "certificate.too_many"
                with pytest.raises(grpc.RpcError) as refusal:
                    await asyncio.to_thread(lyon.ask_to_join)
                assert "come back after" in refusal.value.details()
                await line.say(heartbeat=link_pb2.Heartbeat(number=7))
                while not (await line.hear("heartbeat")).answer:
                    pass
                await line.close()

            asyncio.run(story())

    def test_with_its_keys_replaced_a_center_renews_no_certificate_of_the_former_key(
        self, own: Callable[..., HubProcess]
    ) -> None:
        with own() as hub:
            former = hub.join("lyon")
            until(lambda: "roster 2 is in force" in hub.log, "the roster")
            who = ("--legal-name", "Center lyon", "--country", "FR", "--kind", "public")

            async def story() -> None:
                async with former.link_channel() as channel:
                    stub = link_pb2_grpc.LinkStub(channel)
                    request = link_pb2.RenewRequest(certificate_request=former.link_key.request())
                    former.certificate = (await stub.Renew(request)).certificate
                    code = await asyncio.to_thread(hub.run, "invite", "lyon", *who, "--replace-keys")
                    present = await asyncio.to_thread(JoinedCenter.join, code)
                    # At once, before the hub has looked at what its operator and the center have changed.
                    assert await refused(stub.Renew(request)) in ("certificate.other_key", "certificate.revoked")
                await asyncio.to_thread(hub.publish)
                await asyncio.to_thread(until, lambda: "roster 3 is in force" in hub.log, "the roster")
                assert (await dismissed(former)).code == "certificate.revoked"
                line = await present.attach()
                await line.hear("welcome")
                await line.close()

            asyncio.run(story())

    def test_the_servers_certificate_renews_without_a_restart(self, own: Callable[..., HubProcess]) -> None:
        # Renewed after eight seconds: four are left for a handshake on a machine that has other things to do.
        with own(server_certificate_days=12 / 86_400) as hub:
            lyon = hub.join("lyon")
            served_by = hub.hub / "keys" / "server.crt"
            first = served_by.read_bytes()

            def renewed() -> bool:
                # A new connection: the handshake is where the hub looks.
                lyon.roster_serial()
                return served_by.read_bytes() != first

            until(renewed, "a new server certificate")

    def test_a_second_hub_on_the_same_folder_is_refused(self, own: Callable[..., HubProcess]) -> None:
        with own() as hub:
            assert "hub.already_serving" in hub.run("serve", accept=1)

    def test_a_roster_is_signed_where_there_is_no_hub(self, own: Callable[..., HubProcess], tmp_path: Path) -> None:
        with own() as hub:
            hub.join("lyon", activate=False)
            draft, signed = tmp_path / "draft.json", tmp_path / "draft.signed.json"
            hub.run("roster", "draft", "--out", str(draft), "--policies", str(tmp_path / "policies"))
            hub.folder, folder = tmp_path / "elsewhere", hub.folder
            _run_anywhere("roster", "sign", str(draft), "--root-dir", str(folder / "root"), "--yes")
            hub.folder = folder
            hub.run("roster", "publish", str(signed))
            assert peek(from_text_file(signed.read_text())).serial == 2
            shown = hub.json("roster", "show")
            assert [(one["center"], one["status"]) for one in shown["members"]] == [("lyon", "active")]
            assert [one["status"] for one in hub.json("members")["members"]] == ["active"]


def _run_anywhere(*arguments: str) -> None:
    """Run a command without any hub's folder."""
    import subprocess

    from tests.support.hub import COMMAND

    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
