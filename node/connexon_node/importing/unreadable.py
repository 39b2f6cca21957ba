"""Values that a step of the mapping cannot read are marked, so that their rows are bad and the report says why."""

from __future__ import annotations

_MARK = "chr(1)"


def marked(value: str) -> str:
    """SQL of a value that is refused; of a missing one, nothing."""
    return f"{value} || {_MARK}"


def is_marked(value: str) -> str:
    """A condition that is true where a value is refused, and false elsewhere."""
    return f"coalesce(suffix({value}, {_MARK}), false)"


def shown(value: str) -> str:
    """SQL of a value as the report shows it."""
    return f"left(rtrim({value}, {_MARK}), 60)"
