"""Finding: find, and the ontologies that are known on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from connexon.cli.joining import JsonOption
from connexon.console import ERR, OUT, counted, new_app, print_json

app = new_app(
    "ontology",
    "The ontology terms known on this machine, by which [bold]find[/] and [bold]under[/] understand names.\n\n"
    "The catalog brings the more usual ones. For all, add the published files.",
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(find)


def find(
    words: Annotated[list[str], typer.Argument(help="For example: parkinson, or normal karyotype.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most so many of each kind.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Find terms, fields, values and datasets by the words you use, and see how to ask for them.

    Labels, synonyms, ids and misspellings are understood. Looks at the catalog as last read here; only the first time
    the centers are asked for it.
    """
    from connexon.client import catalog_cache, finding
    from connexon.client.home import Home

    home = Home()
    home.login()
    known = catalog_cache.known(home)
    if not known.datasets:
        from connexon.client.connecting import connect

        with connect(home) as network, ERR.status("Reading the catalog of every center, this once ..."):
            known = network.known()
    found = finding.find(" ".join(words), known, catalog_cache.terms(home), limit=limit)
    if as_json:
        print_json(found.to_json())
    else:
        OUT.print(found)
    if not len(found):
        raise typer.Exit(1)


@app.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(help="Ontology files: OBO, OWL (RDF/XML), or tab-separated edges.")],
    as_json: JsonOption = False,
) -> None:
    """Keep the terms of published ontology files, with their synonyms. One of the same ontology is replaced.

    MONDO, CL, HP, HANCESTRO and EFO are published at https://obofoundry.org; take the .obo file.
    """
    from connexon.client import catalog_cache
    from connexon.client.home import Home
    from connexon.errors import InvalidQuery
    from connexon.ontology import source
    from connexon.ontology.named import NamedTerm

    index = catalog_cache.terms(Home())
    added = []
    for file in files:
        if not file.is_file():
            raise InvalidQuery(f"There is no file {file}.", code="ontology.no_file")
        with ERR.status(f"Reading {file.name} ..."):
            read = source.read(file)
            terms = [
                NamedTerm(term_id, term.label, tuple(sorted(term.synonyms)))
                for term_id, term in read.terms.items()
                if not term.obsolete and term.label
            ]
            count = index.add(terms, source=read.prefix, version=read.version, own=True)
        added.append({"ontology": read.prefix, "version": read.version, "terms": count})
    if as_json:
        print_json({"schema": "connexon.ontology/1", "ontologies": added})
        return
    for one in added:
        terms_added = counted(int(str(one["terms"])), "term")
        OUT.print(f"[green]✓[/] {escape(str(one['ontology']))} {escape(str(one['version']))}: {terms_added}")


@app.command("list")
def list_ontologies(as_json: JsonOption = False) -> None:
    """List what the terms known here come from, and which version of each ontology each center has."""
    from connexon.client import catalog_cache
    from connexon.client.home import Home

    home = Home()
    index, known = catalog_cache.terms(home), catalog_cache.known(home)
    centers = {center: dict(versions) for center, versions in known.ontologies.items()}
    if as_json:
        print_json({"schema": "connexon.ontology/1", "terms": len(index), "sources": index.sources, "centers": centers})
        return
    for name, version in index.sources.items():
        OUT.print(f"{name:<20} {version}", markup=False, soft_wrap=True)
    OUT.print(f"{counted(len(index), 'term')} known here.")
    for center, versions in centers.items():
        for prefix, version in versions.items():
            OUT.print(f"{center}: {prefix} {version}", markup=False, soft_wrap=True)
