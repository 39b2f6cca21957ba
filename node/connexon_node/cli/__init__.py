"""The command connexon-node: for the data steward who runs a center's node.

Commands import what they need when they run, so that help appears at once.
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

import connexon
from connexon.console import keep_private, new_app, run, version_option
from connexon_node.cli import (
    approvals,
    audit,
    budget,
    consent,
    consent_drafts,
    consent_duties,
    consent_effects,
    data,
    dictionary,
    edition,
    federation,
    generations,
    grant,
    loading,
    ontology,
    policy,
    recovery,
    release,
    sampling,
    service,
    training,
    upgrading,
    why,
)

HELP = """Your center's node: it keeps the data here, answers the federation's questions as far as policy and each \
donor's consent allow, and writes down all of it.

A first day: [bold]join[/] with the code the hub's operator sent, [bold]import[/] data, \
[bold]edition open[/], [bold]policy check[/], [bold]serve[/]; and [bold]doctor[/], where something does not work."""

app = new_app("connexon-node", HELP)


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=version_option(f"connexon-node {connexon.__version__}"),
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Options of the command as a whole."""


federation.register(app)
service.register(app)
recovery.register(app)
upgrading.register(app)
data.register(app)
loading.register(app)
sampling.register(app)
approvals.register(app)
dictionary.register(app)
generations.register(app)
why.register(app)
consent_effects.register(consent.app)
consent_drafts.register(consent.app)
consent_duties.register(consent.app)
app.add_typer(policy.app, name="policy")
app.add_typer(consent.app, name="consent")
app.add_typer(ontology.app, name="ontology")
app.add_typer(edition.app, name="edition")
app.add_typer(audit.app, name="audit")
app.add_typer(release.app, name="release")
app.add_typer(budget.app, name="budget")
app.add_typer(grant.app, name="grant")
app.add_typer(training.app, name="training")


def main() -> NoReturn:
    """Run the command."""
    keep_private()
    run(app)
