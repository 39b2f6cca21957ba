"""The story: every outcome is a signed, recorded answer with the right status and words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from connexon.analyses.describe import Describe
from connexon.clock import HOUR, now_ms
from connexon.errors import Misconfigured, Refused, Unavailable
from connexon.identity import revocation
from connexon.identity.revocation import Revocation
from connexon.query import signed
from connexon.service.database import Database
from connexon.transparency import receipt
from connexon.v1 import answer_pb2, query_pb2, revocation_pb2
from connexon_node.audit import AuditLog, verify
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.membership.revocations import RevocationStore
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.question_pipeline import MAXIMUM_RECOMPUTATIONS, Steps, Story, Task, reason_of, status_of
from connexon_node.pipeline.values import (
    Cohort,
    Computed,
    ConsentMoved,
    Permit,
    Referral,
    Referred,
    Released,
    ReleaseMoved,
    Work,
)
from connexon_node.pipeline.verification import QueryVerifier
from connexon_node.state import open_state
from tests.support.federation import HEALTH, Asker, Federation, new_federation
from tests.support.small_rooms import SmallAccess, SmallConsent, SmallEngine, SmallRelease, SmallSteward


class House:
    """A center's rooms, and how one asks it."""

    def __init__(self, federation: Federation, database: Database) -> None:
        self.federation = federation
        self.database = database
        self.center = federation.centers["kyoto"]
        self.roster = federation.roster()
        self.ada = federation.researcher()
        self.consent = SmallConsent()
        self.engine = SmallEngine(self.consent)
        self.log = AuditLog(database)
        self.steps = Steps(
            verifier=QueryVerifier(self.center.id, lambda: self.roster, RevocationStore(database)),
            access=SmallAccess(),
            consent=self.consent,
            steward=SmallSteward(),
            engine=self.engine,
            release=SmallRelease(),
            recorder=SigningRecorder(database, self.log, self.center.answering, epoch=lambda _: self.consent.now),
        )

    def revoke(self, subject: str) -> None:
        """Lyon's word on one of its researchers comes in."""
        lyon = self.federation.centers["lyon"]
        word = revocation.sign(Revocation("alliance", lyon.id, subject, now_ms() + HOUR), lyon.accrediting)
        said = revocation_pb2.Revocations(revocations=[word])
        RevocationStore(self.database).receive(said, self.roster, home=self.center.id)

    def answer(
        self, query: query_pb2.SignedQuery, *, query_id: str = "", work: Work | None = None
    ) -> answer_pb2.Answer:
        delivery = Delivery.arrived(query_id or _query_id(query), query.SerializeToString())
        task = Task(delivery, work or Work(deadline_ms=delivery.expires_at_ms))
        story = Story(self.center.id, self.steps, roster_serial=lambda: self.roster.serial)
        sealed = story.answer(task)
        roster = self.federation.roster()
        parcel = query.SerializeToString()
        answer = signed.verify_answer(sealed, roster, center=self.center.id, query_payload=query.payload, parcel=parcel)
        self.proved = receipt.verify(sealed, roster, center=self.center.id, query_sha256=answer.query_sha256)
        return answer


def _query_id(query: query_pb2.SignedQuery) -> str:
    return query_pb2.Query.FromString(query.payload).query_id


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield House(new_federation(), database)
    database.close()


@pytest.fixture
def ada(house: House) -> Asker:
    return house.ada


def test_a_released_answer_says_what_it_rests_on_and_what_is_owed(house: House, ada: Asker) -> None:
    answer = house.answer(ada.ask("kyoto", "lyon"))
    assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED
    assert answer.count.cells[0].number == 12
    provenance = answer.provenance
    assert (provenance.generations["cell_lines"], provenance.policy_version) == (3, "0badcafe")
    assert (provenance.dictionary_version, provenance.roster_serial) == ("1.0", 1)
    assert provenance.ontologies["MONDO"] == "2026-01"
    assert [duty.term for duty in answer.obligations] == ["DUO:0000019"]
    assert (house.proved.sequence, house.proved.head.size) == (1, 1)


def test_too_few_donors_are_suppressed_not_zero(house: House, ada: Asker) -> None:
    for donor in range(9):
        house.consent.withdraw(donor)
    answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.WhichOneof("result")) == (answer_pb2.ANSWER_STATUS_SUPPRESSED, None)


def test_a_refusal_names_code_sentence_and_rule(house: House, ada: Asker) -> None:
    question = ada.question(["kyoto"], purpose=replace(HEALTH, commercial_use=True))
    answer = house.answer(ada.sign(question))
    reason = (answer.reason.code, answer.reason.message, answer.reason.rule)
    assert reason == ("policy.denied", "No commercial use here.", "no.commerce")


