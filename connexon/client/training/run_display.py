"""How a training run looks: in a terminal of 60 columns or more, as plain text, and in a notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from connexon.client.answer_display import center_line, look, outcome
from connexon.client.training.run import Round, Run, RunState
from connexon.query import purpose
from connexon.safe_text import plain

METRICS = ("loss", "auc", "accuracy", "calibration")
"""Those that have a column, in this order, where they are told."""
SHOWN_ROUNDS = 12
_BARS = "▁▂▃▄▅▆▇█"
_PICTURE = (420, 120, 8)
"""Width, height and margin of the picture in a notebook, in pixels."""
UNTOLD = (
    "How good it is cannot be told: too few donors stand behind each center's evaluation. Keep more apart, or none."
)
_STYLES = {
    RunState.FINISHED: ("✓", "green"),
    RunState.FAILED: ("✗", "red"),
    RunState.CANCELLED: ("–", "dim"),
}


def render(run: Run) -> Iterator[RenderableType]:
    """The parts of a run, from what was asked to what came of it."""
    yield Text(_headline(run), style="bold")
    if run.rounds:
        yield _table(run)
        yield from (Text(line, style="dim") for line in _lines(run))
        yield Text()
    if run.rounds and not run.metrics:
        yield Padding(Text(UNTOLD, style="yellow"), (0, 0, 0, 2))
    for part in run.enrolment.centers:
        yield center_line(part)
    for note in _absences(run):
        yield Padding(Text(note, style="yellow"), (0, 0, 0, 2))
    sign, style = _STYLES.get(run.state, ("…", "cyan"))
    yield Text.assemble((f"{sign} ", style), _standing(run))
    if not run.over:
        yield Text(f"Leave it running; come back with:  connexon run {run.id}", style="cyan")


def live(run: Run) -> RenderableType:
    """The same as one thing, for a display that is drawn again and again."""
    return Group(*render(run))


def to_plain_text(run: Run, *, width: int = 100) -> str:
    """The same without colors."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(run)
    file = console.file
    return file.getvalue().rstrip("\n") if isinstance(file, io.StringIO) else ""


def to_html(run: Run) -> str:
    """The same for a notebook, with a picture; every text in it is escaped."""
    columns = _columns(run)
    head = "".join(f"<th>{_escaped(name)}</th>" for name in columns)
    body = "".join(_html_row(row) for row in _cells(run.rounds[-SHOWN_ROUNDS:], columns))
    lines = "".join(
        f"<li>{look(part)[0]} <strong>{_escaped(part.id)}</strong> {_escaped(outcome(part))}</li>"
        for part in run.enrolment.centers
    )
    parts = [
        f"<p><strong>{_escaped(_headline(run))}</strong></p>",
        picture(run),
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if run.rounds else "",
        f'<ul style="list-style:none;padding-left:0">{lines}</ul>',
        f"<p>{_escaped(UNTOLD)}</p>" if run.rounds and not run.metrics else "",
        *(f"<p>{_escaped(note)}</p>" for note in _absences(run)),
        f"<p>{_escaped(_standing(run))}</p>",
    ]
    return f'<div class="connexon-run">{"".join(parts)}</div>'


def picture(run: Run) -> str:
    """Loss, and of two classes the AUC, round by round, as SVG; empty before the second round."""
    series = [
        (name, color, values)
        for name, color in (("loss", "#b3541e"), ("auc", "#1e6fb3"))
        if len(values := _series(run.rounds, name)) > 1
    ]
    if not series:
        return ""
    width, height, margin = _PICTURE
    lines = "".join(
        f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{_points(values, run.recipe.rounds)}"/>'
        f'<text x="{margin + 60 * place}" y="{margin + 4}" font-size="11" fill="{color}">{name}</text>'
        for place, (name, color, values) in enumerate(series)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" '
        f'aria-label="{_escaped(" and ".join(name for name, _, _ in series))} by round">{lines}</svg>'
    )


