"""Identifiers of features, and removed generations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_features"
down_revision = "0006_approvals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.add_column("generations", sa.Column("removed_at_ms", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
