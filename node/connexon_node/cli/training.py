"""Commands on training: the runs that this center took part in, and ending its part in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from connexon.clock import to_text
from connexon.console import OUT, counted, indented, new_app, print_json
from connexon.errors import InvalidQuery
from connexon_node.cli import completing
from connexon_node.cli.options import ByOption, JsonOption, by_whom
from connexon_node.folder import HERE, DirOption

if TYPE_CHECKING:
    from connexon_node.training.ledger import Run, TrainingLedger

app = new_app(
    "training", "Models trained on this center's rows, which stay here: who trains what, on whom, until when."
)


@app.command("list")
def list_runs(directory: DirOption = HERE, as_json: JsonOption = False) -> None:
    """List the runs this center has worked for, newest first. The number of donors is exact: for you only."""
    runs = _ledger(directory).runs()
    if as_json:
        print_json({"runs": [_document(one) for one in runs]})
        return
    if not runs:
        OUT.print("No model was trained here yet.")
        return
    for one in runs:
        done = f"{one.rounds_done} of {counted(one.rounds, 'round')}"
        OUT.print(f"[bold]{one.run_id}[/] {escape(one.state)}, {done}", soft_wrap=True)
        what = f"{one.researcher}: {one.recipe} on {one.dataset}, {counted(one.donors, 'donor')}, for {one.purpose}"
        OUT.print(indented(escape(what)))
        OUT.print(indented(f"[dim]began {to_text(one.began_at_ms)}[/]"))


@app.command("stop")
def stop(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="The run's id from training list, or its first letters.",
            autocompletion=completing.runs,
        ),
    ],
    because: Annotated[str, typer.Option("--because", help="Why; the researcher reads it.")],
    directory: DirOption = HERE,
    by: ByOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take part in a run no longer: its next tasks are refused. What was given to it before cannot be called back."""
    because = " ".join(because.split())
    if not 0 < len(because) <= 1000:
        raise InvalidQuery("Say why in at most 1,000 characters.", code="training.because")
    stopped = _ledger(directory).stop(run, by=by_whom(by), because=because)
    if as_json:
        print_json(_document(stopped))
        return
    OUT.print(f"This center takes part in {escape(stopped.recipe)} ({stopped.run_id}) no longer.")


def _document(run: Run) -> dict[str, Any]:
    return {
        "run": run.run_id,
        "recipe": run.recipe,
        "researcher": run.researcher,
        "purpose": run.purpose,
        "dataset": run.dataset,
        "rounds": run.rounds,
        "rounds_done": run.rounds_done,
        "donors": run.donors,
        "state": run.state,
        "began_at": to_text(run.began_at_ms),
        "last_at": to_text(run.last_at_ms),
        "stopped_because": run.stopped_because or None,
        "withdrawal_told_at": None if run.noticed_at_ms is None else to_text(run.noticed_at_ms),
    }


def _ledger(directory: DirOption) -> TrainingLedger:
    from connexon_node.cli.context import opened
    from connexon_node.training.ledger import TrainingLedger

    return TrainingLedger(opened(directory).database)
