"""The command that loads a folder of files as one import."""

from __future__ import annotations

import getpass
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from connexon.console import OUT, bar, counted, print_json
from connexon_node.cli.data import BAR, outcome_document, show_edition, show_outcome
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("load")(load)


def load(
    folder: Annotated[
        Path, typer.Argument(help="A folder of files to import.", exists=True, file_okay=False, show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all files, show the first rows as they would be, load nothing.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Load the right rows; count and report the bad.")
    ] = False,
    retire_dependents: Annotated[
        bool,
        typer.Option("--retire-dependents", help="Stop offering other datasets whose rows lose their donor by this."),
    ] = False,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Load all files of a folder, in the right order, as one: all are in force afterwards, or none is.

    The mapping beside a file says what it holds (lots.xlsx and lots.toml; vials.csv with vials.donors.toml and
    vials.lots.toml where one file holds several datasets); without one, its name does (lots.csv).
    Exit status 1 where nothing was loaded.
    """
    from connexon_node import settings
    from connexon_node.consent.ledger import Ledger
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.data.generations import Generations
    from connexon_node.importing import ImportOptions
    from connexon_node.importing.folder import load_folder, planned
    from connexon_node.ontology import Ontologies
    from connexon_node.state import open_state

    home = NodeFolder.find(directory)
    plans, left = planned(folder, DICTIONARY)
    options = ImportOptions(
        by=getpass.getuser(), dry_run=dry_run, skip_bad=skip_bad, retire_dependents=retire_dependents
    )
    found = settings.load(home)
    with closing(open_state(found.state_url)) as database, bar(*BAR) as progress:
        task = progress.add_task("looking", total=1.0)
        loaded = load_folder(
            plans,
            options,
            generations=Generations(database, home.data),
            ledger=Ledger(database),
            ontologies=Ontologies.open(home.ontologies),
            dictionary=DICTIONARY,
            report_folder=home.root,
            section=found.imports,
            progress=lambda name, what, share: progress.update(
                task, completed=share, description=f"{name}: {what.lower()}"
            ),
        )
    if as_json:
        imports = [outcome_document(one) for one in loaded.outcomes]
        print_json({"loaded": loaded.committed, "dry_run": dry_run, "imports": imports, "left_alone": list(left)})
    else:
        for one in loaded.outcomes:
            show_outcome(one, together=True)
        for name in left:
            OUT.print(
                f"[yellow]![/] {escape(name)} was left alone: it is no file that is imported, nor a mapping of one"
            )
        _conclude(len(plans), len(loaded.outcomes), committed=loaded.committed, dry_run=dry_run)
        if loaded.committed:
            show_edition(directory, [plan.dataset for plan in plans])
    if not loaded.committed and not (dry_run and not any(one.bad_rows for one in loaded.outcomes)):
        raise typer.Exit(1)


def _conclude(planned: int, seen: int, *, committed: bool, dry_run: bool) -> None:
    if committed:
        OUT.print(f"[green]✓[/] {counted(planned, 'dataset')} in force from the next query on")
    elif dry_run:
        OUT.print(f"{counted(seen, 'dataset')} of {planned} checked; nothing was loaded.")
    else:
        OUT.print("[red]✗[/] Nothing was loaded, of no file: mend this one, and load the folder again.")
