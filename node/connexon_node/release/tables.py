"""Tables of the release room: what is known outside, and which answer rests on which cohorts.

Times are milliseconds since 1970-01-01 UTC. Rows are added, never changed or deleted.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class ReleasedCohort(NodeTable, table=True):
    """One cohort whose number left, or can be worked out from the answer that it belongs to."""

    __tablename__ = "released_cohorts"

    __table_args__ = (Index("ix_released_cohorts_dataset_id", "dataset", "id"),)

    id: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    dataset: str = Field(max_length=64)
    query_id: str = Field(max_length=64, description="the query that made it known first")
    donors: int = Field(description="distinct donors")
    records: int = Field(sa_type=BigInteger)
    value: int = Field(sa_type=BigInteger, description="the number that stands for it, before rounding")
    bitmap: bytes = Field(sa_type=LargeBinary, description="see counted.Counted.bitmap, serialised")
    at_ms: int = Field(sa_type=BigInteger)


class ReleaseSecret(NodeTable, table=True):
    """The key of this node's random rounding, one row."""

    __tablename__ = "release_secret"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    secret: bytes = Field(sa_type=LargeBinary)


class TrainingCohortRow(NodeTable, table=True):
    """The rows of one run with exact updates: by which words they were selected, and whose they are."""

    __tablename__ = "training_cohorts"

    run_id: str = Field(primary_key=True, max_length=64)
    grant_id: str = Field(max_length=64)
    project: str = Field(max_length=1000)
    dataset: str = Field(max_length=64)
    edition: int
    words: bytes = Field(sa_type=LargeBinary, description="SHA-256 of what selects rows, and purpose")
    sets: str = Field(description="JSON: the feature sets, each with its condition")
    bitmap: bytes = Field(sa_type=LargeBinary, description="the donors, as a roaring bitmap")
    summary: bytes = Field(sa_type=LargeBinary, description="what each donor adds to what its summary told; or empty")
    at_ms: int = Field(sa_type=BigInteger)
