"""Indexes of what is open and of what is kept: beside all that a researcher ever asked, both are little."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_kept"
down_revision = "0006_told"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indexes."""
    for name, column, condition in (
        ("ix_queries_open_of_researcher", "researcher_id", "closed_ms IS NULL"),
        ("ix_queries_kept", "closed_ms", "length(signed) > 0"),
    ):
        where = sa.text(condition)
        op.create_index(name, "queries", [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
