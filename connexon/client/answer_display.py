"""How an answer looks: in a terminal of 60 columns or more, as plain text, and in a notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, chop_cells, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from connexon.analyses.train import Enrolled
from connexon.client.center_answer import CenterAnswer, Status
from connexon.query import purpose
from connexon.safe_text import plain

if TYPE_CHECKING:
    from connexon.analyses.spec import Sheet
    from connexon.client.answer import Answer

_LOOKS = {
    Status.RELEASED: ("✓", "green"),
    Status.SUPPRESSED: ("○", "yellow"),
    Status.WAITING: ("…", "cyan"),
    Status.REFERRED: ("?", "yellow"),
    Status.AWAITING_STEWARD: ("?", "yellow"),
    Status.NOT_OFFERED: ("–", "dim"),
    Status.CANCELLED: ("–", "dim"),
}
_BAD = ("✗", "red")
LONG = 500
"""Rows from which on a table is laid out line by line: rich takes a millisecond for each row."""
_NARROWEST = 8
_GAP = "   "


def render(answer: Answer) -> Iterator[RenderableType]:
    """The parts of an answer, from what was asked to what it does not cover."""
    yield Text(_headline(answer), style="bold")
    for sheet in answer.sheets:
        if sheet.title:
            yield Text(sheet.title, style="bold")
        yield _table(sheet) if len(sheet.rows) <= LONG else LongTable(sheet)
        yield Text()
    for part in answer.centers:
        yield center_line(part)
    for note in answer.notes:
        yield Padding(Text(note, style="yellow"), (0, 0, 0, 2))
    for obligation, centers in answer.obligations.items():
        yield Padding(Text(_duty(obligation.term, obligation.message, centers)), (0, 0, 0, 2))
    if not answer.complete:
        yield Text(_later(answer), style="cyan")


def to_plain_text(answer: Answer, *, width: int = 100) -> str:
    """The same without colors."""
    return plain_text(answer, width=width)


def plain_text(shown: RenderableType, *, width: int = 100) -> str:
    """What a terminal shows, without colors."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(shown)
    file = console.file
    return file.getvalue().rstrip("\n") if isinstance(file, io.StringIO) else ""


def html_text(shown: RenderableType, *, width: int = 120) -> str:
    """What a terminal shows, with its colors, for a notebook."""
    console = Console(file=io.StringIO(), width=width, record=True, highlight=False, force_terminal=True)
    console.print(shown)
    form = '<pre class="connexon" style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'
    return console.export_html(inline_styles=True, code_format=form)


def to_html(answer: Answer) -> str:
    """The same for a notebook; every text in it is escaped."""
    parts = [f"<p><strong>{_escaped(_headline(answer))}</strong></p>"]
    parts += [_html_table(sheet) for sheet in answer.sheets]
    lines = "".join(
        f"<li>{look(part)[0]} <strong>{_escaped(part.id)}</strong> {_escaped(outcome(part))}</li>"
        for part in answer.centers
    )
    parts.append(f'<ul style="list-style:none;padding-left:0">{lines}</ul>')
    parts += [f"<p>{_escaped(note)}</p>" for note in answer.notes]
    parts += [
        f"<p>{_escaped(_duty(obligation.term, obligation.message, centers))}</p>"
        for obligation, centers in answer.obligations.items()
    ]
    if not answer.complete:
        parts.append(f"<p>{_away(answer)}Not complete; <code>answer.wait()</code> waits for the rest.</p>")
    return f'<div class="connexon-answer">{"".join(parts)}</div>'


def _later(answer: Answer) -> str:
    """How to come to the rest of an answer."""
    return f"{_away(answer)}Not complete. Later:  connexon result {answer.query_id}"


def _away(answer: Answer) -> str:
    away = [part.id for part in answer.centers if part.away]
    return f"Not connected, so not waited for: {', '.join(away)}. " if away else ""


def progress_text(answer: Answer) -> str:
    """One line on how far an answer is, for example "2 of 3 centers · waiting for lyon"."""
    still = [part.id for part in answer.centers if part.status is Status.WAITING]
    done = len(answer.centers) - len(still)
    names = ", ".join(still[:3]) + (f" and {len(still) - 3} more" if len(still) > 3 else "")
    return f"{done} of {len(answer.centers)} centers" + (f" · waiting for {names}" if still else "")


