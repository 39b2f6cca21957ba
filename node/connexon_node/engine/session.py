"""What an engine needs of a database: sessions, one for each query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any as Schema
from typing import Protocol

import pyarrow

from connexon.errors import Refused


class OutOfMemory(Refused):
    """The query needed more memory than the center gives to queries."""

    code = "query.memory_limit"

    def __init__(self) -> None:
        super().__init__("The question needs more memory than this center gives to queries; ask for less.")


class Session(Protocol):
    """A database as one query uses it. What goes wrong in it is raised as Connexon's errors."""

    def offers(self, name: str) -> bool:
        """Whether a table of this name was offered."""
        ...

    def offer(self, name: str, schema: Schema, files: Sequence[Path]) -> None:
        """Make Parquet files readable as a table with the columns of an ibis schema; those not written are missing."""
        ...

    def permit(self, bits: bytes) -> None:
        """Say which donors may be counted, as PermittedDonors.bits gives it.

        INVARIANT: is_permitted, without which no row of personal data is read, is true of nobody before.
        """
        ...

    def fetch(self, sql: str) -> pyarrow.Table:
        """Run one query."""
        ...
