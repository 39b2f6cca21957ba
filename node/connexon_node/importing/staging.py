"""The file as a table of texts in a scratch database: one row per record, every value trimmed, empty means missing.

The reader makes the table (see reader.staging); here it is taken in, as texts and numbers of lines and nothing else.
The database is in memory, and what is more than it may have of it lies in the scratch folder for as long as it is open.
`rowid` of table `staged` counts the records from 0 in the file's order. Table `problems` collects what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any as Connection

import duckdb
import pyarrow

from connexon_node.data.dictionary import Dataset
from connexon_node.importing import sql
from connexon_node.importing.distinct_values import Recurring
from connexon_node.importing.mapping import PLAIN, Mapping
from connexon_node.importing.reader import protocol
from connexon_node.importing.reader.process import Reader, ReaderFailed
from connexon_node.importing.reader.staging import MEMORY, SPILL, records_of
from connexon_node.importing.sources import FileFormat, Source, stamp_of
from connexon_node.importing.sql import quoted, text

__all__ = ["LINE", "Staging", "quoted", "text"]
LINE = "_line"
"""The column of table `staged` with the line of the file, where rows are not the file's records one by one."""
_REFUSED = "_refused"
"""The column with why the format refuses the row; missing where it does not."""
_APART = "_apart"
"""The column by which the file tells equal records apart."""
_KINDS = {
    LINE: "BIGINT",
    _REFUSED: "VARCHAR",
    _APART: "VARCHAR",
    "_left_out": "BOOLEAN",
    "_blank": "BOOLEAN",
    "_unreadable": "VARCHAR",
}
_KEPT = (LINE, _REFUSED, _APART)
_MEMORY = MEMORY


