"""Excel workbooks (.xlsx): the first row of a sheet names the columns. Read row by row.

What a person sees is what counts: 88% is 88, and 0.88 where the field or the mapping counts in shares of one. Cells
that show what the file does not hold stop the import: formulas that were never computed, and cells that are merged.
"""

from __future__ import annotations

import datetime
import functools
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.utils import range_boundaries
from openpyxl.utils.exceptions import InvalidFileException

from connexon_node.importing import headers, units
from connexon_node.importing.bounds import require_columns, require_proportion
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import batches
from connexon_node.importing.formats.delimited import require_once
from connexon_node.importing.headers import UNNAMED
from connexon_node.importing.mapping import Column, Mapping
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sql import quoted

Cells = tuple[Any, ...]
_PIECE = 1 << 20
"""Bytes of a sheet looked at in one go."""
_NAMED = 6
"""Cells named in a refusal."""
_MOST_PARTS = 10_000
_PROLOGUE = 4_096
"""Bytes in which a document type is declared, where one is."""
_LONGEST_TAG = 200
"""More bytes than one of the tags below has, so that none is lost between two pieces."""
_FORMULA = re.compile(rb"<(\w+:)?f[ />]")
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell [^>]*?ref=[\"']([A-Z0-9:]+)[\"']")
_LITERAL = re.compile(r'"[^"]*"|[\\_*].')
"""What stands in a number format for itself, or for space."""


def relation(reading: Reading) -> Relation:
    """The sheet as a table of texts. Raises FileRefused where it cannot be told which sheet, or has no header."""
    name = reading.source.name
    try:
        _require_bounded(reading.source.path, name)
        book = openpyxl.load_workbook(reading.source.path, read_only=True, data_only=True, keep_links=False)
        sheet = _chosen(book, reading.mapping.sheet, name)
        first = reading.mapping.header_row or 1
        rows = sheet.iter_rows(min_row=first)
        header = _header(next(rows, ()), sheet, name)
        looked = _looked_through(sheet)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, EOFError, OSError) as error:
        raise FileRefused(f"{name} is no whole .xlsx workbook.") from error
    wanted = [place for place, one in enumerate(header) if not reading.mapping.excludes(one)]
    _require_apart(looked.merged, wanted, name)
    told = _to_tell_apart(reading.mapping, header)
    numbers = {name: f"_number_{place}" for place, name in told.items()}
    schema, notes = batches.texts([*header, *numbers.values()]), list[tuple[str, int]]()
    shares = _shares(reading, header)

    def read() -> Iterator[Any]:
        try:
            whole = _computed(rows, reading, sheet.title, wanted) if looked.computes else rows
            told_apart = _without_errors(whole, reading, header)
            lines = enumerate(told_apart, start=first + 1)
            yield from batches.batched(_rows(lines, len(header), list(told), shares, name, notes), schema)
        except (zipfile.BadZipFile, EOFError, OSError, SyntaxError) as error:
            raise FileRefused(f"{name} is no whole .xlsx workbook.") from error

    table = batches.offer(reading, "sheet", schema, read)
    typed = {name: f"{quoted(flag)} IS NOT NULL" for name, flag in numbers.items()}
    names = [one for one in header if not UNNAMED.fullmatch(one) or reading.mapping.reads(one)]
    return Relation(tuple(names), table, numbers=typed, line="_line", notes=notes)


def likely_header_row(path: Path, wanted: str, name: str) -> int:
    """The row of a sheet, from 1, at which its header seems to stand. Raises FileRefused."""
    try:
        _require_bounded(path, name)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        sheet = _chosen(book, wanted, name)
        return _likely_place(sheet)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, EOFError, OSError) as error:
        raise FileRefused(f"{name} is no whole .xlsx workbook.") from error


def _likely_place(sheet: Any) -> int:
    shown = sheet.iter_rows(max_row=headers.LOOKED_AT, values_only=True)
    return headers.likely([[_text(value) or "" for value in row] for row in shown]) + 1


