"""CSV and TSV: a header, then a record on each line or on several where quotes say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any as Connection

from connexon_node.importing.errors import FileRefused
from connexon_node.importing.headers import UNNAMED
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import header_of
from connexon_node.importing.sql import file, quoted, text

MAXIMUM_LINE = 16 << 20
"""Bytes of one line."""
SIZES = f"max_line_size={MAXIMUM_LINE}, buffer_size={2 * MAXIMUM_LINE}"
"""For read_csv. DuckDB's own choice for such lines would be buffers of sixteen times that: more than an import has."""


def relation(reading: Reading) -> Relation:
    """The file as a table of texts; records that do not fit the header end in table `rejected`."""
    name = reading.source.name
    header, delimiter = header_of(reading.plain, reading.source.file_format, name, reading.before)
    require_once(header, name)
    names, notes = header, list[tuple[str, int]]()
    unnamed = [one for one in header if UNNAMED.fullmatch(one) and not reading.mapping.reads(one)]
    if unnamed and not reading.mapping.excludes(unnamed[0]):
        empty = _empty(reading, header, delimiter, unnamed)
        names = [one for one in header if one not in empty]
        notes = [("columns without a name were left out: they are empty", len(empty))] if empty else []
    # Lines of nothing but delimiters, as spreadsheets write the rows below their last.
    blank = f"coalesce({', '.join(map(quoted, header))}) IS NULL" if len(header) > 1 else ""
    return Relation(tuple(names), scan(reading.plain, header, delimiter, reject=True), blank=blank, notes=notes)


def _empty(reading: Reading, header: Sequence[str], delimiter: str, names: Sequence[str]) -> list[str]:
    counts = ", ".join(f"count(nullif(trim({quoted(name)}), ''))" for name in names)
    (found,) = reading.connection.execute(
        f"SELECT {counts} FROM {scan(reading.plain, header, delimiter, reject=True)}"
    ).fetchall()
    reading.connection.execute("DROP TABLE IF EXISTS rejected; DROP TABLE IF EXISTS rejecting")
    return [name for name, count in zip(names, found, strict=True) if not count]


def scan(path: Path, header: Sequence[str], delimiter: str, *, reject: bool = False) -> str:
    """SQL that reads a delimited file in plain text as texts."""
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in header)
    rejects = ", store_rejects=true, rejects_table='rejected', rejects_scan='rejecting', rejects_limit=0"
    quotes = f"quote='\"', escape='\"', compression='none', {SIZES}"
    return (
        f"read_csv({file(path)}, header=true, auto_detect=false, columns={{{columns}}}, delim={text(delimiter)}, "
        f"{quotes}{rejects if reject else ''})"
    )


def rejected(connection: Connection) -> str:
    """SQL of a table of the records that were malformed: line, the header being 1, and reason."""
    known = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'rejected'").fetchall()
    if not known:
        return "SELECT NULL::BIGINT AS line, NULL::VARCHAR AS reason WHERE false"
    return (
        "SELECT line::BIGINT AS line, lower(any_value(error_type)::VARCHAR) AS reason FROM rejected "
        "GROUP BY line ORDER BY line"
    )


def require_once(header: Sequence[str], file: str) -> None:
    """Raise FileRefused where a column is named twice."""
    twice = next((name for name, count in Counter(header).items() if count > 1), None)
    if twice is not None:
        raise FileRefused(f"{file} has the column {twice!r} twice.", code="import.columns")
