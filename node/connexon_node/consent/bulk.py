"""Many rows at a time, as each database likes it best: SQLite row by row and JSON lists, PostgreSQL arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, bindparam, func, text


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, tail: str = "") -> None:
    """Insert rows, which all have every column. `tail` is what follows, such as "on conflict ... do update ..."."""
    if not rows:
        return
    names = [column.name for column in table.columns]
    head = f"insert into {table.name} ({', '.join(_quoted(name) for name in names)})"
    if connection.dialect.name == "sqlite":
        values = ", ".join(f":{name}" for name in names)
        connection.execute(text(f"{head} values ({values}) {tail}"), list(rows))
        return
    arrays = ", ".join(f"cast(:{c.name} as {c.type.compile(connection.dialect)}[])" for c in table.columns)
    columns = {name: [row[name] for row in rows] for name in names}
    statement = f"{head} select * from unnest({arrays}) {tail}"  # noqa: S608 - made of our own column names only
    connection.execute(text(statement), columns)


def where_in(
    connection: Connection, query: Select[Any], column: Column[Any], values: Sequence[Any]
) -> tuple[Select[Any], dict[str, Any]]:
    """The query narrowed to rows whose `column` is among `values`, however many, and the parameters it then needs."""
    if connection.dialect.name == "sqlite":
        listed = func.json_each(bindparam("listed")).table_valued("value")
        return query.where(column.in_(listed.select())), {"listed": json.dumps(list(values))}
    array = text(f"{_quoted(column.name)} = any(cast(:listed as {column.type.compile(connection.dialect)}[]))")
    return query.where(array), {"listed": list(values)}


def _quoted(name: str) -> str:
    return f'"{name}"'
