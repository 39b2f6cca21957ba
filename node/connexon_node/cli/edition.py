"""Commands on editions: the numbered states of the center's data that numbers about persons describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import ERR, OUT, counted, indented, new_app, print_json, table
from connexon_node.cli.options import ByOption, JsonOption, by_whom, why
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.editions import Edition, Editions

app = new_app("edition", "Editions: the states of your data that numbers about persons describe, one a year.")


@app.command("open")
def open_edition(
    because: Annotated[
        str, typer.Option("--because", help="Why it cannot wait; needed within a year of the last edition.")
    ] = "",
    by: ByOption = "",
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Open the next edition of your data: what is imported now. Numbers about persons then describe it.

    Its first-ask tables are measured once and charged to the account of persons; questions inside them are free from
    then on. Donors stay from edition to edition, so what each edition tells of them adds up: once a year is usual.
    Imports change no number about persons until the next edition; a withdrawal counts at once in all that is asked
    anew.
    """
    from connexon_node.assembly import edition_opener

    with ERR.status("Measuring first-ask tables ..."):
        opener = edition_opener(NodeFolder.find(directory))
        edition = opener.open(by=by_whom(by), because=because)
    if as_json:
        print_json({"edition": edition_document(edition)})
        return
    show_opened(edition)


@app.command("list")
def list_editions(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """Show every edition: when it was opened, by whom, and what its first-ask tables cost."""
    editions = _editions(directory).all()
    if as_json:
        print_json({"editions": [edition_document(one) for one in editions]})
        return
    if not editions:
        OUT.print("No edition is open, so questions about persons are refused: connexon-node edition open")
        return
    listed = table("edition", "opened", "datasets", "tables cost", right=("edition", "datasets", "tables cost"))
    for one in editions:
        opened = f"{to_text(one.opened_at_ms)} by {escape(one.opened_by)}{why(one.because)}"
        listed.add_row(str(one.number), opened, str(len(one.generations)), f"{one.rho:.4f}" if one.rho else "none")
    OUT.print(listed)


@app.command("show")
def show(
    number: Annotated[int | None, typer.Argument(min=1, help="The edition in force if not said.")] = None,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show one edition: the generations it is made of, and how close its first-ask tables are."""
    editions = _editions(directory)
    edition = editions.in_force() if number is None else editions.one(number)
    tables = editions.tables(edition)
    if as_json:
        shown = None if tables is None else {"rho": tables.rho, "half_width": tables.half_width}
        print_json({"edition": {**edition_document(edition), "tables": shown}})
        return
    OUT.print(
        f"[bold]Edition {edition.number}[/]  opened {to_text(edition.opened_at_ms)} by {escape(edition.opened_by)}"
    )
    if edition.because:
        OUT.print(indented(escape(edition.because)))
    made_of = table("dataset", "generation", right=("generation",))
    for dataset, generation in sorted(edition.generations.items()):
        made_of.add_row(dataset, str(generation))
    OUT.print(made_of)
    if tables is not None:
        OUT.print(
            f"First-ask tables: {len(tables.precision.frame.tables)}, each cell within {tables.half_width} with 95 % "
            f"probability, paid with {tables.rho:.4f} of the account of persons.",
            soft_wrap=True,
        )
    else:
        OUT.print(indented(escape(without_tables(edition))))


def show_opened(edition: Edition) -> None:
    """An edition that was just opened, for people."""
    datasets = counted(len(edition.generations), "dataset")
    OUT.print(f"[green]✓[/] edition {edition.number} is open: {datasets} as imported now", soft_wrap=True)
    if edition.rho:
        OUT.print(f"  [dim]its first-ask tables cost {edition.rho:.4f} of the account of persons[/]", soft_wrap=True)
    else:
        OUT.print(f"  [yellow]![/] {escape(without_tables(edition))}", soft_wrap=True)


def without_tables(edition: Edition) -> str:
    """Why an edition answers no question from tables."""
    reason = edition.without_tables or "They were made for other fields or values than this version of connexon has."
    return f"Edition {edition.number} has no first-ask tables, so every question is charged. {reason}"


def hint_after_import(edition: Edition | None, dataset: str) -> str:
    """What an import means for numbers about persons."""
    if edition is None:
        return (
            "No edition of your data is open, so questions about persons are refused. When all is imported:  "
            "connexon-node edition open"
        )
    if dataset not in edition.generations:
        return (
            f"{dataset} is not in edition {edition.number}, so questions about persons in it are refused until the "
            "next:  connexon-node edition open"
        )
    return f"Numbers about persons stay those of edition {edition.number} until the next is opened."


def edition_document(edition: Edition) -> dict[str, Any]:
    """An edition as JSON."""
    return {
        "number": edition.number,
        "opened_at_ms": edition.opened_at_ms,
        "opened_by": edition.opened_by,
        "because": edition.because,
        "generations": dict(sorted(edition.generations.items())),
        "rho": edition.rho,
        "without_tables": edition.without_tables,
    }


def _editions(directory: DirOption) -> Editions:
    from connexon_node.cli.context import opened
    from connexon_node.editions import Editions

    return Editions(opened(directory).database)
