"""What the hub decides without touching anything: who takes part, what is said in which order, what is news."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.errors import ConnexonError, Misconfigured, NotFound, Refused, Unauthenticated, Unavailable
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import CenterId, SpiffeId
from connexon.identity.roster import MemberStatus, Protocol
from connexon.link import frames
from connexon.query import signed
from connexon.v1 import answer_pb2, link_pb2, models_pb2, query_pb2, research_pb2
from connexon_hub import housekeeping, settings
from connexon_hub.folder import HubFolder
from connexon_hub.membership.authority import hosts
from connexon_hub.membership.founding import Plan, found
from connexon_hub.membership.peers import Peer
from connexon_hub.membership.roster import policy_files
from connexon_hub.membership.standing import HubStatus, Standing, status_by_roster
from connexon_hub.routing.admission import admit
from connexon_hub.routing.payload_cache import Bodies, Body
from connexon_hub.routing.sessions import Introduction, Session, Sessions, goodbye
from connexon_hub.routing.store import ANSWERED, CANCELLED, EXPIRED, RECEIVED, REMOVED, WAITING, Kept, keep
from connexon_hub.routing.stream_quota import MAXIMUM_STREAMS, MAXIMUM_UNTAKEN, Line, Lines, taken_in_time
from connexon_hub.routing.subscriptions import Watch, Watches
from connexon_hub.rpc.models import listed
from connexon_hub.training.files import RunFiles
from tests.support.federation import Federation, new_federation

LYON, KYOTO = CenterId("lyon"), CenterId("kyoto")
REFERRED = answer_pb2.ANSWER_STATUS_REFERRED
AWAITING = answer_pb2.ANSWER_STATUS_AWAITING_STEWARD
RELEASED = answer_pb2.ANSWER_STATUS_RELEASED


@pytest.fixture(scope="module")
def federation() -> Federation:
    return new_federation()


def standing(federation: Federation, **statuses: HubStatus) -> Standing:
    return Standing(
        roster=federation.roster(),
        signed_roster=federation.signed_roster(),
        statuses={CenterId(center): status for center, status in statuses.items()},
    )


class TestStanding:
    def test_the_operator_can_only_narrow_what_the_roster_says(self, federation: Federation) -> None:
        standing(federation).require_active(LYON)
        standing(federation, lyon=HubStatus.ACTIVE).require_active(LYON)
        for status, code in (
            (HubStatus.SUSPENDED, "membership.suspended"),
            (HubStatus.REVOKED, "membership.revoked"),
            (HubStatus.JOINED, "membership.not_active"),
        ):
            with pytest.raises(Refused) as refusal:
                standing(federation, lyon=status).require_active(LYON)
            assert refusal.value.code == code

    def test_what_the_roster_closes_the_hub_cannot_open(self) -> None:
        federation = new_federation()
        federation.centers["lyon"] = federation.centers["lyon"].with_status(MemberStatus.REVOKED)
        with pytest.raises(Refused) as refusal:
            standing(federation, lyon=HubStatus.SUSPENDED).require_active(LYON)
        assert refusal.value.code == "membership.revoked"

    def test_a_center_outside_the_roster_is_not_active(self, federation: Federation) -> None:
        with pytest.raises(Refused) as refusal:
            standing(federation, tokyo=HubStatus.ACTIVE).require_active(CenterId("tokyo"))
        assert refusal.value.code == "membership.not_active"

    def test_a_question_goes_only_to_members_that_take_part(self, federation: Federation) -> None:
        now = standing(federation, kyoto=HubStatus.SUSPENDED)
        # Who goes by the roster cannot know yet: kyoto gets nothing, and the others answer.
        now.require_addressable([LYON, KYOTO])
        with pytest.raises(NotFound) as refusal:
            now.require_addressable([LYON, CenterId("tokyo")])
        assert refusal.value.code == "membership.not_a_member"
        for status in (MemberStatus.SUSPENDED, MemberStatus.REVOKED):
            members = tuple(
                replace(member, status=status) if member.center == KYOTO else member for member in now.roster.members
            )
            signed = replace(now, roster=replace(now.roster, members=members))
            with pytest.raises(Refused) as closed:
                signed.require_addressable([LYON, KYOTO])
            assert closed.value.code == f"membership.{status.value}"

    def test_a_certificate_of_elsewhere_or_revoked_does_not_count(self, federation: Federation) -> None:
        now = replace(standing(federation), revoked_certificates=frozenset({"ab"}))
        now.require_certificate(SpiffeId("alliance", LYON), "cd", b"key")
        for identity, serial, code in (
            (SpiffeId("alliance", LYON), "ab", "certificate.revoked"),
            (SpiffeId("alliance-2", LYON), "cd", "identity.other_federation"),
        ):
            with pytest.raises(Refused) as refusal:
                now.require_certificate(identity, serial, b"key")
            assert refusal.value.code == code

    def test_a_certificate_counts_for_the_key_that_the_center_joined_with(self, federation: Federation) -> None:
        now = replace(standing(federation), link_keys={LYON: b"new"})
        now.require_certificate(SpiffeId("alliance", LYON), "ab", b"new")
        now.require_certificate(SpiffeId("alliance", KYOTO), "cd", b"any: the hub knows none of this center")
        with pytest.raises(Unauthenticated) as refusal:
            now.require_certificate(SpiffeId("alliance", LYON), "ab", b"old")
        assert refusal.value.code == "certificate.other_key"

    def test_active_takes_a_roster_with_the_very_keys(self, federation: Federation) -> None:
        member = federation.centers["lyon"].member
        own = {"accrediting_key": member.accrediting_keys[0], "answering_key": member.answering_keys[0]}
        assert status_by_roster(HubStatus.JOINED, member, **own) is HubStatus.ACTIVE
        assert status_by_roster(HubStatus.ACTIVE, None, **own) is HubStatus.JOINED
        assert status_by_roster(HubStatus.SUSPENDED, member, **own) is HubStatus.SUSPENDED
        assert status_by_roster(HubStatus.ACTIVE, member, **{**own, "answering_key": b"other"}) is HubStatus.JOINED
        assert status_by_roster(HubStatus.INVITED, None, accrediting_key=None, answering_key=None) is HubStatus.INVITED


class TestListedModels:
    def test_what_is_said_of_one_model_keeps_no_other_from_the_list(self) -> None:
        much = [models_pb2.ModelFlag(code="c", message="m" * 1000, center_id=f"c{number}") for number in range(1100)]
        word = [models_pb2.ModelFlag(code="c", message="m", center_id="lyon")]
        found = listed(
            models_pb2.ModelSummary(model_id=model, flags=flags) for model, flags in (("a/2", word), ("a/1", much))
        )
        assert [one.model_id for one in found.models] == ["a/2", "a/1"]
        assert list(found.models[0].flags) == word
        assert 0 < len(found.models[1].flags) < len(much)
        assert found.ByteSize() < frames.MAXIMUM_FRAME

    def test_the_newest_that_fit_one_message_are_listed(self) -> None:
        names = [f"{number:0200000}/1" for number in range(9)]
        found = listed(models_pb2.ModelSummary(model_id=name) for name in names)
        assert [one.model_id for one in found.models] == names[:4]


class TestAdmission:
    def test_a_query_is_admitted_for_the_researcher_who_calls(self, federation: Federation) -> None:
        ada, bob = federation.researcher("lyon", "ada"), federation.researcher("lyon", "bob")
        now = standing(federation)
        token, proof = (value for _, value in ada.call("/m"))
        caller, _ = signed.verify_call(token, proof, now.roster, NOTHING_REVOKED, method="/m")
        submission = admit(ada.ask("lyon", "kyoto"), caller, now, NOTHING_REVOKED, traceparent="t")
        assert (submission.researcher_id, submission.centers) == ("lyon/ada", (KYOTO, LYON))
        with pytest.raises(Unauthenticated) as refusal:
            admit(bob.ask("lyon"), caller, now, NOTHING_REVOKED, traceparent="")
        assert refusal.value.code == "query.other_researcher"


@pytest.mark.parametrize(
    ("state", "status", "kept"),
    [
        (None, 0, Kept.UNKNOWN),
        (WAITING, RELEASED, Kept.KEPT),
        (RECEIVED, REFERRED, Kept.KEPT),
        (RECEIVED, AWAITING, Kept.FOR_NOW),
        (ANSWERED, RELEASED, Kept.ALREADY),
        (ANSWERED, AWAITING, Kept.ALREADY),
        (CANCELLED, RELEASED, Kept.CLOSED),
        (EXPIRED, RELEASED, Kept.CLOSED),
        (REMOVED, RELEASED, Kept.CLOSED),
    ],
)
def test_which_answers_are_kept(
    state: research_pb2.DeliveryState.ValueType | None, status: answer_pb2.AnswerStatus.ValueType, kept: Kept
) -> None:
    assert keep(state, status) is kept


class Tape:
    """Takes what a session says; `hold` makes the center stop listening."""

    def __init__(self) -> None:
        self.said: list[link_pb2.AttachResponse] = []
        self.listening = asyncio.Event()
        self.listening.set()

    async def send(self, frame: link_pb2.AttachResponse) -> None:
        await self.listening.wait()
        self.said.append(frame)

    def kinds(self) -> list[str]:
        return [str(frame.WhichOneof("frame")) for frame in self.said]


def _anything(credential: str) -> None:
    """No reason against any credential."""


class Shelf(Bodies):
    """Bodies by id without a database: as many frames as the id has letters."""

    def __init__(self) -> None:
        self._judge = _anything

    async def get(self, query_id: str) -> Body | None:
        await asyncio.sleep(0)
        frame = link_pb2.AttachResponse(chunk=link_pb2.Chunk(query_id=query_id))
        return Body(b"", "", (frame,) * len(query_id), 0)


def session(tape: Tape, process_id: str = "p") -> Session:
    peer = Peer(SpiffeId("alliance", LYON), "ab", 0, b"")
    return Session(peer, Introduction(process_id, Protocol(1, 0), "", "", 0), tape.send, Shelf())


def played(story: Callable[[Session, Tape], Awaitable[None]]) -> Tape:
    """Let a session write while a story goes on, then say goodbye and wait for the end."""

    async def play() -> Tape:
        tape = Tape()
        link = session(tape)
        writing = asyncio.create_task(link.write_all())
        await story(link, tape)
        tape.listening.set()
        await settled(link)
        link.end(Unavailable("over", code="hub.stopping"))
        await writing
        return tape

    async def settled(link: Session) -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    return asyncio.run(play())


class TestSessions:
    def test_control_frames_overtake_parcels(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            tape.listening.clear()
            link.deliver("long")
            link.tell(link_pb2.AttachResponse(stored=link_pb2.Stored(query_id="x")))
            await asyncio.sleep(0)

        assert played(story).kinds() == ["stored", "chunk", "chunk", "chunk", "chunk", "goodbye"]

    def test_a_query_is_delivered_once_in_a_session(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.deliver("q")
            await asyncio.sleep(0)
            link.deliver("q")

        assert played(story).kinds() == ["chunk", "goodbye"]

    def test_a_center_that_never_got_a_query_hears_nothing_of_its_end(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.deliver("q")
            link.cancel("q")
            link.cancel("other")

        assert played(story).kinds() == ["goodbye"]

    def test_a_query_that_the_center_may_have_from_before_is_taken_back_aloud(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.deliver("q", again=True)
            link.cancel("q")

        assert played(story).kinds() == ["cancel", "goodbye"]

    def test_what_is_taken_back_while_it_is_read_again_is_taken_back_aloud(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.deliver("q", again=True)
            await asyncio.sleep(0)
            link.cancel("q")
            for _ in range(20):
                await asyncio.sleep(0)
            assert tape.kinds() == ["cancel"]

        assert played(story).kinds() == ["cancel", "goodbye"]

    def test_a_query_taken_back_while_the_backlog_is_read_is_not_delivered_from_it(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.cancel("q")
            link.deliver("q", again=True)
            link.caught_up()

        assert played(story).kinds() == ["goodbye"]

    def test_a_cancellation_does_not_overtake_its_query(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.deliver("abc")
            while not tape.said:
                await asyncio.sleep(0)
                tape.listening.set()
            link.cancel("abc")

        assert played(story).kinds() == ["chunk", "chunk", "chunk", "cancel", "goodbye"]

    def test_after_the_answer_a_cancellation_is_not_sent(self) -> None:
        async def story(link: Session, tape: Tape) -> None:
            link.deliver("q")
            await asyncio.sleep(0)
            link.settle("q")
            link.cancel("q")

        assert "cancel" not in played(story).kinds()

    @given(st.lists(st.sampled_from(["deliver", "cancel", "settle", "tell"]), max_size=20))
    def test_in_any_order_nothing_is_cancelled_that_was_not_sent_whole(self, steps: list[str]) -> None:
        async def story(link: Session, tape: Tape) -> None:
            for step in steps:
                if step == "tell":
                    link.tell(link_pb2.AttachResponse(stored=link_pb2.Stored()))
                else:
                    getattr(link, step)("ab")
                await asyncio.sleep(0)

        kinds = [kind for kind in played(story).kinds() if kind in ("chunk", "cancel")]
        for place, kind in enumerate(kinds):
            if kind == "cancel":
                assert kinds[:place].count("chunk") >= 2

    def test_only_what_can_change_by_itself_is_worth_a_retry(self) -> None:
        def retry(code: str) -> bool:
            return goodbye(ConnexonError("", code=code)).goodbye.retry

        assert retry("hub.stopping")
        assert retry("membership.not_active")
        assert retry("membership.suspended")
        assert not retry("membership.revoked")
        assert not retry("link.version_unsupported")
        assert not retry("certificate.revoked")

    async def test_a_later_link_of_a_center_takes_the_place_of_the_former(self) -> None:
        sessions = Sessions()
        first, second = session(Tape()), session(Tape())
        sessions.put(first)
        sessions.put(second)
        assert first.gone.is_set()
        assert not sessions.remove(first)
        assert sessions.get(LYON) is second
        assert sessions.remove(second)
        assert len(sessions) == 0


class ShutHub:
    """A hub whose database cannot be read, with one link."""

    def __init__(self, standing: Standing, link: Session) -> None:
        self.standing = standing
        self.rosters = self.settings = self
        self.answers_kept_days = 30
        self.sessions = [link]

    def revision(self) -> tuple[int, int]:
        raise Unavailable("The database cannot be read.", code="hub.database_unavailable")


def test_a_link_whose_certificate_has_expired_ends_also_while_the_database_cannot_be_read(
    federation: Federation,
) -> None:
    async def story() -> list[link_pb2.AttachResponse]:
        tape = Tape()
        link = session(tape)
        hub: Any = ShutHub(standing(federation), link)
        keeping = asyncio.create_task(housekeeping.run(hub))
        await asyncio.wait_for(link.write_all(), 5)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        return tape.said

    assert asyncio.run(story())[-1].goodbye.code == "certificate.expired"


class TestFollowing:
    def delivery(self, state: research_pb2.DeliveryState.ValueType, size: int = 0) -> research_pb2.Delivery:
        answer = answer_pb2.SignedAnswer(payload=bytes(size)) if size else None
        return research_pb2.Delivery(center_id="lyon", state=state, answer=answer)

    async def test_news_that_comes_before_the_beginning_is_newer(self) -> None:
        watch = Watch("q", Line())
        watch.tell(self.delivery(ANSWERED))
        watch.begin({LYON: WAITING, KYOTO: WAITING})
        assert watch.pending == {KYOTO: WAITING}
        assert [delivery.state for delivery in watch.take()] == [ANSWERED]
        assert watch.take() == []

    async def test_of_each_center_only_the_newest_is_told(self) -> None:
        watch = Watch("q", Line())
        watch.begin({LYON: WAITING})
        watch.tell(self.delivery(RECEIVED))
        watch.tell(self.delivery(ANSWERED))
        await watch.changed()
        assert [delivery.state for delivery in watch.take()] == [ANSWERED]

    async def test_news_on_the_way_is_told_after_a_moment(self) -> None:
        watch = Watch("q", Line())
        watch.begin({LYON: WAITING})
        watch.tell(self.delivery(RECEIVED))
        assert watch.take() == []
        async with asyncio.timeout(5):
            await watch.changed()
        assert [delivery.state for delivery in watch.take()] == [RECEIVED]

    async def test_a_researcher_who_does_not_read_cannot_fill_the_hubs_memory(self) -> None:
        line = Line()
        one, two = Watch("q", line), Watch("q", line)
        one.tell(self.delivery(ANSWERED, size=MAXIMUM_UNTAKEN // 2))
        two.tell(self.delivery(ANSWERED, size=MAXIMUM_UNTAKEN // 2))
        # Dropped at once, though nobody comes to take it.
        assert line.untaken < MAXIMUM_UNTAKEN
        two.tell(self.delivery(ANSWERED, size=1))
        with pytest.raises(Unavailable) as refusal:
            two.take()
        assert refusal.value.code == "hub.slow_reader"
        assert [delivery.state for delivery in one.take()] == [ANSWERED]

    async def test_what_is_on_its_way_to_a_researcher_counts_until_it_has_left(self) -> None:
        line = Line()
        watch = Watch("q", line)
        watch.tell(self.delivery(ANSWERED, size=1_000))
        watch.take()
        assert line.untaken > 1_000
        watch.tell(self.delivery(ANSWERED, size=10))
        watch.left()
        assert 10 < line.untaken < 1_000
        watch.take()
        watch.close()
        assert line.untaken == 0

    def test_a_message_that_nobody_takes_ends_its_stream(self) -> None:
        async def story() -> None:
            async with taken_in_time(0.01):
                await asyncio.Event().wait()

        with pytest.raises(Unavailable) as refusal:
            asyncio.run(story())
        assert refusal.value.code == "hub.slow_reader"

    def test_a_researcher_holds_only_so_many_streams(self) -> None:
        lines = Lines()
        with ExitStack() as open_streams:
            for _ in range(MAXIMUM_STREAMS - 1):
                open_streams.enter_context(lines.hold("lyon/ada"))
            with lines.hold("lyon/ada") as line:
                assert line.streams == MAXIMUM_STREAMS
                with pytest.raises(Unavailable) as refusal, lines.hold("lyon/ada"):
                    pass
                assert refusal.value.code == "hub.too_many_streams"
                with lines.hold("kyoto/bob") as theirs:
                    assert theirs.streams == 1
            with lines.hold("lyon/ada"):
                pass

    def test_those_who_wait_for_a_center_are_found(self) -> None:
        watches = Watches()
        one, two = watches.open("q", Line()), watches.open("r", Line())
        one.begin({LYON: RECEIVED, KYOTO: ANSWERED})
        two.begin({KYOTO: WAITING})
        assert watches.waiting_for(LYON) == [one]
        assert watches.waiting_for(KYOTO) == [two]
        watches.close(one)
        assert watches.waiting_for(LYON) == []


class TestBodies:
    async def test_the_memory_of_bodies_is_bounded(self) -> None:
        class Nowhere:
            def body(self, query_id: str) -> None:
                return None

        bodies = Bodies(Nowhere(), RunFiles(Path()).task, _anything, maximum_bytes=5_000)  # type: ignore[arg-type]  # a store of nothing
        for number in range(5):
            bodies.put(str(number), query_pb2.SignedQuery(payload=bytes(1_000)).SerializeToString(), "")
        assert [number for number in range(5) if await bodies.get(str(number))] == [3, 4]

    def test_a_large_body_is_cut_into_frames(self) -> None:
        signed = query_pb2.SignedQuery(payload=bytes(frames.CHUNK_SIZE + 1)).SerializeToString()
        body = Bodies(None, RunFiles(Path()).task, _anything).put("q", signed, "t")  # type: ignore[arg-type]  # not read
        assert len(body.frames) == 2
        assert [frame.chunk.traceparent for frame in body.frames] == ["t", ""]


class TestFounding:
    def plan(self, tmp_path: Path, **other: object) -> Plan:
        policies = tmp_path / "policies"
        policies.mkdir(exist_ok=True)
        (policies / "a.cedar").write_text("x")
        plan = Plan("alliance", tmp_path / "root", "127.0.0.1:1", "hub.example:2", policies=policies)
        return replace(plan, **other)  # type: ignore[arg-type]  # any field

    def test_a_founded_hub_has_readable_settings(self, tmp_path: Path) -> None:
        found(tmp_path / "hub", self.plan(tmp_path))
        present = settings.load(HubFolder.find(tmp_path / "hub"))
        assert present.addresses.listen == "127.0.0.1:1"
        assert present.addresses.link_listen == "[::]:2"
        assert present.answers_kept_days == 14

    @pytest.mark.parametrize("root", ["hub", "hub/root", "."])
    def test_the_root_key_lies_apart_from_the_hub(self, tmp_path: Path, root: str) -> None:
        with pytest.raises(Misconfigured) as refusal:
            found(tmp_path / "hub", self.plan(tmp_path, root_folder=tmp_path / root))
        assert refusal.value.code == "root.not_apart"
        assert not (tmp_path / "hub").exists()

    def test_nothing_is_founded_without_policies_or_over_another_hub(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(Misconfigured) as refusal:
            found(tmp_path / "hub", self.plan(tmp_path, policies=empty))
        assert refusal.value.code == "policies.none"
        found(tmp_path / "hub", self.plan(tmp_path))
        with pytest.raises(Misconfigured) as again:
            found(tmp_path / "hub", self.plan(tmp_path, root_folder=tmp_path / "root-2"))
        assert again.value.code == "hub.exists"

    def test_policies_in_a_folder_that_cannot_be_read_are_not_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "access").mkdir()
        (tmp_path / "all.cedar").write_text("permit (principal, action, resource);")
        plain = os.scandir

        def scandir(folder: str | Path) -> object:
            if Path(folder).name == "access":
                raise PermissionError(13, "Permission denied", str(folder))
            return plain(folder)

        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(Misconfigured, match="access cannot be read") as refusal:
            policy_files(tmp_path)
        assert refusal.value.code == "policies.unreadable"

    def test_a_setting_that_is_not_known_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found(tmp_path / "hub", self.plan(tmp_path))
        folder = HubFolder.find(tmp_path / "hub")
        monkeypatch.setenv("CONNEXON_HUB__LINK_CERTIFICATE_SECONDS", "12")
        assert settings.load(folder).link_certificate_seconds == 12
        folder.settings_file.write_text("answer_kept_days = 3\n" + folder.settings_file.read_text())
        with pytest.raises(Misconfigured) as refusal:
            settings.load(folder)
        assert "no setting answer_kept_days; did you mean answers_kept_days?" in refusal.value.public

    def test_a_folder_is_served_by_one_process(self, tmp_path: Path) -> None:
        found(tmp_path / "hub", self.plan(tmp_path))
        folder = HubFolder.find(tmp_path / "hub")
        with folder.serving():
            folder.announce(address="a:1", link_address="a:2")
            assert folder.present_process()["address"] == "a:1"
            with pytest.raises(Misconfigured) as refusal, folder.serving():
                pass
            assert refusal.value.code == "hub.already_serving"
        assert folder.present_process() == {}

    def test_a_file_left_by_a_killed_hub_says_nothing(self, tmp_path: Path) -> None:
        found(tmp_path / "hub", self.plan(tmp_path))
        folder = HubFolder.find(tmp_path / "hub")
        folder.announce(address="a:1", link_address="a:2")
        assert folder.present_process() == {}

    def test_hosts_of_addresses(self) -> None:
        assert hosts("[::1]:1", "a.example:2", "a.example:3") == ["::1", "a.example"]
