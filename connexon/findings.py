"""A doctor's findings: one sentence about each part that must work, with the remedy where it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import typer
from rich.markup import escape

from connexon.console import ERR, OUT, one_line, print_json
from connexon.errors import ConnexonError

LOG = logging.getLogger("connexon")


class State(Enum):
    """How a thing is. A note stops nothing."""

    GOOD = "good"
    NOTE = "note"
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    """One thing and a sentence about it."""

    name: str
    state: State
    sentence: str


@dataclass(frozen=True)
class Seen:
    """What one check saw."""

    sentence: str
    state: State = State.GOOD


class Broken(ConnexonError):
    """A thing that does not work; the sentence says what to do."""

    code = "doctor.broken"


Checks = Iterable[tuple[str, Callable[[], Seen]]]


def examined(checks: Checks, *, on_begin: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Run the checks, one finding each, in order. No check can stop the next."""
    for name, check in checks:
        on_begin(name)
        yield _finding(name, check)


def _finding(name: str, check: Callable[[], Seen]) -> Finding:
    try:
        seen = check()
    except ConnexonError as error:
        return Finding(name, State.BROKEN, error.public)
    except Exception as error:  # one broken store must not hide the others
        LOG.debug("doctor: %s", name, exc_info=error)
        return Finding(name, State.BROKEN, f"The check itself failed: {type(error).__name__}: {error}")
    return Finding(name, seen.state, seen.sentence)


def show(checks: Checks, *, as_json: bool) -> None:
    """Run and print them. Raises typer.Exit with status 1 where something is broken."""
    signs = {State.GOOD: "[green]✓[/]", State.NOTE: "[yellow]![/]", State.BROKEN: "[red]✗[/]"}
    findings = []
    with ERR.status("Checking ...") as progress:
        for finding in examined(checks, on_begin=lambda name: progress.update(f"Checking {name}")):
            findings.append(finding)
            if not as_json:
                # Both may be one terminal: what turns there would stand at the beginning of the line.
                progress.stop()
                one_line(f"{signs[finding.state]} [bold]{finding.name}[/]  {escape(finding.sentence)}")
                progress.start()
    broken = [finding.name for finding in findings if finding.state is State.BROKEN]
    if as_json:
        said = [{"check": one.name, "state": one.state.value, "message": one.sentence} for one in findings]
        print_json({"ok": not broken, "checks": said})
    else:
        OUT.print(f"Broken: {', '.join(broken)}. Begin with the first." if broken else "Nothing is broken.")
    if broken:
        raise typer.Exit(1)
