"""runs: what trains at this hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.console import OUT, counted, indented, print_json
from connexon.safe_text import plain
from connexon_hub.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_hub.cli.context import OpenHub


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(runs)


def runs(
    directory: DirOption = HERE,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most so many, newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Training runs: who began them, how far they are, which centers take part, and why one has ended.

    Models belong to the researchers who asked for them, and are seen with [bold]connexon models[/].
    """
    from connexon_hub.cli.context import opened

    with opened(directory) as hub:
        found = document(hub, limit)
    if as_json:
        print_json(found)
    elif found["runs"]:
        _show(found)
    else:
        OUT.print("Nobody has begun a training run yet.")


def document(hub: OpenHub, limit: int) -> dict[str, Any]:
    """The newest runs: {"runs": [...]}. Times in ms since 1970-01-01 UTC."""
    from connexon.v1 import models_pb2
    from connexon_hub.training.store import RunStore

    return {
        "runs": [
            {
                "query_id": run.query_id,
                "researcher": run.researcher_id,
                "state": models_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower(),
                "code": run.code or None,
                "message": run.message or None,
                "rounds": run.rounds,
                "rounds_done": done,
                "centers": list(run.centers),
                "model_id": run.model_id or None,
                "begun_ms": begun_ms,
                "started_ms": run.started_ms,
                "ended_ms": run.ended_ms,
            }
            for run, begun_ms, done in RunStore(hub.database).latest(limit)
        ]
    }


def _show(found: dict[str, Any]) -> None:
    from connexon.clock import to_text

    for run in found["runs"]:
        color = {"finished": "green", "failed": "red"}.get(run["state"], "default")
        done = f"{run['rounds_done']} of {counted(run['rounds'], 'round')}"
        OUT.print(f"[bold]{run['query_id']}[/] [{color}]{run['state']}[/], {done}", soft_wrap=True)
        begun = f"{run['researcher']}, begun {to_text(run['begun_ms'])}, {', '.join(run['centers'])}"
        OUT.print(indented(escape(plain(begun))))
        if run["message"]:
            OUT.print(indented(f"{escape(plain(run['message']))} [dim]({run['code']})[/]"))
