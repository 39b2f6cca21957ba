"""Ctrl-C while something is waited for: it runs on, and the way back to it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from connexon.console import ERR

STOPPED = 130
"""The exit code after Ctrl-C."""
T = TypeVar("T")


def until_stopped(
    work: Callable[[Callable[[T], None]], T],
    show: Callable[[T], None],
    *,
    id_of: Callable[[T], str],
    words: str,
    back: Sequence[str],
    known_id: str = "",
) -> T:
    """Do the work, which tells how far it is; on Ctrl-C say `words`, and the commands `back` with the query's id."""
    latest = known_id

    def track(found: T) -> None:
        nonlocal latest
        latest = id_of(found)
        show(found)

    try:
        return work(track)
    except KeyboardInterrupt:
        ERR.print(words if latest else "Stopped before anything was asked.", markup=False)
        for command in back if latest else ():
            ERR.print(f"  {command} {latest}", markup=False)
        raise typer.Exit(STOPPED) from None
