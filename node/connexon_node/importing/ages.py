"""Ages in ranges of five years, which is all that is kept of them."""

from __future__ import annotations


def age_range(years: int) -> str:
    """The range that holds an age in whole years, such as 40-44 or 90+."""
    low = years // 5 * 5
    return "90+" if years >= 90 else f"{low}-{low + 4}"


def age_range_sql(years: str) -> str:
    """SQL of the range that holds an age, given as SQL of a text with years; what is no number gives no range."""
    age = f"TRY_CAST({years} AS DOUBLE)"
    low = f"(CAST(floor({age} / 5) AS INTEGER) * 5)"
    return f"CASE WHEN {age} IS NULL THEN NULL WHEN {age} >= 90 THEN '90+' ELSE {low} || '-' || ({low} + 4) END"
