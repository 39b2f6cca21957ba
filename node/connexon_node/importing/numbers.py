"""Numbers as centers write them, as SQL of texts."""

from __future__ import annotations

from connexon_node.importing.sql import text
from connexon_node.importing.unreadable import marked

_WITH_COMMA = r"[+-]?\d+,\d+([eE][+-]?\d+)?"
GROUPED = r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?"
"""Thousands with points, as in 1.234.567,8; no number is grouped that begins with 0, such as 0.125."""
_WITH_POINT = r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?"


def number(value: str) -> str:
    """SQL of a text's number; what it gives for a text that is `no_number` says nothing."""
    return f"TRY_CAST({value} AS DOUBLE)"


def no_number(value: str) -> str:
    """A condition that is true where a text is no finite number such as 1.5, -2, .5 or 1e-3."""
    # DuckDB also casts 1_000 and +-1, and nothing else that is no number. A regular expression takes twice as long.
    return f"NOT coalesce(isfinite({number(value)}), false) OR contains({value}, '_') OR contains({value}, '+-')"


def with_point(value: str) -> str:
    """SQL of a text whose number is written with a decimal comma, written with a point; what is no number stays."""

    def like(form: str) -> str:
        return f"regexp_full_match({value}, {text(form)})"

    # A text such as 1.5 is a number already, or one whose points group badly: whoever wrote it knows, so it is refused.
    return (
        f"CASE WHEN {like(_WITH_COMMA)} THEN replace({value}, ',', '.') WHEN NOT contains({value}, '.') THEN {value} "
        f"WHEN {like(GROUPED)} THEN replace(replace({value}, '.', ''), ',', '.') "
        f"WHEN {like(_WITH_POINT)} THEN {marked(value)} ELSE {value} END"
    )
