"""Commands about the running node: serve, status, doctor."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.clock import ago, to_text
from connexon.console import OUT, counted, indented, one_line, print_json
from connexon.safe_text import plain
from connexon.service import logs
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder, suggested

if TYPE_CHECKING:
    from pathlib import Path

    from connexon_node.health.status import Latest, NodeStatus


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("serve")(serve)
    app.command("status")(status)
    app.command("doctor")(doctor)


def serve(
    directory: DirOption = HERE,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Run the node: dial the hub, stay attached, answer questions.

    Needs no open port. Ends in order on Ctrl-C or SIGTERM; questions that were received are never lost.
    """
    folder = NodeFolder.find(directory)
    logs.begin(logging.DEBUG if verbose else logging.INFO)
    from connexon_node import serving

    if not serving.serve(folder):
        # A query still runs in a thread that cannot be ended; it is in the inbox and begins again next time.
        sys.stderr.flush()
        os._exit(0)


def status(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show whether the node runs and is attached, what waits, and the latest answers."""
    from connexon_node.health.status import look

    found = look(NodeFolder.find(directory))
    if as_json:
        print_json(found.document())
        return
    if found.restoring:
        recover = escape(suggested("recover", directory))
        OUT.print(f"[red]✗[/] {escape(plain(found.restoring))} Nothing is answered; see  {recover}", soft_wrap=True)
    if not found.serving:
        OUT.print("[yellow]○[/] not running; start it with  " + escape(suggested("serve", directory)))
    elif found.attached_since_ms is None:
        OUT.print("[red]○[/] running, not attached to the hub")
        if found.problem:
            OUT.print(indented(escape(plain(found.problem))))
    else:
        OUT.print(f"[green]●[/] attached to the hub since {to_text(found.attached_since_ms)}")
    if found.clock_problem:
        held = "No consent is ended and nothing old is removed until the clocks agree."
        OUT.print(f"  [red]✗[/] {escape(plain(found.clock_problem))} {held}", soft_wrap=True)
    if found.log_problem:
        verify = escape(suggested("audit verify", directory))
        OUT.print(f"  [red]✗[/] {escape(found.log_problem)} See  {verify}", soft_wrap=True)
    if found.for_steward:
        wait = "1 question waits" if found.for_steward == 1 else f"{found.for_steward} questions wait"
        OUT.print(f"  [yellow]{wait} for you:[/]  {escape(suggested('requests', directory))}", soft_wrap=True)
    unsent = f"{counted(found.unsent, 'answer')} to be sent"
    OUT.print(f"  waiting: {counted(found.waiting, 'question')} to be answered, {unsent}")
    if found.training:
        models = "1 model is" if found.training == 1 else f"{found.training} models are"
        OUT.print(f"  {models} being trained here:  {escape(suggested('training list', directory))}", soft_wrap=True)
    if found.imports_reach:
        OUT.print(f"  [yellow]![/] files are imported without a sandbox: no {found.imports_reach}; see  doctor")
    _print_edition(found, directory)
    _print_latest(found.latest)


def _print_edition(found: NodeStatus, directory: Path) -> None:
    edition = found.edition
    if edition is not None:
        tables = f"its first-ask tables cost {edition.rho:.4f}" if edition.rho else "without first-ask tables"
        OUT.print(f"  edition {edition.number} of {to_text(edition.opened_at_ms)}: {tables}", soft_wrap=True)
    elif found.has_data:
        says = "no edition is open, so questions about persons are refused:"
        OUT.print(f"  [yellow]{says}[/]  {escape(suggested('edition open', directory))}", soft_wrap=True)


def _print_latest(latest: Iterable[Latest]) -> None:
    from connexon_node.cli.records import asked, outcome

    for one in latest:
        query = escape(one.record.query_id[:8])
        replies = ""
        if one.trains:
            replies = f", {one.replies} {'reply' if one.replies == 1 else 'replies'} to a training run"
        one_line(f"  {ago(one.record.at_ms):>6} ago  {query} {outcome(one.record)}{replies}")
        OUT.print(indented(asked(one.record), by=4))


def doctor(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Check every hop between this node and an answer, and name the broken one.

    Name resolution, port, TLS, the hub's session, clock, roster, certificate, database, audit log, disk, policy,
    ontologies, data, imports, training. Exit status 1 when something is broken.
    """
    from connexon.findings import show
    from connexon_node.health.doctor import checks

    show(checks(NodeFolder.find(directory)), as_json=as_json)
