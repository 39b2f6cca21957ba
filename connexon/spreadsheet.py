"""Tables that people open in a spreadsheet: a cell that begins like a formula is computed there, whoever wrote it."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"[=+\-@\t\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\Z")
_GUARD = "'"


def inert(value: object) -> object:
    """The value as a cell that no spreadsheet computes: text that begins like a formula gets an apostrophe before it.

    Numbers stay, also those written as text. `unguarded` takes the apostrophe off.
    """
    if not isinstance(value, str):
        return value
    # Python's csv puts no quotes around a carriage return where lines end otherwise, and a cell would begin after it.
    cell = value.replace("\r\n", "\n").replace("\r", "\n")
    return _GUARD + cell if _FORMULA.match(cell) and not _NUMBER.match(cell) else cell


def unguarded(text: str) -> str:
    """What `inert` made of a text, as it was."""
    return text[1:] if text.startswith(_GUARD) and _FORMULA.match(text, 1) else text
