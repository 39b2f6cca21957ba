"""The report of an import: every bad row with line, field and reason, one JSON object a line, for the steward only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from connexon.clock import now_ms, to_datetime
from connexon_node.importing.staging import Staging

MAXIMUM_LINES = 1_000_000
"""Problems written to one report; the counts are of all."""


@dataclass(frozen=True)
class Problem:
    """How often one reason occurs in one field. `field` is empty where the whole record is malformed."""

    field: str
    reason: str
    rows: int


def summed(staging: Staging) -> tuple[Problem, ...]:
    """All problems by field and reason, most frequent first."""
    rows = staging.connection.execute(
        "SELECT field, reason, count(*) FROM problems GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    ).fetchall()
    problems = [Problem(field, reason, int(count)) for field, reason, count in rows]
    reasons = [reason for _line, reason in staging.malformed_lines()]
    return tuple(
        problems + [Problem("", f"is malformed: {reason}", reasons.count(reason)) for reason in dict.fromkeys(reasons)]
    )


def write(staging: Staging, folder: Path, dataset: str) -> Path:
    """Write the report into the folder, readable for its owner only."""
    moment = to_datetime(now_ms()).strftime("%Y%m%dT%H%M%S.%fZ")
    path = folder / f"import-report-{dataset}-{moment}.jsonl"
    path.touch(mode=0o600)
    with path.open("w", encoding="utf-8") as file:
        for line, reason in staging.malformed_lines():
            file.write(_entry(line, "", f"is malformed: {reason}", ""))
        rows = staging.connection.execute(
            f'SELECT "row", field, reason, "value" FROM problems ORDER BY "row", field LIMIT {MAXIMUM_LINES}'
        ).fetchall()
        lines = staging.lines([row for row, *_rest in rows])
        for line, (_row, field, reason, value) in zip(lines, rows, strict=True):
            file.write(_entry(line, field, reason, value))
    return path


def first_lines(path: Path, count: int) -> list[dict[str, object]]:
    """The first entries of a report."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _number in zip(file, range(count), strict=False)]


def _entry(line: int, field: str, reason: str, value: str | None) -> str:
    entry = {"line": line, "field": field, "reason": reason, "value": value or ""}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def total(problems: Iterable[Problem]) -> int:
    """Problems in all."""
    return sum(problem.rows for problem in problems)
