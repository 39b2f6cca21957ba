"""Commands that bring data in: import a file, draft a mapping for it."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from connexon.console import OUT, bar, counted, print_json
from connexon_node.cli import completing
from connexon_node.cli.generations import generation_document
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.importing import Importer, ImportOptions, ImportOutcome, Problem

BAR = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
SHOWN = 8
"""Problems shown on the terminal; the report holds all."""
EncodingOption = Annotated[
    str, typer.Option("--encoding", help="Of text that is not UTF-8, such as latin-1, cp1252 or utf-16; never guessed.")
]
SheetOption = Annotated[str, typer.Option("--sheet", help="Of an Excel workbook with several.")]


class Format(Enum):
    """The formats of --format."""

    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    JSONL = "jsonl"
    XLSX = "xlsx"
    VCF = "vcf"
    H5AD = "h5ad"
    PHENOPACKETS = "phenopackets"
    SDTM = "sdtm"
    MATRIX = "matrix"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_file)
    app.command("map")(draft_mapping)


def import_file(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The node's folder.", show_default=False)],
    dataset: Annotated[
        str,
        typer.Argument(
            help="donors and consents first, then what refers to them, such as cell_lines.",
            show_default=False,
            autocompletion=completing.datasets,
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV, TSV, JSON lines (gzipped or not), Parquet, Excel, VCF, BCF, AnnData, phenopackets, SDTM.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Load the right rows; count and report the bad.")
    ] = False,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            "-m",
            help="Renames columns, converts units, maps codes; see connexon-node map.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the first rows as they would be, load nothing.")
    ] = False,
    encoding: EncodingOption = "",
    sheet: SheetOption = "",
    assembly: Annotated[
        str, typer.Option("--assembly", help="Of variants: GRCh37, GRCh38 or T2T-CHM13; a file of another is refused.")
    ] = "",
    retire_dependents: Annotated[
        bool,
        typer.Option(
            "--retire-dependents",
            help="Stop offering datasets whose rows lose their donor by this import, until they are imported again.",
        ),
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty", help="Let a file without a row to load replace the dataset, which is then empty."
        ),
    ] = False,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Of the file, where its extension does not tell.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load a file as the next generation of a dataset, while the node goes on serving.

    The file replaces the dataset as a whole. Every bad row is listed with line, field and reason in a report in the
    node's folder; then nothing is loaded, unless you say --skip-bad. Exit status 1 where nothing was loaded.
    """
    from connexon_node.importing import FileFormat, ImportOptions, Mapping, load_mapping

    options = ImportOptions(
        mapping=load_mapping(mapping) if mapping else Mapping(),
        encoding=encoding,
        sheet=sheet,
        assembly=assembly,
        by=getpass.getuser(),
        skip_bad=skip_bad,
        dry_run=dry_run,
        file_format=FileFormat(file_format.value) if file_format else None,
        retire_dependents=retire_dependents,
        allow_empty=allow_empty,
    )
    with open_importer(NodeFolder.find(directory)) as importer:
        outcome = import_with_progress(importer, dataset, file, options)
    if as_json:
        print_json(outcome_document(outcome))
    else:
        show_outcome(outcome)
        if outcome.generation is not None:
            show_edition(directory, [dataset])
    if outcome.refused or (outcome.dry_run and outcome.bad_rows):
        raise typer.Exit(1)


def draft_mapping(
    file: Annotated[Path, typer.Argument(help="A file to import.", exists=True, dir_okay=False, show_default=False)],
    dataset: Annotated[
        str, typer.Option("--dataset", help="What it holds; guessed if not said.", autocompletion=completing.datasets)
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to; the terminal if not said.")] = None,
    encoding: EncodingOption = "",
    sheet: SheetOption = "",
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Of the file, where its extension does not tell.")
    ] = None,
    directory: DirOption = HERE,
) -> None:
    """Draft a mapping file by looking at a file of your center.

    It guesses which column is which field, its unit, its codes and how days are written, and says why; labels are
    looked up in the node's ontologies. Lines with # ? are for you to decide. Columns that tell of persons are excluded.
    Where one file holds several datasets, such as a row per vial, it drafts one mapping of each: with --out vials.toml
    vials.lots.toml, vials.vials.toml and so on. Then: connexon-node import ... --mapping FILE --dry-run, or load.
    """
    from connexon.errors import Conflict
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.importing import FileFormat, Mapping
    from connexon_node.importing.drafting import draft

    if out is not None and out.exists():
        raise Conflict(f"{out} is there already; name another file with --out.", code="import.mapping_exists")
    if dataset:
        DICTIONARY.named(dataset)
    given = Mapping(encoding=encoding, sheet=sheet)
    named = FileFormat(file_format.value) if file_format else None
    texts = draft(file, DICTIONARY, dataset=dataset, mapping=given, named=named, labels=_labels(directory))
    if out is None:
        typer.echo("\n".join(texts.values()), nl=False)
        return
    several = len(texts) > 1
    written = {out.with_suffix(f".{name}.toml") if several else out: text for name, text in texts.items()}
    for path in written:
        if path.exists():
            raise Conflict(f"{path} is there already; name another file with --out.", code="import.mapping_exists")
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        asks = sum("# ?" in line for line in text.splitlines())
        told = f"{counted(asks, 'line')} with # ? to decide" if asks else "nothing to decide"
        OUT.print(f"[green]✓[/] {escape(str(path))}: {told}; read it, then import with --mapping and --dry-run")


def _labels(directory: Path) -> dict[str, dict[str, str]]:
    """The terms of the node's ontologies by label; of none where there is no node."""
    from connexon_node.importing.similarity import label_key
    from connexon_node.ontology import Ontologies

    folder = NodeFolder(directory)
    if not folder.ontologies.is_dir():
        return {}
    found: dict[str, dict[str, str]] = {}
    for term, label in Ontologies.open(folder.ontologies).labels():
        found.setdefault(term.partition(":")[0], {}).setdefault(label_key(label), term)
    return found


