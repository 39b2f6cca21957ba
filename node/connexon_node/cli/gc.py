"""The command that removes old generations of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from connexon.clock import to_text
from connexon.console import OUT, print_json
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.generations import Generation


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gc")(gc)


def gc(
    directory: DirOption = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and remove nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove the files of old generations that the settings no longer keep.

    Every import makes a new generation and leaves the one before. \\[data] in node.toml says how many of each dataset
    stay, and for how many days. One that a running query reads stays until the next time; the record of each import
    stays for ever.
    """
    from connexon_node import settings as node_settings
    from connexon_node.generations import Generations
    from connexon_node.keeping import collect
    from connexon_node.state import open_state

    folder = NodeFolder.find(directory)
    settings = node_settings.load(folder)
    database = open_state(settings.state_url)
    try:
        collected = collect(Generations(database, folder.data), settings.data, dry_run=dry_run)
    finally:
        database.close()
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "removed": [_document(one) for one in collected.removed],
                "in_use": [_document(one) for one in collected.in_use],
                "bytes": collected.bytes,
            }
        )
        return
    for one in collected.removed:
        OUT.print(f"{one.dataset} generation {one.number}, imported {to_text(one.imported_at_ms)}", soft_wrap=True)
    for one in collected.in_use:
        OUT.print(f"[yellow]![/] {one.dataset} generation {one.number} stays: a query reads it just now.")
    what = "would go" if dry_run else "removed"
    OUT.print(f"[green]✓[/] {len(collected.removed)} generations {what}, {collected.bytes / 2**20:,.1f} MiB.")


def _document(one: Generation) -> dict[str, object]:
    return {"dataset": one.dataset, "number": one.number, "bytes": one.bytes, "imported_at_ms": one.imported_at_ms}
