"""Where the header of a table stands, and what its columns are called.

Spreadsheets begin with titles, comments or blank lines, and programs write columns without a name. What can be known is
read (Excel's own hint `sep=;`); the rest is a sentence that names the line, and `header_row` in a mapping.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from connexon_node.importing.bounds import MAXIMUM_HEADER, require_columns
from connexon_node.importing.errors import FileRefused

DELIMITERS = ",;\t|"
UNNAMED = re.compile(r"\(column \d+\)")
"""What a column without a name is called."""
LOOKED_AT = 40
"""Lines in which the header is sought."""
_HINT = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)


def named(names: Sequence[str]) -> list[str]:
    """The names of columns; a column without one is called by its place, such as (column 1)."""
    return [name.strip() or f"(column {place})" for place, name in enumerate(names, start=1)]


def lines_before(path: Path, header_row: int) -> int:
    """How many lines of a plain text stand before its header: as was said, or the hint `sep=;` of Excel."""
    if header_row:
        return header_row - 1
    return 1 if _HINT.fullmatch(next(iter(_first_lines(path, 1)), "")) else 0


def without_first(path: Path, lines: int, copy: Path) -> Path:
    """A copy of a plain text without its first lines."""
    with path.open("rb") as read, copy.open("wb") as write:
        for _ in range(lines):
            if not read.readline(MAXIMUM_HEADER).endswith(b"\n"):
                break
        while piece := read.read(4 << 20):
            write.write(piece)
    return copy


def read(path: Path, file: str, *, tabs: bool, before: int = 0) -> tuple[list[str], str]:
    """The column names of a plain text that begins with its header, and the character that parts them.

    `before` counts the lines that were taken off. Raises FileRefused that names the line where the header seems to be.
    """
    lines = _first_lines(path, LOOKED_AT)
    line = lines[0] if lines else ""
    delimiter = "\t" if tabs else max(DELIMITERS, key=line.count)
    require_columns(line.count(delimiter) + 1, file)
    if line.count('"') % 2 or not line.strip() or line.startswith("#") or not _names(line, delimiter):
        raise _no_header(lines, file, before, tabs=tabs)
    names = _names(line, delimiter)
    if sum(not name for name in names) > 1 and any(name for name in names):
        raise _no_header(lines, file, before, tabs=tabs)
    return named(names), delimiter


def likely(rows: Sequence[Sequence[str]]) -> int:
    """The place, from 0, of the row that most likely is the header: the first with the most names and no number."""

    def names(row: Sequence[str]) -> int:
        filled = [one.strip() for one in row if one and one.strip()]
        plain = len(set(filled)) == len(filled) and not any(re.fullmatch(r"[\d.,/:-]+", one) for one in filled)
        return len(filled) if plain and not (filled and filled[0].startswith("#")) else 0

    counts = [names(row) for row in rows[:LOOKED_AT]]
    return counts.index(max(counts)) if any(counts) else 0


def likely_line(path: Path, *, tabs: bool) -> int:
    """The line, from 1, at which the header of a plain text most likely stands."""
    lines = _first_lines(path, LOOKED_AT)
    joined = "\n".join(lines)
    delimiter = "\t" if tabs else max(DELIMITERS, key=joined.count)
    return likely([_names(line, delimiter) for line in lines]) + 1


def _names(line: str, delimiter: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]


def _first_lines(path: Path, count: int) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        found = [file.readline(MAXIMUM_HEADER) for _ in range(count)]
    return [line.rstrip("\r\n") for line in found if line]


def _no_header(lines: Sequence[str], file: str, before: int, *, tabs: bool) -> FileRefused:
    joined = "\n".join(lines)
    delimiter = "\t" if tabs else max(DELIMITERS, key=joined.count)
    place = likely([_names(line, delimiter) for line in lines]) if lines else 0
    comment = "is a comment (#)" if lines and lines[0].startswith("#") else "is not a header of column names"
    where = f" The header seems to be line {place + before + 1}: " if place else " "
    mend = (
        f"write header_row = {place + before + 1} in a mapping file" if place else "write header_row in a mapping file"
    )
    return FileRefused(
        f"{file}: {'the first line' if not before else f'line {before + 1}'} {comment}.{where}"
        f"take the lines before the header out, or {mend}; connexon-node map drafts one.",
        code="import.columns",
    )
