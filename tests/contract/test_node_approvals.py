"""What waits for the steward, on SQLite and on PostgreSQL: kept with its answer, decided once, answered once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.clock import DAY, now_ms
from connexon.conditions.where import parse
from connexon.errors import Conflict, InvalidQuery, NotFound, Refused
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon.query.question import Purpose
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.approvals import ApprovalStore, Desk
from connexon_node.approvals.model import Scope, State
from connexon_node.approvals.steward import FIRST_USE
from connexon_node.audit import AuditLog
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.data.dictionary import DICTIONARY, Sensitivity
from connexon_node.delivery.inbox import Inbox
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.values import ConsentMoved, Permit, Referral
from connexon_node.settings import ApprovalsSection
from connexon_node.state import open_state
from tests.support.federation import HEALTH, Asker, Federation, new_federation

CONTROL = Referral("consent.refer.control", "Use as controls: the steward must agree.", frozenset({3, 4}))
ATLAS = Purpose(research=("DUO:0000037", "DUO:0000036"), project="atlas")
AWAITING = answer_pb2.ANSWER_STATUS_AWAITING_STEWARD
RELEASED = answer_pb2.ANSWER_STATUS_RELEASED


class Office:
    """The steward's room of one node, and how questions come to it."""

    def __init__(self, database: Database, federation: Federation) -> None:
        self.database = database
        self.federation = federation
        self.roster = federation.roster()
        self.ada = federation.researcher()
        self.inbox = Inbox(database)
        self.store = ApprovalStore(database)
        self.desk = Desk(database, DICTIONARY, ApprovalsSection())
        key = federation.centers["kyoto"].answering
        self.recorder = SigningRecorder(database, AuditLog(database), key, epoch=lambda _: 1)

    def asked(self, purpose: Purpose = ATLAS, *, asker: Asker | None = None, life_ms: int = DAY) -> Asked:
        asker = asker or self.ada
        question = asker.question(["kyoto"], purpose=purpose, life_ms=life_ms)
        query = asker.sign(question)
        # As of when it was asked: one of a short life may be over already.
        asked = signed.verify_query(query, self.roster, NOTHING_REVOKED, at_ms=question.issued_at_ms)
        self.inbox.receive(Delivery.arrived(asked.question.query_id, query.SerializeToString()), researcher="lyon/ada")
        return asked

    def seal(
        self, asked: Asked, status: answer_pb2.AnswerStatus.ValueType, *reasons: Referral
    ) -> answer_pb2.SignedAnswer:
        answer = answer_pb2.Answer(
            query_id=asked.question.query_id, center_id="kyoto", query_sha256=asked.sha256, status=status
        )
        return self.recorder.seal(
            asked,
            answer,
            epoch=1,
            started_at_ms=now_ms(),
            commit=(lambda connection: self.desk.put_before(connection, asked, reasons)) if reasons else None,
        )

    def refer(self, purpose: Purpose = ATLAS, *, asker: Asker | None = None, life_ms: int = DAY) -> Asked:
        asked = self.asked(purpose, asker=asker, life_ms=life_ms)
        self.seal(asked, AWAITING, CONTROL)
        return asked

    def rules(self, asked: Asked, *, at_ms: int | None = None) -> frozenset[str]:
        return self.desk.said_yes(_permit(asked), at_ms=now_ms() if at_ms is None else at_ms).rules

    def state(self, asked: Asked) -> State:
        request = self.store.find(asked.question.query_id)
        assert request is not None
        return request.state

    def approve(self, asked: Asked, scope: Scope = Scope.QUERY, *, everyone: bool = False) -> str:
        until = now_ms() + DAY
        _, approval = self.store.approve(
            asked.question.query_id, scope=scope, everyone=everyone, until_ms=until, by="steward", because=""
        )
        return approval.approval_id


def _permit(asked: Asked) -> Permit:
    return Permit(asked, "everybody", "0badcafe")


@pytest.fixture
def office(database_url: str) -> Iterator[Office]:
    database = open_state(database_url)
    yield Office(database, new_federation())
    database.close()


