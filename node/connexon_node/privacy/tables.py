"""Tables of the privacy room: who has spent what, and what was drawn. Rows are added, never changed or deleted.

Times are milliseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class PrivacyEntryRow(NodeTable, table=True):
    """One line of an account: a charge, a refill, or a limit of its own."""

    __tablename__ = "privacy_entries"

    __table_args__ = (Index("ix_privacy_entries_account", "researcher", "project", "dataset"),)

    id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    researcher: str = Field(max_length=200)
    project: str = Field(max_length=1000)
    dataset: str = Field(max_length=64)
    kind: str = Field(max_length=16, description="charge, refill or limit")
    rho: float = Field(sa_type=Float, description="spent, given back, or allowed")
    delta: float = Field(sa_type=Float, description="what thresholds added to the delta")
    query_id: str = Field(max_length=64, index=True, description="of a charge")
    task: str = Field(max_length=200, description="which of the query's charges it is")
    by: str = Field(max_length=200, description="of a refill or limit: who")
    note: str
    at_ms: int = Field(sa_type=BigInteger)


class PrivacyDrawRow(NodeTable, table=True):
    """One noisy outcome, which stands for every question that is the same."""

    __tablename__ = "privacy_draws"

    __table_args__ = (Index("ix_privacy_draws_question", "question", "id"),)

    id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    question: bytes = Field(sa_type=LargeBinary, description="SHA-256 of what makes questions the same")
    dataset: str = Field(max_length=64)
    epoch: int = Field(sa_type=BigInteger, description="the consent ledger's state that it was drawn in")
    query_id: str = Field(max_length=64, description="the query that it was drawn for")
    outcome: bytes = Field(sa_type=LargeBinary, description="what left, a serialised Answer without its addresses")
    bitmap: bytes = Field(sa_type=LargeBinary, description="the donors counted, as a serialised roaring bitmap")
    at_ms: int = Field(sa_type=BigInteger)
