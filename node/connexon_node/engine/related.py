"""Rows with what lies beside them: joins along the ways that the dictionary declares, as ibis expressions.

Only what DuckDB, Spark and others share is used here. `permitted` keeps of a table the rows whose donor may be counted.

INVARIANT: no row of a donor who may not be counted changes whether another donor's row is counted. The rows of `has`
are permitted ones; a row that is reached by its own donor path is of the same donor (the import sees to that); any
other row of personal data is looked at only where it is permitted, and else as if it were missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any as Expression

import ibis

from connexon.conditions.filters import Filter, Has
from connexon_node.analyses.spec import DONOR
from connexon_node.data.dictionary import DONORS, KEY, Dataset, Dictionary, Field, not_offered, relations
from connexon_node.data.generations import Generation
from connexon_node.engine.conditions import common_values, condition, either, fields_of, has_of
from connexon_node.engine.joins import Joins, distinct, kept, project
from connexon_node.engine.plans import codes_table, table

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
        rows, conditions = self._with_conditions(dataset, (checked,), by)
        return rows if checked is None else kept(rows, conditions[0])

    def judged(self, dataset: Dataset, named: Mapping[str, Filter], by: Iterable[str]) -> Expression:
        """Every permitted row: its donor, a column for each field in `by`, and whether each condition holds."""
        # Without a condition beside them, rows that fulfil none would be left out.
        rows, conditions = self._with_conditions(dataset, (*named.values(), None), by)
        columns = {name: rows[name] for name in (DONOR, *by)}
        return project(rows, {**columns, **dict(zip(named, conditions, strict=False))})

    def _with_conditions(
        self, dataset: Dataset, filters: Sequence[Filter | None], by: Iterable[str] = ()
    ) -> tuple[Expression, list[Expression]]:
        """The permitted rows with the columns that the filters and `by` name, and the filters as conditions on them."""
        rows = self._table(dataset)
        if dataset.personal:
            rows = self._permitted(rows)
        together = common_values(filters, self._many(dataset)) if len(filters) > 1 else None
        if together is not None:
            rows = kept(rows, condition(together, self._many(dataset), rows, {}))
        joins = Joins(rows)
        looked_into = list(dict.fromkeys(has for one in filters for has in has_of(one)))
        needed = {*by, *(path for one in filters for path in fields_of(one))}
        self._add_fields(joins, dataset, needed | {self._looked_through(dataset, one.dataset) for one in looked_into})
        found = self._add_has(joins, dataset, looked_into)
        rows, many = joins.table(), self._many(dataset)
        return rows, [ibis.literal(True) if one is None else condition(one, many, rows, found) for one in filters]

    def _many(self, dataset: Dataset) -> Callable[[str], bool]:
        def many(path: str) -> bool:
            _, place, name = relations.place(self._dictionary, dataset, path)
            return place.field(name).many

        return many

    def _add_fields(self, joins: Joins, dataset: Dataset, paths: Iterable[str]) -> None:
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
            self._add_step(joins, place, taken, before, {f"{way}.{name}": name for name in sorted(names)})

    def _needed(self, dataset: Dataset, name: str) -> set[str]:
        """The columns of a dataset from which its way `name` sets out."""
        taken = relations.step(self._dictionary, dataset, name)
        if taken.target.name == DONORS and taken.field is None:
            return {DONOR}
        if taken.field is not None:
            return {taken.field.name}
        return set(dataset.donor_through)

    def _add_step(
        self, joins: Joins, place: Dataset, taken: relations.Step, before: str, columns: Mapping[str, str]
    ) -> None:
        """Columns of the row that a step leads to; missing where it leads nowhere."""
        prefix = f"{before}." if before else ""
        target = self._table(taken.target)
        if taken.target.name == DONORS and taken.field is None:
            joins.join(f"{prefix}{DONOR}", target, DONOR, columns)
        elif taken.field is not None:
            if taken.target.personal and taken.field.name not in place.donor_through:
                target = self._permitted(target)
            named = self._named(joins, f"{prefix}{taken.field.name}", place, taken.field)
            joins.join(named, target, KEY, columns)
        else:
            joins.join(self._add_ancestor(joins, prefix, place, taken.target), target, KEY, columns)

    def _named(self, joins: Joins, column: str, place: Dataset, field: Field) -> str:
        """The column of a reference's values, which that of a coded one does not hold itself."""
        if not field.coded:
            return column
        value = self._fresh()
        joins.join(column, self._codes(place, field), "code", {value: "value"})
        return value

    def _add_ancestor(self, joins: Joins, prefix: str, dataset: Dataset, target: Dataset) -> str:
        """A column with the id of the row of `target` that the paths to the donor lead through.

        The columns of `dataset` are those that begin with `prefix`.
        """
        found = []
        for field in map(dataset.field, dataset.donor_through):
            parent = self._dictionary.dataset(field.references)
            if parent.name not in self._current:
                continue
            if parent == target and not field.coded:
                found.append(f"{prefix}{field.name}")
                continue
            if parent != target and not relations.leads_to(self._dictionary, parent, target):
                continue
            named = self._named(joins, f"{prefix}{field.name}", dataset, field)
            above = f"{self._fresh()}."
            taken = (KEY,) if parent == target else parent.donor_through
            joins.join(named, self._table(parent), KEY, {f"{above}{name}": name for name in taken})
            found.append(above + KEY if parent == target else self._add_ancestor(joins, above, parent, target))
        name = self._fresh()
        joins.first_present(name, found)
        return name

    def _looked_through(self, dataset: Dataset, path: str) -> str:
        """The path of the column of `dataset` that rows of the dataset that `path` ends in point to."""
        way, _, _ = path.rpartition(".")
        _, place, name = relations.place(self._dictionary, dataset, path)
        other = relations.pointing(self._dictionary, place, name)
        column = DONOR if place.name == DONORS and other.personal else KEY
        return f"{way}.{column}" if way else column

    def _add_has(self, joins: Joins, dataset: Dataset, wanted: Iterable[Has]) -> dict[Has, str]:
        """A column for each `has`, present where it holds; all that look into one dataset by one way are one join."""
        by_path: dict[str, list[Has]] = {}
        for one in wanted:
            by_path.setdefault(one.dataset, []).append(one)
        columns: dict[Has, str] = {}
        for path, several in by_path.items():
            _, place, name = relations.place(self._dictionary, dataset, path)
            other = relations.pointing(self._dictionary, place, name)
            keys, flags = self._keys(other, place, [one.filter for one in several])
            named = {self._fresh(): flag for flag in flags}
            joins.join(self._looked_through(dataset, path), keys, "key", named)
            columns.update(zip(several, named, strict=True))
        return columns

    def _keys(
        self, dataset: Dataset, target: Dataset, filters: Sequence[Filter | None]
    ) -> tuple[Expression, list[str]]:
        """The rows of `target` that permitted rows for which any filter is true point to, each once, as column `key`.

        Also the names of its other columns, one for each filter: present where such a row fulfils it.
        """
        rows, conditions = self._with_conditions(dataset, filters)
        flags = [self._fresh() for _ in filters]
        if len(filters) == 1:
            rows = rows if filters[0] is None else kept(rows, conditions[0])
            keys = self._pointed(rows, dataset, target, ())
            return project(keys, {"key": keys["key"], flags[0]: ibis.literal(True)}), flags
        present = (one.ifelse(True, ibis.null("boolean")) for one in conditions)
        columns = {name: rows[name] for name in rows.columns}
        rows = project(rows, {**columns, **dict(zip(flags, present, strict=True))})
        rows = kept(rows, either([rows[flag].notnull() for flag in flags]))
        return self._pointed(rows, dataset, target, flags), flags

    def _pointed(self, rows: Expression, dataset: Dataset, target: Dataset, flags: Sequence[str]) -> Expression:
        """The distinct rows of `target` that rows point to, as column `key`, with the flags that any such row has."""
        if target.name == DONORS and dataset.personal:
            return distinct(rows, DONOR, flags)
        if relations.leads_to(self._dictionary, dataset, target):
            joins = Joins(rows)
            key = self._add_ancestor(joins, "", dataset, target)
            return distinct(joins.table({"key": key, **{flag: flag for flag in flags}}), "key", flags)
        references = relations.chain(self._dictionary, dataset, target)
        assert references is not None
        for place, (at, field) in enumerate(references):
            if place:
                parent = self._table(at)
                if at.personal:
                    parent = self._permitted(parent)
                rows = _through(rows, parent, KEY, field.name, flags)
            rows = distinct(rows, "key" if place else field.name, flags)
            if field.coded:
                rows = distinct(_through(rows, self._codes(at, field), "code", "value", flags), "key", flags)
        return rows

    def pointing(
        self, dataset: Dataset, path: str, checked: Filter | None, by: Iterable[str]
    ) -> tuple[Expression, str, str]:
        """The permitted rows, for which the filter is true, of the dataset that `path` ends in.

        Also the name of their column that says which row of `dataset` they point to, missing where to none, and the
        path of the column of `dataset` that it equals.
        """
        _, place, name = relations.place(self._dictionary, dataset, path)
        other = relations.pointing(self._dictionary, place, name)
        rows, key = self._pointers(self.rows(other, checked, by), other, place)
        return rows, key, self._looked_through(dataset, path)

    def _pointers(self, rows: Expression, dataset: Dataset, target: Dataset) -> tuple[Expression, str]:
        """As `_pointed`, but each row is kept and has its key in the column that is named."""
        if target.name == DONORS and dataset.personal:
            return rows, DONOR
        joins = Joins(rows)
        if relations.leads_to(self._dictionary, dataset, target):
            key = self._add_ancestor(joins, "", dataset, target)
            return joins.table(), key
        references = relations.chain(self._dictionary, dataset, target)
        assert references is not None
        key = ""
        for place, (at, field) in enumerate(references):
            name = field.name
            if place:
                parent = self._table(at)
                if at.personal:
                    parent = self._permitted(parent)
                name = self._fresh()
                joins.join(key, parent, KEY, {name: field.name})
            key = self._named(joins, name, at, field)
        return joins.table(), key

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


def _through(keys: Expression, parent: Expression, key: str, name: str, flags: Sequence[str]) -> Expression:
    """The rows of `parent` whose `key` is among the keys: their column `name`, as column `key`, and the flags."""
    joins = Joins(keys)
    found = "parent"
    joins.join("key", parent, key, {found: name}, "inner")
    return joins.table({"key": found, **{flag: flag for flag in flags}})
