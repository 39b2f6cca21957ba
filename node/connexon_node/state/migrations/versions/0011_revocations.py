"""Researchers whose credentials their home centers have revoked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_revocations"
down_revision = "0010_grants"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "revocations",
        sa.Column("center_id", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("issued_before_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_by", sa.String(200), nullable=False),
        sa.Column("because", sa.String(300), nullable=False),
        sa.Column("hub_has_at_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("center_id", "subject", "issued_before_ms"),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
