"""The command that shows the dictionary."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from connexon.console import OUT, indented, print_json, table
from connexon_node.cli import completing


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dictionary")(dictionary)


def dictionary(
    dataset: Annotated[
        str | None, typer.Argument(help="For example cell_lines; all without.", autocompletion=completing.datasets)
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what data a node knows: datasets, fields, units, allowed values, and whom a row belongs to.

    With a dataset: each of its columns as an import expects it, and the ways that conditions may take from it.
    """
    from connexon_node.data.dictionary import DICTIONARY, documentation

    if markdown:
        typer.echo(documentation.markdown(DICTIONARY), nl=False)
        return
    chosen = [DICTIONARY.named(dataset)] if dataset else list(DICTIONARY.datasets)
    if as_json:
        datasets = [documentation.document(DICTIONARY, one) for one in chosen]
        print_json({"version": DICTIONARY.version, "datasets": datasets})
        return
    if dataset is None:
        listed = table("group", "dataset", "sensitivity")
        for one in chosen:
            listed.add_row(one.group, one.name, one.sensitivity.value)
        OUT.print(f"Dictionary {DICTIONARY.version}; the fields of one:  connexon-node dictionary DATASET")
        OUT.print(listed)
        return
    (one,) = chosen
    OUT.print(f"[bold]{one.name}[/]  {escape(one.title)}")
    for fact in documentation.facts(DICTIONARY, one):
        OUT.print(f"[dim]{escape(fact)}[/]")
    for field in one.fields:
        told = "; ".join(filter(None, (documentation.content(field), documentation.remarks(field))))
        OUT.print(f"[bold]{field.name}[/] [cyan]{field.type.value}[/]  {escape(field.title)}")
        if told:
            OUT.print(indented(f"[dim]{escape(told)}[/]", by=4))
