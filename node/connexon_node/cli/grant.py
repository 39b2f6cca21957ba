"""Commands on grants of exact numbers: the steward's decisions, each for a researcher, a project and a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import DAY, now_ms, to_text
from connexon.console import OUT, indented, new_app, print_json
from connexon.errors import InvalidQuery
from connexon_node.cli import completing
from connexon_node.cli.budget import require_known
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.release.cohorts_used import CohortsUsed, Stand
    from connexon_node.release.grants import Grant, Grants

app = new_app("grant", "Exact numbers, without noise, for a named project: give, list and withdraw.")
WHAT_IT_GIVES_UP = (
    "Exact numbers are protected by a minimum of donors, also for every part of a condition, by rounding, by comparing "
    "with all that left, and by a limit on how many groups a project may have numbers of. That does not hold against "
    "somebody who knows all donors of a group but one: they learn that one's secret. See docs/privacy.md."
)
WHAT_TRAINING_GIVES_UP = (
    "Exact updates are sums over your donors' values, and reach nobody but the hub before they are added to those of "
    "other centers. Whoever knows all of those donors but one can work that one out. See docs/training.md."
)
BecauseOption = Annotated[str, typer.Option("--because", help="Why; it is recorded and shown.")]


@app.command("give")
def give(
    researcher: Annotated[str, typer.Argument(metavar="RESEARCHER", help="Whom you grant it to: lyon/ada.")],
    because: BecauseOption,
    project: Annotated[str, typer.Option("--project", help="The project that their questions must name.")] = "",
    any_project: Annotated[bool, typer.Option("--any-project", help="Whatever project, or none.")] = False,
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset", help="Only about this one (repeat). Default: all.", autocompletion=completing.datasets
        ),
    ] = None,
    training: Annotated[
        bool, typer.Option("--training", help="Training with exact updates, in place of exact numbers.")
    ] = False,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How long it holds.")] = 90,
    by: ByOption = "",
    directory: DirOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Also for a researcher who is not known here yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a researcher have exact numbers, or train with exact updates, for a project until an end that you name."""
    from connexon_node.data.dictionary import DICTIONARY
    from connexon_node.release.grants import ANY, COUNTS, TRAINING

    if bool(project) == any_project:
        raise InvalidQuery("Name a --project, or say --any-project.", code="grant.project")
    for dataset in datasets or ():
        DICTIONARY.named(dataset)
    if not yes:
        require_known(directory, researcher)
    grant = _grants(directory).give(
        researcher=researcher,
        project=ANY if any_project else project,
        datasets=frozenset(datasets or {ANY}),
        because=because,
        by=by_whom(by),
        ends_at_ms=now_ms() + days * DAY,
        what=frozenset({TRAINING if training else COUNTS}),
    )
    if as_json:
        print_json({"grant": _document(grant)})
        return
    OUT.print("[green]granted[/]")
    _print(grant)
    OUT.print(indented(WHAT_TRAINING_GIVES_UP if training else WHAT_IT_GIVES_UP), style="yellow")


@app.command("list")
def list_grants(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """List every grant, with those that have ended or were withdrawn, and how much of each is used up."""
    from connexon_node.release.cohorts_used import holder_of

    grants, used = _grants(directory).all(), _used(directory)
    stands = {grant.id: used.stand(holder_of(grant)) for grant in grants}
    if as_json:
        print_json({"grants": [{**_document(grant), "cohorts": stands[grant.id]._asdict()} for grant in grants]})
        return
    if not grants:
        OUT.print("Nobody was granted exact numbers: everything about persons leaves with noise.")
    for grant in grants:
        _print(grant)
        OUT.print(indented(escape(_stand(stands[grant.id]))))


@app.command("withdraw")
def withdraw(
    grant: Annotated[str, typer.Argument(metavar="GRANT", help="Its id, as grant list shows it.")],
    because: BecauseOption,
    directory: DirOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Take a grant back; it counts from the next answer on, also for questions under way."""
    taken = _grants(directory).withdraw(grant, because=because)
    if as_json:
        print_json({"grant": _document(taken)})
        return
    OUT.print("[green]withdrawn[/]")
    _print(taken)


def _print(grant: Grant) -> None:
    from connexon_node.release.grants import ANY

    project = "any project" if grant.project == ANY else f"project {grant.project}"
    about = "everything" if ANY in grant.datasets else ", ".join(sorted(grant.datasets))
    state = f"until {to_text(grant.ends_at_ms)}"
    if grant.withdrawn_at_ms is not None:
        state = f"withdrawn {to_text(grant.withdrawn_at_ms)}: {grant.withdrawn_because}"
    elif grant.ends_at_ms <= now_ms():
        state = f"ended {to_text(grant.ends_at_ms)}"
    what = " and ".join(sorted(grant.what))
    who = escape(f"{grant.researcher}, {project}, {what} about {about}; {state}")
    OUT.print(f"[bold]{grant.id}[/]  {who}", soft_wrap=True)
    OUT.print(indented(escape(f"by {grant.by}, {to_text(grant.given_at_ms)}: {grant.because}")))


def _stand(stand: Stand) -> str:
    """How many cohorts were told, of how many: a renewed grant of the same project begins nothing anew."""
    if stand.allowed is None or stand.all_allowed is None:
        return "no exact numbers have left yet"
    return (
        f"groups of donors told of: {stand.used} of {stand.allowed} for this {stand.holder.partition(' ')[0]}, "
        f"{max(0, stand.allowed - stand.used)} left; {stand.all_used} of {stand.all_allowed} for all together"
    )


def _document(grant: Grant) -> dict[str, Any]:
    return {**vars(grant), "datasets": sorted(grant.datasets), "what": sorted(grant.what)}


def _grants(directory: DirOption) -> Grants:
    from connexon_node.cli.context import opened
    from connexon_node.release.grants import Grants

    return Grants(opened(directory).database)


def _used(directory: DirOption) -> CohortsUsed:
    from connexon_node.cli.context import opened
    from connexon_node.release.cohorts_used import CohortsUsed

    node = opened(directory)
    return CohortsUsed(node.database, node.settings.release.independent_cohorts)
