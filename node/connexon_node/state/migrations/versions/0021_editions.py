"""Editions of the center's data, which private numbers describe, and their first-ask tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021_editions"
down_revision = "0020_account"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No edition is opened here: that is the steward's decision."""
    op.create_table(
        "editions",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", sa.String(200), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("without_tables", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "edition_generations",
        sa.Column("edition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("edition", "dataset"),
    )
    op.create_table(
        "edition_tables",
        sa.Column("edition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rho", sa.Float(), nullable=False),
        sa.Column("consent_epoch", sa.BigInteger(), nullable=False),
        sa.Column("policy_version", sa.String(64), nullable=False),
        sa.Column("dictionary_version", sa.String(), nullable=False),
        sa.Column("frame", sa.String(), nullable=False),
        sa.Column("arrays", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("edition"),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
