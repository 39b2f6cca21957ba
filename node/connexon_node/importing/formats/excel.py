"""Excel workbooks (.xlsx): the first row of a sheet names the columns. Read row by row."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from typing import Any

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from connexon_node.importing.formats import batches
from connexon_node.importing.formats.delimited import require_once
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import FileRefused
from connexon_node.importing.sql import quoted

Cells = tuple[Any, ...]


def relation(reading: Reading) -> Relation:
    """The sheet as a table of texts. Raises FileRefused where it cannot be told which sheet, or has no header."""
    name = reading.source.name
    try:
        book = openpyxl.load_workbook(reading.source.path, read_only=True, data_only=True)
        sheet = _chosen(book, reading.mapping.sheet, name)
        rows = sheet.iter_rows(values_only=True)
        header = _header(next(rows, ()), name)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, EOFError, OSError) as error:
        raise FileRefused(f"{name} is no whole .xlsx workbook.") from error
    told = _to_tell_apart(reading.mapping, header)
    numbers = {name: f"_number_{place}" for place, name in told.items()}
    schema = batches.texts([*header, *numbers.values()])

    def read() -> Iterator[Any]:
        try:
            yield from batches.batched(_rows(rows, len(header), list(told), name), schema)
        except (zipfile.BadZipFile, EOFError, OSError, SyntaxError) as error:
            raise FileRefused(f"{name} is no whole .xlsx workbook.") from error

    table = batches.offer(reading, "sheet", schema, read)
    typed = {name: f"{quoted(flag)} IS NOT NULL" for name, flag in numbers.items()}
    return Relation(tuple(header), table, numbers=typed, line="_line")


def _to_tell_apart(mapping: Mapping, header: list[str]) -> dict[int, str]:
    """Place and name of the columns whose numbers and texts are read differently."""
    commas = {source for column in mapping.columns.values() if column.decimal == "," for source in column.sources}
    return {place: name for place, name in enumerate(header) if name in commas}


def _chosen(book: Any, wanted: str, file: str) -> Any:
    names = [sheet.title for sheet in book.worksheets]
    if wanted and wanted not in names:
        raise FileRefused(f"{file} has no sheet {wanted!r}; it has {', '.join(names)}.", code="import.sheet")
    if not wanted and len(names) != 1:
        raise FileRefused(
            f"{file} has {len(names)} sheets; name one with --sheet: {', '.join(names)}.", code="import.sheet"
        )
    return book[wanted or names[0]]


def _header(cells: Cells, file: str) -> list[str]:
    names = [_text(cell) for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise FileRefused(f"{file}: the first row of the sheet does not name every column.", code="import.columns")
    header = [name.strip() for name in names if name]
    require_once(header, file)
    return header


def _rows(rows: Iterator[Cells], width: int, told: list[int], file: str) -> Iterator[tuple[object, ...]]:
    """The texts of each row, then for each column of `told` something where its cell is a number, and the line."""
    for line, cells in enumerate(rows, start=2):
        values = [_text(cell) for cell in cells]
        if not any(values):
            continue
        if any(values[width:]):
            raise FileRefused(f"{file} row {line}: a value stands in a column without a name.", code="import.columns")
        numbers = ["number" if _is_number(cells[place]) else None for place in told if place < len(cells)]
        lacking = [None] * (len(told) - len(numbers))
        yield (*values[:width], *[None] * (width - len(values)), *numbers, *lacking, line)


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool)


def _text(cell: object) -> str | None:
    match cell:
        case None:
            return None
        case bool():
            return "true" if cell else "false"
        case float() if cell.is_integer() and abs(cell) < 1e15:
            return str(int(cell))
        case datetime.datetime() if cell.time() == datetime.time():
            return cell.date().isoformat()
        case datetime.date() | datetime.time():
            return cell.isoformat()
        case _:
            return str(cell)
