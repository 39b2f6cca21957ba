"""What was granted to the researchers accredited, and since when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_grants"
down_revision = "0009_training"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "accredited_grants",
        sa.Column("credential_id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(500), nullable=False),
        sa.Column("value", sa.String(500), nullable=False),
        sa.Column("given_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("credential_id", "type", "value"),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
