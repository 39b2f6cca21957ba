"""Training runs: their tasks, the replies, and whose rows stood behind each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_training"
down_revision = "0008_privacy"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "training_runs",
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("query_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("researcher", sa.String(200), nullable=False),
        sa.Column("purpose", sa.String(1000), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("recipe", sa.String(64), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("began_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("preprocessing_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("stopped_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("stopped_by", sa.String(200), nullable=False),
        sa.Column("stopped_because", sa.String(1000), nullable=False),
        sa.Column("noticed_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "training_tasks",
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("ix_training_tasks_run_id", "training_tasks", ["run_id"])
    op.create_index("ix_training_tasks_answered", "training_tasks", ["answered"])
    op.create_table(
        "training_replies",
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("code", sa.String(100), nullable=False),
        sa.Column("signed_answer", sa.LargeBinary(), nullable=False),
        sa.Column("records_size", sa.BigInteger(), nullable=False),
        sa.Column("donors", sa.Integer(), nullable=False),
        sa.Column("bitmap", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("task_id"),
    )
    op.create_index("ix_training_replies_run_id", "training_replies", ["run_id"])
    op.create_index("ix_training_replies_stored_at_ms", "training_replies", ["stored_at_ms"])
    op.create_table(
        "training_watch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
