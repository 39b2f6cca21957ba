"""Rows with what lies beside them: joins along the ways that the dictionary declares, as ibis expressions.

Only what DuckDB, Spark and others share is used here. `permitted` keeps of a table the rows whose donor may be counted.

INVARIANT: no row of a donor who may not be counted changes whether another donor's row is counted. The rows of `has`
are permitted ones; a row that is reached by its own donor path is of the same donor (the import sees to that); any
other row of personal data is looked at only where it is permitted, and else as if it were missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any as Expression

import ibis

from connexon import question
from connexon.question import Filter, Has, Not
from connexon_node.dictionary import DONORS, KEY, Dataset, Dictionary, Field, not_offered, relations
from connexon_node.engine.analyses.plan import DONOR
from connexon_node.engine.conditions import condition
from connexon_node.engine.plans import codes_table, table
from connexon_node.generations import Generation

Permitted = Callable[[Expression], Expression]


class Related:
    """Builds the tables of one question over the generations in force when it began."""

    def __init__(self, dictionary: Dictionary, current: Mapping[str, Generation], permitted: Permitted) -> None:
        self._dictionary = dictionary
        self._current = current
        self._permitted = permitted
        self._numbers = itertools.count()

    def rows(self, dataset: Dataset, checked: Filter | None, by: Iterable[str] = ()) -> Expression:
        """The permitted rows for which the filter is true, with a column for each field in `by`, paths included."""
        rows = self._table(dataset)
        if dataset.personal:
            rows = self._permitted(rows)
        rows = self._with_fields(rows, dataset, {*_fields_of(checked), *by})
        rows, found = self._with_has(rows, dataset, _has_of(checked))
        if checked is None:
            return rows
        return rows.filter(condition(checked, self._many(dataset), rows, found))

    def _many(self, dataset: Dataset) -> Callable[[str], bool]:
        def many(path: str) -> bool:
            _, place, name = relations.place(self._dictionary, dataset, path)
            return place.field(name).many

        return many

    def _with_fields(self, rows: Expression, dataset: Dataset, paths: Iterable[str]) -> Expression:
        """Columns `cell_line.donor.sex` for paths of that kind; each way is joined once."""
        by_way: dict[str, set[str]] = {}
        for path in paths:
            way, _, name = path.rpartition(".")
            while way:
                by_way.setdefault(way, set()).add(name)
                way, _, last = way.rpartition(".")
                name = f"{last}."
        for way in sorted(by_way, key=lambda one: (one.count("."), one)):
            before, _, last = way.rpartition(".")
            _, place, _ = relations.place(self._dictionary, dataset, f"{before}.x" if before else "x")
            taken = relations.step(self._dictionary, place, last)
            names = {name for name in by_way[way] if not name.endswith(".")}
            for name in by_way[way]:
                if name.endswith("."):
                    names |= self._needed(taken.target, name[:-1])
            rows = self._joined(rows, place, taken, before, {f"{way}.{name}": name for name in sorted(names)})
        return rows

    def _needed(self, dataset: Dataset, name: str) -> set[str]:
        """The columns of a dataset from which its way `name` sets out."""
        taken = relations.step(self._dictionary, dataset, name)
        if taken.target.name == DONORS and taken.field is None:
            return {DONOR}
        return {taken.field.name} if taken.field is not None else {KEY}

    def _joined(
        self, rows: Expression, place: Dataset, taken: relations.Step, before: str, columns: Mapping[str, str]
    ) -> Expression:
        """The rows with columns of the row that a step leads to; missing where it leads nowhere."""
        prefix = f"{before}." if before else ""
        target = self._table(taken.target)
        if taken.target.name == DONORS and taken.field is None:
            return self._left(rows, rows[f"{prefix}{DONOR}"], target, target[DONOR], columns)
        if taken.field is not None:
            if taken.target.personal and taken.field.name not in place.donor_through:
                target = self._permitted(target)
            target, key = self._keyed(target, place, taken.field)
            return self._left(rows, rows[f"{prefix}{taken.field.name}"], target, key, columns)
        name = self._fresh()
        if before:
            ways = self._ancestors(self._table(place), place, taken.target, name)
            rows = self._left(rows, rows[f"{prefix}{KEY}"], ways, ways[KEY], {name: name})
        else:
            rows = self._ancestors(rows, place, taken.target, name)
        return self._left(rows, rows[name], target, target[KEY], columns)

    def _keyed(self, target: Expression, place: Dataset, field: Field) -> tuple[Expression, Expression]:
        """The target of a reference, and the column of it that equals the reference as rows hold it."""
        if not field.coded:
            return target, target[KEY]
        codes = self._codes(place, field)
        named = target.inner_join(codes, target[KEY] == codes["value"])
        return named, named["code"]

    def _left(
        self, rows: Expression, left: Expression, other: Expression, right: Expression, columns: Mapping[str, str]
    ) -> Expression:
        key = self._fresh()
        taken = other.select(right.name(key), *(other[name].name(called) for called, name in columns.items()))
        return rows.left_join(taken, left == taken[key]).drop(key)

    def _with_has(self, rows: Expression, dataset: Dataset, wanted: Iterable[Has]) -> tuple[Expression, dict[Has, str]]:
        """A column for each `has`, present where it holds."""
        columns: dict[Has, str] = {}
        for one in wanted:
            if one in columns:
                continue
            way, _, _ = one.dataset.rpartition(".")
            _, place, name = relations.place(self._dictionary, dataset, one.dataset)
            other = relations.pointing(self._dictionary, place, name)
            keys, column = self._keys(self.rows(other, one.filter), other, place)
            pointed = f"{way}.{column}" if way else column
            if pointed not in rows.columns:
                rows = self._with_fields(rows, dataset, {pointed})
            columns[one] = self._fresh()
            keys = keys.mutate(**{columns[one]: ibis.literal(True)})
            rows = self._left(rows, rows[pointed], keys, keys["key"], {columns[one]: columns[one]})
        return rows, columns

    def pointing(
        self, dataset: Dataset, path: str, checked: Filter | None, by: Iterable[str]
    ) -> tuple[Expression, str, str]:
        """The permitted rows, for which the filter is true, of the dataset that `path` ends in.

        Also the name of their column that says which row of `dataset` they point to, missing where to none, and the
        path of the column of `dataset` that it equals.
        """
        way, _, _ = path.rpartition(".")
        _, place, name = relations.place(self._dictionary, dataset, path)
        other = relations.pointing(self._dictionary, place, name)
        rows, key, column = self._pointers(self.rows(other, checked, by), other, place)
        return rows, key, f"{way}.{column}" if way else column

    def _pointers(self, rows: Expression, dataset: Dataset, target: Dataset) -> tuple[Expression, str, str]:
        """As `_keys`, but each row is kept and has its key in the column that is named."""
        if target.name == DONORS and dataset.personal:
            return rows, DONOR, DONOR
        key = self._fresh()
        if relations.leads_to(self._dictionary, dataset, target):
            return self._ancestors(rows, dataset, target, key), key, KEY
        references = relations.chain(self._dictionary, dataset, target)
        assert references is not None
        for place, (at, field) in enumerate(references):
            name = field.name
            if place:
                parent = self._table(at)
                if at.personal:
                    parent = self._permitted(parent)
                name = self._fresh()
                rows = self._left(rows, rows[key], parent, parent[KEY], {name: field.name})
            key = name
            if field.coded:
                codes, key = self._codes(at, field), self._fresh()
                rows = self._left(rows, rows[name], codes, codes["code"], {key: "value"})
        return rows, key, KEY

    def _keys(self, rows: Expression, dataset: Dataset, target: Dataset) -> tuple[Expression, str]:
        """The distinct rows of `target` that rows point to, as column `key`, and the column of target it equals."""
        if target.name == DONORS and dataset.personal:
            return rows.select(rows[DONOR].name("key")).distinct(), DONOR
        if relations.leads_to(self._dictionary, dataset, target):
            rows = self._ancestors(rows, dataset, target, "key")
            return _distinct(rows, "key"), KEY
        references = relations.chain(self._dictionary, dataset, target)
        assert references is not None
        for place, (at, field) in enumerate(references):
            name = field.name if place == 0 else "key"
            if place:
                parent = self._table(at)
                if at.personal:
                    parent = self._permitted(parent)
                rows = parent.semi_join(rows, parent[KEY] == rows["key"])
                name = field.name
            if field.coded:
                codes = self._codes(at, field)
                rows = codes.semi_join(rows, codes["code"] == rows[name])
                name = "value"
            rows = _distinct(rows.select(rows[name].name("key")), "key")
        return rows, KEY

    def _ancestors(self, rows: Expression, dataset: Dataset, target: Dataset, name: str) -> Expression:
        """The rows with the column `name`: the id of the row of `target` that their paths to the donor lead through."""
        found = []
        for field in map(dataset.field, dataset.donor_through):
            parent = self._dictionary.dataset(field.references)
            if parent.name not in self._current:
                continue
            if parent == target and not field.coded:
                found.append(field.name)
                continue
            if parent != target and not relations.leads_to(self._dictionary, parent, target):
                continue
            column = self._fresh()
            above = self._table(parent)
            if parent == target:
                above = above.mutate(**{column: above[KEY]})
            else:
                above = self._ancestors(above, parent, target, column)
            above = above.select(KEY, column)
            above, key = self._keyed(above, dataset, field)
            rows = self._left(rows, rows[field.name], above, key, {column: column})
            found.append(column)
        keys = [rows[column] for column in found]
        key = keys[0] if len(keys) == 1 else ibis.coalesce(*keys)
        return rows.mutate(**{name: key})

    def _table(self, dataset: Dataset) -> Expression:
        return table(dataset, self._generation(dataset))

    def _codes(self, dataset: Dataset, field: Field) -> Expression:
        return codes_table(dataset, field, self._generation(dataset))

    def _generation(self, dataset: Dataset) -> Generation:
        if dataset.name not in self._current:
            raise not_offered(dataset.name)
        return self._current[dataset.name]

    def _fresh(self) -> str:
        return f"_{next(self._numbers)}"


def _distinct(rows: Expression, name: str) -> Expression:
    return rows.select(name).distinct()


def _fields_of(node: Filter | None) -> Iterable[str]:
    """The fields that a filter names of the rows themselves, not of those inside `has`."""
    match node:
        case None | Has():
            return
        case question.All(filters) | question.Any(filters):
            for child in filters:
                yield from _fields_of(child)
        case Not(child):
            yield from _fields_of(child)
        case question.DescendsFrom():
            raise TypeError("an unchecked filter came to the engine")
        case leaf:
            yield leaf.field


def _has_of(node: Filter | None) -> Iterable[Has]:
    match node:
        case Has():
            yield node
        case question.All(filters) | question.Any(filters):
            for child in filters:
                yield from _has_of(child)
        case Not(child):
            yield from _has_of(child)
        case _:
            return