def _headline(answer: Answer) -> str:
    question = answer.question
    what = question.dataset or "catalog"
    labels = answer.labels
    disease = labels.get(question.purpose.disease, "")
    why = purpose.describe(question.purpose) + (f" ({disease})" if disease else "")
    project = f" · project {question.purpose.project}" if question.purpose.project else ""
    return plain(f"{what} · purpose {why}{project} · {answer.query_id[:8]}")


def _table(sheet: Sheet) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for number, column in enumerate(sheet.columns):
        is_number = number in sheet.numbers
        table.add_column(Text(column), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


class LongTable:
    """A table of thousands of rows, which one center's answer may bring; texts too wide for the console are folded."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._widths(options.max_width)
        yield Text("\n".join(self._lines(self._sheet.columns, widths)), style="bold", no_wrap=True)
        yield Text("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)), no_wrap=True)
        for row in self._sheet.rows:
            yield from (Text(line, no_wrap=True) for line in self._lines(row, widths))

    def _widths(self, room: int) -> list[int]:
        """Of each column: as wide as its widest cell, the widest columns of text narrowed to what there is room for."""
        widths = [max(map(cell_len, column)) for column in zip(self._sheet.columns, *self._sheet.rows, strict=True)]
        texts = [place for place in range(len(widths)) if place not in self._sheet.numbers]
        spare = room - len(_GAP) * (len(widths) - 1) - sum(widths)
        while spare < 0 and texts:
            widest = max(texts, key=widths.__getitem__)
            others = [widths[place] for place in texts if widths[place] < widths[widest]]
            narrower = max(_NARROWEST, max(others, default=0), widths[widest] + spare)
            if narrower >= widths[widest]:
                # Several are equally wide: one cell at a time, or nothing is left to take.
                narrower = widths[widest] - 1
            if widths[widest] <= _NARROWEST:
                break
            spare += widths[widest] - narrower
            widths[widest] = narrower
        return widths

    def _lines(self, row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
        cells = [
            chop_cells(cell, width) if cell_len(cell) > width else [cell]
            for cell, width in zip(row, widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            yield _GAP.join(self._set(place, part, widths[place]) for place, part in enumerate(parts)).rstrip()

    def _set(self, place: int, text: str, width: int) -> str:
        if place in self._sheet.numbers:
            return " " * (width - cell_len(text)) + text
        return set_cell_size(text, width)


def center_line(part: CenterAnswer) -> RenderableType:
    """A center's sign, id and outcome."""
    sign, style = look(part)
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(sign, style=style), Text.assemble((part.id, "bold"), " ", outcome(part)))
    return table


def outcome(part: CenterAnswer) -> str:
    """What became of it at a center, in words."""
    took = f" in {part.latency_ms:,} ms" if part.latency_ms is not None and part.status is Status.RELEASED else ""
    if isinstance(part.result, Enrolled):
        return part.result.words
    reason = f": {part.message}" if part.message else ""
    named = f" ({part.rule or part.code})" if part.status not in (Status.RELEASED, Status.WAITING) else ""
    return f"{part.status.words}{took}{reason}{named}"


def _duty(term: str, message: str, centers: Sequence[str]) -> str:
    return f"Conditions of use ({', '.join(centers)}): {message} ({term})"


def look(part: CenterAnswer) -> tuple[str, str]:
    """The sign of what became of it, and its color."""
    return _LOOKS.get(part.status, _BAD)


def _html_table(sheet: Sheet) -> str:
    def cells(tag: str, row: tuple[str, ...]) -> str:
        return "".join(
            f'<{tag} style="text-align:{"right" if number in sheet.numbers else "left"}">{_escaped(text)}</{tag}>'
            for number, text in enumerate(row)
        )

    caption = f"<caption>{_escaped(sheet.title)}</caption>" if sheet.title else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in sheet.rows)
    return f"<table>{caption}<thead><tr>{cells('th', sheet.columns)}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    return html.escape(text)
