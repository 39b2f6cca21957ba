"""The file as a table of texts in a scratch database: one row per record, every value trimmed, empty means missing.

The database is in memory, and what is more than it may have of it lies in the scratch folder for as long as it is open.
`rowid` of table `staged` counts the records from 0 in the file's order. Table `problems` collects what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any as Connection

import duckdb
import numpy
import pyarrow

from connexon_node.dictionary import Dataset
from connexon_node.importing import formats, pseudonymity
from connexon_node.importing.formats import delimited
from connexon_node.importing.mapping import PLAIN, Mapping, Written, expressions, read_columns, without_unused
from connexon_node.importing.recurring import Recurring
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import (
    FileFormat,
    FileRefused,
    Source,
    header_of,
    plain_text,
    start_lines,
)
from connexon_node.importing.sql import quoted, text

__all__ = ["LINE", "Staging", "quoted", "text"]
LINE = "_line"
"""The column of table `staged` with the line of the file, where rows are not the file's records one by one."""
_REFUSED = "_refused"
"""The column with why the format refuses the row; missing where it does not."""
_APART = "_apart"
"""The column by which the file tells equal records apart."""
_LEFT_OUT = "_left_out"
"""The column that is true where the format leaves the row out."""
_MEMORY = "450MB"
_UNREADABLE = (duckdb.InvalidInputException, duckdb.ConversionException, pyarrow.ArrowInvalid)