def _require_bounded(path: Path, name: str) -> None:
    """Raise FileRefused where the archive would unpack into more than a workbook, or declares entities of its own."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if len(parts) > _MOST_PARTS:
            raise FileRefused(f"{name} has {len(parts):,} parts; no workbook has.", code="import.too_large")
        # What a part says of itself holds: zipfile reads no more of it.
        require_proportion(sum(part.file_size for part in parts), path.stat().st_size, name)
        for part in parts:
            with archive.open(part) as opened:
                if b"<!DOCTYPE" in opened.read(_PROLOGUE):
                    raise FileRefused(f"{name}: {part.filename} declares a document type; no workbook does.")


def _to_tell_apart(mapping: Mapping, header: list[str]) -> dict[int, str]:
    """Place and name of the columns whose numbers and texts are read differently."""
    commas = {source for column in mapping.columns.values() if column.decimal == "," for source in column.sources}
    return {place: name for place, name in enumerate(header) if name in commas}


def _shares(reading: Reading, header: list[str]) -> set[int]:
    """The places of columns that hold shares of one."""
    fields = {field.name: field for field in reading.dataset.fields}
    columns = {name: Column(source=name) for name in fields if name in header} | reading.mapping.columns
    sources = {
        source
        for name, column in columns.items()
        if name in fields and units.ucum(column.unit or fields[name].unit) == "1"
        for source in column.sources
    }
    return {place for place, name in enumerate(header) if name in sources}


@dataclass(frozen=True)
class _Looked:
    """What openpyxl keeps from who reads row by row: whether the sheet computes, and which cells are merged."""

    computes: bool
    merged: tuple[str, ...]


def _looked_through(sheet: Any) -> _Looked:
    computes, merged, held = False, dict[str, None](), b""
    with sheet.parent._archive.open(sheet._worksheet_path) as file:
        while piece := file.read(_PIECE):
            held = held[-_LONGEST_TAG:] + piece
            computes = computes or _FORMULA.search(held) is not None
            merged |= dict.fromkeys(found.decode() for found in _MERGED.findall(held))
    return _Looked(computes, tuple(merged))


def _require_apart(merged: Collection[str], wanted: Collection[int], file: str) -> None:
    """Raise FileRefused where cells are merged in a column that is read: only the first of them has the value."""
    for area in merged:
        left, _top, right, _bottom = range_boundaries(area)
        if any(left <= place + 1 <= right for place in wanted):
            raise FileRefused(
                f"{file}: the cells {area} are merged, so that only the first of them has a value. Unmerge them, "
                "fill in every cell, and import it again.",
                code="import.merged_cells",
            )


def _computed(rows: Iterator[Cells], reading: Reading, title: str, wanted: Collection[int]) -> Iterator[Cells]:
    """The rows, beside their formulas. Raises FileRefused where one was never computed."""
    name = reading.source.name
    book = openpyxl.load_workbook(reading.source.path, read_only=True, keep_links=False)
    written = book[title].iter_rows(min_row=reading.mapping.header_row or 1)
    next(written)
    for cells, formulas in zip(rows, written, strict=True):
        for place in wanted:
            if place >= len(cells) or formulas[place].data_type != "f":
                continue
            # A formula whose result is the empty text says so by its type.
            if cells[place].value is None and cells[place].data_type != "str":
                raise FileRefused(
                    f"{name}: the formula in cell {formulas[place].coordinate} has no result yet. Open the file in "
                    "Excel or LibreOffice, save it there, and import it again.",
                    code="import.not_computed",
                )
        yield cells


def _chosen(book: Any, wanted: str, file: str) -> Any:
    names = [sheet.title for sheet in book.worksheets]
    if wanted and wanted not in names:
        raise FileRefused(f"{file} has no sheet {wanted!r}; it has {', '.join(names)}.", code="import.sheet")
    if not wanted and len(names) != 1:
        raise FileRefused(
            f"{file} has {len(names)} sheets; name one with --sheet: {', '.join(names)}.", code="import.sheet"
        )
    return book[wanted or names[0]]


def _header(cells: Cells, sheet: Any, file: str) -> list[str]:
    names = [(_text(cell.value) or "").strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if sum(not name for name in names) > 1 or not any(names):
        place = _likely_place(sheet)
        mend = f"header_row = {place}" if place > 1 else "header_row"
        raise FileRefused(
            f"{file}: the first row of the sheet does not name every column. Take the rows before the header out, or "
            f"write {mend} in a mapping file; connexon-node map drafts one.",
            code="import.columns",
        )
    require_columns(len(names), file)
    header = headers.named(names)
    require_once(header, file)
    return header


def _without_errors(rows: Iterator[Cells], reading: Reading, header: list[str]) -> Iterator[Cells]:
    """The rows. Raises FileRefused, once all are read, where cells that count hold an error such as #REF!.

    An error is no value. #N/A may mean that there is none, where the mapping says so.
    """
    mapping, found = reading.mapping, list[str]()
    missing = {
        place: {
            *mapping.missing,
            *(word for one in mapping.columns.values() if name in one.sources for word in one.missing),
        }
        for place, name in enumerate(header)
        if not mapping.excludes(name)
    }
    for cells in rows:
        for place, cell in enumerate(cells):
            if cell.data_type == "e" and place in missing and str(cell.value) not in missing[place]:
                found.append(f"{cell.coordinate} ({cell.value})")
        yield cells
    if found:
        more = f" and {len(found) - _NAMED} others" if len(found) > _NAMED else ""
        raise FileRefused(
            f"{reading.source.name}: cells hold errors of the spreadsheet and no values: "
            f"{', '.join(found[:_NAMED])}{more}. Mend the formulas or empty the cells, and save the file.",
            code="import.error_cells",
        )


def _rows(
    rows: Iterable[tuple[int, Cells]],
    width: int,
    told: list[int],
    shares: set[int],
    file: str,
    notes: list[tuple[str, int]],
) -> Iterator[tuple[object, ...]]:
    """The texts of each row, then for each column of `told` something where its cell is a number, and the line."""
    in_percent = of_one = 0
    for line, cells in rows:
        percent = {place for place, cell in enumerate(cells) if _is_percent(cell)}
        shown = percent - shares
        in_percent, of_one = in_percent + len(shown), of_one + len(percent) - len(shown)
        values = [_text(_hundredfold(cell.value) if place in shown else cell.value) for place, cell in enumerate(cells)]
        if not any(values):
            continue
        if any(values[width:]):
            raise FileRefused(f"{file} row {line}: a value stands in a column without a name.", code="import.columns")
        numbers = ["number" if _is_number(cells[place].value) else None for place in told if place < len(cells)]
        lacking = [None] * (len(told) - len(numbers))
        yield (*values[:width], *[None] * (width - len(values)), *numbers, *lacking, line)
    read = (
        ("cells in per cent were read as they are shown, such as 88% as 88", in_percent),
        ("cells in per cent were read as shares of one, such as 88% as 0.88", of_one),
    )
    notes.extend(note for note in read if note[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_percent(cell: Any) -> bool:
    return _is_number(cell.value) and cell.has_style and _shows_percent(cell.number_format)


@functools.cache
def _shows_percent(number_format: str) -> bool:
    return "%" in _LITERAL.sub("", number_format)


def _hundredfold(value: float) -> float:
    # Fifteen digits are all that Excel keeps; the rest is noise of binary fractions.
    return float(f"{value * 100:.15g}")


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
