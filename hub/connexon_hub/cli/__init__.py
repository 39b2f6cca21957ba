"""The command connexon-hub: for whoever runs a federation's hub.

Commands import what they need when they run, so that help appears at once.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

import connexon
from connexon.console import keep_private, new_app, run, version_option
from connexon_hub.cli import founding, members, roster, status, training, upgrading

HELP = """The federation's hub: it admits centers, carries questions and answers between researchers and centers, and \
is trusted only to carry messages: the roster is signed elsewhere, with the root key.

A first day: [bold]init[/], [bold]serve[/], [bold]invite[/] each center, and when it has joined, \
[bold]roster update[/]."""

app = new_app("connexon-hub", HELP)


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=version_option(f"connexon-hub {connexon.__version__}"),
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Options of the command as a whole."""


founding.register(app)
members.register(app)
app.add_typer(roster.app, name="roster")
status.register(app)
training.register(app)
upgrading.register(app)


def main() -> NoReturn:
    """Run the command."""
    keep_private()
    run(app)
