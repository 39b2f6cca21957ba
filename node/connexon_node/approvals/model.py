"""What waits for the steward and what the steward has said, as values; and what an approval covers. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from connexon.analyses.registry import spec_of
from connexon.analyses.spec import Kind
from connexon.conditions.where_text import to_text
from connexon.query.question import Purpose, Question
from connexon_node.pipeline.values import Referral


class State(Enum):
    """How far a request is."""

    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    ANSWERED = "answered"


class Scope(Enum):
    """What an approval is for: one query, or a project's questions for the same purpose about the same dataset."""

    QUERY = "query"
    PROJECT = "project"


@dataclass(frozen=True)
class Request:
    """A question that only the steward can decide. `outcome` is the status of the answer that followed."""

    query_id: str
    query_sha256: bytes
    researcher: str
    center: str
    role: str
    purpose: str
    purpose_words: str
    project: str
    dataset: str
    question: str
    reasons: tuple[Referral, ...]
    asked_at_ms: int
    expires_at_ms: int
    state: State
    decided_at_ms: int | None
    decided_by: str
    because: str
    outcome: str

    @property
    def rules(self) -> frozenset[str]:
        """The rules that refer it."""
        return frozenset(one.rule for one in self.reasons)


@dataclass(frozen=True)
class Approval:
    """One yes of the steward. `researcher` empty: anybody who names the project."""

    approval_id: str
    scope: Scope
    query_id: str
    query_sha256: bytes
    researcher: str
    center: str
    purpose: str
    purpose_words: str
    project: str
    dataset: str
    rules: frozenset[str]
    given_at_ms: int
    given_by: str
    because: str
    expires_at_ms: int
    revoked_at_ms: int | None
    revoked_by: str
    revoked_because: str

    def in_force(self, at_ms: int) -> bool:
        """Whether it counts at that moment."""
        return self.revoked_at_ms is None and at_ms < self.expires_at_ms

    def covers(
        self, *, query_id: str, query_sha256: bytes, researcher: str, purpose: str, project: str, dataset: str
    ) -> bool:
        """Whether it was given for such a question.

        A project's approval is for the very purpose and dataset that the steward saw: a wider purpose, a commercial
        use or another ethics approval is another matter.
        """
        if self.scope is Scope.QUERY:
            return (self.query_id, self.query_sha256) == (query_id, query_sha256)
        same = (self.project, self.purpose, self.dataset) == (project, purpose, dataset)
        return bool(project) and same and self.researcher in ("", researcher)


def canonical(purpose: Purpose) -> str:
    """A purpose in one form: two purposes are the same where these are, whatever order their words were in."""
    parts = [sorted(purpose.research), purpose.disease, purpose.commercial_use, purpose.ethics_approval]
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


_KINDS = {
    Kind.PRIVATE: "with noise",
    Kind.GRANTED: "exact, by your grant",
    Kind.PUBLISHED: "of what is published",
}


def in_words(question: Question) -> str:
    """The question as a steward reads it, for example: count cell_lines by type where passage_no > 10."""
    spec = spec_of(question.analysis)
    words = spec.words(question.analysis, question.dataset)
    if question.filter is not None:
        words += f" where {to_text(question.filter)}"
    kind = spec.kind(question.analysis)
    return words if kind is None else f"{words}, {_KINDS[kind]}"


def reasons_to_json(reasons: tuple[Referral, ...]) -> str:
    """Reasons as they are kept."""
    kept = [{"rule": one.rule, "says": one.says, "profiles": sorted(one.profiles)} for one in reasons]
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def reasons_from_json(text: str) -> tuple[Referral, ...]:
    """The inverse of reasons_to_json."""
    return tuple(Referral(one["rule"], one["says"], frozenset(one["profiles"])) for one in json.loads(text))
