"""Commands on generations of data: which are in force, and removing old ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import ERR, OUT, counted, print_json, table
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.data.generations import Generation, Generations


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("data")(data)
    app.command("gc")(gc)


def data(
    directory: DirOption = HERE,
    history: Annotated[bool, typer.Option("--history", help="Show earlier generations as well.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file again and compare checksums.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which data is in force: rows, donors, when, by whom, from which file."""
    with open_generations(directory) as generations:
        current = generations.all_current()
        shown = generations.history() if history else tuple(current.values())
        if verify:
            with ERR.status("Reading every file again ..."):
                for generation in shown:
                    if generation.removed_at_ms is None:
                        generations.verify(generation)
    if as_json:
        print_json({"generations": [generation_document(one, current) for one in shown], "verified": verify})
        return
    if not shown:
        OUT.print("No data yet. Load some:  connexon-node import DIR donors FILE")
        return
    listed = table("dataset", "gen", "rows", "donors", "imported", right=("gen", "rows", "donors"))
    for one in sorted(shown, key=lambda each: (each.dataset, each.number)):
        past = "removed" if one.removed_at_ms else "not in force"
        state = "" if _in_force(one, current) else f" [dim]({past})[/]"
        when = f"{to_text(one.imported_at_ms)} by {escape(one.imported_by)}"
        listed.add_row(one.dataset + state, str(one.number), f"{one.rows:,}", f"{one.donors:,}", when)
    OUT.print(listed)
    if verify:
        OUT.print(f"[green]✓[/] {counted(len(shown), 'generation')} as imported.")


def gc(
    directory: DirOption = HERE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and remove nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the files of old generations that the settings no longer keep.

    Every import makes a new generation and leaves the one before. \\[data] in node.toml says how many of each dataset
    stay, and for how many days; what the edition in force is made of stays too. One that a running query reads stays
    until the next time; the record of each import stays for ever.
    """
    from connexon_node.cli.context import opened
    from connexon_node.data.generations import Generations
    from connexon_node.data.retention import collect
    from connexon_node.editions import Editions

    node = opened(directory)
    with closing(node.database):
        generations, editions = Generations(node.database, node.folder.data), Editions(node.database)
        collected = collect(generations, editions, node.settings.data, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "removed": [_kept(one) for one in collected.removed],
                "in_use": [_kept(one) for one in collected.in_use],
                "bytes": collected.bytes,
            }
        )
        return
    for one in collected.removed:
        OUT.print(f"{one.dataset} generation {one.number}, imported {to_text(one.imported_at_ms)}", soft_wrap=True)
    for one in collected.in_use:
        OUT.print(f"[yellow]![/] {one.dataset} generation {one.number} stays: a query reads it just now.")
    what = "would go" if dry_run else "removed"
    OUT.print(
        f"[green]✓[/] {counted(len(collected.removed), 'generation')} {what}, {collected.bytes / 2**20:,.1f} MiB."
    )


def _kept(one: Generation) -> dict[str, object]:
    return {"dataset": one.dataset, "number": one.number, "bytes": one.bytes, "imported_at_ms": one.imported_at_ms}


@contextmanager
def open_generations(directory: Path) -> Iterator[Generations]:
    """The generations of the node in a folder, and its database closed again."""
    from connexon_node.cli.context import opened
    from connexon_node.data.generations import Generations

    node = opened(directory)
    with closing(node.database):
        yield Generations(node.database, node.folder.data)


def generation_document(one: Generation, current: Mapping[str, Generation] | None = None) -> dict[str, Any]:
    """A generation as JSON; with those in force, whether it is one of them."""
    document = {name: value for name, value in asdict(one).items() if name != "path"}
    return document if current is None else {**document, "in_force": _in_force(one, current)}


def _in_force(one: Generation, current: Mapping[str, Generation]) -> bool:
    return one.dataset in current and current[one.dataset].number == one.number
