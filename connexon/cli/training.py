"""Training: train, run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connexon.cli import completing
from connexon.cli.asking import (
    SOME_HAVE_NOT,
    CentersOption,
    CommercialOption,
    EthicsOption,
    ExpiresOption,
    PriceOption,
    ProjectOption,
    PurposeOption,
    show_answer,
    split,
)
from connexon.cli.joining import JsonOption
from connexon.cli.stopping import until_stopped
from connexon.console import ERR, OUT, print_json

if TYPE_CHECKING:
    from connexon.client.training.run import Run

_DRAWN_PER_SECOND = 8
WaitOption = Annotated[
    float | None,
    typer.Option("--wait", "-w", min=0, help="Stay for so many seconds; the run goes on. Default: until it ends."),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="QUERY_ID", help="As train and queries show it, or how it begins.", autocompletion=completing.queries
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (train, run):
        app.command()(command)


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A recipe in YAML: what to train on, and how.", exists=False, show_default=False),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a recipe with every part explained, and leave.")
    ] = False,
    purpose: PurposeOption = None,
    project: ProjectOption = None,
    ethics: EthicsOption = "",
    commercial: CommercialOption = False,
    centers: CentersOption = None,
    wait: WaitOption = None,
    expires: ExpiresOption = "7d",
    price: PriceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train one model over all centers; rows stay where they are.

    Begin with  connexon train --example > recipe.yaml. Each center decides by its rules and by every donor's consent
    whether it takes part, adds noise to all that leaves, and charges its account; --price says how much beforehand.
    Ctrl-C leaves the run going; connexon run QUERY_ID comes back to it, connexon cancel ends it.
    """
    if example:
        from connexon.query.recipes import file as recipe_file

        sys.stdout.write(recipe_file.example())
        return
    if recipe is None:
        from connexon.query.recipes.file import RecipeUnreadable

        raise RecipeUnreadable(
            "Name a recipe. See one with every part explained:  connexon train --example", code="recipe.missing"
        )
    from connexon.client.connecting import connect
    from connexon.query.recipes import file as recipe_file

    file = recipe_file.load(recipe)
    if price:
        with connect() as network:
            told = network.training_price(
                file,
                purpose=purpose,
                project=project,
                commercial=commercial,
                ethics_approval=ethics,
                centers=split(centers),
                wait=60 if wait is None else wait,
            )
        show_answer(told, as_json=as_json)
        return
    with connect() as network, _progress() as show:
        found = _until_stopped(
            lambda track: network.train(
                file,
                purpose=purpose,
                project=project,
                commercial=commercial,
                ethics_approval=ethics,
                centers=split(centers),
                wait=wait,
                expires_in=expires,
                on_progress=track,
            ),
            show,
        )
    _finish(found, as_json=as_json)


def run(query_id: RunArgument, wait: WaitOption = None, as_json: JsonOption = False) -> None:
    """Come back to a training run, and stay until it ends; with --wait 0, see how it stands."""
    from connexon.client.connecting import connect

    with connect() as network, _progress() as show:
        whole = network.whole_id(query_id)
        found = _until_stopped(lambda track: network.run(whole, wait=wait, on_progress=track), show, query_id=whole)
    _finish(found, as_json=as_json)


def _until_stopped(
    work: Callable[[Callable[[Run], None]], Run], show: Callable[[Run], None], *, query_id: str = ""
) -> Run:
    """Do the work; Ctrl-C leaves the run going and says how to come back."""
    return until_stopped(
        work,
        show,
        id_of=lambda run: run.id,
        words="Stopped watching; a run that the hub has taken goes on. Come back to it, or end it:",
        back=("connexon run", "connexon cancel"),
        known_id=query_id,
    )


@contextmanager
def _progress() -> Iterator[Callable[[Run], None]]:
    """The run on stderr, drawn again as it goes on and gone when done; nothing where stderr is no terminal."""
    from rich.live import Live

    from connexon.client.training.run_display import live

    if not ERR.is_terminal:
        yield lambda _: None
        return
    with Live(console=ERR, transient=True, refresh_per_second=_DRAWN_PER_SECOND, redirect_stdout=False) as display:
        yield lambda run: display.update(live(run))


def _finish(found: Run, *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
    else:
        OUT.print(found)
    raise typer.Exit(exit_status(found))


def exit_status(run: Run) -> int:
    """0 when there is a model, 3 while the run goes on, 1 when it failed or was cancelled."""
    if run.model_id:
        return 0
    return 1 if run.over else SOME_HAVE_NOT
