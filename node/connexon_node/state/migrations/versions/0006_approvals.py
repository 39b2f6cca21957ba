"""Requests that wait for the steward, approvals, answers that another followed; and consents that end on a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_approvals"
down_revision = "0005_log"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "steward_requests",
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("query_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("center", sa.String(64), nullable=False),
        sa.Column("role", sa.String(100), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("purpose_words", sa.String(), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("reasons", sa.String(), nullable=False),
        sa.Column("asked_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("decided_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("decided_by", sa.String(200), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("query_id"),
    )
    op.create_index("ix_steward_requests_state", "steward_requests", ["state"])
    op.create_table(
        "approvals",
        sa.Column("approval_id", sa.String(64), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("query_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("center", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("purpose_words", sa.String(), nullable=False),
        sa.Column("project", sa.String(200), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("rules", sa.String(), nullable=False),
        sa.Column("given_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("given_by", sa.String(200), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_by", sa.String(200), nullable=False),
        sa.Column("revoked_because", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("approval_id"),
    )
    op.create_index("ix_approvals_query_id", "approvals", ["query_id"])
    op.create_index("ix_approvals_project", "approvals", ["project"])
    op.create_table(
        "earlier_answers",
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("sealed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("signed_answer", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("query_id", "number"),
    )
    op.add_column("donor_consents", sa.Column("expires_on", sa.String(), nullable=False, server_default=""))
    due = sa.text("expires_on != ''")
    op.create_index("ix_donor_consents_due", "donor_consents", ["expires_on"], sqlite_where=due, postgresql_where=due)


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
