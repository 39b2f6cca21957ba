"""Proofs of calls that were used: over a restart of the hub, too, each counts once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_proofs"
down_revision = "0004_revocations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "proofs",
        sa.Column("researcher_id", sa.String(), primary_key=True),
        sa.Column("proof_id", sa.String(), primary_key=True),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_proofs_until_ms", "proofs", ["until_ms"])


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
