"""Names and texts, as SQL writes them."""

from __future__ import annotations

import re
from pathlib import Path


def quoted(name: str) -> str:
    """A name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text for SQL."""
    return "'" + value.replace("'", "''") + "'"


def file(path: Path) -> str:
    """The path of a file to read, for SQL: DuckDB takes *, ? and [ for patterns, and would read other files."""
    return text(re.sub(r"[*?\[]", r"[\g<0>]", str(path)))
