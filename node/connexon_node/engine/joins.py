"""Rows with columns of other tables beside them, as one chain of joins.

Straight from ibis's operations: `left_join`, `select` and `drop` rewrite all that was built so far, once for each
join, so that a question over ten tables took a tenth of a second to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any as Expression
from typing import Any as Operation
from typing import Literal

import ibis.expr.operations as ops
from ibis.expr.types import Table

Kind = Literal["left", "inner"]


class Joins:
    """A table being joined with others. Columns go by name; those of a joined table only where they are taken."""

    def __init__(self, rows: Expression) -> None:
        self._rows = rows
        self._first = ops.JoinReference(rows.op(), identifier=0)
        self._values: dict[str, Operation] = {name: ops.Field(self._first, name) for name in rows.columns}
        self._links: list[Operation] = []

    def __contains__(self, column: str) -> bool:
        return column in self._values

    def join(self, column: str, other: Expression, key: str, columns: Mapping[str, str], how: Kind = "left") -> None:
        """Join the rows of `other` whose `key` equals `column`, and take `columns` of them: name here to name there."""
        reference = ops.JoinReference(other.op(), identifier=len(self._links) + 1)
        equal = ops.Equals(self._values[column], ops.Field(reference, key))
        self._links.append(ops.JoinLink(how, reference, (equal,)))
        for here, there in columns.items():
            self._values[here] = ops.Field(reference, there)

    def first_present(self, name: str, columns: Sequence[str]) -> None:
        """The column `name`: the first of these columns that is not missing."""
        values = tuple(self._values[column] for column in columns)
        self._values[name] = values[0] if len(values) == 1 else ops.Coalesce(values)

    def table(self, columns: Mapping[str, str] | None = None) -> Expression:
        """What came of it: all columns, or `columns`, name there to name here."""
        if columns is None and not self._links and len(self._values) == len(self._rows.columns):
            return self._rows
        taken = self._values if columns is None else {name: self._values[here] for name, here in columns.items()}
        return Table(ops.JoinChain(self._first, tuple(self._links), taken))


def kept(rows: Expression, condition: Expression) -> Expression:
    """The rows for which a condition on their own columns is true."""
    return Table(ops.Filter(rows.op(), (condition.op(),)))


def project(rows: Expression, columns: Mapping[str, Expression]) -> Expression:
    """Columns made of the rows' own."""
    return Table(ops.Project(rows.op(), {name: column.op() for name, column in columns.items()}))


def distinct(rows: Expression, name: str, flags: Sequence[str]) -> Expression:
    """The distinct values of a column, as column `key`, with the flags that any row of theirs has."""
    if not flags:
        return Table(ops.Distinct(project(rows, {"key": rows[name]}).op()))
    present = {flag: ops.Any(rows[flag].op()) for flag in flags}
    return Table(ops.Aggregate(rows.op(), {"key": rows[name].op()}, present))
