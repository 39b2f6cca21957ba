"""The longest log each center has shown, and the heads that centers gave up when they were restored."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_told"
down_revision = "0005_proofs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and room for what the centers' clocks show."""
    op.add_column("sessions", sa.Column("clock_offset_ms", sa.BigInteger(), nullable=True))
    op.create_table(
        "log_told",
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "log_given_up",
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("size", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("given_up_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
