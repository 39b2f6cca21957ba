"""Commands about data: import a file, see what is in force, make a simulated center."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from connexon.clock import to_text
from connexon.console import ERR, OUT, print_json
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.generations import Generation, Generations
    from connexon_node.importing import Importer, ImportOptions, ImportOutcome, Problem

SHOWN = 8
"""Problems shown on the terminal; the report holds all."""
EncodingOption = Annotated[
    str, typer.Option("--encoding", help="Of text that is not UTF-8, such as latin-1, cp1252 or utf-16; never guessed.")
]
SheetOption = Annotated[str, typer.Option("--sheet", help="Of an Excel workbook with several.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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


class SampleFormat(Enum):
    """The formats that samples are written in."""

    PARQUET = "parquet"
    CSV = "csv"


class SampleScope(Enum):
    """The parts of a center of --only."""

    BANK = "bank"
    SCIENCE = "science"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_file)
    app.command("map")(draft_mapping)
    app.command("data")(data)
    app.command("sample")(sample)


def import_file(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The node's folder.", show_default=False)],
    dataset: Annotated[
        str,
        typer.Argument(
            help="donors and consents first, then what refers to them, such as cell_lines.", show_default=False
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
    with _importer(NodeFolder.find(directory)) as importer:
        outcome = _import_with_progress(importer, dataset, file, options)
    if as_json:
        print_json(_document(outcome))
    else:
        _show(outcome)
    if outcome.refused or (outcome.dry_run and outcome.bad_rows):
        raise typer.Exit(1)


def draft_mapping(
    file: Annotated[Path, typer.Argument(help="A file to import.", exists=True, dir_okay=False, show_default=False)],
    dataset: Annotated[str, typer.Option("--dataset", help="What it holds; guessed if not said.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to; the terminal if not said.")] = None,
    encoding: EncodingOption = "",
    sheet: SheetOption = "",
    file_format: Annotated[
        Format | None, typer.Option("--format", help="Of the file, where its extension does not tell.")
    ] = None,
) -> None:
    """Draft a mapping file by looking at a file of your center.

    It guesses which column is which field, its unit, its codes and how days are written, and says so in comments.
    Columns that tell of persons are excluded. Mend the draft, then: connexon-node import ... --mapping FILE --dry-run
    """
    from connexon.errors import Conflict
    from connexon_node.dictionary import DICTIONARY
    from connexon_node.importing import FileFormat, Mapping
    from connexon_node.importing.drafting import draft

    if out is not None and out.exists():
        raise Conflict(f"{out} is there already; name another file with --out.", code="import.mapping_exists")
    if dataset:
        DICTIONARY.named(dataset)
    given = Mapping(encoding=encoding, sheet=sheet)
    named = FileFormat(file_format.value) if file_format else None
    text = draft(file, DICTIONARY, dataset=dataset, mapping=given, named=named)
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    OUT.print(f"[green]✓[/] {escape(str(out))}: read it, mend it, then import with --mapping and --dry-run")


def data(
    directory: DirOption = HERE,
    history: Annotated[bool, typer.Option("--history", help="Show earlier generations as well.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file again and compare checksums.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which data is in force: rows, donors, when, by whom, from which file."""
    with _generations(NodeFolder.find(directory)) as generations:
        current = generations.all_current()
        shown = generations.history() if history else tuple(current.values())
        if verify:
            with ERR.status("Reading every file again ..."):
                for generation in shown:
                    if generation.removed_at_ms is None:
                        generations.verify(generation)
    if as_json:
        print_json({"generations": [_generation(one, current) for one in shown], "verified": verify})
        return
    if not shown:
        OUT.print("No data yet. Load some:  connexon-node import DIR donors FILE")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("dataset", "gen", "rows", "donors", "imported"):
        table.add_column(heading, justify="right" if heading in ("gen", "rows", "donors") else "left")
    for one in sorted(shown, key=lambda each: (each.dataset, each.number)):
        past = "removed" if one.removed_at_ms else "not in force"
        state = "" if _in_force(one, current) else f" [dim]({past})[/]"
        when = f"{to_text(one.imported_at_ms)} by {escape(one.imported_by)}"
        table.add_row(one.dataset + state, str(one.number), f"{one.rows:,}", f"{one.donors:,}", when)
    OUT.print(table)
    if verify:
        OUT.print(f"[green]✓[/] {len(shown)} generations are as they were imported.")


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
        bool, typer.Option("--import", help="Import the files into the node, which has no data yet.")
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
    from connexon.identity import center_id
    from connexon_node.importing import ImportOptions
    from connexon_node.sampling import FileFormat, Scope, write_sample

    scope = Scope(only.value) if only else Scope.WHOLE
    folder = NodeFolder.find(directory) if load else None
    if folder is not None and not replace:
        _require_no_data(folder)
    target = out or (folder.root if folder else Path()) / f"sample-{center_id(center)}"
    with _bar() as progress:
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
    outcomes = []
    if folder is not None:
        with _importer(folder) as importer:
            for name, path in files.items():
                options = ImportOptions(by=getpass.getuser(), retire_dependents=True, allow_empty=True)
                outcomes.append(_import_with_progress(importer, name, path, options))
    if as_json:
        paths = {name: str(path) for name, path in files.items()}
        print_json({"simulated": True, "files": paths, "imports": [_document(one) for one in outcomes]})
        return
    OUT.print(f"[green]✓[/] {donors:,} simulated donors in {escape(str(target))}")
    for outcome in outcomes:
        _show(outcome)
    if folder is None:
        OUT.print("  Load the files in this order:  connexon-node import DIR donors FILE ,")
        OUT.print(f"  then {', '.join(list(files)[1:])}.")
    if any(outcome.refused for outcome in outcomes):
        raise typer.Exit(1)