def test_absent_and_forbidden_datasets_look_alike(house: House, ada: Asker) -> None:
    absent = house.answer(ada.sign(ada.question(["kyoto"], dataset="unheard_of")))
    forbidden = house.answer(ada.sign(ada.question(["kyoto"], dataset="clinical")))
    assert absent.status == forbidden.status == answer_pb2.ANSWER_STATUS_NOT_OFFERED
    assert absent.reason == forbidden.reason
    assert forbidden.reason.rule == ""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("query.expired", answer_pb2.ANSWER_STATUS_TOO_OLD),
        ("query.cancelled", answer_pb2.ANSWER_STATUS_CANCELLED),
        ("consent.refer", answer_pb2.ANSWER_STATUS_REFERRED),
        ("budget.spent", answer_pb2.ANSWER_STATUS_BUDGET_SPENT),
        ("field.not_offered", answer_pb2.ANSWER_STATUS_NOT_OFFERED),
        ("consent.not_covered", answer_pb2.ANSWER_STATUS_REFUSED),
        ("anything.else", answer_pb2.ANSWER_STATUS_REFUSED),
    ],
)
def test_a_code_decides_the_status(code: str, status: answer_pb2.AnswerStatus.ValueType) -> None:
    refusal = Refused("Because.", code=code)
    assert status_of(refusal) == status
    assert reason_of(refusal).code == code


def test_an_unexpected_failure_is_never_a_zero_and_tells_no_internals(
    house: House, ada: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(_: Work) -> None:
        raise RuntimeError("secret path /srv/data")

    house.engine.during = break_down
    with caplog.at_level(logging.ERROR):
        answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.WhichOneof("result")) == (answer_pb2.ANSWER_STATUS_FAILED, None)
    assert answer.reason.code == "node.failed"
    assert "secret" not in answer.reason.message
    reference = answer.reason.message.rstrip(".").rpartition(" ")[2]
    assert reference in caplog.text


def test_a_misconfigured_room_fails_without_telling_the_researcher_where(house: House, ada: Asker) -> None:
    def misconfigured(_: Work) -> None:
        raise Misconfigured("policies/own.cedar line 3 is wrong")

    house.engine.during = misconfigured
    answer = house.answer(ada.ask("kyoto"))
    assert answer.status == answer_pb2.ANSWER_STATUS_FAILED
    assert "own.cedar" not in answer.reason.message


def test_a_database_that_cannot_be_used_makes_no_answer(house: House, ada: Asker) -> None:
    def locked(_: Work) -> None:
        raise Unavailable("The database cannot be used.", code="database.unavailable")

    house.engine.during = locked
    with pytest.raises(Unavailable):
        house.answer(ada.ask("kyoto"))
    assert verify(house.database).records == 0


def test_an_answer_is_computed_again_when_consent_changes_meanwhile(house: House, ada: Asker) -> None:
    def withdraw_once(_: Work) -> None:
        house.engine.during = lambda _: None
        house.consent.withdraw(3)

    house.engine.during = withdraw_once
    answer = house.answer(ada.ask("kyoto"))
    assert answer.count.cells[0].number == 11
    assert verify(house.database).records == 1


def test_consent_that_never_stands_still_ends_as_a_failure(house: House, ada: Asker) -> None:
    computed = 0

    def always(_: Work) -> None:
        nonlocal computed
        computed += 1
        house.consent.withdraw(99 + computed)

    house.engine.during = always
    answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_FAILED, "consent.moved")
    assert computed == 1 + MAXIMUM_RECOMPUTATIONS


def test_an_answer_that_another_release_overtook_is_computed_again(house: House, ada: Asker) -> None:
    overtaken = 3

    class Overtaken(SmallRelease):
        def protect(self, computed: Computed) -> Released:
            return replace(super().protect(computed), commit=self.commit)

        def commit(self, _: Connection) -> None:
            nonlocal overtaken
            overtaken -= 1
            if overtaken:
                raise ReleaseMoved("Another answer was released meanwhile.")

    house.steps = replace(house.steps, release=Overtaken())
    assert house.answer(ada.ask("kyoto")).status == answer_pb2.ANSWER_STATUS_RELEASED
    assert overtaken == 0
    overtaken = -1
    assert house.answer(ada.ask("kyoto")).reason.code == "release.moved"
    assert overtaken == -2 - MAXIMUM_RECOMPUTATIONS


def test_a_cancelled_query_is_answered_as_cancelled(house: House, ada: Asker) -> None:
    house.engine.during = lambda work: work.cancel()
    answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_CANCELLED, "query.cancelled")


