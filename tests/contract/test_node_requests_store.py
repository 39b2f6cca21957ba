"""Inbox, recorder, audit, rosters and accreditations on SQLite and on PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, inspect

from connexon.clock import DAY, HOUR, now_ms
from connexon.identity import roster as rosters
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import center_id
from connexon.query import signed
from connexon.service.database import Database
from connexon.transparency import receipt
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.audit import AuditLog, verify
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.delivery.inbox import Inbox, Receipt
from connexon_node.membership.accreditation import Accreditation, Accreditations, Given
from connexon_node.membership.roster import RosterKeeper
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.values import ConsentMoved, ReleaseMoved
from connexon_node.state import open_state
from tests.support.federation import Asker, Federation, new_federation

LYON = center_id("lyon")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_state(database_url)
    yield database
    database.close()


@pytest.fixture(scope="module")
def federation() -> Federation:
    return new_federation()


@pytest.fixture(scope="module")
def ada(federation: Federation) -> Asker:
    return federation.researcher()


class Epoch:
    value = 1


@pytest.fixture
def epoch() -> Epoch:
    return Epoch()


@pytest.fixture
def recorder(database: Database, federation: Federation, epoch: Epoch) -> SigningRecorder:
    key = federation.centers["kyoto"].answering
    return SigningRecorder(database, AuditLog(database), key, epoch=lambda _: epoch.value)


def delivery(ada: Asker, *, life_ms: int = DAY, issued_at_ms: int | None = None) -> Delivery:
    question = ada.question(["kyoto"], life_ms=life_ms, issued_at_ms=issued_at_ms)
    return Delivery.arrived(question.query_id, ada.sign(question).SerializeToString())


def answer(
    query_id: str, status: answer_pb2.AnswerStatus.ValueType = answer_pb2.ANSWER_STATUS_RELEASED
) -> answer_pb2.Answer:
    return answer_pb2.Answer(query_id=query_id, center_id="kyoto", query_sha256=bytes(32), status=status)


class TestInbox:
    def test_a_delivery_is_new_once(self, database: Database, ada: Asker) -> None:
        inbox, one = Inbox(database), delivery(ada)
        assert inbox.receive(one, researcher="lyon/ada") is Receipt.NEW
        assert inbox.receive(one, researcher="lyon/ada") is Receipt.UNDER_WAY
        assert [pending.query_id for pending in inbox.unanswered()] == [one.query_id]
        assert inbox.delivery(one.query_id) == one

    def test_another_question_under_a_used_id_leaves_the_first_untouched(self, database: Database, ada: Asker) -> None:
        inbox, one = Inbox(database), delivery(ada)
        inbox.receive(one, researcher="lyon/ada")
        for researcher in ("lyon/ada", None):
            assert inbox.receive(replace(one, body=delivery(ada).body), researcher=researcher) is Receipt.ID_REUSED
            assert inbox.receive(replace(one, body=b"\xff"), researcher=researcher) is Receipt.ID_REUSED
        kept = inbox.delivery(one.query_id)
        assert kept is not None
        assert kept.body == one.body

    def test_sealing_answers_the_delivery_and_queues_the_answer(
        self, database: Database, ada: Asker, recorder: SigningRecorder
    ) -> None:
        inbox, one = Inbox(database), delivery(ada)
        inbox.receive(one, researcher="lyon/ada")
        sealed = recorder.seal(None, answer(one.query_id), epoch=None, started_at_ms=now_ms())
        assert inbox.unanswered() == []
        assert inbox.receive(one, researcher="lyon/ada") is Receipt.ANSWERED
        assert inbox.answer(one.query_id) == sealed.SerializeToString()
        assert inbox.unsent() == [one.query_id]
        assert inbox.counts() == (0, 1)
        inbox.mark_stored([one.query_id])
        assert inbox.unsent() == []

    def test_cancelling_counts_only_before_the_answer(
        self, database: Database, ada: Asker, recorder: SigningRecorder
    ) -> None:
        inbox, one = Inbox(database), delivery(ada)
        assert not inbox.cancel(one.query_id)
        inbox.receive(one, researcher="lyon/ada")
        assert inbox.cancel(one.query_id)
        assert inbox.unanswered()[0].cancelled
        recorder.seal(None, answer(one.query_id), epoch=None, started_at_ms=now_ms())
        assert not inbox.cancel(one.query_id)

    def test_only_answered_queries_that_expired_long_ago_are_pruned(
        self, database: Database, ada: Asker, recorder: SigningRecorder
    ) -> None:
        inbox = Inbox(database)
        old = delivery(ada, issued_at_ms=now_ms() - 10 * DAY, life_ms=HOUR)
        old_unanswered = delivery(ada, issued_at_ms=now_ms() - 10 * DAY, life_ms=HOUR)
        recent = delivery(ada)
        for one in (old, old_unanswered, recent):
            inbox.receive(one, researcher="lyon/ada")
        for one in (old, recent):
            recorder.seal(None, answer(one.query_id), epoch=None, started_at_ms=now_ms())
        assert inbox.prune(before_ms=now_ms() - 7 * DAY) == 1
        assert inbox.answer(old.query_id) is None
        assert inbox.answer(recent.query_id) is not None
        assert [pending.query_id for pending in inbox.unanswered()] == [old_unanswered.query_id]
        assert verify(database).records == 2

    def test_the_same_question_with_other_bytes_beside_it_is_the_same_question(
        self, database: Database, ada: Asker, recorder: SigningRecorder
    ) -> None:
        inbox, one = Inbox(database), delivery(ada)
        bent = replace(one, body=one.body + query_pb2.SignedQuery(credential="another").SerializeToString())
        inbox.receive(one, researcher="lyon/ada")
        assert inbox.receive(bent, researcher=None) is Receipt.UNDER_WAY
        recorder.seal(None, answer(one.query_id), epoch=None, started_at_ms=now_ms())
        assert inbox.receive(bent, researcher=None) is Receipt.ANSWERED

    def test_what_is_not_proved_takes_no_questions_place(
        self, database: Database, ada: Asker, recorder: SigningRecorder
    ) -> None:
        inbox, one = Inbox(database), delivery(ada)
        assert inbox.receive(one, researcher=None) is Receipt.UNPROVED
        refused = answer(one.query_id, answer_pb2.ANSWER_STATUS_REFUSED)
        recorder.seal_apart(refused, started_at_ms=now_ms())
        assert inbox.delivery(one.query_id) is None
        assert inbox.receive(one, researcher="lyon/ada") is Receipt.NEW

    def test_an_id_that_was_removed_cannot_be_used_again(
        self, database: Database, ada: Asker, federation: Federation, recorder: SigningRecorder
    ) -> None:
        inbox, one = Inbox(database), delivery(ada, life_ms=HOUR)
        inbox.receive(one, researcher="lyon/ada")
        asked = signed.verify_query(query_pb2.SignedQuery.FromString(one.body), federation.roster(), NOTHING_REVOKED)
        released = answer(one.query_id)
        released.query_sha256 = asked.sha256
        recorder.seal(asked, released, epoch=None, started_at_ms=now_ms())
        assert inbox.prune(before_ms=now_ms() + 2 * HOUR) == 1  # as if two hours had passed
        later = ada.sign(ada.question(["kyoto"], query_id=one.query_id))
        again = Delivery.arrived(one.query_id, later.SerializeToString())
        for researcher in ("lyon/ada", None):
            assert inbox.receive(again, researcher=researcher) is Receipt.ID_REUSED
            assert inbox.receive(one, researcher=researcher) is Receipt.FORGOTTEN
        assert inbox.delivery(one.query_id) is None


class TestRecorder:
    def test_the_same_answer_comes_again_and_is_recorded_once(
        self, database: Database, recorder: SigningRecorder
    ) -> None:
        query_id = str(uuid.uuid4())
        first = recorder.seal(None, answer(query_id), epoch=1, started_at_ms=now_ms())
        other = answer(query_id, answer_pb2.ANSWER_STATUS_FAILED)
        assert recorder.seal(None, other, epoch=1, started_at_ms=now_ms()) == first
        assert verify(database).records == 1

    def test_nothing_is_kept_when_consent_moved(
        self, database: Database, recorder: SigningRecorder, epoch: Epoch
    ) -> None:
        query_id = str(uuid.uuid4())
        epoch.value = 2
        with pytest.raises(ConsentMoved):
            recorder.seal(None, answer(query_id), epoch=1, started_at_ms=now_ms())
        assert Inbox(database).answer(query_id) is None
        assert verify(database).records == 0

    def test_what_release_remembers_is_written_with_the_answer_or_not_at_all(
        self, database: Database, recorder: SigningRecorder
    ) -> None:
        def remember(connection: Connection) -> None:
            connection.exec_driver_sql("create table remembered (query_id varchar(64))")

        def moved(connection: Connection) -> None:
            remember(connection)
            raise ReleaseMoved("Another answer was released meanwhile.")

        query_id = str(uuid.uuid4())
        with pytest.raises(ReleaseMoved):
            recorder.seal(None, answer(query_id), epoch=1, started_at_ms=now_ms(), commit=moved)
        assert Inbox(database).answer(query_id) is None
        assert verify(database).records == 0
        assert not inspect(database.engine).has_table("remembered")
        for _ in range(2):  # the second time the kept answer is given and nothing is remembered anew
            recorder.seal(None, answer(query_id), epoch=1, started_at_ms=now_ms(), commit=remember)
        assert inspect(database.engine).has_table("remembered")

    def test_the_answer_carries_a_receipt_that_proves_its_place_in_the_log(
        self, database: Database, ada: Asker, federation: Federation, recorder: SigningRecorder
    ) -> None:
        query = ada.ask("kyoto")
        asked = signed.verify_query(query, federation.roster(), NOTHING_REVOKED)
        given = answer(asked.question.query_id)
        given.query_sha256 = asked.sha256
        sealed = recorder.seal(asked, given, epoch=1, started_at_ms=now_ms())
        roster, kyoto = federation.roster(), federation.centers["kyoto"].id
        signed.verify_answer(sealed, roster, center=kyoto, query_payload=query.payload)
        proved = receipt.verify(sealed, roster, center=kyoto, query_sha256=asked.sha256)
        (entry,) = AuditLog(database).entries()
        assert (proved.sequence, proved.head.size, proved.head.root) == (1, 1, verify(database).root)
        assert (entry.record.researcher, entry.record.purpose, entry.record.analysis) == ("lyon/ada", "health", "count")


class TestRosterKeeper:
    @pytest.fixture
    def federation(self) -> Federation:
        return new_federation()

    def keeper(self, database: Database, federation: Federation) -> RosterKeeper:
        return RosterKeeper(database, root_fingerprint=federation.root_fingerprint, federation="alliance")

    def test_a_believed_roster_outlives_the_process_and_listeners_hear_of_it(
        self, database: Database, federation: Federation
    ) -> None:
        keeper, heard = self.keeper(database, federation), []
        keeper.on_change(lambda roster: heard.append(roster.serial))
        roster = federation.roster()
        assert keeper.receive(federation.signed_roster(roster))
        assert not keeper.receive(federation.signed_roster(roster))
        assert keeper.receive(federation.signed_roster(federation.roster(serial=5)))
        assert heard == [1, 5]
        assert self.keeper(database, federation).serial == 5

    def test_an_older_or_forged_roster_changes_nothing(self, database: Database, federation: Federation) -> None:
        keeper = self.keeper(database, federation)
        keeper.receive(federation.signed_roster(federation.roster(serial=5)))
        forged = rosters.sign(federation.roster(serial=6), federation.centers["lyon"].answering)
        for bad in (federation.signed_roster(federation.roster(serial=4)), forged):
            with pytest.raises(rosters.RosterRefused):
                keeper.receive(bad)
        assert keeper.serial == self.keeper(database, federation).serial == 5

    def test_a_roster_written_into_the_database_by_somebody_else_is_not_believed(
        self, database: Database, federation: Federation
    ) -> None:
        self.keeper(database, new_federation())
        other = new_federation()
        RosterKeeper(database, root_fingerprint=other.root_fingerprint, federation="alliance").receive(
            other.signed_roster()
        )
        with pytest.raises(rosters.RosterRefused):
            self.keeper(database, federation)


def test_accreditations_are_listed_newest_first(database: Database) -> None:
    accreditations = Accreditations(database)
    first = Accreditation("a", "ada", "Ada", "researcher", "00", 1_000, 2_000)
    accreditations.record(first, home=LYON)
    accreditations.record(replace(first, credential_id="b", issued_at_ms=5_000), home=LYON)
    assert [one.credential_id for one in accreditations.all()] == ["b", "a"]


def test_the_newest_credential_with_a_grant_says_since_when_a_researcher_has_it(database: Database) -> None:
    accreditations = Accreditations(database)
    atlas, registry = (Given("ControlledAccessGrants", value, given_at_ms=3 * DAY) for value in ("atlas", "registry"))
    first = Accreditation("a", "ada", "Ada", "researcher", "00", 4 * DAY, 9 * DAY, (atlas, registry))
    accreditations.record(first, home=LYON)
    assert accreditations.given("ada") == {("ControlledAccessGrants", one): 3 * DAY for one in ("atlas", "registry")}
    corrected = replace(atlas, given_at_ms=2 * DAY)
    accreditations.record(replace(first, credential_id="b", issued_at_ms=5 * DAY, grants=(corrected,)), home=LYON)
    accreditations.record(replace(first, credential_id="c", issued_at_ms=6 * DAY, grants=()), home=LYON)
    assert accreditations.given("ada") == {
        ("ControlledAccessGrants", "atlas"): 2 * DAY,
        ("ControlledAccessGrants", "registry"): 3 * DAY,
    }
    assert accreditations.given("bob") == {}
    assert [one.grants for one in accreditations.all()] == [(), (corrected,), (atlas, registry)]
