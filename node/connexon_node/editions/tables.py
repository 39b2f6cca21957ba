"""Tables of editions. Rows are only added. Times are milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class EditionRow(NodeTable, table=True):
    """One edition of the center's data. The one with the greatest number is in force."""

    __tablename__ = "editions"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    opened_at_ms: int = Field(sa_type=BigInteger)
    opened_by: str = Field(max_length=200)
    because: str
    without_tables: str = Field(description="why it has no first-ask tables; empty where it has them")


class EditionGenerationRow(NodeTable, table=True):
    """A generation that an edition is made of."""

    __tablename__ = "edition_generations"

    edition: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    dataset: str = Field(primary_key=True, max_length=64)
    generation: int


class EditionTablesRow(NodeTable, table=True):
    """The first-ask tables of an edition: drawn once, in the transaction that paid for them."""

    __tablename__ = "edition_tables"

    edition: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    rho: float = Field(sa_type=Float, description="what they cost the account of persons")
    consent_epoch: int = Field(sa_type=BigInteger, description="the consent ledger's state that they were measured in")
    policy_version: str = Field(max_length=64)
    dictionary_version: str
    frame: str = Field(description="JSON: the codes of each dimension, the sigma of each measured table")
    arrays: bytes = Field(sa_type=LargeBinary, description="NumPy .npz: what was drawn, and the residuals made of it")
