"""Text from elsewhere, made safe to show: a center must not be able to move a reader's cursor."""

from __future__ import annotations

LONGEST = 2_000


def plain(text: str) -> str:
    """The text without control characters and in a bearable length."""
    cut = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return cut if cut.isprintable() else "".join(char if char.isprintable() else "�" for char in cut)


def shown(value: object) -> str:
    """A value of a field as people read it."""
    return "(not collected)" if value is None else plain(spelled(value))


def spelled(value: object) -> str:
    """A value of a field as text, whole and as it is: not yet safe to show."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
