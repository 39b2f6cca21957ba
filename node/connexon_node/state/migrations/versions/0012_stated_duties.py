"""Duties that a center states of its donors in general."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012_stated_duties"
down_revision = "0011_revocations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "stated_duties",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("term", sa.String(64), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("donors", sa.Integer(), nullable=False),
        sa.Column("stated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("stated_by", sa.String(200), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
