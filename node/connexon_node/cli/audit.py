"""Commands on the audit log: who asked what, for what purpose, and what became of it; and proofs of that."""

from __future__ import annotations

import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import ERR, OUT, bar, counted, indented, new_app, one_line, print_json
from connexon.errors import InvalidQuery, Unavailable
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.audit import AuditLog, AuditReport
    from connexon_node.audit.witness import Testimony


class FileForm(Enum):
    """As connexon_node.audit.exporting, which takes long to load, knows them."""

    JSONL = "jsonl"
    CSV = "csv"


NamedArgument = Annotated[
    str,
    typer.Argument(
        help="The record's number, or the query's id or the start of it, from audit list.", metavar="QUERY_ID|NUMBER"
    ),
]
SinceOption = Annotated[str, typer.Option(help="Only since then: a date such as 2026-11-01, or 2026-11-01T14:00, UTC.")]
_FIRST = ("researcher", "question", "purpose", "status", "code", "rule")
"""Of a record, what a steward wants to know first."""
app = new_app("audit", "Who asked what, for which purpose, and what became of it; and whether anybody changed the log.")


@app.command("list")
def list_entries(
    directory: DirOption = HERE,
    since: SinceOption = "",
    limit: Annotated[int, typer.Option(min=1, help="At most this many, the latest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the latest requests, oldest first. Refused ones are in it too.

    Each with its number in the log, the start of its query's id, when and what became of it; below, who asked what for
    which purpose.
    """
    from connexon_node.audit.exporting import document
    from connexon_node.cli.records import asked, outcome

    entries = _log(directory).entries(since_ms=moment(since), limit=limit)
    if as_json:
        print_json({"entries": [document(entry) for entry in entries]})
        return
    if not entries:
        OUT.print("Nothing has been asked yet." if not since else "Nothing has been asked since then.")
        return
    for entry in entries:
        when, query = to_text(entry.record.at_ms), escape(entry.record.query_id[:8])
        one_line(f"[bold]{entry.sequence}[/] {query} [dim]{when}[/] {outcome(entry.record)}")
        OUT.print(indented(asked(entry.record)))


@app.command("show")
def show(named: NamedArgument, directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show all that is written down of one request, and the question itself while the node keeps it."""
    from connexon_node.audit import AuditLog
    from connexon_node.audit.exporting import document
    from connexon_node.audit.proving import find
    from connexon_node.cli.context import opened
    from connexon_node.delivery.lookup import question_in_words

    database = opened(directory).database
    entries = find(AuditLog(database), named)
    questions = [question_in_words(database, entry.record) for entry in entries]
    if as_json:
        pairs = zip(entries, questions, strict=True)
        print_json({"entries": [{**document(entry), "question": question or None} for entry, question in pairs]})
        return
    for entry, question in zip(entries, questions, strict=True):
        OUT.print(f"[bold]Record {entry.sequence}[/] of {to_text(entry.record.at_ms)}")
        told = {**dict.fromkeys(_FIRST, ""), **entry.record.document(), "question": question}
        for name, value in told.items():
            if value != "" and name != "at_ms":
                OUT.print(f"  {name:<15} {value}", markup=False, soft_wrap=True)


@app.command("verify")
def verify(
    directory: DirOption = HERE,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the hub what it has witnessed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compute the whole log again and compare it with what the hub has witnessed. Exit status 1 when it fails.

    Finds records altered, removed, moved or cut off. Somebody who may rewrite the whole database could make another log
    that fits together, or put an older copy back; that is found by comparing with the log's heads that the hub keeps.
    """
    from connexon_node.audit import verify
    from connexon_node.audit.witness import ask
    from connexon_node.cli.context import opened

    node = opened(directory)
    with ERR.status("Asking the hub what it has witnessed ..."):
        testimony = ask(node.folder, node.settings, node.database, offline=offline)
    with bar() as progress:
        task = progress.add_task("Verifying", total=None)
        report = verify(
            node.database,
            witnessed=testimony.heads,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(_verdict(report, testimony))
    else:
        _tell(report, testimony)
    if report.fault_count:
        raise typer.Exit(1)


@app.command("export")
def export(
    directory: DirOption = HERE,
    form: Annotated[FileForm, typer.Option("--format", help="JSON lines or CSV.")] = FileForm.JSONL,
    since: SinceOption = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of printing.")] = None,
) -> None:
    """Write the records for other programs, oldest first, one a line. Digests are hexadecimal, times ms since 1970."""
    import sys

    from connexon_node.audit import exporting

    entries = _log(directory).all(since_ms=moment(since))
    if out is None:
        exporting.export(entries, sys.stdout, exporting.ExportFormat(form.value))
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as file, ERR.status(f"Writing {out} ..."):
            count = exporting.export(entries, file, exporting.ExportFormat(form.value))
    except OSError as error:
        raise _unwritable(out, error) from error
    ERR.print(f"{counted(count, 'record')} in {out}.", markup=False, soft_wrap=True)


@app.command("prove")
def prove(
    named: NamedArgument,
    directory: DirOption = HERE,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write to this file instead of printing.")] = None,
) -> None:
    """Write a proof of one record, signed by this center, that anybody in the federation can check.

    It shows the record whole, researcher and purpose included, and nothing of any other. It is checked with
    connexon receipt verify FILE, without network and without this node.
    """
    import json

    from connexon.identity import keys
    from connexon_node.audit import AuditLog, proving
    from connexon_node.cli.context import opened
    from connexon_node.membership.keys import NodeKeys

    node = opened(directory)
    proof = proving.prove(
        AuditLog(node.database),
        named,
        center=keys.center_id(node.settings.hub.center),
        federation=node.settings.hub.federation,
        key=NodeKeys.load(node.folder).answering,
    )
    if out is None:
        print_json(proof)
        return
    try:
        out.write_text(json.dumps(proof, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise _unwritable(out, error) from error
    ERR.print(f"The proof is in {out}; check it with  connexon receipt verify {out}", markup=False, soft_wrap=True)


def _verdict(report: AuditReport, testimony: Testimony) -> dict[str, object]:
    return {
        "ok": not report.fault_count,
        "records": report.records,
        "root_sha256": report.root.hex(),
        "witness": {
            "asked": testimony.asked,
            "heads": report.witnessed,
            "newest_size": max(testimony.heads, default=0),
            "problem": testimony.problem,
        },
        "fault_count": report.fault_count,
        "faults": [vars(fault) for fault in report.faults],
    }


def _tell(report: AuditReport, testimony: Testimony) -> None:
    for fault in report.faults:
        OUT.print(f"[red]✗[/] {escape(fault.message)} [dim]({fault.code})[/]")
    if report.fault_count > len(report.faults):
        OUT.print(f"  and {report.fault_count - len(report.faults)} more.")
    if not report.fault_count:
        OUT.print(f"[green]✓[/] {counted(report.records, 'record')}, whole and in order.")
        OUT.print(f"  Root {report.root.hex()}", soft_wrap=True)
    newest = max(testimony.heads, default=0)
    if testimony.asked:
        heads = f"{counted(len(testimony.heads), 'head')} of the log that the hub witnessed"
        compared = f"Compared with {heads}, of up to {counted(newest, 'record')}."
        OUT.print(indented(compared if newest else "The hub has witnessed nothing yet."))
        return
    kept = f"only with the head of {counted(newest, 'record')} that this node keeps" if newest else "with nothing"
    OUT.print(f"[yellow]![/] The hub was not asked: {escape(testimony.problem)}")
    OUT.print(indented(f"Compared {kept}; a database put back to an earlier state would not show."))


def _unwritable(out: Path, error: OSError) -> Unavailable:
    return Unavailable(f"{out} cannot be written: {error.strerror or error}.", code="audit.not_written")


def _log(directory: Path) -> AuditLog:
    from connexon_node.audit import AuditLog
    from connexon_node.cli.context import opened

    return AuditLog(opened(directory).database)


def moment(text: str) -> int:
    """A date, or a date and time, in milliseconds; UTC where nothing else is said. Raises InvalidQuery."""
    if not text:
        return 0
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidQuery(f"{text!r} is not a date such as 2026-11-01.", code="audit.bad_date") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp() * 1000)
