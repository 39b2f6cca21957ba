"""Tables of privacy: what was charged to the account of persons, and what was drawn. Rows are only added.

Times are milliseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class PrivacyChargeRow(NodeTable, table=True):
    """One charge to the account of persons."""

    __tablename__ = "privacy_charges"

    id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    share: str = Field(max_length=16, description="tables, questions or models")
    researcher: str = Field(max_length=200, index=True, description="empty where it is nobody's")
    project: str = Field(max_length=1000)
    stratum: str = Field(max_length=200, description="the main disease of all donors concerned; empty: every donor")
    rho: float = Field(sa_type=Float)
    delta: float = Field(sa_type=Float, description="what thresholds add to the delta")
    query_id: str = Field(max_length=64, index=True)
    task: str = Field(max_length=200, description="which task of a training run it paid for")
    at_ms: int = Field(sa_type=BigInteger)


class PrivacyShareRow(NodeTable, table=True):
    """A yearly share of the account that the steward gave a researcher. The newest counts."""

    __tablename__ = "privacy_shares"

    id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    researcher: str = Field(max_length=200, index=True)
    rho: float = Field(sa_type=Float)
    by: str = Field(max_length=200)
    note: str
    at_ms: int = Field(sa_type=BigInteger)


class PrivacyDrawRow(NodeTable, table=True):
    """The noisy numbers of one question, drawn once; more accuracy adds another draw."""

    __tablename__ = "privacy_measurements"

    __table_args__ = (Index("ix_privacy_measurements_question", "question", "id"),)

    id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    question: bytes = Field(sa_type=LargeBinary, description="SHA-256 of what makes questions the same")
    dataset: str = Field(max_length=64)
    query_id: str = Field(max_length=64, description="the query that it was drawn for")
    rho: float = Field(sa_type=Float)
    scale: float = Field(sa_type=Float)
    numbers: bytes = Field(sa_type=LargeBinary, description="every number drawn, a serialised CountResult")
    bitmap: bytes = Field(sa_type=LargeBinary, description="the donors counted, as a serialised roaring bitmap")
    at_ms: int = Field(sa_type=BigInteger)
