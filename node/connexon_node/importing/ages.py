"""Ages in ranges of five years, which is all that is kept of them."""

from __future__ import annotations

from collections.abc import Sequence

from connexon_node.importing.numbers import no_number, number
from connexon_node.importing.sql import text
from connexon_node.importing.unreadable import marked

OLDEST = 125
"""Years that nobody has lived longer than: a higher number is no age, or not in years."""


def age_range(years: int) -> str:
    """The range that holds an age in whole years, such as 40-44 or 90+."""
    low = years // 5 * 5
    return "90+" if years >= 90 else f"{low}-{low + 4}"


def age_range_sql(years: str, told: Sequence[str] = ()) -> str:
    """SQL of the range that holds an age, given as SQL of a text with years.

    What is no number from 0 to OLDEST is marked as refused; the words of `told` stay as they are.
    """
    age = number(years)
    low = f"(CAST(floor({age} / 5) AS INTEGER) * 5)"
    held = f"CASE WHEN {age} >= 90 THEN '90+' ELSE {low} || '-' || ({low} + 4) END"
    kept = f"WHEN {years} IN ({', '.join(map(text, told))}) THEN {years} " if told else ""
    return (
        f"CASE {kept}WHEN NOT ({no_number(years)}) AND {age} BETWEEN 0 AND {OLDEST} THEN {held} "
        f"ELSE {marked(years)} END"
    )