def sparkline(values: Sequence[float]) -> str:
    """Numbers as a row of bars, the least the lowest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / reach * (len(_BARS) - 1))] for value in values)


def progress_text(run: Run) -> str:
    """One line on how far a run is."""
    if run.state is RunState.GATHERING:
        waiting = [part.id for part in run.enrolment.centers if not part.status.final]
        return "asking centers whether they take part" + (f" · waiting for {', '.join(waiting[:3])}" if waiting else "")
    return f"round {max(run.round, len(run.rounds))} of {run.recipe.rounds}"


def number_text(value: float) -> str:
    """A metric as people read it."""
    return f"{value:.4f}" if abs(value) < 1_000 else f"{value:,.0f}"


def _headline(run: Run) -> str:
    question = run.enrolment.question
    return plain(
        f"{run.recipe.name} · {question.dataset} · purpose {purpose.describe(question.purpose)} · {run.id[:8]}"
    )


def _columns(run: Run) -> list[str]:
    told = {name for one in run.rounds for name in one.metrics}
    return ["round", *(name for name in METRICS if name in told), "centers"]


def _cells(rounds: Sequence[Round], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for one in rounds:
        values = (number_text(one.metrics[name]) if name in one.metrics else "–" for name in columns[1:-1])
        missing = len(one.parts) - len(one.took_part)
        yield (str(one.number), *values, f"{len(one.took_part)}{f' ({missing} missing)' if missing else ''}")


def _table(run: Run) -> Table:
    columns = _columns(run)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(Text(name), justify="right", no_wrap=True)
    if len(run.rounds) > SHOWN_ROUNDS:
        table.add_row(*("…" for _ in columns))
    for row in _cells(run.rounds[-SHOWN_ROUNDS:], columns):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _lines(run: Run) -> Iterator[str]:
    for name in ("loss", "auc"):
        values = _series(run.rounds, name)
        if len(values) > 1:
            yield f"{name} {sparkline([value for _, value in values][-50:])}"
    last = run.rounds[-1]
    if "auc-low" in last.metrics:
        yield f"auc 95 % interval {last.metrics['auc-low']:.3f} to {last.metrics['auc-high']:.3f}"
    for name, (low, high) in last.spread.items():
        yield f"{name} by center {number_text(low)} to {number_text(high)}"


def _absences(run: Run) -> list[str]:
    """Why centers that take part were missing in rounds, or silent of the model's quality; each reason once."""
    found: dict[tuple[str, str, str, str], list[int]] = {}
    for one in run.rounds:
        for part in one.parts:
            if part.code or not part.took_part:
                what = "did not evaluate" if part.took_part else "was missing"
                found.setdefault((part.center, what, part.message, part.code), []).append(one.number)
    return [
        f"{center} {what} in round{'s' if len(rounds) > 1 else ''} {_ranges(rounds)}"
        + (f": {message}" if message else "")
        + (f" ({code})" if code else "")
        for (center, what, message, code), rounds in found.items()
    ]


def _ranges(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 2 else " and ".join(str(number) for number in numbers)


def _standing(run: Run) -> str:
    match run.state:
        case RunState.FINISHED:
            return f"The model is {run.model_id}. See its card with:  connexon model show {run.model_id}"
        case RunState.FAILED:
            return f"No model: {run.message or 'the run failed.'} ({run.code or 'run.failed'})"
        case RunState.CANCELLED:
            return "Cancelled; no model comes of it."
        case _:
            return progress_text(run)


def _series(rounds: Sequence[Round], name: str) -> list[tuple[int, float]]:
    return [(one.number, one.metrics[name]) for one in rounds if name in one.metrics]


def _points(values: Sequence[tuple[int, float]], rounds: int) -> str:
    width, height, margin = _PICTURE
    low, high = min(value for _, value in values), max(value for _, value in values)
    reach = (high - low) or 1.0
    along = (width - 2 * margin) / max(1, rounds - 1)
    return " ".join(
        f"{margin + (number - 1) * along:.1f},{height - margin - (value - low) / reach * (height - 4 * margin):.1f}"
        for number, value in values
    )


def _html_row(row: Sequence[str]) -> str:
    cells = "".join(f'<td style="text-align:right">{_escaped(cell)}</td>' for cell in row)
    return f"<tr>{cells}</tr>"


def _escaped(text: str) -> str:
    return html.escape(text)
