"""Looking into the state database of a node that runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any


def rows(folder: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database in this node's folder holds.

    The connection is closed at once: one that the garbage collector still holds keeps this process at a
    write-ahead log that the node has since replaced, and every later look says that the file is malformed.
    """
    with closing(sqlite3.connect(folder / "state.db")) as state:
        return state.execute(sql, values).fetchall()
