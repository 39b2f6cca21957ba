"""Small real rooms for the node's story: they decide and count for true, over a handful of donors in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.errors import NotFound, Refused
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.pipeline.values import (
    Cell,
    CellTable,
    Cohort,
    Computed,
    Obligation,
    Permit,
    Referral,
    Released,
    SaidYes,
    Work,
)


@dataclass
class SmallConsent:
    """Donors by number, each with one profile; the epoch grows with every change."""

    profiles: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(12), 1))
    permitted: frozenset[int] = frozenset({1})
    now: int = 1

    def cohort(self, permit: Permit) -> Cohort:
        if not self.permitted:
            raise Refused("No donor at this center consented to this purpose.", code="consent.not_covered")
        duty = Obligation("DUO:0000019", "Publish what you find.")
        return Cohort(permit, self.permitted, self.now, (duty,), {"MONDO": "2026-01"})

    def epoch(self) -> int:
        return self.now

    def withdraw(self, donor: int) -> None:
        self.profiles[donor] = 0
        self.now += 1


@dataclass
class SmallSteward:
    """Never asked: nothing is referred, and nothing was approved."""

    def decides_on(self, question: Question) -> bool:
        return not isinstance(question.analysis, Describe)

    def looks_first(self, permit: Permit) -> tuple[Referral, ...]:
        return ()

    def require_not_refused(self, permit: Permit) -> None:
        return None

    def said_yes(self, permit: Permit, *, at_ms: int) -> SaidYes:
        return SaidYes()

    def put_before(self, connection: Connection, asked: Asked, referrals: tuple[Referral, ...]) -> None:
        raise AssertionError("nothing is referred here")

    def require_in_force(self, connection: Connection, approvals: tuple[str, ...]) -> None:
        assert approvals == ()


@dataclass
class SmallAccess:
    """Permits every dataset but those forbidden."""

    forbidden: frozenset[str] = frozenset({"clinical"})

    def authorise(self, asked: Asked) -> Permit:
        if asked.question.dataset in self.forbidden:
            raise NotFound("clinical is forbidden to you", code="dataset.not_offered", rule="secret.rule")
        if asked.question.purpose.commercial_use:
            raise Refused("No commercial use here.", code="policy.denied", rule="no.commerce")
        return Permit(asked, "everybody", "0badcafe")


@dataclass
class SmallEngine:
    """Counts donors of the cohort. `during` is called while it computes."""

    consent: SmallConsent
    during: Callable[[Work], None] = lambda _: None

    def run(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        if question.dataset != "cell_lines" or not isinstance(question.analysis, Count):
            raise NotFound("there is no such table", code="dataset.not_offered")
        donors = sum(1 for profile in self.consent.profiles.values() if profile in cohort.profiles)
        self.during(work)
        work.require_wanted()
        return Computed(cohort, CellTable((), (Cell((), donors, donors),)), {"cell_lines": 3}, "1.0")

    def training_table(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        raise NotFound("no models are trained here", code="dataset.not_offered")


@dataclass
class SmallRelease:
    """Suppresses totals below five donors."""

    def protect(self, computed: Computed) -> Released:
        assert isinstance(computed.shape, CellTable)
        (cell,) = computed.shape.cells
        if cell.donors < 5:
            reason = answer_pb2.Reason(code="release.too_few", message="Too few donors.")
            return Released(computed, answer_pb2.Answer(status=answer_pb2.ANSWER_STATUS_SUPPRESSED, reason=reason))
        answer = answer_pb2.Answer(status=answer_pb2.ANSWER_STATUS_RELEASED)
        answer.protection.kind = query_pb2.NUMBER_KIND_GRANTED
        answer.protection.unit = query_pb2.COUNT_UNIT_DONORS
        answer.count.cells.add(number=cell.records)
        return Released(computed, answer)

    def catch_up(self) -> None:
        """It remembers nothing."""
