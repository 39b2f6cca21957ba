"""The node's link against a hub on a real socket with mutual TLS."""

from __future__ import annotations

import asyncio
import datetime
import logging
import threading

import pytest

from connexon.clock import DAY, MINUTE, now_ms
from connexon.errors import Unavailable
from connexon.identity import certificates
from connexon.identity import roster as rosters
from connexon.link import frames
from connexon.query import signed
from connexon.v1 import answer_pb2, link_pb2, query_pb2
from connexon_node.delivery.inbox import Inbox
from connexon_node.membership.keys import LinkCertificate
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.values import Work
from connexon_node.state import open_state
from tests.support.federation import new_federation
from tests.support.kyoto import QUICK, Kyoto
from tests.support.small_hub import PATIENCE_SECONDS, SmallHub, goodbye, soon, until, welcome


def read(kyoto: Kyoto, body: bytes, query: query_pb2.SignedQuery) -> answer_pb2.Answer:
    return signed.verify_answer(
        answer_pb2.SignedAnswer.FromString(body),
        kyoto.federation.roster(),
        center=kyoto.identity.center,
        query_payload=query.payload,
        parcel=query.SerializeToString(),
    )


def test_a_query_is_stored_answered_and_not_sent_again_once_the_hub_has_it(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            assert session.hello.dictionary_version == "1.0"
            assert certificates.spiffe_id(session.certificate) == kyoto.identity
            query_id = session.deliver(query)
            answer = read(kyoto, await session.answer(query_id), query)
            assert answer.count.cells[0].number == 12
            session.confirm(query_id)
            database = open_state(kyoto.folder.default_state_url)
            await until(lambda: Inbox(database).unsent() == [])
            session.hang_up()
            again = await hub.session(2)
            second = again.deliver(kyoto.federation.researcher().ask("kyoto"))
            await again.answer(second)
            assert again.answers(query_id) == []
            assert again.hello.process_id == session.hello.process_id

    asyncio.run(story())


def test_an_answer_is_sent_again_until_the_hub_has_it(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running():
            async with kyoto.running(hub):
                session = await hub.session()
                query_id = session.deliver(query)
                first = await session.answer(query_id)
                session.hang_up()
                assert await (await hub.session(2)).answer(query_id) == first
            async with kyoto.running(hub):
                assert await (await hub.session(3)).answer(query_id) == first

    asyncio.run(story())
    assert kyoto.records() == 1


def test_the_same_query_again_gets_the_same_answer_and_is_worked_on_once(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            first = await session.answer(query_id)
            session.deliver(query)
            await until(lambda: len(session.answers(query_id)) == 2)
            assert session.answers(query_id) == [first, first]

    asyncio.run(story())
    assert kyoto.records() == 1


def test_another_query_under_a_used_id_is_refused_and_the_first_stays(kyoto: Kyoto, hub: SmallHub) -> None:
    ada = kyoto.federation.researcher()
    query, other = ada.ask("kyoto"), ada.ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            first = await session.answer(query_id)
            session.deliver(other, query_id=query_id)
            await until(lambda: len(session.answers(query_id)) == 2)
            assert read(kyoto, session.answers(query_id)[1], other).reason.code == "query.id_reused"
            session.deliver(query)
            await until(lambda: len(session.answers(query_id)) == 3)
            assert session.answers(query_id)[2] == first

    asyncio.run(story())
    assert kyoto.records() == 2


def bent(query: query_pb2.SignedQuery, **parts: object) -> query_pb2.SignedQuery:
    """The same question as whoever carries it could alter it."""
    return query_pb2.SignedQuery(**{**{field.name: value for field, value in query.ListFields()}, **parts})


BENDINGS: list[dict[str, object]] = [{"signature": bytes(64)}, {"credential": "x"}]


@pytest.mark.parametrize("bending", BENDINGS)
def test_no_refusal_of_an_answered_question_is_to_be_had_by_bending_what_stands_beside_it(
    kyoto: Kyoto, hub: SmallHub, bending: dict[str, object]
) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            first = await session.answer(query_id)
            session.deliver(bent(query, **bending))
            await until(lambda: len(session.answers(query_id)) == 2)
            assert session.answers(query_id) == [first, first]

    asyncio.run(story())
    assert kyoto.records() == 1


@pytest.mark.parametrize("bending", BENDINGS)
def test_a_bent_question_is_refused_for_its_own_bytes_only_and_the_genuine_one_is_answered_afterwards(
    kyoto: Kyoto, hub: SmallHub, bending: dict[str, object]
) -> None:
    query = kyoto.federation.researcher().ask("kyoto")
    other = bent(query, **bending)

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(other)
            refusal = await session.answer(query_id)
            assert read(kyoto, refusal, other).status == answer_pb2.ANSWER_STATUS_REFUSED
            with pytest.raises(signed.AnswerRefused) as refused:
                read(kyoto, refusal, query)
            assert refused.value.code == "answer.other_query"
            session.deliver(query)
            await until(lambda: len(session.answers(query_id)) == 2)
            assert read(kyoto, session.answers(query_id)[1], query).count.cells[0].number == 12

    asyncio.run(story())
    assert kyoto.records() == 2


def test_a_question_in_the_clothes_of_another_is_refused_and_takes_no_ids_place(kyoto: Kyoto, hub: SmallHub) -> None:
    ada = kyoto.federation.researcher()
    query, other = ada.ask("kyoto"), ada.ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = query_pb2.Query.FromString(query.payload).query_id
            session.deliver(other, query_id=query_id)
            assert read(kyoto, await session.answer(query_id), other).reason.code == "query.other_id"
            session.deliver(query)
            await until(lambda: len(session.answers(query_id)) == 2)
            assert read(kyoto, session.answers(query_id)[1], query).status == answer_pb2.ANSWER_STATUS_RELEASED

    asyncio.run(story())


def test_a_payload_delivered_bare_brings_no_refusal_of_the_question_in_it(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = query_pb2.Query.FromString(query.payload).query_id
            for piece in frames.pieces(query_id, link_pb2.PARCEL_KIND_QUERY, query.payload):
                session.send(link_pb2.AttachResponse(chunk=piece))
            refusal = await session.answer(query_id)
            with pytest.raises(signed.AnswerRefused):
                read(kyoto, refusal, query)

    asyncio.run(story())


def test_an_id_that_was_removed_from_the_inbox_is_refused_as_used(kyoto: Kyoto, hub: SmallHub) -> None:
    ada = kyoto.federation.researcher()
    query = ada.ask("kyoto")
    computed: list[Work] = []
    kyoto.engine.during = computed.append

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            await session.answer(query_id)
            database = open_state(kyoto.folder.default_state_url)
            assert Inbox(database).prune(before_ms=now_ms() + 2 * DAY) == 1
            again = ada.sign(ada.question(["kyoto"], query_id=query_id))
            session.deliver(query)  # nothing is said of it: two answers to one question would contradict each other
            session.deliver(again)
            await until(lambda: len(session.answers(query_id)) == 2)
            assert read(kyoto, session.answers(query_id)[1], again).reason.code == "query.id_reused"

    asyncio.run(story())
    assert len(computed) == 1
    assert kyoto.records() == 2


def test_a_cancelled_query_stops_computing_and_is_recorded_as_cancelled(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")
    computing, interrupted = threading.Event(), threading.Event()

    def long_work(work: Work) -> None:
        work.on_cancel(interrupted.set)
        computing.set()
        interrupted.wait(PATIENCE_SECONDS)

    kyoto.engine.during = long_work

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            await until(computing.is_set)
            session.send(link_pb2.AttachResponse(cancel=link_pb2.Cancel(query_id="unknown")))
            session.send(link_pb2.AttachResponse(cancel=link_pb2.Cancel(query_id=query_id)))
            answer = read(kyoto, await session.answer(query_id), query)
            assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_CANCELLED, "query.cancelled")

    asyncio.run(story())
    assert interrupted.is_set()
    assert kyoto.records() == 1


def test_long_work_is_announced(kyoto: Kyoto, hub: SmallHub) -> None:
    release = threading.Event()
    kyoto.engine.during = lambda _: (release.wait(PATIENCE_SECONDS), None)[1]

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(kyoto.federation.researcher().ask("kyoto"))
            try:
                await until(lambda: any(frame.progress.query_id == query_id for frame in session.frames))
                stage = next(frame.progress.stage for frame in session.frames if frame.HasField("progress"))
                assert stage == link_pb2.STAGE_COMPUTING
            finally:
                release.set()
            await session.answer(query_id)

    asyncio.run(story())


def test_a_query_in_many_pieces_arrives_whole(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")
    query.credential = "x" * (3 * frames.CHUNK_SIZE + 17)

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            answer = read(kyoto, await session.answer(query_id), query)
            assert answer.reason.code == "credential.unreadable"

    asyncio.run(story())


def test_pieces_that_do_not_fit_end_the_session_and_the_node_comes_back(kyoto: Kyoto, hub: SmallHub) -> None:
    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            piece = link_pb2.Chunk(
                query_id="x", kind=link_pb2.PARCEL_KIND_QUERY, total_size=10, offset=5, data=b"12345"
            )
            session.send(link_pb2.AttachResponse(chunk=piece))
            again = await hub.session(2)
            query_id = again.deliver(kyoto.federation.researcher().ask("kyoto"))
            await again.answer(query_id)

    asyncio.run(story())


@pytest.mark.parametrize("query_id", ["a\0b", "x", "11111111-1111-4111-8111-11111111111A", "'; drop table inbox"])
def test_a_text_that_is_no_id_never_gets_to_the_database(kyoto: Kyoto, hub: SmallHub, query_id: str) -> None:
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            session.send(link_pb2.AttachResponse(cancel=link_pb2.Cancel(query_id=query_id)))
            session.confirm(query_id)
            await session.answer(session.deliver(kyoto.federation.researcher().ask("kyoto")))
            session.deliver(query, query_id=query_id)
            again = await hub.session(2)
            await again.answer(again.deliver(query))
            assert session.answers(query_id) == []
            assert any("query.invalid_id" in state.problem for state in kyoto.states)

    asyncio.run(story())
    assert kyoto.records() == 2


def test_a_body_larger_than_any_question_is_not_taken_in(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")
    large = bent(query, credential="x" * frames.MAXIMUM_QUERY)

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(large)
            again = await hub.session(2)
            assert session.answers(query_id) == []
            again.deliver(query)
            assert read(kyoto, await again.answer(query_id), query).status == answer_pb2.ANSWER_STATUS_RELEASED

    asyncio.run(story())


def test_the_node_comes_back_after_the_hub_was_away(
    kyoto: Kyoto, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            await hub.session()
            await until(lambda: kyoto.states)
            await hub.stop()
            await until(lambda: kyoto.states[-1].attached_since_ms is None)
            await hub.start()
            session = await hub.session(2)
            query_id = session.deliver(kyoto.federation.researcher().ask("kyoto"))
            await session.answer(query_id)

    with caplog.at_level(logging.INFO, "connexon.node"):
        asyncio.run(story())
    assert (
        sum(
            "attached to the hub" in record.getMessage() and record.levelno == logging.INFO for record in caplog.records
        )
        == 2
    )


def test_a_hub_that_falls_silent_is_left_and_dialled_again(kyoto: Kyoto, hub: SmallHub) -> None:
    async def story() -> None:
        async with hub.running(), kyoto.running(hub, QUICK):
            # The small hub never answers heartbeats: to the node it is dead.
            session = await hub.session()
            await hub.session(2)
            assert any(frame.HasField("heartbeat") for frame in session.frames)
            assert any("hub.silent" in state.problem for state in kyoto.states)

    asyncio.run(story())


def test_heartbeats_are_answered_with_their_number(kyoto: Kyoto, hub: SmallHub) -> None:
    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            session.send(link_pb2.AttachResponse(heartbeat=link_pb2.Heartbeat(number=7)))
            await until(lambda: any(f.heartbeat.number == 7 and f.heartbeat.answer for f in session.frames))

    asyncio.run(story())


def test_a_goodbye_for_good_is_said_once_and_the_node_keeps_trying(
    kyoto: Kyoto, hub: SmallHub, caplog: pytest.LogCaptureFixture
) -> None:
    greeted = 0

    def refuse(_: link_pb2.Hello) -> link_pb2.AttachResponse:
        nonlocal greeted
        greeted += 1
        return goodbye("membership.suspended", "kyoto is suspended.", retry=False)

    async def story() -> None:
        hub.greet = refuse
        async with hub.running(), kyoto.running(hub):
            await until(lambda: greeted >= 3)
            hub.greet = lambda _: welcome()
            await hub.session()

    with caplog.at_level(logging.INFO, "connexon.node"):
        asyncio.run(story())
    assert sum("kyoto is suspended" in record.getMessage() for record in caplog.records) == 1


def test_a_goodbye_cannot_steer_the_stewards_terminal(kyoto: Kyoto, hub: SmallHub) -> None:
    async def story() -> None:
        hub.greet = lambda _: goodbye("membership\x1b[8m", "all is well\x1b[2J", retry=True)
        async with hub.running(), kyoto.running(hub):
            await until(lambda: any(state.problem for state in kyoto.states))

    asyncio.run(story())
    problem = next(state.problem for state in kyoto.states if state.problem)
    assert "all is well" in problem
    assert problem.isprintable()


def test_a_clock_that_is_off_is_told(kyoto: Kyoto, hub: SmallHub, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        hub.greet = lambda _: welcome(now=now_ms() - 2 * MINUTE)
        async with hub.running(), kyoto.running(hub):
            await hub.session()
            await until(lambda: kyoto.states and kyoto.states[-1].clock_offset_ms is not None)

    with caplog.at_level(logging.WARNING, "connexon.node"):
        asyncio.run(story())
    assert "clock" in caplog.text
    assert abs(kyoto.states[0].clock_offset_ms or 0) > MINUTE


def test_a_newer_roster_counts_at_once_and_older_or_forged_ones_never(kyoto: Kyoto, hub: SmallHub) -> None:
    federation = kyoto.federation
    query = federation.researcher().ask("kyoto")
    suspended = federation.centers["lyon"].with_status(rosters.MemberStatus.SUSPENDED)

    async def story() -> None:
        async with hub.running(), kyoto.running(hub) as keeper:
            session = await hub.session()
            forged = rosters.sign(federation.roster(serial=9), federation.centers["lyon"].answering)
            older = federation.signed_roster(federation.roster(serial=0))
            federation.centers["lyon"] = suspended
            newer = federation.signed_roster(federation.roster(serial=2))
            for roster in (newer, forged, older):
                session.send(link_pb2.AttachResponse(roster=roster))
            query_id = session.deliver(query)
            answer = read(kyoto, await session.answer(query_id), query)
            assert (answer.reason.code, answer.provenance.roster_serial) == ("membership.suspended", 2)
            assert keeper.serial == 2
            assert len(hub.sessions) == 1

    asyncio.run(story())


def test_the_certificate_renews_itself_and_the_new_session_stands_before_the_old_one_ends(
    kyoto: Kyoto, hub: SmallHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        # A certificate that was issued a day ago and ends in an hour.
        patched.setattr(certificates, "CLOCK_SLACK", datetime.timedelta(days=1))
        kyoto.certify(datetime.timedelta(hours=1))
    before = LinkCertificate.load(kyoto.folder).certificate.serial_number
    query = kyoto.federation.researcher().ask("kyoto")

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            old = await hub.session()
            query_id = old.deliver(query)
            new = await hub.session(2)
            await soon(old.ended.wait())
            assert new.hello.process_id == old.hello.process_id
            assert new.certificate.serial_number != before
            assert certificates.public_bytes(new.certificate.public_key()) == certificates.public_bytes(  # type: ignore[arg-type]
                old.certificate.public_key()  # type: ignore[arg-type]
            )
            new.deliver(query)
            await new.answer(query_id)
            assert len(hub.sessions) == 2

    asyncio.run(story())
    assert LinkCertificate.load(kyoto.folder).certificate.serial_number != before
    assert kyoto.records() == 1


def test_an_expired_certificate_is_named_as_such(kyoto: Kyoto, hub: SmallHub) -> None:
    kyoto.certify(datetime.timedelta(seconds=-1))

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            await until(lambda: kyoto.states)
            assert "certificate expired on" in kyoto.states[0].problem

    asyncio.run(story())


def test_a_hub_of_another_authority_is_not_spoken_to(kyoto: Kyoto) -> None:
    stranger = SmallHub(new_federation())

    async def story() -> None:
        async with stranger.running(), kyoto.running(stranger):
            await until(lambda: kyoto.states)
            assert "hub.other_certificate" in kyoto.states[0].problem
            assert stranger.sessions == []

    asyncio.run(story())


def test_a_hundred_queries_at_once_are_each_answered_once(kyoto: Kyoto, hub: SmallHub) -> None:
    ada = kyoto.federation.researcher()
    queries = [ada.ask("kyoto") for _ in range(100)]

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            ids = [session.deliver(query) for query in queries]
            await until(lambda: {parcel.query_id for parcel in session.parcels} == set(ids))

    asyncio.run(story())
    assert kyoto.records() == 100


def test_a_database_that_is_away_for_a_while_delays_the_answer_and_loses_nothing(kyoto: Kyoto, hub: SmallHub) -> None:
    query = kyoto.federation.researcher().ask("kyoto")
    failures = 0

    def away(_: Work) -> None:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise Unavailable("The database cannot be used.", code="database.unavailable")

    kyoto.engine.during = away

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            query_id = session.deliver(query)
            assert read(kyoto, await session.answer(query_id), query).count.cells[0].number == 12

    asyncio.run(story())
    assert failures == 2
    assert kyoto.records() == 1


def test_what_was_received_and_not_answered_is_answered_after_a_restart(kyoto: Kyoto, hub: SmallHub) -> None:
    ada = kyoto.federation.researcher()
    wanted, cancelled = ada.ask("kyoto"), ada.ask("kyoto")
    database = open_state(kyoto.folder.default_state_url)
    for query in (wanted, cancelled):
        query_id = query_pb2.Query.FromString(query.payload).query_id
        Inbox(database).receive(Delivery.arrived(query_id, query.SerializeToString()), researcher="lyon/ada")
    Inbox(database).cancel(query_id)
    database.close()

    async def story() -> None:
        async with hub.running(), kyoto.running(hub):
            session = await hub.session()
            await until(lambda: len({parcel.query_id for parcel in session.parcels}) == 2)
            answers = {parcel.query_id: parcel.body for parcel in session.parcels}
            assert read(kyoto, answers.pop(query_id), cancelled).status == answer_pb2.ANSWER_STATUS_CANCELLED
            (body,) = answers.values()
            assert read(kyoto, body, wanted).status == answer_pb2.ANSWER_STATUS_RELEASED

    asyncio.run(story())
