"""Tables of what waits for the steward and what the steward has approved. Times are milliseconds since 1970, UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class StewardRequestRow(NodeTable, table=True):
    """One question that only the steward can decide."""

    __tablename__ = "steward_requests"

    query_id: str = Field(primary_key=True, max_length=64)
    query_sha256: bytes = Field(sa_type=LargeBinary)
    researcher: str = Field(max_length=200)
    center: str = Field(max_length=64)
    role: str = Field(max_length=100)
    purpose: str = Field(description="canonical; what an approval is compared with")
    purpose_words: str
    project: str = Field(max_length=200)
    dataset: str = Field(max_length=64)
    question: str = Field(description="in words")
    reasons: str = Field(description="JSON: rule, sentence, consent profiles")
    asked_at_ms: int = Field(sa_type=BigInteger)
    expires_at_ms: int = Field(sa_type=BigInteger)
    state: str = Field(max_length=16, index=True, description="waiting, approved, refused, cancelled or answered")
    decided_at_ms: int | None = Field(sa_type=BigInteger)
    decided_by: str = Field(max_length=200)
    because: str
    outcome: str = Field(max_length=32, description="the status of the answer that followed; empty before")


class ApprovalRow(NodeTable, table=True):
    """One yes of the steward: to one query, or to a project's questions of one kind."""

    __tablename__ = "approvals"

    approval_id: str = Field(primary_key=True, max_length=64)
    scope: str = Field(max_length=16, description="query or project")
    query_id: str = Field(max_length=64, index=True, description="the question that it was given for")
    query_sha256: bytes = Field(sa_type=LargeBinary)
    researcher: str = Field(max_length=200, description="empty: anybody who names the project")
    center: str = Field(max_length=64, description="home center of who asked first")
    purpose: str
    purpose_words: str
    project: str = Field(max_length=200, index=True)
    dataset: str = Field(max_length=64)
    rules: str = Field(description="JSON: the reasons for referring that it settles")
    given_at_ms: int = Field(sa_type=BigInteger)
    given_by: str = Field(max_length=200)
    because: str
    expires_at_ms: int = Field(sa_type=BigInteger)
    revoked_at_ms: int | None = Field(sa_type=BigInteger)
    revoked_by: str = Field(max_length=200)
    revoked_because: str


class EarlierAnswerRow(NodeTable, table=True):
    """An answer that said "awaiting steward" and has been followed by another."""

    __tablename__ = "earlier_answers"

    query_id: str = Field(primary_key=True, max_length=64)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    sealed_at_ms: int = Field(sa_type=BigInteger)
    status: str = Field(max_length=32)
    signed_answer: bytes = Field(sa_type=LargeBinary)