def test_a_referred_question_is_kept_with_its_answer_and_waits(office: Office) -> None:
    asked = office.refer()
    (request,) = office.store.requests()
    assert (request.query_id, request.researcher, request.role) == (asked.question.query_id, "lyon/ada", "researcher")
    assert (request.question, request.project) == ("count donors of cell_lines, with noise", "atlas")
    assert request.reasons == (CONTROL,)
    assert request.expires_at_ms == asked.question.expires_at_ms
    assert office.store.due() == []


def test_nothing_is_kept_where_the_answer_could_not_be(office: Office) -> None:
    asked = office.asked()
    office.seal(asked, RELEASED)
    office.seal(asked, AWAITING, CONTROL)
    assert office.store.requests() == []


def test_an_approval_is_for_that_very_question(office: Office) -> None:
    asked, other = office.refer(), office.refer()
    office.approve(asked)
    assert office.rules(asked) == {CONTROL.rule}
    assert office.rules(other) == frozenset()
    assert office.rules(replace(asked, sha256=bytes(32))) == frozenset()
    assert [query_id for query_id, _, _ in office.store.due()] == [asked.question.query_id]


def test_the_answer_after_the_decision_takes_the_place_of_the_one_that_awaited_it_once(office: Office) -> None:
    asked = office.refer()
    office.approve(asked)
    final = office.seal(asked, RELEASED)
    assert office.inbox.answer(asked.question.query_id) == final.SerializeToString()
    assert office.seal(asked, answer_pb2.ANSWER_STATUS_FAILED) == final
    assert office.state(asked) is State.ANSWERED
    assert office.store.due() == office.store.requests() == []
    statuses = [entry.record.status for entry in AuditLog(office.database).entries()]
    assert statuses == ["awaiting_steward", "released"]
    assert office.inbox.unsent() == [asked.question.query_id]
    with pytest.raises(Conflict) as over:
        office.approve(asked)
    assert over.value.code == "request.over"


def test_what_was_approved_waits_again_where_new_reasons_have_come(office: Office) -> None:
    asked = office.refer()
    office.approve(asked)
    more = Referral("consent.refer.collaboration", "Collaboration must be agreed first.", frozenset({9}))
    office.seal(asked, AWAITING, CONTROL, more)
    assert office.state(asked) is State.WAITING
    assert office.store.due() == []
    assert office.rules(asked) == {CONTROL.rule}
    office.approve(asked)
    assert office.rules(asked) == {CONTROL.rule, more.rule}


def test_a_refusal_reaches_the_researcher_and_can_be_thought_over_until_it_is_answered(office: Office) -> None:
    asked = office.refer()
    office.desk.require_not_refused(_permit(asked))
    office.store.refuse(asked.question.query_id, by="steward", because="not this one")
    with pytest.raises(Refused, match="not this one") as refusal:
        office.desk.require_not_refused(_permit(asked))
    assert refusal.value.code == "steward.refused"
    office.approve(asked)
    office.desk.require_not_refused(_permit(asked))
    office.store.refuse(asked.question.query_id, by="steward", because="no, after all")
    assert office.rules(asked) == frozenset()


def test_a_projects_approval_covers_its_like_questions_and_answers_those_that_wait(office: Office) -> None:
    asked, like = office.refer(), office.refer(replace(ATLAS, research=tuple(reversed(ATLAS.research))))
    others = [
        office.refer(replace(ATLAS, project="other")),
        office.refer(replace(ATLAS, commercial_use=True)),
        office.refer(replace(ATLAS, ethics_approval="E-9")),
        office.refer(replace(ATLAS, research=(*ATLAS.research, "DUO:0000034"))),
        office.refer(asker=office.federation.researcher("boston", "bob")),
    ]
    office.approve(asked, Scope.PROJECT)
    assert office.rules(office.asked()) == office.rules(like) == {CONTROL.rule}
    assert {query_id for query_id, _, _ in office.store.due()} == {asked.question.query_id, like.question.query_id}
    assert [office.rules(other) for other in others] == [frozenset()] * len(others)
    assert office.rules(asked, at_ms=now_ms() + 2 * DAY) == frozenset()


def test_a_projects_approval_may_be_for_whoever_names_it(office: Office) -> None:
    office.approve(office.refer(), Scope.PROJECT, everyone=True)
    bob = office.federation.researcher("boston", "bob")
    assert office.rules(office.asked(asker=bob)) == {CONTROL.rule}


