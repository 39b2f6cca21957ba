"""Draft consents as a table that a steward edits and confirms: one line per donor, in CSV.

Nothing of a draft counts before the steward has written a name into its column confirmed_by.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from connexon.errors import ConnexonError, InvalidQuery
from connexon.spreadsheet import inert, unguarded
from connexon_node.consent.hpscreg import DONOR_FIELDS, Draft, draft
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.consent.pseudonym import require_pseudonym

COLUMNS = (
    *("donor_id", "permission", "modifiers", "form_version", "scope", "obtained_on"),
    *("may_withdraw", "notes", "confirmed_by"),
)
_SEPARATOR = " + "


def read_flags(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Lines of flags with their number, from CSV, TSV or JSON lines. Raises InvalidQuery with the line."""
    content = _text(path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                yield number, _object(path, number, line)
        return
    header = content.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(content, newline=""), delimiter=max(",;\t|", key=header.count), strict=True)
    try:
        twice = next((name for name in rows.fieldnames or () if (rows.fieldnames or []).count(name) > 1), None)
        if twice is not None:
            raise InvalidQuery(f"{path.name} has the column {twice!r} twice.", code="consent.draft_columns")
        for row in rows:
            if None in row or None in row.values():
                raise InvalidQuery(f"{path.name} line {rows.line_num}: columns are missing or too many.")
            if any(value.strip() for value in row.values()):
                yield rows.line_num, row
    except csv.Error as error:
        raise InvalidQuery(
            f"{path.name} line {rows.line_num}: this is no line of CSV: {error}.", code="consent.draft_line"
        ) from error


def _text(path: Path) -> str:
    """The file as text, UTF-8 or UTF-16 with its mark. Raises InvalidQuery: other encodings are never guessed."""
    data = path.read_bytes()
    if data.startswith(b"PK\x03\x04"):
        raise InvalidQuery(
            f"{path.name} is an Excel workbook. Save its sheet as CSV UTF-8 and name that file.",
            code="consent.encoding",
        )
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidQuery(
            f"{path.name} line {line} is not UTF-8 text: it looks like Latin-1 or Windows-1252, as Excel saves "
            "plain CSV. Save it as CSV UTF-8.",
            code="consent.encoding",
        ) from error
    if "\0" in text:
        raise InvalidQuery(
            f"{path.name} is no text: it holds NUL bytes. Save it as CSV UTF-8.", code="consent.encoding"
        )
    return text


def write_drafts(source: Path, out: Path, *, country: str) -> list[tuple[str, Draft]]:
    """Draft a consent for every line of flags and write them for the steward. Raises InvalidQuery with the line."""
    drafts = []
    for number, flags in read_flags(source):
        donor = next((str(flags[name]).strip() for name in DONOR_FIELDS if flags.get(name)), "")
        if not donor:
            raise InvalidQuery(
                f"{source.name} line {number}: no donor; name it in the column donor_id.", code="consent.draft_donor"
            )
        drafts.append((donor, draft(flags, country=country)))
    with out.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.DictWriter(opened, COLUMNS)
        rows.writeheader()
        for donor, made in drafts:
            row = {
                "donor_id": donor,
                "permission": made.permission,
                "modifiers": _SEPARATOR.join(made.modifiers),
                "may_withdraw": "yes" if made.may_withdraw else "no",
                "notes": "; ".join(made.notes),
            }
            rows.writerow({name: inert(text) for name, text in row.items()})
    return drafts


def confirmed(path: Path) -> tuple[dict[str, list[ConsentRecord]], int]:
    """The confirmed lines as records, by who confirmed them, and how many lines are not confirmed.

    Raises InvalidQuery naming the line of anything that does not hold; then nothing is to be recorded.
    """
    records: dict[str, list[ConsentRecord]] = {}
    waiting = 0
    for number, written in read_flags(path):
        row = {name: unguarded(text) for name, text in written.items()}
        if set(row) != set(COLUMNS):
            raise InvalidQuery(
                f"{path.name} is no file of drafts: its columns are others.", code="consent.draft_columns"
            )
        by = row["confirmed_by"].strip()
        if not by:
            waiting += 1
            continue
        records.setdefault(by, []).append(_record(path, number, row))
    return records, waiting


def _record(path: Path, number: int, row: Mapping[str, str]) -> ConsentRecord:
    try:
        if not row["donor_id"].strip() or not row["form_version"].strip():
            raise InvalidQuery("the donor and the form's version must be said.")
        require_pseudonym(row["donor_id"].strip())
        return ConsentRecord(
            row["donor_id"].strip(),
            ConsentProfile.parse(
                row["permission"],
                _modifiers(row["modifiers"]),
                form_version=row["form_version"],
                scope=row["scope"],
            ),
            datetime.date.fromisoformat(row["obtained_on"].strip()),
        )
    except (ConnexonError, ValueError) as error:
        said = error.public if isinstance(error, ConnexonError) else "obtained_on must be a day such as 2026-03-01."
        raise InvalidQuery(f"{path.name} line {number}: {said}", code="consent.draft_line") from error


def _modifiers(text: str) -> Iterable[str]:
    return filter(None, (part.strip() for part in text.split("+")))


def _object(path: Path, number: int, line: str) -> Mapping[str, str]:
    try:
        read = json.loads(line)
    except ValueError as error:
        raise InvalidQuery(f"{path.name} line {number}: this is not JSON.", code="consent.draft_line") from error
    if not isinstance(read, dict):
        raise InvalidQuery(f"{path.name} line {number}: write one object per line.", code="consent.draft_line")
    return {str(name): "" if value is None else str(value) for name, value in read.items()}
