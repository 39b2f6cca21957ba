"""The steward's recovery of a node that was restored from an older copy."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.console import ERR, OUT, confirm, counted, indented, print_json
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption, NodeFolder, suggested

if TYPE_CHECKING:
    from connexon_node.recovery.recovering import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recover")(recover)


def recover(
    resume: Annotated[bool, typer.Option("--resume", help="Let the node answer again.")] = False,
    because: Annotated[
        str, typer.Option("--because", help="With --resume: what happened, and what you have seen to.")
    ] = "",
    new_database: Annotated[
        bool, typer.Option("--new-database", help="There is no copy at all: begin with an empty database.")
    ] = False,
    by: ByOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")] = False,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Recover a node that was restored from an older copy, or lost its database.

    Brings back from the hub what this node has answered since and what that has cost, and enters the withdrawals again
    that the journal beside the keys knows. The node stays silent until you run this with [bold]--resume[/]. Both may be
    repeated.
    """
    from connexon_node import settings
    from connexon_node.recovery.recovering import Recovery

    folder = NodeFolder.find(directory)
    recovery = Recovery(folder, settings.load(folder), by=by_whom(by), new_database=new_database)
    if resume and not yes:
        confirm("Have all withdrawals been entered that this database may have forgotten?", code="recovery.unconfirmed")
    with ERR.status("Asking the hub ..."):
        report = recovery.resume(because=because) if resume else recovery.bring_back()
    if as_json:
        print_json({"code": recovery.trouble.code, "resumed": resume, **asdict(report)})
        return
    OUT.print(escape(recovery.trouble.sentence), soft_wrap=True)
    _print(report)
    if resume:
        OUT.print("[green]✓[/] The node answers again; grants of exact numbers have ended and may be given anew.")
    else:
        OUT.print(f"When all is entered:  {escape(suggested('recover --resume --because ...', directory))}")


def _print(report: Report) -> None:
    OUT.print(f"The database has {counted(report.records, 'record')}; the hub was told of {report.told}.")
    OUT.print(indented(f"{counted(report.answers, 'answer')} brought back, {report.charged:.4f} rho charged again"))
    OUT.print(indented(f"{counted(report.draws, 'draw')} kept, so that the same questions get the same numbers"))
    if report.missing:
        OUT.print(indented(f"[yellow]![/] {counted(report.missing, 'record')} of them cannot be brought back"))
    for share, rho in report.to_charge.items():
        OUT.print(indented(f"{rho:.4f} rho more to be charged to {share}"))
    if report.refused:
        OUT.print(f"[red]✗[/] The hub shows {report.refused} answers that are not this node's; ask its operator.")
    _print_donors(report)


def _print_donors(report: Report) -> None:
    OUT.print(f"{counted(len(report.withdrawn), 'withdrawal')} entered again from the journal")
    for donor in report.withdrawn:
        OUT.print(indented(escape(donor)))
    if report.amended:
        OUT.print("[yellow]![/] Amend these consents again, as you did before; see your own papers:")
        for donor in report.amended:
            OUT.print(indented(escape(donor)))
    if report.unknown:
        OUT.print(
            f"[yellow]![/] {counted(report.unknown, 'withdrawal')} of donors that this database does not know; they "
            "are entered when these donors' consents are imported.",
            soft_wrap=True,
        )
    if not report.journal_whole:
        OUT.print(
            "[red]![/] Marker and journal beside the keys are older copies, too. Nobody but you knows who withdrew "
            "since: enter them all again, from your papers, before you resume.",
            soft_wrap=True,
        )
