"""CSV and TSV: a header, then a record on each line or on several where quotes say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any as Connection

from connexon_node.importing.errors import FileRefused
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import header_of
from connexon_node.importing.sql import file, text

MAXIMUM_LINE = 16 << 20
"""Bytes of one line."""
SIZES = f"max_line_size={MAXIMUM_LINE}, buffer_size={2 * MAXIMUM_LINE}"
"""For read_csv. DuckDB's own choice for such lines would be buffers of sixteen times that: more than an import has."""


def relation(reading: Reading) -> Relation:
    """The file as a table of texts; records that do not fit the header end in table `rejected`."""
    header, delimiter = header_of(reading.plain, reading.source.file_format, reading.source.name)
    require_once(header, reading.source.name)
    return Relation(tuple(header), scan(reading.plain, header, delimiter, reject=True))


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
