"""The command that makes a simulated center."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.console import OUT, bar, counted, indented, print_json
from connexon.errors import Misconfigured
from connexon_node.cli.data import BAR, import_with_progress, open_importer, outcome_document, show_outcome
from connexon_node.cli.edition import edition_document, show_opened
from connexon_node.cli.generations import open_generations
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.editions import Edition
    from connexon_node.importing import ImportOutcome


class SampleFormat(Enum):
    """The formats that samples are written in."""

    PARQUET = "parquet"
    CSV = "csv"


class SampleScope(Enum):
    """The parts of a center of --only."""

    BANK = "bank"
    SCIENCE = "science"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sample")(sample)


def sample(
    donors: Annotated[int, typer.Option("--donors", "-n", min=1, max=10_000_000, help="How many donors.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same files.")] = 1,
    center: Annotated[str, typer.Option("--center", help="Name of the simulated center.")] = "demo",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the files.", show_default="sample-CENTER, with --import in the node's"
        ),
    ] = None,
    only: Annotated[
        SampleScope | None,
        typer.Option(
            "--only",
            help="bank: only donors, consents, lines and lots; science: with differentiation runs and proteins.",
        ),
    ] = None,
    features: Annotated[
        int, typer.Option("--features", min=1, max=100_000, help="Genes, proteins and probes of each sample.")
    ] = 100,
    file_format: Annotated[SampleFormat, typer.Option("--format", help="Of the files.")] = SampleFormat.PARQUET,
    load: Annotated[
        bool,
        typer.Option("--import", help="Import the files into the node, which has no data yet, and open an edition."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --import: simulated data takes the place of what is in force.")
    ] = False,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Make a simulated center: every dataset of the dictionary, in files that fit together.

    No row is about anybody: every identifier begins with SIM, and a note in the folder says so.
    """
    from connexon.identity.keys import center_id
    from connexon_node.data.synthetic import FileFormat, Scope, write_sample

    scope = Scope(only.value) if only else Scope.WHOLE
    folder = NodeFolder.find(directory) if load else None
    if folder is not None and not replace:
        _require_no_data(folder)
    target = out or (folder.root if folder else Path()) / f"sample-{center_id(center)}"
    with bar(*BAR) as progress:
        task = progress.add_task("Making", total=len(scope.datasets))
        files = write_sample(
            target,
            center=center,
            donors=donors,
            seed=seed,
            features=features,
            scope=scope,
            file_format=FileFormat(file_format.value),
            done=lambda name: progress.update(task, advance=1, description=f"Made {name}"),
        )
    outcomes = _load(folder, files) if folder else []
    whole = folder is not None and not any(outcome.refused for outcome in outcomes)
    edition = _open_edition(folder) if folder is not None and whole else None
    if as_json:
        paths = {name: str(path) for name, path in files.items()}
        opened = edition_document(edition) if edition else None
        imports = [outcome_document(one) for one in outcomes]
        print_json({"simulated": True, "files": paths, "imports": imports, "edition": opened})
    else:
        OUT.print(f"[green]✓[/] {counted(donors, 'simulated donor')} in {escape(str(target))}")
        _show(outcomes)
        if edition is not None:
            show_opened(edition)
        if folder is None:
            OUT.print(indented("Load each with  connexon-node import DIR DATASET FILE  in this order:"))
            OUT.print(indented(f"{', '.join(files)}."))
    if any(outcome.refused for outcome in outcomes):
        raise typer.Exit(1)


def _load(folder: NodeFolder, files: Mapping[str, Path]) -> list[ImportOutcome]:
    from connexon_node.importing import ImportOptions

    options = ImportOptions(by=getpass.getuser(), retire_dependents=True, allow_empty=True)
    with open_importer(folder) as importer:
        return [import_with_progress(importer, name, path, options) for name, path in files.items()]


def _open_edition(folder: NodeFolder) -> Edition | None:
    """The data is about nobody, so nothing is lost by opening an edition of it for the steward.

    None in a folder that has joined no federation: without its rules nobody can say whose consent counts.
    """
    from connexon_node.assembly import edition_opener
    from connexon_node.membership.keys import NodeKeys

    try:
        NodeKeys.load(folder)
    except Misconfigured:
        return None

    return edition_opener(folder).open(by=getpass.getuser(), because="simulated data was imported")


def _show(outcomes: Iterable[ImportOutcome]) -> None:
    for outcome in outcomes:
        if (made := outcome.generation) is not None and not outcome.warnings:
            OUT.print(f"[green]✓[/] {made.dataset}: {counted(made.rows, 'row')} of {counted(made.donors, 'donor')}")
        else:
            show_outcome(outcome)


def _require_no_data(folder: NodeFolder) -> None:
    from connexon.errors import Conflict

    with open_generations(folder.root) as generations:
        present = sorted(generations.all_current())
    if present:
        raise Conflict(
            f"This node has data in force ({counted(len(present), 'dataset')}), which simulated data would replace; "
            "leave out --import to get the files only, or add --replace if that is what you want.",
            code="sample.data_in_force",
        )
