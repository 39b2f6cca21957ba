"""Past requests under changed rules: what would have been said, before anything is changed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Analysis
from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.identity.credential import NOTHING_REVOKED
from connexon.learning.recipe import FieldFeature, LocalWork, Logistic, Recipe, Strategy, Target, TargetClass
from connexon.query import signed
from connexon.query.purpose import parse_purpose
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.audit import AuditLog
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.consent.evaluation import Verdict
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.delivery.inbox import Inbox
from connexon_node.ontology import demonstration
from connexon_node.pipeline.delivery import Delivery
from connexon_node.policy.store import compile_rules
from connexon_node.policy_review.replaying import Replay, past_requests, replay
from connexon_node.state import open_state
from tests.support.federation import new_federation
from tests.support.rules import baseline

MARCH = datetime.date(2026, 3, 1)
NO_COMMERCE = b"""@id("own.no_commerce")
@says("Nothing here serves commerce.")
forbid (principal, action == Action::"count", resource) when { context.purpose.commercial };
"""
NO_HEALTH = b"""@id("own.general_only")
@says("Consents to health research are not used at present.")
forbid (principal, action == Action::"use", resource) when { resource.permission == "health" };
"""
AGREED = b"""@id("own.controls_agreed")
@says("Use as controls is agreed for project atlas.")
@needs("the project atlas | a purpose that includes control")
permit (principal, action == Action::"proceed", resource)
when { context.purpose.project == "atlas" }
when { context.purpose.research.contains("control") };
"""
HIDE_LOTS = b"""@id("own.hidden")
@says("The lots of this center are not shown.")
forbid (principal, action == Action::"discover", resource) when { resource.name == "lots" };
"""


class Past:
    """A node with three donors and a day of requests behind it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.ledger = Ledger(database)
        profiles = {"general": "DUO:0000042", "health": "DUO:0000006", "ancestry": "DUO:0000011"}
        self.ledger.record_many(
            [ConsentRecord(name, ConsentProfile.parse(term), MARCH) for name, term in profiles.items()],
            by="steward",
            source="file",
        )
        self.federation = new_federation()
        self.ada = self.federation.researcher()
        self.inbox, self.log = Inbox(database), AuditLog(database)
        key = self.federation.centers["kyoto"].answering
        self.recorder = SigningRecorder(database, self.log, key, epoch=lambda _: 1)

    def ask(
        self, purpose: str, *, commercial: bool = False, analysis: Analysis | None = None, dataset: str = "donors"
    ) -> str:
        asked_for = parse_purpose(purpose, commercial_use=commercial, project="atlas")
        question = self.ada.question(["kyoto"], analysis or Count(), dataset=dataset, purpose=asked_for)
        query = self.ada.sign(question)
        asked = signed.verify_query(query, self.federation.roster(), NOTHING_REVOKED)
        self.inbox.receive(Delivery.arrived(question.query_id, query.SerializeToString()), researcher="lyon/ada")
        released = answer_pb2.ANSWER_STATUS_RELEASED
        answer = answer_pb2.Answer(
            query_id=question.query_id, center_id="kyoto", query_sha256=asked.sha256, status=released
        )
        self.recorder.seal(asked, answer, epoch=None, started_at_ms=now_ms())
        return question.query_id

    def replay(self, own: bytes, *, since_ms: int = 0) -> Replay:
        return replay(
            past_requests(self.log, self.inbox, self.federation.roster(), since_ms=since_ms),
            compile_rules(baseline(), {}),
            compile_rules(baseline(), {"own.cedar": own} if own else {}),
            ontologies=demonstration(),
            dictionary=DICTIONARY,
            profiles=self.ledger.profiles(),
            donors=self.ledger.donors_by_profile(),
        )


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield Past(database)
    database.close()


def test_the_same_rules_change_nothing(past: Past) -> None:
    for purpose in ("health", "health,control", "ancestry"):
        past.ask(purpose)
    past.ask("health", analysis=Describe(), dataset="")
    assert past.replay(b"") == Replay(4, 0, ())


def test_requests_to_train_are_judged_too(past: Past) -> None:
    recipe = Recipe(
        name="niche",
        target=Target("sex", (TargetClass("women", ("female",)), TargetClass("men", ("male",)))),
        features=(FieldFeature("age_range_y"),),
        model=Logistic(LocalWork(0.1)),
        rounds=2,
        strategy=Strategy("FedAvgM", {"server_momentum": 0.9}),
        privacy=None,
    )
    past.ask("health", analysis=Train(recipe))
    past.ask("health")
    # Access refuses one by the terms of training that ada has not accepted; of the other fewer donors are counted.
    found = past.replay(NO_HEALTH)
    assert (found.judged, len(found.changes)) == (2, 1)


def test_a_new_refusal_is_shown_with_the_rule_before_and_after(past: Past) -> None:
    past.ask("health")
    commercial = past.ask("health", commercial=True)
    (change,) = past.replay(NO_COMMERCE).changes
    assert change.past.record.query_id == commercial
    assert (change.before.verdict, change.before.rules) == (
        Verdict.PERMIT,
        ("consent.general_research", "consent.health_research"),
    )
    assert (change.after.verdict, change.after.rules, change.after.donors) == (Verdict.DENY, ("own.no_commerce",), 0)


def test_fewer_donors_are_a_change_too(past: Past) -> None:
    past.ask("health")
    (change,) = past.replay(NO_HEALTH).changes
    assert (change.before.donors, change.after.donors) == (2, 1)


def test_what_would_no_longer_wait_for_the_steward_is_shown(past: Past) -> None:
    past.ask("health,control")
    (change,) = past.replay(AGREED).changes
    assert (change.before.verdict, change.after.verdict) == (Verdict.REFER, Verdict.PERMIT)
    assert change.before.rules == ("consent.refer.control",)
    assert change.after.rules == ("own.controls_agreed",)


def test_a_catalog_that_would_leave_a_dataset_out_is_shown(past: Past) -> None:
    past.ask("health", analysis=Describe(), dataset="")
    past.ask("health", dataset="lots")
    catalog, count = past.replay(HIDE_LOTS).changes
    assert catalog.after.withheld == {"lots"}
    assert (count.after.verdict, count.after.rules) == (Verdict.DENY, ("own.hidden",))


def test_requests_from_before_or_no_longer_kept_are_left_out_and_counted(past: Past) -> None:
    past.ask("health", commercial=True)
    gone = past.ask("health", commercial=True)
    with past.database.writing() as connection:
        connection.execute(text("delete from inbox where query_id = :id"), {"id": gone})
    found = past.replay(NO_COMMERCE)
    assert (found.judged, found.unjudged, len(found.changes)) == (1, 1, 1)
    assert past.replay(NO_COMMERCE, since_ms=now_ms() + 1).judged == 0


def test_replaying_records_nothing(past: Past) -> None:
    past.ask("health", commercial=True)
    before = json.dumps([entry.record.document() for entry in past.log.all()], default=str)
    past.replay(NO_COMMERCE)
    assert json.dumps([entry.record.document() for entry in past.log.all()], default=str) == before
