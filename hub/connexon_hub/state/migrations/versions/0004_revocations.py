"""Researchers whose credentials their home centers have revoked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_revocations"
down_revision = "0003_training"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "revocations",
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("subject", sa.String(), primary_key=True),
        sa.Column("issued_before_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
