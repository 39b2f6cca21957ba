"""Donor numbers, consent profiles and the consent ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_consent"
down_revision = "0001_requests"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "donor_numbers",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("donor_id", sa.String, nullable=False, unique=True),
    )
    op.create_table(
        "consent_profiles",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sha256", sa.String, nullable=False, unique=True),
        sa.Column("profile", sa.String, nullable=False),
    )
    op.create_table(
        "consent_events",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("donor", sa.Integer, nullable=False, index=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("profile", sa.Integer, nullable=False),
        sa.Column("effective_on", sa.String, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("because", sa.String, nullable=False),
    )
    op.create_table(
        "donor_consents",
        sa.Column("donor", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("profile", sa.Integer, nullable=False),
        sa.Column("newest", sa.String, nullable=False),
        sa.Column("latest_profile", sa.Integer, nullable=False),
        sa.Column("obtained_on", sa.String, nullable=False),
        sa.Column("withdrawn_on", sa.String, nullable=False),
        sa.Column("amended", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "consent_counters",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("last_event", sa.BigInteger, nullable=False),
        sa.Column("last_donor", sa.Integer, nullable=False),
        sa.Column("last_profile", sa.Integer, nullable=False),
    )
    op.execute("insert into consent_counters (id, epoch, last_event, last_donor, last_profile) values (1, 0, 0, 0, 0)")


def downgrade() -> None:
    """Go back by restoring a backup: history is never deleted."""
    raise NotImplementedError
