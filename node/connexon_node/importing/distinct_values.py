"""Values that recur: where few values fill many rows, what is true of a value is found out once for all its rows."""

from __future__ import annotations

import re
from typing import Any as Connection

from connexon_node.data.dictionary import Dataset, Field
from connexon_node.importing.sql import quoted

ROWS = "_rows"
"""The column with how many rows have a value."""
EVERY = f'(SELECT *, 1 AS {ROWS} FROM staged WHERE rowid NOT IN (SELECT "row" FROM unread))'
"""Every row that is a record."""
_WORTH = 100_000
"""Rows below which looking at each is quick enough."""
_RECURS = 10
"""How often a value must occur on average, so that finding the distinct ones pays."""


class Recurring:
    """Tables of distinct values of table `staged`, made when first wanted."""

    def __init__(self, connection: Connection, dataset: Dataset) -> None:
        self._connection = connection
        self._dataset = dataset
        self._tables: dict[str, str] = {}
        self._estimated: dict[str, float] | None = None

    def table(self, field: Field) -> str:
        """SQL of a table with a column of the field's name and how many rows have its value: ROWS.

        Where values recur it has each once, with the least and the greatest of each alias; elsewhere it is EVERY.
        """
        if field.name not in self._tables:
            self._tables[field.name] = self._made(field) if self._recurs(field) else EVERY
        return self._tables[field.name]

    def recurs(self, field: Field) -> bool:
        """Whether `table` has each value once."""
        return self.table(field) != EVERY

    def _made(self, field: Field) -> str:
        table = quoted(f"values of {field.name}")
        aliases = "".join(
            f", min({quoted(alias.name)}) AS {least(alias)}, max({quoted(alias.name)}) AS {greatest(alias)}"
            for alias in self._dataset.aliases(field)
        )
        self._connection.execute(
            f"CREATE TABLE {table} AS SELECT {quoted(field.name)}, count(*) AS {ROWS}{aliases} FROM staged "
            'WHERE rowid NOT IN (SELECT "row" FROM unread) GROUP BY 1'
        )
        return table

    def _recurs(self, field: Field) -> bool:
        if self._estimated is None:
            self._estimated = self._estimates()
        return self._estimated.get(field.name, 0.0) >= _RECURS

    def _estimates(self) -> dict[str, float]:
        """How often a value of each field occurs on average, as the database guessed while it was filled."""
        ((rows,),) = self._connection.execute("SELECT count(*) FROM staged").fetchall()
        if rows < _WORTH:
            return {}
        names = [field.name for field in self._dataset.fields]
        told = ", ".join(f"stats({quoted(name)})" for name in names)
        (statistics,) = self._connection.execute(f"SELECT {told} FROM staged LIMIT 1").fetchall()
        distinct = [re.search(r"Approx Unique: (\d+)", one) for one in statistics]
        return {name: rows / max(1, int(one[1])) for name, one in zip(names, distinct, strict=True) if one}


def least(alias: Field) -> str:
    """The column with the first of an alias's texts beside a value."""
    return quoted(f"least {alias.name}")


def greatest(alias: Field) -> str:
    """The column with the last of them; another than the first where they contradict each other."""
    return quoted(f"greatest {alias.name}")
