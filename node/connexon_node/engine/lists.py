"""Lists of values in conditions, as one operation: ibis takes a tenth of a millisecond for each value of its own.

A list may be long without the question being so: `under` becomes the terms below that occur.
"""

from __future__ import annotations

import datetime
import re
from typing import Any as Expression
from typing import Any as Sql

import ibis.expr.datatypes as types
import ibis.expr.operations as ops
import ibis.expr.rules as rules
import sqlglot.expressions as sql
from ibis.backends.sql.compilers import DuckDBCompiler, PySparkCompiler

from connexon.conditions.filters import Scalar

_PLAIN = re.compile(r"[A-Za-z0-9 _.:+/-]*\Z")


class Among(ops.Value):  # type: ignore[misc]  # ibis brings no types
    """Whether a column, or an element of it where it holds `many`, equals one of the values; at least two."""

    arg: ops.Value
    values: tuple  # type: ignore[type-arg]  # ibis checks arguments by these, and knows no scalars of ours
    many: bool

    dtype = types.boolean
    shape = rules.shape_like("arg")


def among(column: Expression, values: tuple[Scalar, ...], *, many: bool) -> Expression:
    """The condition; missing where the column is."""
    return Among(column, values, many).to_expr()


class DuckCompiler(DuckDBCompiler):  # type: ignore[misc]  # ibis brings no types
    """ibis's, with lists."""

    __slots__ = ()

    def visit_Among(self, op: Among, *, arg: Sql, values: tuple[Scalar, ...], many: bool) -> Sql:  # noqa: N802  # ibis names it
        """SQL of the condition."""
        listed = _listed(values, self.dialect)
        return self.f.list_has_any(arg, sql.var(f"[{listed}]")) if many else _in(arg, listed)


class SparkCompiler(PySparkCompiler):  # type: ignore[misc]  # ibis brings no types
    """ibis's, with lists."""

    __slots__ = ()

    def visit_Among(self, op: Among, *, arg: Sql, values: tuple[Scalar, ...], many: bool) -> Sql:  # noqa: N802  # ibis names it
        """SQL of the condition."""
        listed = _listed(values, self.dialect)
        return self.f.anon.arrays_overlap(arg, sql.var(f"array({listed})")) if many else _in(arg, listed)


def _in(column: Sql, listed: str) -> Sql:
    return sql.In(this=column, expressions=[sql.var(listed)])


def _listed(values: tuple[Scalar, ...], dialect: Sql) -> str:
    return ", ".join(_literal(value, dialect) for value in values)


def _literal(value: Scalar, dialect: Sql) -> str:
    # INVARIANT: what a researcher wrote gets into SQL here: as a number, a date, or a text in quotes.
    match value:
        case str():
            return f"'{value}'" if _PLAIN.match(value) else str(sql.Literal.string(value).sql(dialect=dialect))
        case bool():
            return "TRUE" if value else "FALSE"
        case int():
            return str(int(value))
        case float():
            # With an exponent it is a double, and no decimal, in every dialect.
            text = repr(float(value))
            return text if "e" in text else f"{text}e0"
        case datetime.date():
            return f"DATE '{value.isoformat()}'"
