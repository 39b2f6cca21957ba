"""The researcher's command line. What a command needs is imported when it runs, so that --help is quick."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

import connexon
from connexon import console
from connexon.cli import asking, finding, joining, models, receipts, training

app = console.new_app(
    "connexon",
    "Ask every stem-cell center of a federation one question and get one answer.\n\n"
    "Begin with [bold]connexon keygen[/]; your center's steward accredits you; then [bold]connexon login FILE[/] and "
    "[bold]connexon find WORDS[/] and [bold]connexon catalog[/].\n\nExit status: 0 when all centers answered, "
    "also with too few donors to show a number; "
    "3 when some have not (yet); 1 when all have refused or something is wrong.\n\n"
    "To train one model over all centers: [bold]connexon train --example > recipe.yaml[/].",
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            is_eager=True,
            callback=console.version_option(f"connexon {connexon.__version__}"),
        ),
    ] = False,
) -> None:
    pass


joining.register(app)
finding.register(app)
asking.register(app)
training.register(app)
app.command()(models.models)
app.add_typer(models.app, name="model")
app.add_typer(receipts.app, name="receipt")
app.add_typer(finding.app, name="ontology")


def main() -> NoReturn:
    """Run connexon."""
    console.run(app)