def _require_no_data(folder: NodeFolder) -> None:
    from connexon.errors import Conflict

    with _generations(folder) as generations:
        present = sorted(generations.all_current())
    if present:
        raise Conflict(
            f"This node has data in force ({', '.join(present)}), which simulated data would replace; leave out "
            "--import to get the files only, or add --replace if that is what you want.",
            code="sample.data_in_force",
        )


@contextmanager
def _generations(folder: NodeFolder) -> Iterator[Generations]:
    from connexon_node import settings
    from connexon_node.generations import Generations
    from connexon_node.state import open_state

    database = open_state(settings.load(folder).state_url)
    try:
        yield Generations(database, folder.data)
    finally:
        database.close()


@contextmanager
def _importer(folder: NodeFolder) -> Iterator[Importer]:
    from connexon_node import settings
    from connexon_node.consent.ledger import Ledger
    from connexon_node.dictionary import DICTIONARY
    from connexon_node.generations import Generations
    from connexon_node.importing import Importer
    from connexon_node.ontology import Ontologies
    from connexon_node.state import open_state

    database = open_state(settings.load(folder).state_url)
    try:
        generations, ledger = Generations(database, folder.data), Ledger(database)
        yield Importer(generations, ledger, Ontologies.open(folder.ontologies), DICTIONARY, folder.root)
    finally:
        database.close()


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    return Progress(*columns, console=ERR, transient=True)


def _import_with_progress(importer: Importer, dataset: str, file: Path, options: ImportOptions) -> ImportOutcome:
    with _bar() as progress:
        task = progress.add_task(f"{dataset}: looking", total=1.0)

        def hear(what: str, share: float) -> None:
            progress.update(task, completed=share, description=f"{dataset}: {what.lower()}")

        return importer.run(dataset, file, options, hear)


def _show(outcome: ImportOutcome) -> None:
    if outcome.generation is not None:
        one = outcome.generation
        skipped = f", {outcome.bad_rows:,} bad rows skipped" if outcome.bad_rows else ""
        OUT.print(f"[green]✓[/] {one.dataset}: {one.rows:,} rows of {one.donors:,} donors{skipped}", soft_wrap=True)
        OUT.print(f"  [dim]generation {one.number} is in force from the next query on[/]")
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


def _document(outcome: ImportOutcome) -> dict[str, Any]:
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
        "generation": _generation(outcome.generation, None) if outcome.generation else None,
        "retired": list(outcome.retired),
        "first_rows": list(outcome.preview),
        "consents": {"changed": consents.changed, "contradictions": consents.contradictions} if consents else None,
    }


def _generation(one: Generation, current: Any) -> dict[str, Any]:
    document = {name: value for name, value in asdict(one).items() if name != "path"}
    return document if current is None else {**document, "in_force": _in_force(one, current)}


def _in_force(one: Generation, current: Any) -> bool:
    return one.dataset in current and current[one.dataset].number == one.number
