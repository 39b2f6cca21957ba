"""Groups of an answer: by which fields they may be, and how many."""

from __future__ import annotations

from collections.abc import Iterable

from connexon.errors import InvalidQuery
from connexon_node.analyses.spec import Rows
from connexon_node.data.dictionary import Dataset, Dictionary, relations

MAXIMUM_CELLS = 20_000
"""Groups of one answer."""


def require_groupable(by: Iterable[str], dataset: Dataset, dictionary: Dictionary) -> None:
    """Raise InvalidQuery for a field with too many values to group by."""
    for path in by:
        at, field = relations.field_at(dictionary, dataset, path)
        if not field.groupable:
            groupable = ", ".join(other.name for other in at.offered if other.groupable)
            raise InvalidQuery(
                f"{at.name}.{field.name} has too many different values to count by; count by one of: {groupable}.",
                code="field.not_groupable",
            )


def require_few(by: Iterable[str], rows: Rows) -> None:
    """Raise InvalidQuery for more groups than an answer may have."""
    if len(rows) > MAXIMUM_CELLS:
        raise InvalidQuery(
            f"Grouping by {', '.join(by)} gives more than {MAXIMUM_CELLS} groups; group by fewer fields.",
            code="query.too_many_groups",
        )
