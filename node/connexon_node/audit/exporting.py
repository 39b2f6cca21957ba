"""The log for other programs: JSON lines and CSV, one record a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, TextIO

from connexon.spreadsheet import inert
from connexon_node.audit.record import FIELDS, AuditEntry


class ExportFormat(Enum):
    """How records are written."""

    JSONL = "jsonl"
    CSV = "csv"


def export(entries: Iterable[AuditEntry], to: TextIO, form: ExportFormat) -> int:
    """Write records, oldest first; returns how many. Digests are in hexadecimal, times milliseconds since 1970, UTC."""
    write = _jsonl(to) if form is ExportFormat.JSONL else _csv(to)
    count = 0
    for entry in entries:
        write(document(entry))
        count += 1
    return count


def _jsonl(to: TextIO) -> Callable[[dict[str, Any]], object]:
    return lambda record: to.write(json.dumps(record) + "\n")


def _csv(to: TextIO) -> Callable[[dict[str, Any]], object]:
    writer = csv.DictWriter(to, ("sequence", *FIELDS), lineterminator="\n")
    writer.writeheader()
    return lambda record: writer.writerow({name: inert(value) for name, value in record.items()})


def document(entry: AuditEntry) -> dict[str, Any]:
    """A record for JSON."""
    return {"sequence": entry.sequence, **entry.record.document()}
