"""Grants say what they are of; cohorts of trainings with exact updates are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022_exact_training"
down_revision = "0021_editions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Grants given before are of counts alone: nobody was told that they cover training."""
    op.add_column("exact_grants", sa.Column("what", sa.String(200), nullable=False, server_default="counts"))
    op.create_table(
        "training_cohorts",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("grant_id", sa.String(64), nullable=False),
        sa.Column("project", sa.String(1000), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("edition", sa.Integer(), nullable=False),
        sa.Column("words", sa.LargeBinary(), nullable=False),
        sa.Column("sets", sa.String(), nullable=False),
        sa.Column("bitmap", sa.LargeBinary(), nullable=False),
        sa.Column("summary", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
