"""Requests and answers, the audit log, rosters believed, researchers accredited, what was granted to them and revoked.

Times are milliseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class InboxRow(NodeTable, table=True):
    """One query as the hub delivered it; kept after the answer, so that its id cannot be used again.

    `attempts` is how often work on it has begun since it was last answered.
    """

    __tablename__ = "inbox"

    query_id: str = Field(primary_key=True, max_length=64)
    body: bytes = Field(sa_type=LargeBinary)
    body_sha256: bytes = Field(sa_type=LargeBinary)
    traceparent: str = Field(max_length=200)
    received_at_ms: int = Field(sa_type=BigInteger)
    expires_at_ms: int = Field(sa_type=BigInteger, index=True)
    cancelled: bool
    answered: bool = Field(index=True)
    researcher: str = Field(max_length=200)
    attempts: int


class AnswerRow(NodeTable, table=True):
    """The one answer to a query, as signed. `stored_at_ms` is when the hub said that it has it."""

    __tablename__ = "answers"

    query_id: str = Field(primary_key=True, max_length=64)
    signed_answer: bytes = Field(sa_type=LargeBinary)
    status: str = Field(max_length=32)
    sealed_at_ms: int = Field(sa_type=BigInteger)
    stored_at_ms: int | None = Field(sa_type=BigInteger, index=True)


class AuditRow(NodeTable, table=True):
    """One record of the audit log; see connexon_node.audit.log. `hashes` are of 32 bytes each, the leaf's first."""

    __tablename__ = "audit"

    sequence: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    at_ms: int = Field(sa_type=BigInteger, index=True)
    query_id: str = Field(max_length=64, index=True)
    query_sha256: bytes = Field(sa_type=LargeBinary)
    researcher: str = Field(max_length=200)
    purpose: str = Field(max_length=1000)
    dataset: str = Field(max_length=64)
    analysis: str = Field(max_length=32)
    status: str = Field(max_length=32)
    code: str = Field(max_length=100)
    rule: str = Field(max_length=200)
    policy_version: str = Field(max_length=64)
    duration_ms: int = Field(sa_type=BigInteger)
    result_sha256: bytes = Field(sa_type=LargeBinary)
    hashes: bytes = Field(sa_type=LargeBinary)


class AuditHeadRow(NodeTable, table=True):
    """The end of the audit log, one row: what the next record builds on, and what finds a tail that was cut off."""

    __tablename__ = "audit_head"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    size: int = Field(sa_type=BigInteger)
    root_sha256: bytes = Field(sa_type=LargeBinary)
    frontier: bytes = Field(sa_type=LargeBinary)


class AuditWitnessRow(NodeTable, table=True):
    """The head of the audit log that the hub witnessed last, one row; see connexon_node.audit.witness."""

    __tablename__ = "audit_witness"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    size: int = Field(sa_type=BigInteger)
    root_sha256: bytes = Field(sa_type=LargeBinary)
    witnessed_at_ms: int = Field(sa_type=BigInteger)


class RosterRow(NodeTable, table=True):
    """A roster that was believed; the one of the highest serial is in force."""

    __tablename__ = "rosters"

    serial: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    signed_roster: bytes = Field(sa_type=LargeBinary)
    received_at_ms: int = Field(sa_type=BigInteger)


class AccreditationRow(NodeTable, table=True):
    """A credential this center issued."""

    __tablename__ = "accreditations"

    credential_id: str = Field(primary_key=True, max_length=64)
    subject: str = Field(max_length=64, index=True)
    name: str = Field(max_length=200)
    role: str = Field(max_length=100)
    key_fingerprint: str = Field(max_length=64)
    issued_at_ms: int = Field(sa_type=BigInteger)
    expires_at_ms: int = Field(sa_type=BigInteger)


class AccreditedGrantRow(NodeTable, table=True):
    """A grant in a credential this center issued, and the beginning of the day on which it was given."""

    __tablename__ = "accredited_grants"

    credential_id: str = Field(primary_key=True, max_length=64)
    type: str = Field(primary_key=True, max_length=500)
    value: str = Field(primary_key=True, max_length=500)
    given_at_ms: int = Field(sa_type=BigInteger)


class RevocationRow(NodeTable, table=True):
    """That credentials of a researcher issued before a moment do not count, as their home center signed it.

    `revoked_by` and `because` are of this node's own steward; `hub_has_at_ms` is when the hub showed that it has it.
    """

    __tablename__ = "revocations"

    center_id: str = Field(primary_key=True, max_length=64)
    subject: str = Field(primary_key=True, max_length=64)
    issued_before_ms: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    signed: bytes = Field(sa_type=LargeBinary)
    received_at_ms: int = Field(sa_type=BigInteger)
    revoked_by: str = Field(max_length=200)
    because: str = Field(max_length=300)
    hub_has_at_ms: int | None = Field(sa_type=BigInteger)
