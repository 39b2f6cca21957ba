"""Numbers as centers write them, as SQL of texts."""

from __future__ import annotations


def number(value: str) -> str:
    """SQL of a text's number; what it gives for a text that is `no_number` says nothing."""
    return f"TRY_CAST({value} AS DOUBLE)"


def no_number(value: str) -> str:
    """A condition that is true where a text is no finite number such as 1.5, -2, .5 or 1e-3."""
    # DuckDB also casts 1_000 and +-1, and nothing else that is no number. A regular expression takes twice as long.
    return (
        f"{number(value)} IS NULL OR NOT isfinite({number(value)}) OR contains({value}, '_') OR contains({value}, '+-')"
    )
