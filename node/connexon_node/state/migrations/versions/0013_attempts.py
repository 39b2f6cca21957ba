"""Who asked a question, and how often the node has begun to work on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_attempts"
down_revision = "0012_stated_duties"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what waits has not been tried, and waits together."""
    op.add_column("inbox", sa.Column("researcher", sa.String(200), nullable=False, server_default=""))
    op.add_column("inbox", sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
