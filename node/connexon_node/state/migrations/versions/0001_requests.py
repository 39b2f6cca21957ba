"""Requests, answers, the audit log, rosters and accreditations."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0001_requests"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _requests()
    _audit()
    _membership()


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError


def _requests() -> None:
    op.create_table(
        "inbox",
        sa.Column("query_id", sa.String(64), primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("body_sha256", sa.LargeBinary, nullable=False),
        sa.Column("traceparent", sa.String(200), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("answered", sa.Boolean, nullable=False),
    )
    op.create_index("ix_inbox_expires_at_ms", "inbox", ["expires_at_ms"])
    op.create_index("ix_inbox_answered", "inbox", ["answered"])
    op.create_table(
        "answers",
        sa.Column("query_id", sa.String(64), primary_key=True),
        sa.Column("signed_answer", sa.LargeBinary, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("sealed_at_ms", sa.BigInteger, nullable=False),
        sa.Column("stored_at_ms", sa.BigInteger, nullable=True),
    )
    op.create_index("ix_answers_stored_at_ms", "answers", ["stored_at_ms"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("query_sha256", sa.LargeBinary, nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("purpose", sa.String(1000), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("analysis", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("code", sa.String(100), nullable=False),
        sa.Column("rule", sa.String(200), nullable=False),
        sa.Column("policy_version", sa.String(64), nullable=False),
        sa.Column("duration_ms", sa.BigInteger, nullable=False),
        sa.Column("result_sha256", sa.LargeBinary, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_audit_at_ms", "audit", ["at_ms"])
    op.create_index("ix_audit_query_id", "audit", ["query_id"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root_sha256", sa.LargeBinary, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
    )
    empty = hashlib.sha256().digest()
    op.bulk_insert(head, [{"id": 1, "size": 0, "root_sha256": empty, "frontier": b""}])


def _membership() -> None:
    op.create_table(
        "rosters",
        sa.Column("serial", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("signed_roster", sa.LargeBinary, nullable=False),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "accreditations",
        sa.Column("credential_id", sa.String(64), primary_key=True),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("role", sa.String(100), nullable=False),
        sa.Column("key_fingerprint", sa.String(64), nullable=False),
        sa.Column("issued_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_accreditations_subject", "accreditations", ["subject"])
