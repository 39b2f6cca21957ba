"""The head of the audit log that the hub witnessed last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_log"
down_revision = "0004_release"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "audit_witness",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root_sha256", sa.LargeBinary, nullable=False),
        sa.Column("witnessed_at_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
