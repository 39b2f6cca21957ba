"""The reader's part of staging: the file becomes a table of texts in the scratch folder, as Parquet.

Its columns are the fields of the dataset, as texts. Beside them, where the format has them: `_line`, at which the row
begins; `_refused`, why the row is not loaded; `_apart`, by which the file tells equal rows apart; `_left_out`, true for
rows that are not loaded and only counted; `_blank`, true for lines without anything; `_unreadable`, the beginning of a
line that should be a record and is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any as Connection

import duckdb
import numpy
import pyarrow

from connexon_node.data.dictionary import Dataset
from connexon_node.importing import formats, pseudonymity
from connexon_node.importing.bounds import require_columns
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import delimited
from connexon_node.importing.mapping import Mapping, Written, expressions, read_columns, row_filters, without_unused
from connexon_node.importing.reader import protocol
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import Source, begun, header_of, inspect, plain_text, start_lines
from connexon_node.importing.sql import quoted, text

MEMORY = "450MB"
"""Of a scratch database, the reader's and the importer's."""
SPILL = "spill"
_UNREADABLE = (duckdb.InvalidInputException, duckdb.ConversionException, pyarrow.ArrowInvalid)
_AS_IT_IS = "COMPRESSION uncompressed, DICTIONARY_SIZE_LIMIT 1, WRITE_BLOOM_FILTER false"
"""Read once and removed: what makes such files small takes longer than writing them large."""
_GROUP_BYTES = 24 << 20
"""Of the rows that are held before they are written."""
_GROUP_ROWS = (2_048, 122_880)
_SHOWN = 60


def stage(job: protocol.Stage, connection: Connection) -> protocol.Staged:
    """Read the file. Raises FileRefused where it is malformed as a whole, or has wrong columns."""
    here = Path()
    source = inspect(job.file.path, job.file_format, job.mapping.encoding, name=job.file.name)
    plain, before = begun(plain_text(source, here), source, job.mapping.header_row, here)
    connection.execute(f"SET memory_limit = {text(job.memory)}")
    reading = Reading(source, here, connection, job.dataset, job.mapping, plain, job.beside, before)
    try:
        relation = _filtered(formats.open_relation(reading), job.mapping, source.name)
        filled = _written(reading, relation)
        counted = _counted(connection, relation)
        _write_rejected(connection)
    except (duckdb.Error, pyarrow.ArrowInvalid) as error:
        if reading.failures:
            raise reading.failures[0] from error
        if not isinstance(error, _UNREADABLE):
            raise
        reason = str(error).splitlines()[0][:200]
        raise FileRefused(f"{source.name} cannot be read: {reason}", code="import.unreadable") from error
    return protocol.Staged(
        sha256=source.sha256,
        lines=source.lines,
        before=before,
        ends_whole=source.ends_whole,
        filled=list(filled),
        own_lines=bool(relation.line),
        refuses=bool(relation.refused),
        apart=bool(relation.apart),
        notes=[(note, int(count)) for note, count in (*relation.notes, *counted)],
        records=relation.records(),
    )


def find_lines(job: protocol.FindLines, _connection: Connection) -> protocol.Lines:
    """The lines at which records begin, where records are not lines."""
    source = inspect(job.file.path, job.file_format, job.mapping.encoding, name=job.file.name)
    plain, before = begun(plain_text(source, Path()), source, job.mapping.header_row, Path())
    _header, delimiter = header_of(plain, source.file_format, source.name, before)
    begins = start_lines(plain, delimiter)
    return protocol.Lines(
        lines=[before + begins[record - 1] if record <= len(begins) else source.lines for record in job.records]
    )


def opened() -> Connection:
    """A database in memory, without threads of its own."""
    return duckdb.connect(
        config={"threads": 1, "autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )


def restrict(connection: Connection, scratch: Path, files: Sequence[Path]) -> None:
    """Let the database spill into the scratch folder, read these files, and open nothing else."""
    for setting in (
        "threads = 2",
        f"memory_limit = '{MEMORY}'",
        f"temp_directory = {text(str(scratch / SPILL))}",
        "preserve_insertion_order = true",
        f"allowed_directories = [{text(str(scratch.resolve()))}]",
        f"allowed_paths = [{', '.join(text(str(path)) for path in files)}]",
        "enable_external_access = false",
    ):
        connection.execute(f"SET {setting}")


def _written(reading: Reading, relation: Relation) -> Sequence[str]:
    """Write the rows. Returns the fields that the file fills."""
    name, dataset = reading.source.name, reading.dataset
    _require_columns(relation, reading.mapping, dataset, name)
    mapping = without_unused(reading.mapping, dataset, relation.names) if relation.ready else reading.mapping
    written = Written(dict(relation.texts), dict(relation.numbers))
    filled = expressions(mapping, dataset, relation.names, written, name)
    _require_required(dataset, filled, name)
    columns = {field.name: f"({filled.get(field.name, 'NULL')})::VARCHAR" for field in dataset.fields}
    columns |= {
        protocol_name: sql
        for protocol_name, sql in (
            ("_line", f"({relation.line})::BIGINT" if relation.line else ""),
            ("_refused", relation.refused),
            ("_apart", f"({relation.apart})::VARCHAR" if relation.apart else ""),
            ("_left_out", " OR ".join(f"coalesce({holds}, false)" for holds, _note in relation.left_out)),
            *((_noted(place), holds) for place, (holds, _note) in enumerate(_notes(relation))),
            ("_blank", relation.blank),
            ("_unreadable", f"CASE WHEN {relation.unreadable} THEN left({relation.raw}, {_SHOWN}) END"),
        )
        if sql and (protocol_name != "_unreadable" or relation.unreadable)
    }
    listed = ", ".join(f"{sql} AS {quoted(column)}" for column, sql in columns.items())
    reading.connection.execute(
        f"COPY (SELECT {listed} FROM {relation.table}) TO {text(protocol.STAGED)} "
        f"(FORMAT parquet, {_AS_IT_IS}, ROW_GROUP_SIZE {_group(reading.source)})"
    )
    return tuple(filled)


def _filtered(relation: Relation, mapping: Mapping, file: str) -> Relation:
    written = Written(dict(relation.texts), dict(relation.numbers))
    rows = row_filters(mapping, relation.names, written, file)
    return replace(relation, left_out=(*relation.left_out, *rows)) if rows else relation


def _notes(relation: Relation) -> tuple[tuple[str, str], ...]:
    return (*relation.left_out, *relation.counted)


def _noted(place: int) -> str:
    return f"_note_{place}"


def _counted(connection: Connection, relation: Relation) -> list[tuple[str, int]]:
    """The notes that count rows as they were written, those that count none left out."""
    notes, left_out = _notes(relation), len(relation.left_out)
    if not notes:
        return []
    loaded = "NOT coalesce(_left_out, false)" if left_out else "true"
    sums = ", ".join(
        f"count(*) FILTER (WHERE {_noted(place)}{'' if place < left_out else f' AND {loaded}'})"
        for place in range(len(notes))
    )
    (found,) = connection.execute(f"SELECT {sums} FROM read_parquet({text(protocol.STAGED)})").fetchall()
    return [(note, int(count)) for (_holds, note), count in zip(notes, found, strict=True) if count]


def _group(source: Source) -> int:
    """Rows of a row group: fewer where they are long, so that what is held of them stays small."""
    least, most = _GROUP_ROWS
    of_row = source.stamp[0] // max(1, source.lines) if source.lines and not source.compressed else 1
    return max(least, min(most, _GROUP_BYTES // max(1, of_row) // least * least))


def _write_rejected(connection: Connection) -> None:
    rejected = delimited.rejected(connection)
    connection.execute(f"COPY ({rejected}) TO {text(protocol.REJECTED)} (FORMAT parquet, COMPRESSION lz4_raw)")


def _require_columns(relation: Relation, mapping: Mapping, dataset: Dataset, file: str) -> None:
    names = relation.names
    require_columns(len(names), file)
    delimited.require_once(names, file)
    pseudonymity.refuse_names(
        file, [name for name in read_columns(mapping, names) if name not in _of_lines(mapping)], dataset
    )


def _of_lines(mapping: Mapping) -> set[str]:
    """The columns that a mapping makes the registered name of a line: what a name is, its target says."""
    column = mapping.columns.get("hpscreg_name")
    return set(column.sources) if column else set()


def _require_required(dataset: Dataset, filled: dict[str, str], file: str) -> None:
    missing = [field.name for field in dataset.fields if field.required and field.name not in filled]
    if missing:
        raise FileRefused(
            f"{file} lacks the required column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
            code="import.columns",
        )


def records_of(rows: Sequence[int], staged: int, rejected: Sequence[int]) -> list[int]:
    """The records of a delimited file, the header being 1, of which the staged rows were made."""
    records = numpy.setdiff1d(numpy.arange(2, staged + len(rejected) + 2), rejected)
    return [int(records[row]) for row in rows]
