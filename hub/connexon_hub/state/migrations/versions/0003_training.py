"""Training runs, their tasks and rounds, and the models that came of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_training"
down_revision = "0002_witness"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    _runs()
    _models()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("researcher_id", sa.String(), nullable=False, index=True),
        sa.Column("state", sa.Integer(), nullable=False, index=True),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("centers", sa.String(), nullable=False),
        sa.Column("noise_seed", sa.LargeBinary(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger()),
        sa.Column("ended_ms", sa.BigInteger()),
    )
    op.create_table(
        "run_tasks",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "run_parts",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("answer", sa.LargeBinary()),
        sa.Column("settled_ms", sa.BigInteger()),
    )
    op.create_index("ix_run_parts_center", "run_parts", ["center_id", "state"])
    op.create_table(
        "run_choices",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("value", sa.String(), nullable=False),
    )
    op.create_table(
        "run_rounds",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("round", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
    )


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("researcher_id", sa.String(), primary_key=True),
        sa.Column("model_id", sa.String(), primary_key=True),
        sa.Column("query_id", sa.String(), nullable=False, index=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.Column("summary", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "model_flags",
        sa.Column("query_id", sa.String(), primary_key=True),
        sa.Column("center_id", sa.String(), primary_key=True),
        sa.Column("code", sa.String(), primary_key=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