def test_a_revoked_approval_counts_no_more_also_for_an_answer_under_way(office: Office) -> None:
    approval = office.approve(office.refer(), Scope.PROJECT)
    said = office.desk.said_yes(_permit(office.asked()), at_ms=now_ms())
    with office.database.writing() as connection:
        office.desk.require_in_force(connection, said.approvals)
    assert [one.approval_id for one in office.store.approvals()] == [approval]
    office.store.revoke(approval[:8], by="steward", because="over")
    with office.database.writing() as connection, pytest.raises(ConsentMoved):
        office.desk.require_in_force(connection, said.approvals)
    assert office.rules(office.asked()) == frozenset()
    assert office.store.approvals() == []
    with pytest.raises(Conflict):
        office.store.revoke(approval, by="steward", because="")


def test_a_question_taken_back_or_out_of_time_is_due_and_cannot_be_decided(office: Office) -> None:
    taken_back, late = office.refer(), office.refer(life_ms=1)
    assert office.store.cancel(taken_back.question.query_id)
    assert not office.store.cancel("11111111-1111-4111-8111-111111111111")
    due = {query_id: cancelled for query_id, _, cancelled in office.store.due()}
    assert due == {taken_back.question.query_id: True, late.question.query_id: False}
    for one, code in ((taken_back, "request.over"), (late, "request.expired")):
        with pytest.raises(Conflict) as refusal:
            office.approve(one)
        assert refusal.value.code == code


def test_requests_are_named_by_their_first_letters_where_these_are_enough(office: Office) -> None:
    asked = office.refer()
    query_id = asked.question.query_id
    with pytest.raises(NotFound):
        office.store.refuse("ffffffffffff", by="steward", because="no")
    with pytest.raises(InvalidQuery):
        office.store.refuse(query_id[:3], by="steward", because="no")
    with pytest.raises(NotFound):
        office.store.refuse("%%%%%%%%", by="steward", because="no")
    assert office.store.refuse(query_id[:8], by="steward", because="no").query_id == query_id


def test_a_question_without_a_project_can_be_approved_by_itself_only(office: Office) -> None:
    asked = office.refer(HEALTH)
    with pytest.raises(InvalidQuery) as refusal:
        office.approve(asked, Scope.PROJECT)
    assert refusal.value.code == "approval.no_project"


def test_the_steward_sees_restricted_datasets_and_new_projects_first_as_the_settings_say(office: Office) -> None:

    def looked(
        dataset: str, *, analysis: Count | Describe | None = None, where: str = "", **settings: bool
    ) -> list[str]:
        condition = parse(where) if where else None
        question = office.ada.question(["kyoto"], analysis or Count(), dataset=dataset, where=condition, purpose=ATLAS)
        asked = signed.verify_query(office.ada.sign(question), office.roster, NOTHING_REVOKED)
        looking = Desk(office.database, DICTIONARY, ApprovalsSection(**settings)).looks_first(_permit(asked))
        return [one.rule for one in looking]

    assert DICTIONARY.dataset("hla_typings").sensitivity is Sensitivity.RESTRICTED
    assert looked("hla_typings") == ["steward.restricted_dataset.hla_typings"]
    assert looked("hla_typings", analysis=Describe()) == looked("hla_typings", restricted_datasets=False) == []
    assert looked("cell_lines", where="has hla_typings (locus = 'A')") == looked("hla_typings")
    assert looked("cell_lines", first_use_of_project=True) == [FIRST_USE.rule]
    approval = office.approve(office.refer(), Scope.PROJECT)
    assert looked("cell_lines", first_use_of_project=True) == []
    office.store.revoke(approval, by="steward", because="")
    assert looked("cell_lines", first_use_of_project=True) == [FIRST_USE.rule]


def test_what_was_removed_from_the_inbox_leaves_the_stewards_list(office: Office) -> None:
    asked = office.refer(life_ms=1)
    office.seal(asked, answer_pb2.ANSWER_STATUS_TOO_OLD)
    assert office.inbox.prune(before_ms=now_ms()) == 1
    assert office.store.requests(everything=True) == []