class Staging:
    """One file in a scratch database. Close it when done."""

    def __init__(self, dataset: Dataset, source: Source, scratch: Path, mapping: Mapping = PLAIN) -> None:
        self._dataset = dataset
        self._source = source
        self._scratch = scratch
        self._mapping = mapping
        self._rejected: list[int] = []
        self._own_lines = False
        self.connection: Connection = duckdb.connect()
        for setting in (
            f"memory_limit = '{_MEMORY}'",
            f"temp_directory = {text(str(scratch / 'spill'))}",
            "threads = 2",
            "preserve_insertion_order = true",
        ):
            self.connection.execute(f"SET {setting}")
        self.recurring = Recurring(self.connection, dataset)
        self.connection.execute('CREATE TABLE problems ("row" BIGINT, field VARCHAR, reason VARCHAR, "value" VARCHAR)')

    def close(self) -> None:
        """Close the scratch database."""
        self.connection.close()

    def read(self) -> None:
        """Read the file. Raises FileRefused where it is malformed as a whole, or has wrong columns."""
        plain = plain_text(self._source, self._scratch)
        reading = Reading(self._source, self._scratch, self.connection, self._dataset, self._mapping, plain)
        try:
            relation = formats.open_relation(reading)
            self._stage(relation)
        except (duckdb.Error, pyarrow.ArrowInvalid) as error:
            if reading.failures:
                raise reading.failures[0] from error
            if not isinstance(error, _UNREADABLE):
                raise
            reason = str(error).splitlines()[0][:200]
            raise FileRefused(f"{self._source.name} cannot be read: {reason}", code="import.unreadable") from error
        self._notes = relation.notes
        self._records = relation.records
        self._plain = plain

    @property
    def notes(self) -> list[tuple[str, int]]:
        """What the format left out, and how often."""
        return self._notes

    @property
    def fruitless(self) -> bool:
        """Whether the file has records of which the format made no row."""
        return self._records() > 0 and self.rows == 0

    @property
    def filled(self) -> tuple[str, ...]:
        """The fields that the file fills."""
        return self._filled

    @property
    def apart(self) -> tuple[str, ...]:
        """The column, if any, by which the file tells equal records apart."""
        return self._apart

    @property
    def rows(self) -> int:
        """Records in the file, those that are malformed included."""
        ((staged,),) = self.connection.execute("SELECT count(*) FROM staged").fetchall()
        ((blank,),) = self.connection.execute("SELECT count(*) FROM blank").fetchall()
        return int(staged) - int(blank) + len(self._rejected)

    @property
    def malformed(self) -> int:
        """Records that could not be read into columns."""
        return len(self._rejected)

    def lines(self, rows: Sequence[int]) -> list[int]:
        """The line of the file (Parquet: the row, from 1) at which each of the staged rows begins."""
        if self._own_lines:
            return self._lines_read(rows)
        if self._source.file_format not in (FileFormat.CSV, FileFormat.TSV):
            return [row + 1 for row in rows]
        ((staged,),) = self.connection.execute("SELECT count(*) FROM staged").fetchall()
        records = numpy.setdiff1d(numpy.arange(2, staged + len(self._rejected) + 2), self._rejected)
        return self._record_lines([int(records[row]) for row in rows], staged)

    def malformed_lines(self) -> list[tuple[int, str]]:
        """Line and reason of each malformed record."""
        if not self._rejected:
            return []
        ((staged,),) = self.connection.execute("SELECT count(*) FROM staged").fetchall()
        reasons = dict(
            self.connection.execute("SELECT line, lower(any_value(error_type)) FROM rejected GROUP BY line").fetchall()
        )
        lines = self._record_lines(self._rejected, staged)
        return [(line, reasons[record]) for line, record in zip(lines, self._rejected, strict=True)]

    def _lines_read(self, rows: Sequence[int]) -> list[int]:
        self.connection.register("asked", pyarrow.table({"row": pyarrow.array(rows, pyarrow.int64())}))
        found = self.connection.execute(
            f'SELECT staged.rowid, {LINE} FROM staged WHERE rowid IN (SELECT "row" FROM asked)'
        ).fetchall()
        self.connection.unregister("asked")
        lines = {int(row): int(line) for row, line in found}
        return [lines[row] for row in rows]

    def _record_lines(self, records: list[int], staged: int) -> list[int]:
        if self._source.lines == 1 + staged + len(self._rejected):
            return records
        _header, delimiter = header_of(self._plain, self._source.file_format, self._source.name)
        begins = start_lines(self._plain, delimiter)
        return [begins[record - 1] if record <= len(begins) else self._source.lines for record in records]

    def _stage(self, relation: Relation) -> None:
        self._require_columns(relation)
        mapping = without_unused(self._mapping, self._dataset, relation.names) if relation.ready else self._mapping
        written = Written(dict(relation.texts), dict(relation.numbers))
        filled = expressions(mapping, self._dataset, relation.names, written, self._source.name)
        self._filled = tuple(filled)
        self._require_required()
        columns = [
            f"{filled[field.name]} AS {quoted(field.name)}"
            if field.name in filled
            else f"NULL::VARCHAR AS {quoted(field.name)}"
            for field in self._dataset.fields
        ]
        self._own_lines = bool(relation.line)
        self._apart = (_APART,) if relation.apart else ()
        if relation.line:
            columns.append(f"{relation.line} AS {LINE}")
        if relation.refused:
            columns.append(f"{relation.refused} AS {_REFUSED}")
        if relation.apart:
            columns.append(f"{relation.apart} AS {_APART}")
        if relation.left_out:
            columns.append(f"{relation.left_out[0]} AS {_LEFT_OUT}")
        self.connection.execute(f"CREATE TABLE staged AS SELECT {', '.join(columns)} FROM {relation.table}")
        self._leave_out(relation)
        self.connection.execute('CREATE TABLE blank ("row" BIGINT)')
        if relation.unreadable:
            self.connection.execute(
                "INSERT INTO problems SELECT rowid, '', 'is not one whole JSON object with each key once', "
                f"left({relation.raw}, 60) FROM {relation.table} WHERE {relation.unreadable}"
            )
        if relation.refused:
            self.connection.execute(
                f"INSERT INTO problems SELECT rowid, '', {_REFUSED}, '' FROM staged WHERE {_REFUSED} IS NOT NULL"
            )
        if relation.blank:
            self.connection.execute(f"INSERT INTO blank SELECT rowid FROM {relation.table} WHERE {relation.blank}")
        # Records without columns to check: empty lines, and those noted already as no record at all.
        self.connection.execute(
            """CREATE VIEW unread AS SELECT "row" FROM blank UNION ALL SELECT "row" FROM problems WHERE field = ''"""
        )
        self._rejected = delimited.rejected(self.connection)

    def _leave_out(self, relation: Relation) -> None:
        if relation.left_out is None:
            return
        ((count,),) = self.connection.execute(f"DELETE FROM staged WHERE {_LEFT_OUT}").fetchall()
        if count:
            relation.notes.append((relation.left_out[1], int(count)))

    def _require_columns(self, relation: Relation) -> None:
        names = relation.names
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise FileRefused(f"{self._source.name} has the column {twice!r} twice.", code="import.columns")
        pseudonymity.refuse_names(self._source.name, read_columns(self._mapping, names), self._dataset)

    def _require_required(self) -> None:
        missing = [field.name for field in self._dataset.fields if field.required and field.name not in self._filled]
        if missing:
            raise FileRefused(
                f"{self._source.name} lacks the required column{'s' * (len(missing) > 1)} {', '.join(missing)}.",
                code="import.columns",
            )
