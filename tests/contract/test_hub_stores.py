"""The hub's stores, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
from sqlalchemy import Connection, select

from connexon.clock import DAY, HOUR, MINUTE, now_ms, to_text
from connexon.errors import Conflict, ConnexonError, InvalidQuery, NotFound, Refused, Unauthenticated
from connexon.identity import roster
from connexon.identity.certificates import TlsKey, public_bytes
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.invitation import InvitationRefused
from connexon.identity.keys import CenterId, SigningKey, fingerprint
from connexon.identity.roster import MemberStatus, OrganisationKind, RosterRefused
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2, research_pb2
from connexon_hub import housekeeping
from connexon_hub.health.events import KEPT_ALIKE, KEPT_EVENTS, Event, SessionRecord, WatchStore
from connexon_hub.membership import certificate_quota, certificates
from connexon_hub.membership.callers import Callers, ProofStore
from connexon_hub.membership.certificates import IssuedCertificate
from connexon_hub.membership.members import BroughtKeys, HubMember, MemberStore
from connexon_hub.membership.roster import MAXIMUM_SIZE, RootFolder, RosterStore
from connexon_hub.membership.roster_changes import changes
from connexon_hub.membership.standing import HubStatus, Standing
from connexon_hub.routing.retraction import taken_back
from connexon_hub.routing.store import (
    ANSWERED,
    CANCELLED,
    EXPIRED,
    RECEIVED,
    REMOVED,
    WAITING,
    Arrival,
    Kept,
    QueryStore,
    Receipt,
    Submission,
)
from connexon_hub.routing.writes import QuerySteps
from connexon_hub.settings import Measure
from connexon_hub.state import HubTable, open_state, tables
from connexon_hub.state.writer import Writer
from connexon_hub.training.store import CANCELLED as RUN_CANCELLED
from connexon_hub.training.store import Ending, end_run
from tests.support.federation import Federation, new_federation

LYON, KYOTO = CenterId("lyon"), CenterId("kyoto")
RELEASED = answer_pb2.ANSWER_STATUS_RELEASED


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


@pytest.fixture
def members(database: Database) -> MemberStore:
    return MemberStore(database)


def keys() -> BroughtKeys:
    link = public_bytes(TlsKey.generate().private.public_key())
    return BroughtKeys(SigningKey.generate().public, SigningKey.generate().public, link)


def invited(center: CenterId = LYON) -> HubMember:
    return HubMember(center, f"Center {center}", "FR", OrganisationKind.ACADEMIC, HubStatus.INVITED)


def invite(members: MemberStore, token: bytes = b"t", center: CenterId = LYON, **how: bool) -> None:
    members.invite(invited(center), token, expires_ms=now_ms() + DAY, **how)


def issued(serial: str, brought: BroughtKeys, *, renews: str = "") -> IssuedCertificate:
    return IssuedCertificate(serial, LYON, now_ms() + DAY, brought.link, renews)


ENOUGH = Measure(50, DAY)


def test_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    assert tables.QUERIES.metadata is HubTable.metadata
    with database.engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection, opts={"compare_type": True})
        assert alembic.autogenerate.compare_metadata(context, HubTable.metadata) == []


class TestMembers:
    def test_an_invitation_works_once_and_gives_the_same_keys_the_same_membership_again(
        self, members: MemberStore
    ) -> None:
        invite(members)
        brought = keys()
        first = members.join(b"t", brought)
        assert first.status is HubStatus.JOINED
        assert members.join(b"t", brought) == first
        with pytest.raises(Conflict) as refusal:
            members.join(b"t", keys())
        assert refusal.value.code == "invitation.used"

    def test_a_new_invitation_voids_the_older_one(self, members: MemberStore) -> None:
        invite(members, b"old")
        invite(members, b"new")
        with pytest.raises(InvitationRefused):
            members.join(b"old", keys())
        assert members.join(b"new", keys()).center == LYON

    def test_an_unknown_or_expired_token_admits_nobody(self, members: MemberStore) -> None:
        members.invite(invited(), b"late", expires_ms=now_ms() - 1)
        for token, code in ((b"late", "invitation.expired"), (b"none", "invitation.refused")):
            with pytest.raises(InvitationRefused) as refusal:
                members.join(token, keys())
            assert refusal.value.code == code

    def test_keys_belong_to_one_center_and_one_use(self, members: MemberStore) -> None:
        invite(members, b"1")
        invite(members, b"2", KYOTO)
        brought = members.join(b"1", keys())
        assert brought.answering_key is not None
        with pytest.raises(Conflict) as refusal:
            members.join(b"2", replace(keys(), answering=brought.answering_key))
        assert refusal.value.code == "membership.key_taken"
        one = keys()
        with pytest.raises(InvalidQuery):
            members.join(b"2", replace(one, answering=one.accrediting))

    def test_joining_anew_takes_a_word_from_the_operator_and_ends_the_old_certificates(
        self, database: Database, members: MemberStore
    ) -> None:
        invite(members)
        brought = keys()
        members.join(b"t", brought)
        members.remember_certificate(issued("ab", brought), ENOUGH)
        with pytest.raises(Conflict) as refusal:
            invite(members, b"again")
        assert refusal.value.code == "membership.joined"
        invite(members, b"again", replace_keys=True)
        members.join(b"again", keys())
        with database.reading() as connection:
            assert certificates.revoked(connection) == {"ab"}

    def test_once_a_center_has_joined_anew_its_former_key_gets_no_certificate(
        self, database: Database, members: MemberStore
    ) -> None:
        former, present = keys(), keys()
        invite(members)
        members.join(b"t", former)
        members.remember_certificate(issued("ab", former), ENOUGH)
        members.remember_certificate(issued("cd", former, renews="ab"), ENOUGH)
        invite(members, b"again", replace_keys=True)
        members.join(b"again", present)
        with pytest.raises(Unauthenticated) as refusal:
            members.remember_certificate(issued("ef", former, renews="cd"), ENOUGH)
        assert refusal.value.code == "certificate.other_key"
        members.remember_certificate(issued("12", present), ENOUGH)
        with database.reading() as connection:
            assert certificates.revoked(connection) == {"ab", "cd"}
            assert members.link_keys(connection) == {LYON: present.link}

    def test_a_revoked_certificate_is_not_renewed_nor_that_of_a_center_shut_out(self, members: MemberStore) -> None:
        brought = keys()
        invite(members)
        members.join(b"t", brought)
        members.remember_certificate(issued("ab", brought), ENOUGH)
        invite(members, b"again", replace_keys=True)
        members.join(b"again", brought)
        with pytest.raises(Refused) as refusal:
            members.remember_certificate(issued("cd", brought, renews="ab"), ENOUGH)
        assert refusal.value.code == "certificate.revoked"
        members.suspend(LYON, "audit")
        with pytest.raises(Refused) as refusal:
            members.remember_certificate(issued("cd", brought), ENOUGH)
        assert refusal.value.code == "membership.suspended"

    def test_a_center_is_issued_so_many_certificates_within_a_time_and_told_when_to_come_back(
        self, members: MemberStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        brought, start = keys(), now_ms()
        invite(members)
        members.join(b"t", brought)
        measure, clock = Measure(3, HOUR), [start]
        for module in (certificates, certificate_quota):
            monkeypatch.setattr(module, "now_ms", lambda: clock[0])
        for number in range(3):
            clock[0] = start + number * MINUTE
            members.remember_certificate(issued(f"{number}", brought), measure)
        with pytest.raises(Refused) as refusal:
            members.remember_certificate(issued("3", brought), measure)
        assert refusal.value.code == "certificate.too_many"
        assert f"come back after {to_text(start + HOUR)}" in refusal.value.public
        clock[0] = start + HOUR - 1
        with pytest.raises(Refused):
            members.remember_certificate(issued("3", brought), measure)
        clock[0] = start + HOUR
        members.remember_certificate(issued("3", brought), measure)

    def test_whoever_stole_a_key_cannot_use_up_the_certificates_of_the_center_that_joins_anew(
        self, members: MemberStore
    ) -> None:
        stolen, measure = keys(), Measure(2, DAY)
        invite(members)
        members.join(b"t", stolen)
        for serial in ("1", "2"):
            members.remember_certificate(issued(serial, stolen), measure)
        with pytest.raises(Refused) as refusal:
            members.remember_certificate(issued("3", stolen), measure)
        assert refusal.value.code == "certificate.too_many"
        present = keys()
        invite(members, b"again", replace_keys=True)
        members.join(b"again", present)
        members.remember_certificate(issued("4", present), measure)

    def test_revocation_is_for_good(self, database: Database, members: MemberStore) -> None:
        invite(members)
        brought = keys()
        members.join(b"t", brought)
        members.remember_certificate(issued("ab", brought), ENOUGH)
        members.revoke(LYON, "left")
        with database.reading() as connection:
            assert certificates.revoked(connection) == {"ab"}
            assert members.statuses(connection) == {LYON: HubStatus.REVOKED}
        with pytest.raises(Refused):
            invite(members, b"n")
        with pytest.raises(Refused):
            members.suspend(LYON, "")
        with pytest.raises(Refused):
            members.join(b"t", brought)

    def test_certificates_that_ran_out_long_ago_are_forgotten(self, database: Database, members: MemberStore) -> None:
        invite(members)
        brought = keys()
        members.join(b"t", brought)
        now = now_ms()
        for serial, expires_ms in (("old", now - 31 * DAY), ("lately", now - 29 * DAY), ("good", now + DAY)):
            members.remember_certificate(IssuedCertificate(serial, LYON, expires_ms, brought.link, ""), ENOUGH)
        members.revoke(LYON, "left")
        with database.writing() as connection:
            assert certificates.forget(connection, [now, now]) == [1, 0]
            kept = connection.execute(select(tables.CERTIFICATES.c.serial)).scalars()
            assert set(kept) == {"lately", "good"}
            assert certificates.revoked(connection) == {"good"}

    def test_every_change_raises_the_revision(self, database: Database, members: MemberStore) -> None:
        def revision() -> int:
            with database.reading() as connection:
                return members.revision(connection)

        seen = [revision()]
        for change in (
            lambda: invite(members),
            lambda: members.join(b"t", keys()),
            lambda: members.suspend(LYON, "audit"),
            lambda: members.revoke(LYON, ""),
        ):
            change()
            seen.append(revision())
        assert seen == sorted(set(seen))

    def test_a_center_nobody_invited_cannot_be_suspended(self, members: MemberStore) -> None:
        with pytest.raises(NotFound):
            members.suspend(LYON, "")


class TestRosters:
    @pytest.fixture
    def root(self, tmp_path: Path) -> RootFolder:
        folder = RootFolder(tmp_path / "root")
        folder.create()
        return folder

    @pytest.fixture
    def rosters(self, database: Database, members: MemberStore, root: RootFolder) -> RosterStore:
        key = SigningKey.load(root.key_file)
        return RosterStore(database, members, root_fingerprint=fingerprint(key.public))

    def publish(self, rosters: RosterStore, root: RootFolder) -> None:
        draft = rosters.draft(federation="alliance", authority=b"ca", days=90, policy_files={"a.cedar": b"x"})
        rosters.publish(root.sign(draft))

    def test_a_center_is_active_when_a_roster_lists_its_keys(
        self, rosters: RosterStore, members: MemberStore, root: RootFolder
    ) -> None:
        invite(members)
        self.publish(rosters, root)
        assert rosters.in_force()[0].members == ()
        members.join(b"t", keys())
        assert rosters.standing().statuses == {LYON: HubStatus.JOINED}
        self.publish(rosters, root)
        standing = rosters.standing()
        assert standing.statuses == {LYON: HubStatus.ACTIVE}
        standing.require_active(LYON)

    def test_suspension_counts_at_once_and_is_in_the_next_roster(
        self, rosters: RosterStore, members: MemberStore, root: RootFolder
    ) -> None:
        invite(members)
        members.join(b"t", keys())
        self.publish(rosters, root)
        before = rosters.revision()
        members.suspend(LYON, "audit")
        assert rosters.revision() != before
        with pytest.raises(Refused) as refusal:
            rosters.standing().require_active(LYON)
        assert refusal.value.code == "membership.suspended"
        self.publish(rosters, root)
        assert rosters.in_force()[0].members[0].status is MemberStatus.SUSPENDED
        assert members.reinstate(LYON, rosters.in_force()[0]) is HubStatus.JOINED
        self.publish(rosters, root)
        rosters.standing().require_active(LYON)

    def test_reinstated_before_a_roster_said_otherwise_a_center_is_active_at_once(
        self, rosters: RosterStore, members: MemberStore, root: RootFolder
    ) -> None:
        invite(members)
        members.join(b"t", keys())
        self.publish(rosters, root)
        members.suspend(LYON, "audit")
        assert members.reinstate(LYON, rosters.in_force()[0]) is HubStatus.ACTIVE

    def test_only_a_newer_roster_of_the_root_is_published(
        self, rosters: RosterStore, root: RootFolder, tmp_path: Path
    ) -> None:
        self.publish(rosters, root)
        first = rosters.in_force()[1]
        self.publish(rosters, root)
        with pytest.raises(RosterRefused) as refusal:
            rosters.publish(first)
        assert refusal.value.code == "roster.older"
        other = RootFolder(tmp_path / "other")
        other.create()
        draft = rosters.draft(federation="alliance", authority=b"ca", days=1, policy_files={})
        with pytest.raises(RosterRefused) as refusal:
            rosters.publish(other.sign(draft))
        assert refusal.value.code == "roster.other_root"

    def test_the_root_never_signs_two_rosters_of_one_serial(self, rosters: RosterStore, root: RootFolder) -> None:
        draft = rosters.draft(federation="alliance", authority=b"ca", days=1, policy_files={})
        root.sign(draft)
        root.sign(draft)
        with pytest.raises(RosterRefused) as refusal:
            root.sign(replace(draft, policy_files={"a.cedar": b"y"}))
        assert refusal.value.code == "roster.older"

    def test_a_roster_that_was_signed_and_never_published_stands_in_no_ones_way(
        self, rosters: RosterStore, root: RootFolder
    ) -> None:
        self.publish(rosters, root)
        lost = rosters.draft(federation="alliance", authority=b"ca", days=1, policy_files={"a.cedar": b"x"})
        root.sign(lost)
        changed = {"a.cedar": b"y"}
        again = rosters.draft(federation="alliance", authority=b"ca", days=1, policy_files=changed)
        with pytest.raises(RosterRefused, match=r"last-roster\.json.*--after 2"):
            root.sign(again)
        later = rosters.draft(federation="alliance", authority=b"ca", days=1, policy_files=changed, after=lost.serial)
        assert rosters.publish(root.sign(later)).serial == 3
        with pytest.raises(RosterRefused):
            rosters.publish(roster.sign(lost, SigningKey.load(root.key_file)))

    def test_what_is_too_large_to_be_published_is_not_signed(self, rosters: RosterStore, root: RootFolder) -> None:
        large = rosters.draft(
            federation="alliance", authority=b"ca", days=1, policy_files={"a.cedar": bytes(MAXIMUM_SIZE)}
        )
        with pytest.raises(RosterRefused) as refusal:
            root.sign(large)
        assert refusal.value.code == "roster.too_large"
        assert root.last() is None
        self.publish(rosters, root)

    def test_members_survive_the_loss_of_the_hubs_table(
        self, rosters: RosterStore, members: MemberStore, root: RootFolder, database: Database
    ) -> None:
        invite(members)
        members.join(b"t", keys())
        self.publish(rosters, root)
        listed = rosters.in_force()[0].members
        with database.writing() as connection:
            connection.execute(tables.MEMBERS.delete())
        self.publish(rosters, root)
        assert rosters.in_force()[0].members == listed
        assert [member.status for member in members.all()] == [HubStatus.ACTIVE]

    def test_whoever_signs_is_told_what_changes(
        self, rosters: RosterStore, members: MemberStore, root: RootFolder
    ) -> None:
        self.publish(rosters, root)
        invite(members)
        members.join(b"t", keys())
        draft = rosters.draft(federation="alliance", authority=b"cb", days=1, policy_files={"b.cedar": b"x"})
        shown = {section.heading: section.lines for section in changes(root.last(), draft)}
        headings = list(shown)
        assert headings[0].startswith("THE HUB'S CERTIFICATE AUTHORITY CHANGES")
        assert shown["New centers"][0] == "lyon, country FR, academic, active"
        assert shown["Rules that change"][0].endswith("is removed, a.cedar")
        assert any(line.endswith("is added, b.cedar") for line in shown["Rules that change"])

    def test_a_draft_that_nobody_would_take_is_not_made(
        self, rosters: RosterStore, members: MemberStore, database: Database
    ) -> None:
        invite(members)
        members.join(b"t", keys())
        with database.writing() as connection:
            connection.execute(tables.MEMBERS.update().values(legal_name="\x1b[1A\x1b[8m"))
        with pytest.raises(RosterRefused, match="The legal name of lyon") as refusal:
            rosters.draft(federation="alliance", authority=b"ca", days=1, policy_files={})
        assert refusal.value.code == "roster.unprintable"


class TestQueries:
    @pytest.fixture
    def federation(self) -> Federation:
        return new_federation()

    @pytest.fixture
    def store(self, database: Database) -> QueryStore:
        return QueryStore(database)

    @pytest.fixture
    def steps(self) -> QuerySteps:
        return QuerySteps(open_queries=2, queries_per_day=20, runs_per_researcher=1)

    def submission(self, federation: Federation, *centers: CenterId, life_ms: int = DAY) -> Submission:
        ada = federation.researcher()
        question = ada.question(centers or (KYOTO, LYON))
        return Submission(
            query_id=question.query_id,
            researcher_id="lyon/ada",
            signed=ada.sign(question),
            centers=question.centers,
            accepted_ms=now_ms(),
            expires_ms=now_ms() + life_ms,
            traceparent="00-1-1-01",
        )

    def arrival(self, submission: Submission, center: CenterId, **other: object) -> Arrival:
        answer = Arrival(submission.query_id, center, b"", RELEASED, now_ms())
        return replace(answer, **other)  # type: ignore[arg-type]  # any field

    def states(self, store: QueryStore, submission: Submission) -> dict[CenterId, int]:
        return dict(store.find(submission.query_id, "lyon/ada").states)

    def test_the_same_bytes_resume_and_other_bytes_conflict(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        first = self.submission(federation)
        other = replace(self.submission(federation), query_id=first.query_id)
        stranger = replace(first, researcher_id="kyoto/bob")
        with database.writing() as connection:
            outcomes = steps.submit(connection, [first, first, other])
        assert outcomes[:2] == [True, False]
        assert isinstance(outcomes[2], Conflict)
        with database.writing() as connection:
            outcomes = steps.submit(connection, [first, stranger])
        assert outcomes[0] is False
        assert isinstance(outcomes[1], Conflict)
        assert outcomes[1].code == "query.id_reused"
        assert self.states(store, first) == {KYOTO: WAITING, LYON: WAITING}
        with pytest.raises(NotFound):
            store.find(first.query_id, "kyoto/bob")

    def test_one_researcher_cannot_fill_the_hub(
        self, database: Database, steps: QuerySteps, federation: Federation
    ) -> None:
        three = [self.submission(federation) for _ in range(3)]
        with database.writing() as connection:
            outcomes = steps.submit(connection, three)
        assert outcomes[:2] == [True, True]
        assert isinstance(outcomes[2], Refused)
        assert outcomes[2].code == "hub.too_many_queries"
        with database.writing() as connection:
            assert steps.submit(connection, [replace(three[2], researcher_id="kyoto/bob")]) == [True]
            steps.cancel(connection, [(three[0].query_id, "lyon/ada", now_ms())])
            assert steps.submit(connection, [self.submission(federation)]) == [True]

    def test_one_researcher_cannot_fill_the_hub_with_runs(
        self, database: Database, steps: QuerySteps, federation: Federation
    ) -> None:
        first, second = (replace(self.submission(federation), rounds=3) for _ in range(2))
        with database.writing() as connection:
            outcomes = steps.submit(connection, [first, second, self.submission(federation)])
            assert isinstance(outcomes[1], Refused)
            assert (outcomes[0], outcomes[1].code, outcomes[2]) == (True, "hub.too_many_runs", True)
            steps.cancel(connection, [(first.query_id, "lyon/ada", now_ms())])
            # Its query is closed; the run itself is under way until its end is written down.
            (outcome,) = steps.submit(connection, [second])
            assert isinstance(outcome, Refused)
            assert steps.submit(connection, [replace(second, researcher_id="kyoto/bob")]) == [True]
            end_run(connection, Ending(first.query_id, RUN_CANCELLED, now_ms()))
            third = replace(self.submission(federation), rounds=3)
            assert steps.submit(connection, [first, third]) == [False, True]

    def test_asking_and_taking_back_over_and_over_cannot_fill_the_hubs_disk(
        self, database: Database, federation: Federation
    ) -> None:
        steps, now = QuerySteps(open_queries=2, queries_per_day=3, runs_per_researcher=1), now_ms()

        def submit(connection: Connection, at_ms: int) -> bool | ConnexonError:
            asked = replace(self.submission(federation), accepted_ms=at_ms)
            (outcome,) = steps.submit(connection, [asked])
            steps.cancel(connection, [(asked.query_id, "lyon/ada", at_ms)])
            return outcome

        with database.writing() as connection:
            assert [submit(connection, now + number) for number in range(3)] == [True, True, True]
            refusal = submit(connection, now + 3)
            assert isinstance(refusal, Refused)
            assert refusal.code == "hub.too_many_queries_today"
            other = replace(self.submission(federation), researcher_id="kyoto/bob")
            assert steps.submit(connection, [other]) == [True]
            # A day after the first there is room for one.
            assert submit(connection, now + DAY) is True
            assert submit(connection, now + DAY) is not True

    def test_the_first_answer_stands_and_closes_the_query(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        asked = self.submission(federation)
        with database.writing() as connection:
            steps.submit(connection, [asked])
            steps.receive(connection, [Receipt(asked.query_id, LYON, now_ms())])
        assert self.states(store, asked) == {KYOTO: WAITING, LYON: RECEIVED}
        one, two = (answer_pb2.SignedAnswer(payload=text).SerializeToString() for text in (b"one", b"two"))
        lyon = self.arrival(asked, LYON, answer=one)
        with database.writing() as connection:
            outcomes = steps.answer(
                connection,
                [
                    lyon,
                    replace(lyon, answer=two),
                    self.arrival(asked, CenterId("boston")),
                    self.arrival(replace(asked, query_id="none"), LYON),
                ],
            )
            steps.receive(connection, [Receipt(asked.query_id, LYON, now_ms())])
        assert outcomes == [Kept.KEPT, Kept.ALREADY, Kept.UNKNOWN, Kept.UNKNOWN]
        assert self.states(store, asked) == {KYOTO: WAITING, LYON: ANSWERED}
        assert store.answers(asked.query_id, [LYON, KYOTO]) == {LYON: answer_pb2.SignedAnswer(payload=b"one")}
        assert store.answer_sizes(asked.query_id) == {LYON: len(one)}
        assert store.backlog(LYON, at_ms=now_ms()) == []
        assert store.backlog(KYOTO, at_ms=now_ms()) == [asked.query_id]
        with database.writing() as connection:
            steps.answer(connection, [self.arrival(asked, KYOTO)])
            # Closed, so that it no longer counts as open, nor expires.
            assert steps.expire(connection, [now_ms() + 2 * DAY]) == [{}]

    def test_the_stewards_decision_follows_a_referral(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        asked = self.submission(federation, LYON)
        waits = self.arrival(asked, LYON, status=answer_pb2.ANSWER_STATUS_AWAITING_STEWARD)
        with database.writing() as connection:
            steps.submit(connection, [asked])
            assert steps.answer(connection, [waits, waits]) == [Kept.FOR_NOW, Kept.FOR_NOW]
        assert store.find(asked.query_id, asked.researcher_id).states == {LYON: RECEIVED}
        assert store.backlog(LYON, at_ms=now_ms()) == [asked.query_id]
        decided = answer_pb2.SignedAnswer(payload=b"decided")
        with database.writing() as connection:
            later = self.arrival(asked, LYON, answer=decided.SerializeToString())
            assert steps.answer(connection, [later, self.arrival(asked, LYON)]) == [Kept.KEPT, Kept.ALREADY]
        assert store.answers(asked.query_id, [LYON]) == {LYON: decided}

    def test_a_question_that_awaits_the_steward_can_be_taken_back_and_runs_out(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        regretted, forgotten = self.submission(federation, LYON), self.submission(federation, LYON)
        awaiting = answer_pb2.ANSWER_STATUS_AWAITING_STEWARD
        with database.writing() as connection:
            steps.submit(connection, [regretted, forgotten])
            steps.answer(connection, [self.arrival(one, LYON, status=awaiting) for one in (regretted, forgotten)])
            assert steps.cancel(connection, [(regretted.query_id, regretted.researcher_id, 2)]) == [[LYON]]
            assert steps.expire(connection, [now_ms() + 40 * DAY]) == [{forgotten.query_id: [LYON]}]
            for one in (regretted, forgotten):
                assert steps.answer(connection, [self.arrival(one, LYON)]) == [Kept.CLOSED]
        assert store.answers(regretted.query_id, [LYON]) == {}

    def test_what_was_taken_back_from_a_center_that_has_it_is_told_until_it_expires(
        self, database: Database, steps: QuerySteps, federation: Federation
    ) -> None:
        received, awaiting, unheard, wanted = (self.submission(federation, LYON) for _ in range(4))
        status = answer_pb2.ANSWER_STATUS_AWAITING_STEWARD
        with database.writing() as connection:
            steps.submit(connection, [received, awaiting, unheard, wanted])
            steps.receive(connection, [Receipt(one.query_id, LYON, 1) for one in (received, wanted)])
            steps.answer(connection, [self.arrival(awaiting, LYON, status=status)])
            ended = [(one.query_id, one.researcher_id, at) for at, one in enumerate((received, awaiting, unheard), 2)]
            steps.cancel(connection, ended)
        assert taken_back(database, LYON, at_ms=now_ms()) == [awaiting.query_id, received.query_id]
        assert taken_back(database, LYON, at_ms=now_ms() + 40 * DAY) == []
        assert taken_back(database, KYOTO, at_ms=now_ms()) == []

    def test_cancelling_is_for_the_researcher_who_asked(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        asked = self.submission(federation)
        with database.writing() as connection:
            steps.submit(connection, [asked])
            steps.answer(connection, [self.arrival(asked, LYON)])
            outcomes = steps.cancel(
                connection,
                [(asked.query_id, "kyoto/bob", 1), (asked.query_id, "lyon/ada", 2), (asked.query_id, "lyon/ada", 3)],
            )
        assert isinstance(outcomes[0], NotFound)
        assert outcomes[1:] == [[KYOTO], []]
        assert self.states(store, asked) == {KYOTO: CANCELLED, LYON: ANSWERED}
        with database.writing() as connection:
            assert steps.answer(connection, [self.arrival(asked, KYOTO)]) == [Kept.CLOSED]
        (summary,) = store.of_researcher("lyon/ada", 10)
        assert (summary.centers, summary.answered, summary.cancelled) == (2, 1, True)

    def test_expiry_ends_what_is_open_and_nothing_else(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        short, long = self.submission(federation, life_ms=1_000), self.submission(federation)
        with database.writing() as connection:
            steps.submit(connection, [short, long])
            steps.answer(connection, [self.arrival(short, LYON)])
            assert steps.expire(connection, [now_ms() + 2_000]) == [{short.query_id: [KYOTO]}]
        assert self.states(store, short) == {KYOTO: EXPIRED, LYON: ANSWERED}
        assert self.states(store, long) == {KYOTO: WAITING, LYON: WAITING}
        assert store.waiting_by_center() == {LYON: 1, KYOTO: 1}

    def test_answers_are_removed_after_their_time(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        asked = self.submission(federation)
        with database.writing() as connection:
            steps.submit(connection, [asked])
            steps.answer(connection, [self.arrival(asked, LYON, answer=b"x", at_ms=1_000)])
            assert steps.remove(connection, [1_000]) == [0]
            assert steps.remove(connection, [1_001]) == [1]
        assert self.states(store, asked) == {KYOTO: WAITING, LYON: REMOVED}
        assert store.answers(asked.query_id, [LYON]) == {}
        assert store.of_researcher("lyon/ada", 1)[0].answered == 1

    def test_queries_that_ended_long_ago_are_forgotten(
        self, database: Database, store: QueryStore, federation: Federation
    ) -> None:
        steps, now = QuerySteps(open_queries=10, queries_per_day=10, runs_per_researcher=10), now_ms()
        ended, still_open, may_come_again, trained = (
            replace(self.submission(federation, LYON), expires_ms=now + wait, rounds=rounds)
            for wait, rounds in ((1, 0), (1, 0), (DAY, 0), (1, 1))
        )
        with database.writing() as connection:
            steps.submit(connection, [ended, still_open, may_come_again, trained])
            for one in (ended, may_come_again, trained):
                steps.cancel(connection, [(one.query_id, "lyon/ada", now)])
            assert steps.forget(connection, [now, now + 2, now + 2]) == [0, 1, 0]
        with pytest.raises(NotFound) as refusal:
            store.find(ended.query_id, "lyon/ada")
        assert refusal.value.code == "query.not_kept"
        assert store.body(ended.query_id) is None
        kept = {one.query_id for one in (still_open, may_come_again, trained)}
        assert {summary.query_id for summary in store.of_researcher("lyon/ada", 10)} == kept
        with database.writing() as connection:
            (outcome,) = steps.submit(connection, [ended])
        # The id stays taken.
        assert isinstance(outcome, Conflict)

    def test_a_thousand_answers_are_written_in_one_step(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        centers = tuple(CenterId(f"c{number}") for number in range(1_000))
        asked = replace(self.submission(federation), centers=centers)
        with database.writing() as connection:
            steps.submit(connection, [asked])
            steps.receive(connection, [Receipt(asked.query_id, center, 1) for center in centers])
            assert set(steps.answer(connection, [self.arrival(asked, center) for center in centers])) == {Kept.KEPT}
        assert set(self.states(store, asked).values()) == {research_pb2.DELIVERY_STATE_ANSWERED}

    def test_a_list_reads_no_more_queries_than_fit_a_message(
        self, database: Database, store: QueryStore, federation: Federation
    ) -> None:
        large = query_pb2.SignedQuery(payload=bytes(200_000))
        asked = [
            replace(self.submission(federation, LYON), signed=large, accepted_ms=number) for number in range(1, 61)
        ]
        with database.writing() as connection:
            QuerySteps(open_queries=100, queries_per_day=100, runs_per_researcher=10).submit(connection, asked)
        store.of_researcher("lyon/ada", 1)
        tracemalloc.start()
        listed = store.of_researcher("lyon/ada", 500)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [summary.accepted_ms for summary in listed] == [60, 59, 58, 57, 56]
        assert peak < 3_000_000

    def test_a_body_comes_back_as_it_was_signed(
        self, database: Database, steps: QuerySteps, store: QueryStore, federation: Federation
    ) -> None:
        asked = self.submission(federation)
        with database.writing() as connection:
            steps.submit(connection, [asked])
        assert store.body(asked.query_id) == (asked.signed.SerializeToString(), "00-1-1-01")
        assert store.body("none") is None


class TestProofs:
    @pytest.fixture
    def federation(self) -> Federation:
        return new_federation()

    def test_a_proof_counts_once_also_for_the_next_process(self, database: Database, federation: Federation) -> None:
        ada = federation.researcher("lyon", "ada")
        standing = Standing(federation.roster(), federation.signed_roster())
        used = ada.call("/m")

        async def first() -> None:
            writer = Writer(database)
            callers = Callers(NOTHING_REVOKED, ProofStore(database), writer)
            assert callers.prove(used, standing, method="/m").id == "lyon/ada"
            await callers.kept()
            for metadata, method, code in (
                (used, "/m", "call.replayed"),
                (ada.call("/m"), "/other", "call.stale"),
                ((), "/m", "call.unproved"),
            ):
                with pytest.raises(Unauthenticated) as refusal:
                    callers.prove(metadata, standing, method=method)
                assert refusal.value.code == code
            await writer.close()

        async def second() -> None:
            writer = Writer(database)
            callers = Callers(NOTHING_REVOKED, ProofStore(database), writer)
            with pytest.raises(Unauthenticated) as refusal:
                callers.prove(used, standing, method="/m")
            assert refusal.value.code == "call.replayed"
            callers.prove(ada.call("/m"), standing, method="/m")
            await callers.kept()
            assert await callers.forget(now_ms()) == 0
            assert await callers.forget(now_ms() + HOUR) == 2
            assert ProofStore(database).counting(0) == []
            await writer.close()

        asyncio.run(first())
        asyncio.run(second())

    def test_researchers_of_a_suspended_center_ask_nothing(self, database: Database, federation: Federation) -> None:
        standing = Standing(federation.roster(), federation.signed_roster(), {LYON: HubStatus.SUSPENDED})

        async def story() -> None:
            writer = Writer(database)
            callers = Callers(NOTHING_REVOKED, ProofStore(database), writer)
            with pytest.raises(Refused) as refusal:
                callers.prove(federation.researcher("lyon", "ada").call("/m"), standing, method="/m")
            assert refusal.value.code == "membership.suspended"
            await writer.close()

        asyncio.run(story())


class TestWriter:
    def test_what_waits_is_written_together_and_one_bad_item_fails_alone(self, database: Database) -> None:
        watching = WatchStore(database)
        batches: list[int] = []

        def counted(connection: object, events: object) -> list[None]:
            batches.append(len(events))  # type: ignore[arg-type]  # a sequence
            return watching.note_events(connection, events)  # type: ignore[arg-type]  # as above

        async def story() -> None:
            writer = Writer(database)
            good = [writer.write(counted, Event(number, "x")) for number in range(50)]
            bad = writer.write(counted, Event(2**80, "cannot be stored"))
            more = [writer.write(counted, Event(number, "y")) for number in range(50)]
            results = await asyncio.gather(*good, bad, *more, return_exceptions=True)
            assert [type(result) for result in results if result is not None] == [type(bad.exception())]
            await writer.close()

        asyncio.run(story())
        assert len(watching.events(500)) == 100
        assert max(batches) > 1

    def test_after_closing_nothing_is_taken(self, database: Database) -> None:
        async def story() -> str:
            writer = Writer(database)
            await writer.close()
            refusal = writer.write(WatchStore(database).note_events, Event(1, "x")).exception()
            return getattr(refusal, "code", "")

        assert asyncio.run(story()) == "hub.stopping"


class _Noted:
    """A session as far as it is written down."""

    def __init__(self, record: SessionRecord) -> None:
        self.noted: SessionRecord | None = None
        self._record = record

    def record(self) -> SessionRecord:
        return self._record


class _NotingHub:
    """A hub as far as it writes sessions down."""

    def __init__(self, database: Database, *records: SessionRecord) -> None:
        self.writer = Writer(database)
        self.watching = WatchStore(database)
        self.sessions = [_Noted(record) for record in records]


class TestWatching:
    def test_what_one_center_does_over_and_over_pushes_out_nothing_else(self, database: Database) -> None:
        watching = WatchStore(database)
        twin, other = Event(1, "link.identity_in_use", "lyon"), Event(2, "answer.too_large", "lyon")
        flood = [Event(number, "answer.too_large", "kyoto") for number in range(3, 3 + KEPT_EVENTS)]
        with database.writing() as connection:
            watching.note_events(connection, [twin, other])
            for start in range(0, len(flood), 1000):
                watching.note_events(connection, flood[start : start + 1000])
        assert watching.events(500) == [*reversed(flood[-KEPT_ALIKE:]), other, twin]
        assert watching.events(5, alike=3) == [*reversed(flood[-3:]), other, twin]

    def test_what_cannot_be_written_of_one_session_keeps_no_other_from_being_written(self, database: Database) -> None:
        good = SessionRecord("lyon", "p", 1, None, 2, 5, 0.5, "0.1.0", "1.0", "1", 3, 9)
        bad = replace(good, center_id="kyoto", roster_serial=2**64 - 1)

        async def story() -> list[SessionRecord | None]:
            hub = _NotingHub(database, bad, good)
            await housekeeping.note_sessions(hub)  # type: ignore[arg-type]  # as far as it writes sessions down
            await hub.writer.close()
            return [session.noted for session in hub.sessions]

        assert asyncio.run(story()) == [None, good]
        assert WatchStore(database).sessions() == {"lyon": good}

    def test_a_session_is_updated_and_its_last_answer_kept(self, database: Database) -> None:
        watching = WatchStore(database)
        first = SessionRecord("lyon", "p", 1, None, 2, 5, 0.5, "0.1.0", "1.0", "1", 3, 9)
        with database.writing() as connection:
            watching.note_sessions(connection, [[first], [replace(first, seen_ms=7)]])
            watching.note_sessions(connection, [[replace(first, connected_ms=8, last_answer_ms=None)]])
        assert watching.sessions() == {"lyon": replace(first, connected_ms=8)}
        watching.end_all(10)
        assert watching.sessions()["lyon"].ended_ms == 10
