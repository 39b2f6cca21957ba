"""Members, rosters, queries and their deliveries, sessions, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_hub"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _membership()
    _queries()
    _watching()


def _membership() -> None:
    op.create_table(
        "invitations",
        sa.Column("token_sha256", sa.String(), primary_key=True),
        sa.Column("center_id", sa.String(), nullable=False, index=True),
        sa.Column("legal_name", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("organisation_kind", sa.String(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("voided_ms", sa.BigInteger()),
        sa.Column("used_ms", sa.BigInteger()),
        sa.Column("used_by", sa.String(), nullable=False),
    )
    op.create_table(
        "members",
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("legal_name", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("organisation_kind", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("accrediting_key", sa.LargeBinary()),
        sa.Column("answering_key", sa.LargeBinary()),
        sa.Column("link_key", sa.LargeBinary()),
        sa.Column("joined_ms", sa.BigInteger()),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False, index=True),
    )
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(), primary_key=True),
        sa.Column("center_id", sa.String(), nullable=False, index=True),
        sa.Column("issued_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_ms", sa.BigInteger()),
    )
    op.create_table(
        "rosters",
        sa.Column("serial", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("published_ms", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )


def _queries() -> None:
    op.create_table(
        "queries",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("researcher_id", sa.String(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.String(), nullable=False),
        sa.Column("accepted_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("cancelled_ms", sa.BigInteger()),
        sa.Column("closed_ms", sa.BigInteger()),
    )
    op.create_index("ix_queries_researcher", "queries", ["researcher_id", "accepted_ms"])
    op.create_index("ix_queries_open", "queries", ["closed_ms", "expires_ms"])
    op.create_table(
        "deliveries",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("received_ms", sa.BigInteger()),
        sa.Column("answered_ms", sa.BigInteger()),
        sa.Column("answer_status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.LargeBinary()),
    )
    op.create_index("ix_deliveries_center", "deliveries", ["center_id", "state"])
    op.create_index("ix_deliveries_answered", "deliveries", ["state", "answered_ms"])


def _watching() -> None:
    op.create_table(
        "sessions",
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("process_id", sa.String(), nullable=False),
        sa.Column("connected_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger()),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_answer_ms", sa.BigInteger()),
        sa.Column("latency_ms", sa.Float()),
        sa.Column("software_version", sa.String(), nullable=False),
        sa.Column("protocol", sa.String(), nullable=False),
        sa.Column("dictionary_version", sa.String(), nullable=False),
        sa.Column("roster_serial", sa.BigInteger(), nullable=False),
        sa.Column("certificate_expires_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.Integer(), primary_key=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False, index=True),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("center_id", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
