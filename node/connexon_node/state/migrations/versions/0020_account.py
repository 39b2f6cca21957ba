"""One account of persons in the place of budgets, measurements that can be refined, and grants of exact numbers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020_account"
down_revision = "0013_attempts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Carry what was spent over into the account; what was drawn by the old rules stands for no new question."""
    op.create_table(
        "privacy_charges",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("share", sa.String(16), nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("project", sa.String(1000), nullable=False),
        sa.Column("stratum", sa.String(200), nullable=False),
        sa.Column("rho", sa.Float(), nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("task", sa.String(200), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_privacy_charges_researcher", "privacy_charges", ["researcher"])
    op.create_index("ix_privacy_charges_query_id", "privacy_charges", ["query_id"])
    op.create_table(
        "privacy_shares",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("rho", sa.Float(), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_privacy_shares_researcher", "privacy_shares", ["researcher"])
    op.create_table(
        "privacy_measurements",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("question", sa.LargeBinary(), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("query_id", sa.String(64), nullable=False),
        sa.Column("rho", sa.Float(), nullable=False),
        sa.Column("scale", sa.Float(), nullable=False),
        sa.Column("numbers", sa.LargeBinary(), nullable=False),
        sa.Column("bitmap", sa.LargeBinary(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_privacy_measurements_question", "privacy_measurements", ["question", "id"])
    op.create_table(
        "exact_grants",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("project", sa.String(1000), nullable=False),
        sa.Column("datasets", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("given_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ends_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("withdrawn_because", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_exact_grants_researcher", "exact_grants", ["researcher"])
    # A refill was the steward's leave to spend again; what had left stays spent.
    op.execute(
        "INSERT INTO privacy_charges (id, share, researcher, project, stratum, rho, delta, query_id, task, at_ms) "
        "SELECT id, CASE WHEN task = '' THEN 'questions' ELSE 'models' END, researcher, project, '', rho, delta, "
        "query_id, task, at_ms FROM privacy_entries WHERE kind = 'charge'"
    )
    op.drop_table("privacy_entries")
    # Old draws are the answer to nothing that can be asked now; whom they counted is still told after a withdrawal.
    op.execute(
        "INSERT INTO privacy_measurements (id, question, dataset, query_id, rho, scale, numbers, bitmap, at_ms) "
        "SELECT id, question, dataset, query_id, 0, 0, '', bitmap, at_ms FROM privacy_draws"
    )
    op.drop_table("privacy_draws")


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