def test_a_query_that_expired_in_the_inbox_is_too_old(house: House, ada: Asker) -> None:
    question = ada.question(["kyoto"], issued_at_ms=now_ms() - 2 * HOUR, life_ms=HOUR)
    answer = house.answer(ada.sign(question))
    assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_TOO_OLD, "query.expired")


def test_time_that_runs_out_while_computing_is_too_old(house: House, ada: Asker) -> None:
    answer = house.answer(ada.ask("kyoto"), work=Work(deadline_ms=now_ms() - 1))
    assert answer.status == answer_pb2.ANSWER_STATUS_TOO_OLD


def test_nothing_is_answered_on_an_expired_roster(house: House, ada: Asker) -> None:
    house.roster = house.federation.roster(issued_at_ms=now_ms() - 2 * HOUR, life_ms=HOUR)
    answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_REFUSED, "roster.expired")


def test_a_query_for_other_centers_is_refused(house: House, ada: Asker) -> None:
    assert house.answer(ada.ask("lyon")).reason.code == "query.not_addressed"


def test_a_query_delivered_under_another_id_is_refused(house: House, ada: Asker) -> None:
    answer = house.answer(ada.ask("kyoto"), query_id="11111111-1111-4111-8111-111111111111")
    assert answer.reason.code == "query.other_id"


def test_altered_and_unreadable_queries_are_refused_and_recorded(house: House, ada: Asker) -> None:
    query = ada.ask("kyoto")
    altered = query_pb2.SignedQuery(
        payload=query.payload.replace(b"cell_lines", b"cell_limes"),
        signature=query.signature,
        credential=query.credential,
    )
    assert house.answer(altered).reason.code == "query.bad_signature"
    noise = Delivery.arrived("22222222-2222-4222-8222-222222222222", b"\xff\xff noise")
    story = Story(house.center.id, house.steps, roster_serial=lambda: 1)
    sealed = story.answer(Task(noise, Work(deadline_ms=noise.expires_at_ms)))
    answer = answer_pb2.Answer.FromString(sealed.payload)
    assert answer.reason.code == "query.unreadable"
    assert answer.query_sha256 == signed.parcel_sha256(noise.body)
    assert [entry.record.researcher for entry in house.log.entries()] == ["", ""]


def test_a_suspended_center_answers_nothing(house: House, ada: Asker) -> None:
    query = ada.ask("kyoto")
    federation = house.federation
    kyoto = federation.centers["kyoto"]
    federation.centers["kyoto"] = kyoto.with_status(type(kyoto.member.status).SUSPENDED)
    house.roster = federation.roster()
    assert house.answer(query).reason.code == "membership.suspended"


def test_an_analysis_the_center_does_not_have_is_not_offered(house: House, ada: Asker) -> None:
    answer = house.answer(ada.sign(ada.question(["kyoto"], Describe())))
    assert answer.status == answer_pb2.ANSWER_STATUS_NOT_OFFERED


def test_an_answer_too_large_for_one_message_is_refused(house: House, ada: Asker) -> None:
    class Flood(SmallRelease):
        def protect(self, computed):  # type: ignore[no-untyped-def]
            released = super().protect(computed)
            for _ in range(70_000):
                released.answer.count.cells.add(number=10**9).key.add(text="MONDO:0005180")
            return released

    house.steps = replace(house.steps, release=Flood())
    assert house.answer(ada.ask("kyoto")).reason.code == "answer.too_large"


def test_what_was_computed_for_a_researcher_who_is_revoked_meanwhile_is_not_released(house: House, ada: Asker) -> None:
    runs: list[Work] = []

    def revoke(work: Work) -> None:
        runs.append(work)
        house.revoke("ada")

    house.engine.during = revoke
    answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_REFUSED, "credential.revoked")
    assert answer.WhichOneof("result") is None
    assert len(runs) == 1
    assert verify(house.database).records == 1


def test_nothing_is_put_before_the_steward_for_a_researcher_who_is_revoked_meanwhile(house: House, ada: Asker) -> None:
    class Refers(SmallConsent):
        def cohort(self, permit: Permit) -> Cohort:
            house.revoke("ada")
            raise Referred((Referral("rule", "Only the steward can say."),))

    house.steps = replace(house.steps, consent=Refers())
    assert house.answer(ada.ask("kyoto")).reason.code == "credential.revoked"


@pytest.mark.parametrize("moved", [ConsentMoved, ReleaseMoved])
def test_whatever_keeps_changing_ends_in_an_answer_that_says_so(
    house: House, ada: Asker, moved: type[ConsentMoved | ReleaseMoved]
) -> None:
    def move(_: Work) -> None:
        raise moved("Something changed.", code="steward.moved")

    house.engine.during = move
    answer = house.answer(ada.ask("kyoto"))
    assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_FAILED, moved.code)
