"""Tables of the training room: runs, their tasks as the hub sent them, the replies, and whose rows stood behind each.

Times are milliseconds since 1970-01-01 UTC. Who stood behind a reply is kept for ever; the tasks are pruned.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field

from connexon_node.state import NodeTable


class TrainingRunRow(NodeTable, table=True):
    """A run that this center has had a task of, or that its steward stopped."""

    __tablename__ = "training_runs"

    run_id: str = Field(primary_key=True, max_length=64)
    query_sha256: bytes = Field(sa_type=LargeBinary)
    researcher: str = Field(max_length=200)
    purpose: str = Field(max_length=1000)
    dataset: str = Field(max_length=64)
    recipe: str = Field(max_length=64)
    rounds: int
    began_at_ms: int = Field(sa_type=BigInteger)
    expires_at_ms: int = Field(sa_type=BigInteger)
    preprocessing_sha256: bytes = Field(sa_type=LargeBinary, description="empty before the first that came")
    stopped_at_ms: int | None = Field(sa_type=BigInteger)
    stopped_by: str = Field(max_length=200)
    stopped_because: str = Field(max_length=1000)
    noticed_at_ms: int | None = Field(sa_type=BigInteger, description="when the hub was to be told of a withdrawal")


class TrainingTaskRow(NodeTable, table=True):
    """One task as it was received; its parcel is a file of the same name."""

    __tablename__ = "training_tasks"

    task_id: str = Field(primary_key=True, max_length=64)
    run_id: str = Field(max_length=64, index=True)
    sha256: bytes = Field(sa_type=LargeBinary)
    deadline_ms: int = Field(sa_type=BigInteger)
    received_at_ms: int = Field(sa_type=BigInteger)
    cancelled: bool
    answered: bool = Field(index=True)


class TrainingReplyRow(NodeTable, table=True):
    """The one reply to a task, as signed; its records are in a file. `bitmap` is of donor numbers, as of release."""

    __tablename__ = "training_replies"

    task_id: str = Field(primary_key=True, max_length=64)
    run_id: str = Field(max_length=64, index=True)
    action: str = Field(max_length=32)
    round: int
    status: str = Field(max_length=32)
    code: str = Field(max_length=100)
    signed_answer: bytes = Field(sa_type=LargeBinary)
    records_size: int = Field(sa_type=BigInteger)
    donors: int
    bitmap: bytes = Field(sa_type=LargeBinary)
    sealed_at_ms: int = Field(sa_type=BigInteger)
    stored_at_ms: int | None = Field(sa_type=BigInteger, index=True)


class TrainingWatchRow(NodeTable, table=True):
    """Up to which consent epoch withdrawals have been looked at, one row."""

    __tablename__ = "training_watch"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    epoch: int = Field(sa_type=BigInteger)
