"""Options that many commands have, each with the same words."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.markup import escape

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ByOption = Annotated[str, typer.Option("--by", help="Who does it.", show_default="the user who is logged in")]


def by_whom(by: str) -> str:
    """Whoever --by names, or the user who is logged in."""
    return by or getpass.getuser()


def why(text: str) -> str:
    """A reason to end a line with, escaped; empty where none was given."""
    return f": {escape(text)}" if text else ""
