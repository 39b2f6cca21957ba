"""The steward's desk as the pipeline sees it: what goes over it, and what has been said of a question."""

from __future__ import annotations

from sqlalchemy import Connection

from connexon.clock import now_ms
from connexon.errors import Refused
from connexon.query import purpose as purposes
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon_node.analyses.registry import at_node
from connexon_node.approvals import store
from connexon_node.approvals.model import State, canonical, in_words, reasons_to_json
from connexon_node.data.dictionary import Dictionary, Sensitivity, relations
from connexon_node.pipeline.values import ConsentMoved, Permit, Referral, SaidYes
from connexon_node.settings import ApprovalsSection

FIRST_USE = Referral(
    "steward.first_use_of_project",
    "This center's steward looks at each project before its first use; name yours with the question.",
)


def restricted(dataset: str) -> Referral:
    """Why a question that looks into a restricted dataset waits. One rule for each: no approval is for another's."""
    says = f"The dataset {dataset} is restricted: this center's steward looks at each question first."
    return Referral(f"steward.restricted_dataset.{dataset}", says)


class Desk:
    """The decisions of this center's steward (pipeline.Steward). Thread-safe."""

    def __init__(self, database: Database, dictionary: Dictionary, settings: ApprovalsSection) -> None:
        """Which questions go over it whatever the consents say is in `settings`."""
        self._store = store.ApprovalStore(database)
        self._dictionary = dictionary
        self._settings = settings

    def decides_on(self, question: Question) -> bool:
        """Whether such a question may be put before the steward: descriptions tell nothing of donors."""
        return at_node(question.analysis).traits.may_be_referred

    def looks_first(self, permit: Permit) -> tuple[Referral, ...]:
        """Restricted datasets and new projects, as the settings say. Descriptions tell nothing of donors and pass."""
        question = permit.asked.question
        if not self.decides_on(question):
            return ()
        reasons = []
        if self._settings.restricted_datasets:
            looked_into = relations.touched(self._dictionary, question)
            reasons += [restricted(one.name) for one in looked_into if one.sensitivity is Sensitivity.RESTRICTED]
        if self._settings.first_use_of_project and not self._store.knows_project(
            question.purpose.project, str(permit.asked.researcher.center)
        ):
            reasons.append(FIRST_USE)
        return tuple(reasons)

    def require_not_refused(self, permit: Permit) -> None:
        """Raise Refused where the steward has refused this very question."""
        request = self._store.find(permit.asked.question.query_id)
        if request is not None and request.state is State.REFUSED and request.query_sha256 == permit.asked.sha256:
            raise Refused(f"The center's steward refused: {request.because}", code="steward.refused")

    def said_yes(self, permit: Permit, *, at_ms: int) -> SaidYes:
        """The approvals in force that cover this question, and the reasons they settle."""
        asked = permit.asked
        question = asked.question
        given = self._store.covering(
            query_id=question.query_id,
            query_sha256=asked.sha256,
            researcher=asked.researcher.id,
            purpose=canonical(question.purpose),
            project=question.purpose.project,
            dataset=question.dataset,
        )
        given = [one for one in given if one.in_force(at_ms)]
        rules = frozenset[str]().union(*(one.rules for one in given))
        return SaidYes(rules, tuple(one.approval_id for one in given))

    def put_before(self, connection: Connection, asked: Asked, referrals: tuple[Referral, ...]) -> None:
        """Keep the question for the steward, within the transaction that seals its answer."""
        question, researcher = asked.question, asked.researcher
        row = {
            "query_id": question.query_id,
            "query_sha256": asked.sha256,
            "researcher": researcher.id,
            "center": str(researcher.center),
            "role": researcher.role,
            "purpose": canonical(question.purpose),
            "purpose_words": purposes.describe(question.purpose),
            "project": question.purpose.project,
            "dataset": question.dataset,
            "question": in_words(question),
            "reasons": reasons_to_json(referrals),
            "asked_at_ms": now_ms(),
            "expires_at_ms": question.expires_at_ms,
        }
        store.put_before(connection, row)

    def require_in_force(self, connection: Connection, approvals: tuple[str, ...]) -> None:
        """Raise ConsentMoved where one of the approvals was revoked or has ended meanwhile."""
        if approvals and not store.all_in_force(connection, approvals, now_ms()):
            raise ConsentMoved("The steward took an approval back while the answer was computed.", code="steward.moved")