@contextmanager
def open_importer(folder: NodeFolder) -> Iterator[Importer]:
    """What imports into the node of a folder, and is closed again."""
    from connexon_node import settings
    from connexon_node.consent.ledger import Ledger
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.data.generations import Generations
    from connexon_node.health.status import served_clock
    from connexon_node.importing import Importer
    from connexon_node.membership.keys import NodeKeys
    from connexon_node.ontology import Ontologies
    from connexon_node.recovery.journal import Journal
    from connexon_node.state import open_present

    found = settings.load(folder)
    database = open_present(found.state_url)
    try:
        journal = Journal(folder, NodeKeys.load(folder).answering)
        generations, ledger = Generations(database, folder.data), Ledger(database, journal, served_clock(folder))
        ontologies = Ontologies.open(folder.ontologies)
        yield Importer(generations, ledger, ontologies, DICTIONARY, folder.root, found.imports)
    finally:
        database.close()


def import_with_progress(importer: Importer, dataset: str, file: Path, options: ImportOptions) -> ImportOutcome:
    """Import one file, and show on ERR how far it is."""
    with bar(*BAR) as progress:
        task = progress.add_task(f"{dataset}: looking", total=1.0)

        def hear(what: str, share: float) -> None:
            progress.update(task, completed=share, description=f"{dataset}: {what.lower()}")

        return importer.run(dataset, file, options, hear)


def show_outcome(outcome: ImportOutcome, *, together: bool = False) -> None:
    """The outcome of an import for people; `together` with others, whose end is told once for all."""
    if outcome.generation is not None:
        one = outcome.generation
        skipped = f", {outcome.bad_rows:,} bad rows skipped" if outcome.bad_rows else ""
        OUT.print(f"[green]✓[/] {one.dataset}: {one.rows:,} rows of {one.donors:,} donors{skipped}", soft_wrap=True)
        if not together:
            OUT.print(f"  [dim]generation {one.number} is in force from the next query on[/]")
    elif together and not outcome.bad_rows and not outcome.dry_run:
        OUT.print(f"  {outcome.dataset}: {outcome.rows:,} rows, all of them right")
    elif outcome.refused:
        bad = f"{outcome.bad_rows:,} of {outcome.rows:,} rows are bad"
        OUT.print(f"[red]✗[/] {outcome.dataset}: nothing was loaded, {bad}", soft_wrap=True)
    else:
        mark = "[red]✗[/]" if outcome.bad_rows else "[green]✓[/]"
        OUT.print(f"{mark} {outcome.dataset}: checked {outcome.rows:,} rows, {outcome.bad_rows:,} bad; not loaded")
    _show_preview(outcome)
    _show_problems(outcome.problems, "red")
    _show_problems(outcome.warnings, "yellow")
    for name in outcome.retired:
        is_not = "would not be" if outcome.dry_run else "is not"
        OUT.print(f"  [yellow]![/] {name} {is_not} offered until it is imported again")
    if outcome.consents is not None and outcome.consents.contradictions:
        count = outcome.consents.contradictions
        OUT.print(f"  [yellow]![/] {count:,} donors have two different consents of one day: they count for nothing")
    if outcome.report is not None:
        OUT.print(f"  Every bad row: {escape(str(outcome.report))}", soft_wrap=True)
    if outcome.refused:
        OUT.print("  Mend the file and import it again, or add --skip-bad to load the rest.", soft_wrap=True)


def show_edition(directory: Path, datasets: Sequence[str]) -> None:
    """What to do so that private numbers are of what was imported."""
    from connexon_node.cli.context import opened
    from connexon_node.cli.edition import hint_after_import
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.editions import Editions

    personal = [name for name in datasets if DICTIONARY.dataset(name).personal]
    if not personal:
        return
    node = opened(directory)
    with closing(node.database):
        hint = hint_after_import(Editions(node.database).latest(), personal[0])
    OUT.print(f"  [dim]{escape(hint)}[/]", soft_wrap=True)


def _show_preview(outcome: ImportOutcome) -> None:
    for number, row in enumerate(outcome.preview, start=1):
        shown = ", ".join(f"[bold]{escape(name)}[/] {escape(value)}" for name, value in row.items())
        OUT.print(f"  {number}. {shown}")


def _show_problems(problems: tuple[Problem, ...], color: str) -> None:
    for problem in problems[:SHOWN]:
        field = f"[bold]{escape(problem.field)}[/] " if problem.field else ""
        OUT.print(f"  [{color}]{problem.rows:>9,}[/] × {field}{escape(problem.reason)}", soft_wrap=True)
    if len(problems) > SHOWN:
        OUT.print(f"  and {len(problems) - SHOWN} other kinds of problem")


def outcome_document(outcome: ImportOutcome) -> dict[str, Any]:
    """The outcome of an import as JSON."""
    consents = outcome.consents
    return {
        "dataset": outcome.dataset,
        "file": outcome.file,
        "loaded": outcome.generation is not None,
        "dry_run": outcome.dry_run,
        "rows": outcome.rows,
        "bad_rows": outcome.bad_rows,
        "problems": [asdict(problem) for problem in outcome.problems],
        "warnings": [asdict(problem) for problem in outcome.warnings],
        "report": str(outcome.report) if outcome.report else None,
        "generation": generation_document(outcome.generation) if outcome.generation else None,
        "retired": list(outcome.retired),
        "first_rows": list(outcome.preview),
        "consents": {"changed": consents.changed, "contradictions": consents.contradictions} if consents else None,
    }
