"""Compiled questions: ibis to the database's SQL, once per question and generation.

Building and compiling an expression takes 3 to 50 ms, so the text is kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any as Compiler
from typing import Any as Expression
from typing import TypeVar

import ibis

from connexon.analyses.spec import Analysis
from connexon.conditions.filters import Filter
from connexon_node.analyses.spec import DONOR
from connexon_node.data.dictionary import Dataset, Field, FieldType
from connexon_node.data.generations import Generation

T = TypeVar("T")
Key = bytes
"""SHA-256 of the generations in force, dataset, checked filter and analysis: what the SQL depends on. The cohort is no
part of it."""
KEPT = 500
KEPT_CHARACTERS = 16_000_000
"""Of all kept SQL together."""
IBIS_TYPES = {
    FieldType.TEXT: "string",
    FieldType.TERM: "string",
    FieldType.INTEGER: "int64",
    FieldType.NUMBER: "float64",
    FieldType.BOOLEAN: "boolean",
    FieldType.DATE: "date",
}


def view_name(generation: Generation) -> str:
    """The view over one generation: a switch makes a new one and leaves running queries theirs."""
    return f"{generation.dataset}_{generation.number:06d}"


def table(dataset: Dataset, generation: Generation) -> Expression:
    """The dataset as an ibis table, with the hidden donor column."""
    columns = {field.name: _type_of(field) for field in dataset.stored}
    return ibis.table({DONOR: "int32", **columns}, name=view_name(generation))


def codes_view(generation: Generation, field: Field) -> str:
    """The view over the codes of a coded field of one generation."""
    return f"{view_name(generation)}_codes_{field.name}"


def codes_table(dataset: Dataset, field: Field, generation: Generation) -> Expression:
    """The codes of a coded field as an ibis table: code, value, and the other names of the value."""
    names = {alias.name: "string" for alias in dataset.aliases(field)}
    return ibis.table({"code": "int32", "value": "string", **names}, name=codes_view(generation, field))


def _type_of(field: Field) -> str:
    if field.coded:
        return "int32"
    return f"array<{IBIS_TYPES[field.type]}>" if field.many else IBIS_TYPES[field.type]


def key_of(dataset: Dataset, current: Mapping[str, Generation], checked: Filter | None, analysis: Analysis) -> Key:
    """What tells one question's SQL from another's. By text, since 1, 1.0 and True are equal but not the same."""
    told = repr((dataset.name, sorted(map(view_name, current.values())), checked, analysis))
    return hashlib.sha256(told.encode(errors="surrogatepass")).digest()


class CompiledQuestions:
    """The SQL of the latest questions. Thread-safe.

    INVARIANT: expressions are made and compiled under one lock. ibis remembers by memory address which of its nodes
    are equal, for all threads; two that compile at once could take one condition for another, and count wrongly. Nobody
    waits long: what a question may hold is bounded when it is read (connexon.conditions.cost).
    """

    def __init__(self, compiler: Compiler) -> None:
        self._compiling = threading.Lock()
        self._lock = threading.Lock()
        self._compiler = compiler
        self._kept: OrderedDict[Key, str] = OrderedDict()
        self._size = 0

    def known(self, key: Key) -> str | None:
        """The SQL for `key` if it is still kept. Waits for nothing that is being compiled."""
        with self._lock:
            sql = self._kept.get(key)
            if sql is not None:
                self._kept.move_to_end(key)
            return sql

    def made(self, build: Callable[[], T]) -> T:
        """Whatever else is made of ibis's expressions, made in its turn."""
        with self._compiling:
            return build()

    def compile(self, build: Callable[[], Expression], key: Key | None = None) -> str:
        """Build an expression and return its SQL; keep it where a key is given."""
        sql = self.made(lambda: self._compiled(build))
        if key is not None and len(sql) <= KEPT_CHARACTERS:
            self._keep(key, sql)
        return sql

    def _compiled(self, build: Callable[[], Expression]) -> str:
        # Straight through the compiler: ibis.to_sql also lays the text out in lines, at a greater cost.
        return str(self._compiler.to_sqlglot(build()).sql(dialect=self._compiler.dialect, copy=False))

    def _keep(self, key: Key, sql: str) -> None:
        with self._lock:
            self._size += len(sql) - len(self._kept.pop(key, ""))
            self._kept[key] = sql
            while len(self._kept) > KEPT or self._size > KEPT_CHARACTERS:
                self._size -= len(self._kept.popitem(last=False)[1])
