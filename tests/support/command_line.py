"""A command line run within the process of the test, as its console script runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from connexon.console import ERR, OUT


@dataclass
class Ran:
    """What a run left."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """What it said on standard error, in one line."""
        return " ".join(self.err.split())


Run = Callable[..., Ran]


def runner(
    main: Callable[[], NoReturn],
    command: str,
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """A function that runs a command with these words, on a terminal of so many columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    # A console that was made while COLUMNS was another number keeps that one.
    for console in (OUT, ERR):
        monkeypatch.setattr(console, "_width", None)

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", [command, *words])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Ran(int(left.value.code or 0), captured.out, captured.err)

    return run
