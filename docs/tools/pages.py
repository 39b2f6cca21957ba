"""Pages made from the code, and whether those in the tree are up to date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.tools import commands, errors

DOCS = Path(__file__).parents[1]
PAGES: dict[str, Callable[[], str]] = {"commands.md": commands.page, "errors.md": errors.page}
"""Each page's file in docs/, and the function that writes its text."""


def write() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


def stale() -> list[str]:
    """The pages that no longer say what the code says."""
    return [name for name, page in PAGES.items() if (DOCS / name).read_text(encoding="utf-8") != page()]
