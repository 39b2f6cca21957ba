"""What occurs in the generations in force: views over their files, terms, codes, lines. It never leaves the engine."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any as Expression

from connexon_node.analyses.spec import Rows
from connexon_node.data.dictionary import Dataset, Dictionary, Field, not_offered
from connexon_node.data.generations import Generation
from connexon_node.engine.checking import LINES
from connexon_node.engine.fetching import fetched
from connexon_node.engine.plans import CompiledQuestions, codes_table, codes_view, table, view_name
from connexon_node.engine.session import Session

CODES_KEPT = 500
"""Looked-up lists of codes in memory."""
PUBLIC_NAMES = ("hpscreg_name", "rrid")
"""The names under which lines are known in public registries, and may be asked by."""


class Occurring:
    """Shared by all queries of an engine. Thread-safe."""

    def __init__(self, dictionary: Dictionary, compiled: CompiledQuestions) -> None:
        self._dictionary = dictionary
        self._compiled = compiled
        self._values: dict[tuple[str, str], frozenset[str]] = {}
        self._codes: OrderedDict[tuple[str, str, tuple[str, ...]], tuple[int, ...]] = OrderedDict()
        self._lineage: tuple[str, Lineage] | None = None
        self._lock = threading.Lock()

    def at(self, current: Mapping[str, Generation], session: Session) -> Moment:
        """What occurs in these generations, read in this session where it is not known yet."""
        for dataset in self._dictionary.datasets:
            if dataset.name in current and not session.offers(view_name(current[dataset.name])):
                self._offer(dataset, current[dataset.name], session)
        return Moment(self, current, session)

    def values(self, dataset: Dataset, field: Field, generation: Generation, session: Session) -> frozenset[str]:
        """The distinct values of a field in a generation, read once."""
        key = (view_name(generation), field.name)
        values = self._values.get(key)
        if values is None:

            def build() -> Expression:
                column = table(dataset, generation)[field.name]
                return (column.unnest() if field.many else column).name("value").as_table().distinct()

            rows = fetched(session.fetch(self._compiled.compile(build)))
            values = self._values[key] = frozenset(str(value) for (value,) in rows if value is not None)
        return values

    def codes(
        self, dataset: Dataset, field: Field, names: tuple[str, ...], generation: Generation, session: Session
    ) -> tuple[int, ...]:
        """The codes of the values that have one of the names."""
        coded = dataset.field(field.alias_of) if field.alias_of else field
        key = (view_name(generation), field.name, names)
        with self._lock:
            known = self._codes.get(key)
        if known is not None:
            return known

        def build() -> Expression:
            codes = codes_table(dataset, coded, generation)
            return codes.filter(codes[field.name if field.alias_of else "value"].isin(names)).select("code")

        rows = fetched(session.fetch(self._compiled.compile(build)))
        found = tuple(sorted(int(str(code)) for (code,) in rows))
        with self._lock:
            self._codes[key] = found
            if len(self._codes) > CODES_KEPT:
                self._codes.popitem(last=False)
        return found

    def lineage(self, generation: Generation, session: Session) -> Lineage:
        """Who was derived from whom, read once per generation."""
        known = self._lineage
        if known is None or known[0] != view_name(generation):
            lines = self._dictionary.dataset(LINES)

            def build() -> Expression:
                return table(lines, generation).select("id", "parent_line_id", *PUBLIC_NAMES)

            known = (view_name(generation), Lineage(fetched(session.fetch(self._compiled.compile(build)))))
            self._lineage = known
        return known[1]

    def _offer(self, dataset: Dataset, generation: Generation, session: Session) -> None:
        def schemas() -> tuple[Expression, dict[str, Expression]]:
            codes = {field.name: codes_table(dataset, field, generation).schema() for field in dataset.coded}
            return table(dataset, generation).schema(), codes

        schema, codes = self._compiled.made(schemas)
        for field in dataset.coded:
            session.offer(codes_view(generation, field), codes[field.name], (generation.codes_of(field.name),))
        session.offer(view_name(generation), schema, generation.parts)


class Moment:
    """Implements checking.Present for one query."""

    def __init__(self, occurring: Occurring, current: Mapping[str, Generation], session: Session) -> None:
        self._occurring = occurring
        self._current = current
        self._session = session

    def values(self, dataset: Dataset, field: Field) -> frozenset[str]:
        """See Present."""
        return self._occurring.values(dataset, field, self._generation(dataset.name), self._session)

    def codes(self, dataset: Dataset, field: Field, names: tuple[str, ...]) -> tuple[int, ...]:
        """See Present."""
        return self._occurring.codes(dataset, field, names, self._generation(dataset.name), self._session)

    def descendants(self, line: str) -> frozenset[str]:
        """See Present."""
        return self._occurring.lineage(self._generation(LINES), self._session).descendants(line)

    def _generation(self, dataset: str) -> Generation:
        if dataset not in self._current:
            raise not_offered(dataset)
        return self._current[dataset]


class Lineage:
    """Lines by public name, and the lines that were derived from each."""

    def __init__(self, rows: Rows) -> None:
        """Rows of id, parent's id and the public names."""
        self._named: dict[str, list[str]] = {}
        self._children: dict[str, list[str]] = {}
        for line, parent, *names in rows:
            if parent is not None:
                self._children.setdefault(str(parent), []).append(str(line))
            for name in filter(None, names):
                self._named.setdefault(str(name), []).append(str(line))

    def descendants(self, name: str) -> frozenset[str]:
        """The ids of all lines below those of that name, themselves left out; none for a name that no line has."""
        found: set[str] = set()
        waiting = list(self._named.get(name, ()))
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return frozenset(found)