class Staging:
    """One file in a scratch database. Close it when done."""

    def __init__(
        self, dataset: Dataset, file: Path, file_format: FileFormat, reader: Reader, mapping: Mapping = PLAIN
    ) -> None:
        self._dataset = dataset
        self._file = file
        self._format = file_format
        self._reader = reader
        self._mapping = mapping
        self._rejected: list[int] = []
        self.connection: Connection = duckdb.connect()
        for setting in (
            f"memory_limit = '{_MEMORY}'",
            f"temp_directory = {text(str(reader.scratch / SPILL))}",
            "threads = 2",
            "preserve_insertion_order = true",
        ):
            self.connection.execute(f"SET {setting}")
        self.recurring = Recurring(self.connection, dataset)
        self.connection.execute('CREATE TABLE problems ("row" BIGINT, field VARCHAR, reason VARCHAR, "value" VARCHAR)')

    def close(self) -> None:
        """Close the scratch database."""
        self.connection.close()

    def read(self) -> Source:
        """Have the file read, and take in what became of it. Raises FileRefused."""
        stamp = stamp_of(self._file)
        staged = self._reader.stage(self._file, self._format, self._mapping, self._dataset, memory=_MEMORY)
        self._source = Source(
            path=self._file,
            name=self._file.name,
            file_format=self._format,
            sha256=staged.sha256,
            lines=staged.lines,
            mixed_line_ends=False,
            ends_whole=staged.ends_whole,
            stamp=stamp,
        )
        self._source.require_unchanged()
        if not set(staged.filled) <= {field.name for field in self._dataset.fields}:
            raise ReaderFailed(f"The reader of {self._source.name} named fields that there are not.")
        self._staged = staged
        self._notes = list(staged.notes)
        self._apart = (_APART,) if staged.apart else ()
        self._take_in(staged)
        return self._source

    @property
    def notes(self) -> list[tuple[str, int]]:
        """What the format left out, and how often."""
        return self._notes

    @property
    def fruitless(self) -> bool:
        """Whether the file has records of which the format made no row."""
        return self._staged.records > 0 and self.rows == 0

    @property
    def filled(self) -> tuple[str, ...]:
        """The fields that the file fills."""
        return tuple(self._staged.filled)

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
        if self._staged.own_lines:
            return self._lines_read(rows)
        if self._format not in (FileFormat.CSV, FileFormat.TSV):
            return [row + 1 for row in rows]
        return self._record_lines(records_of(rows, self._recorded, self._rejected), self._recorded)

    def malformed_lines(self) -> list[tuple[int, str]]:
        """Line and reason of each malformed record."""
        if not self._rejected:
            return []
        reasons = dict(self.connection.execute("SELECT line, reason FROM rejected").fetchall())
        lines = self._record_lines(self._rejected, self._recorded)
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
        before = self._staged.before
        if not records or self._source.lines == before + 1 + staged + len(self._rejected):
            return [record + before for record in records]
        return self._reader.lines(self._file, self._format, self._mapping, records)

    def _take_in(self, staged: protocol.Staged) -> None:
        there = self._columns_there()
        rows = sql.file(self._reader.scratch / protocol.STAGED)
        self.connection.execute('CREATE TABLE blank ("row" BIGINT)')
        if "_blank" in there:
            numbered = f"read_parquet({rows}, file_row_number = true)"
            self.connection.execute(f"INSERT INTO blank SELECT file_row_number FROM {numbered} WHERE _blank")
            there.remove("_blank")
        columns = [f"{quoted(field.name)}::VARCHAR AS {quoted(field.name)}" for field in self._dataset.fields]
        columns += [f"{name}::{kind} AS {name}" for name, kind in _KINDS.items() if name in there]
        self.connection.execute(f"CREATE TABLE staged AS SELECT {', '.join(columns)} FROM read_parquet({rows})")
        self.connection.execute(
            "CREATE TABLE rejected AS SELECT line::BIGINT AS line, reason::VARCHAR AS reason "
            f"FROM read_parquet({sql.file(self._reader.scratch / protocol.REJECTED)})"
        )
        ((self._recorded,),) = self.connection.execute("SELECT count(*) FROM staged").fetchall()
        if self._mapping.distinct:
            self._leave_out_repeats()
        if "_left_out" in there:
            self.connection.execute("DELETE FROM staged WHERE _left_out")
        if "_unreadable" in there:
            self.connection.execute(
                "INSERT INTO problems SELECT rowid, '', 'is not one whole JSON object with each key once', "
                "_unreadable FROM staged WHERE _unreadable IS NOT NULL"
            )
        if staged.refuses:
            self.connection.execute(
                f"INSERT INTO problems SELECT rowid, '', {_REFUSED}, '' FROM staged WHERE {_REFUSED} IS NOT NULL"
            )
        for name in there - set(_KEPT):
            self.connection.execute(f"ALTER TABLE staged DROP COLUMN {name}")
        # Records without columns to check: empty lines, and those noted already as no record at all.
        self.connection.execute(
            """CREATE VIEW unread AS SELECT "row" FROM blank UNION ALL SELECT "row" FROM problems WHERE field = ''"""
        )
        found = self.connection.execute("SELECT line FROM rejected ORDER BY line").fetchall()
        self._rejected = [int(line) for (line,) in found]

    def _leave_out_repeats(self) -> None:
        """Leave out rows that say of this dataset what an earlier one says."""
        fields = ", ".join(quoted(name) for name in self.filled)
        ((count,),) = self.connection.execute(
            'DELETE FROM staged WHERE rowid NOT IN (SELECT "row" FROM blank) AND rowid NOT IN '
            f'(SELECT min(rowid) FROM staged WHERE rowid NOT IN (SELECT "row" FROM blank) GROUP BY {fields})'
        ).fetchall()
        if count:
            self._notes.append(("rows say what earlier ones say and count once, as the mapping has it", int(count)))

    def _columns_there(self) -> set[str]:
        rows = sql.file(self._reader.scratch / protocol.STAGED)
        found = self.connection.execute(f"DESCRIBE SELECT * FROM read_parquet({rows})").fetchall()
        return {str(name) for name, *_rest in found} & set(_KINDS)
