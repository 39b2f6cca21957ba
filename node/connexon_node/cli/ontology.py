"""Commands on ontologies: which the center has, and adding one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from connexon.console import ERR, OUT, counted, indented, new_app, print_json, table
from connexon.errors import InvalidQuery
from connexon_node.cli.options import JsonOption
from connexon_node.folder import HERE, DirOption, NodeFolder

if TYPE_CHECKING:
    from connexon_node.ontology import Ontologies

app = new_app(
    "ontology",
    "The ontologies this center has: what [bold]under[/] in a question and disease-specific consents are judged by.",
)


@app.command("add")
def add(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Ontology files: OBO, OWL (RDF/XML), or tab-separated is_a edges.")
    ] = None,
    directory: DirOption = HERE,
    demo: Annotated[bool, typer.Option("--demo", help="Add the small demonstration ontologies.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy ontology files into the node and compile them. A running node takes them up with the next question.

    A file of the same name is replaced. Nothing changes when one of them cannot be read or they form a cycle.
    """
    from connexon_node import ontology

    chosen = [*(files or []), *(sorted(ontology.DEMO.glob("*.obo")) if demo else [])]
    if not chosen:
        raise InvalidQuery("Name the files to add, or --demo.", code="ontology.nothing_to_add")
    for file in chosen:
        if not file.is_file():
            raise InvalidQuery(f"There is no file {file}.", code="ontology.no_file")
    folder = NodeFolder.find(directory).ontologies
    with ERR.status("Reading and compiling ..."):
        opened = ontology.install(chosen, folder)
    _show(opened, as_json=as_json)


@app.command("list")
def list_ontologies(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """List the ontologies and their versions."""
    from connexon_node.ontology import Ontologies

    _show(Ontologies.open(NodeFolder.find(directory).ontologies), as_json=as_json)


@app.command("term")
def term(
    term_id: Annotated[str, typer.Argument(metavar="TERM", help="For example MONDO:0005180.")],
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show a term: its label, what it is a kind of, and how many kinds of it there are."""
    from connexon_node.ontology import Ontologies

    known = Ontologies.open(NodeFolder.find(directory).ontologies)
    current = known.resolve(term_id)
    above = sorted(known.ancestors(current) - {current})
    below = len(known.descendants(current)) - 1
    if as_json:
        print_json({"term": current, "label": known.label(current), "is_a": above, "descendants": below})
        return
    OUT.print(f"[bold]{escape(current)}[/] {escape(known.label(current))}")
    for ancestor in above:
        OUT.print(indented(f"is a kind of {escape(ancestor)} {escape(known.label(ancestor))}"))
    OUT.print(f"  {counted(below, 'kind')} of it {'is' if below == 1 else 'are'} known")


def _show(known: Ontologies, *, as_json: bool) -> None:
    if as_json:
        print_json({"files": list(known.files), "terms": len(known), "versions": known.versions})
        return
    if not known.files:
        OUT.print("There is no ontology yet. Add one:  connexon-node ontology add mondo.obo   (or --demo)")
        return
    listed = table("Ontology", "Version")
    for prefix, version in known.versions.items():
        listed.add_row(escape(prefix), escape(version))
    OUT.print(listed)
    OUT.print(f"{len(known)} terms from {', '.join(map(escape, known.files))}")
