"""Answers as files for other programs: CSV, JSON and Parquet, with the name of each term beside its id."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connexon.errors import InvalidQuery, Misconfigured
from connexon.spreadsheet import inert

if TYPE_CHECKING:
    from connexon.client.answer import Answer

FORMS = (".csv", ".json", ".parquet")


def columns_with_names(answer: Answer) -> tuple[str, ...]:
    """The columns of an answer's rows, and after each that holds ontology terms one with their labels."""
    labels, named = answer.labels, []
    for name in answer.combined.columns:
        named.append(name)
        if any(isinstance(row[name], str) and row[name] in labels for row in answer.combined.rows):
            named.append(f"{name}_label")
    return tuple(named)


def rows_with_names(answer: Answer) -> list[dict[str, Any]]:
    """The rows of an answer in those columns."""
    labels, columns = answer.labels, columns_with_names(answer)
    return [{name: _cell(row, name, labels) for name in columns} for row in answer.combined.rows]


def to_csv(answer: Answer) -> str:
    """The rows as CSV. Nothing in it is computed by a spreadsheet that opens it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = columns_with_names(answer)
    writer.writerow(columns)
    for row in rows_with_names(answer):
        writer.writerow(["" if row[name] is None else inert(row[name]) for name in columns])
    return text.getvalue()


def require_form(path: Path) -> None:
    """Raise InvalidQuery where a file's ending names no form, before anything is asked."""
    if path.suffix.lower() not in FORMS:
        raise InvalidQuery(f"{path.name} must end with {', '.join(FORMS)}.", code="export.unknown_form")
    if path.suffix.lower() == ".parquet":
        import importlib.util

        if importlib.util.find_spec("pyarrow") is None:
            raise Misconfigured(
                "Parquet needs pyarrow, which is not installed: pip install pyarrow. CSV and JSON need nothing.",
                code="extra.missing",
            )


def write(answer: Answer, path: Path) -> None:
    """Write an answer to a file, in the form that its ending names. Raises InvalidQuery or Misconfigured."""
    require_form(path)
    match path.suffix.lower():
        case ".csv":
            path.write_text(to_csv(answer), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(answer.to_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        case _:
            import pyarrow.parquet

            pyarrow.parquet.write_table(answer.to_arrow(), path)


def _cell(row: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> Any:
    if name in row:
        return row[name]
    return labels.get(row[name.removesuffix("_label")], None)
