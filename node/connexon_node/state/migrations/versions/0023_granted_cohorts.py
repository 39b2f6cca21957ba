"""How many new cohorts exact numbers told of, by project; cohorts of all datasets are compared with each other."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023_granted_cohorts"
down_revision = "0022_exact_training"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Cohorts that were told before are compared as ever, and nobody's use begins with them."""
    op.create_table(
        "granted_cohorts",
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(1000), nullable=False),
        sa.Column("cohorts", sa.Integer(), nullable=False),
        sa.Column("donors", sa.Integer(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("query_id"),
    )
    op.create_index("ix_granted_cohorts_holder", "granted_cohorts", ["holder"])


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
