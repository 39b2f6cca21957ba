"""The rows of a recipe: one for each record that the question selects, with its target and its columns.

The means of a feature set are taken by the database as sums and counts, so that proteins by the thousand come as one
number for each row and key. Sums of more than two numbers may differ in the last bit from one reading to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any as Expression

import numpy
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from connexon.conditions.filters import All, Filter, OneOf, Scalar
from connexon.errors import Refused
from connexon.learning.preprocessing import Kind, names_of
from connexon.learning.recipe import FieldFeature
from connexon.query.question import Question
from connexon_node.analyses.recipes import PlacedSet, checked_recipe, condition_of, recipe_of
from connexon_node.analyses.spec import DONOR
from connexon_node.data.dictionary import KEY, Dataset, Dictionary
from connexon_node.data.generations import Generation
from connexon_node.engine.plans import codes_table
from connexon_node.engine.related import Related
from connexon_node.pipeline.values import TrainingTable

MAXIMUM_VALUES = 50_000_000
"""Rows times columns: 400 MB."""
Check = Callable[[Dataset, Filter], Filter]
Fetch = Callable[[Callable[[], Expression]], pyarrow.Table]


class TooManyValues(Refused):
    """A recipe whose rows do not fit into memory."""

    code = "recipe.too_large"


class TrainingReading:
    """One recipe over the generations in force; everything in it is checked when this is made (InvalidQuery)."""

    def __init__(
        self,
        question: Question,
        dataset: Dataset,
        dictionary: Dictionary,
        current: Mapping[str, Generation],
        check: Check,
    ) -> None:
        """`check` holds a filter on a dataset against the dictionary (FilterCheck.check)."""
        self._recipe = recipe_of(question)
        self._dataset = dataset
        self._dictionary = dictionary
        self._current = current
        self._checked = checked_recipe(self._recipe, dataset, dictionary)
        condition = condition_of(question)
        self._filter = None if condition is None else check(dataset, condition)
        self._classes = [self._meant(one.values, check) for one in self._recipe.target.classes]
        self._sets = [_SetReading(one, check) for one in self._checked.sets]

    def table(self, related: Related, fetch: Fetch) -> TrainingTable:
        """Read the rows, in the order of donors and ids. Raises TooManyValues."""
        pointed = [one.pointed(related, self._dataset) for one in self._sets]
        base = fetch(lambda: self._base(related, [path for _, _, path in pointed]))
        names = names_of(self._recipe)
        if base.num_rows * len(names) > MAXIMUM_VALUES:
            raise TooManyValues(
                f"The recipe's rows and columns come to more than {MAXIMUM_VALUES:,} values at this center; "
                "ask for fewer rows or keys."
            )
        order = _order(base)
        base = base.take(pyarrow.array(order))
        numbers = numpy.full((base.num_rows, len(names)), numpy.nan)
        texts: dict[int, tuple[NDArray[numpy.int32], tuple[str, ...]]] = {}
        kinds: list[Kind] = []
        fields, sets = iter(range(len(self._checked.fields))), iter(range(len(self._sets)))
        for feature in self._recipe.features:
            if isinstance(feature, FieldFeature):
                field = next(fields)
                kind = self._checked.kinds[field]
                if kind == "category":
                    texts[len(kinds)] = _texts(base.column(f"f{field}"))
                else:
                    numbers[:, len(kinds)] = _numbers(base.column(f"f{field}"))
                kinds.append(kind)
            else:
                number = next(sets)
                rows, key, _ = pointed[number]
                found = self._sets[number].means(rows, key, base.column(f"p{number}"), self._current, fetch)
                numbers[:, len(kinds) : len(kinds) + found.shape[1]] = found
                kinds += ["number"] * found.shape[1]
        return TrainingTable(
            names=names,
            kinds=tuple(kinds),
            donors=base.column("donor").to_numpy().astype(numpy.int32),
            target=self._target(base.column("target")),
            numbers=numbers,
            texts=texts,
        )

    def _meant(self, values: tuple[Scalar | None, ...], check: Check) -> tuple[object, ...]:
        """The values of a class as the data holds them."""
        present = tuple(value for value in values if value is not None)
        held = _values(check(self._dataset, OneOf(self._recipe.target.field, present))) if present else ()
        return (*held, None) if len(present) < len(values) else held

    def _base(self, related: Related, pointed: list[str]) -> Expression:
        target = self._recipe.target.field
        rows = related.rows(self._dataset, self._filter, (target, *self._checked.fields, *pointed))
        columns = [rows[DONOR].name("donor"), rows[target].name("target")]
        columns += [rows[path].name(f"f{place}") for place, path in enumerate(self._checked.fields)]
        columns += [rows[path].name(f"p{place}") for place, path in enumerate(pointed)]
        if KEY in self._dataset.names:
            columns.append(rows[KEY].name("key"))
        return rows.select(*columns)

    def _target(self, column: pyarrow.ChunkedArray) -> NDArray[numpy.float64]:
        if not self._classes:
            return _numbers(column)
        coded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        places = numpy.full(len(coded.dictionary), -1.0)
        for place, value in enumerate(coded.dictionary.to_pylist()):
            places[place] = next(number for number, values in enumerate(self._classes) if value in values)
        return numpy.asarray(places[coded.indices.to_numpy()], dtype=numpy.float64)


class _SetReading:
    """One feature set: the rows of the other dataset, and their means by key."""

    def __init__(self, placed: PlacedSet, check: Check) -> None:
        self._placed = placed
        feature = placed.feature
        self._path = feature.dataset
        keys = check(placed.dataset, OneOf(placed.key.name, feature.keys))
        conditions = [] if feature.filter is None else [check(placed.dataset, feature.filter)]
        self._filter: Filter = All((keys, *conditions)) if conditions else keys
        self._column = placed.key.alias_of or placed.key.name
        self._values = _values(keys)

    def pointed(self, related: Related, dataset: Dataset) -> tuple[Expression, str, str]:
        """See Related.pointing."""
        return related.pointing(dataset, self._path, self._filter, (self._column, self._placed.value.name))

    def means(
        self,
        rows: Expression,
        key: str,
        asked: pyarrow.ChunkedArray,
        current: Mapping[str, Generation],
        fetch: Fetch,
    ) -> NDArray[numpy.float64]:
        """The mean by row asked for and key; not a number where there is no value."""
        found = fetch(lambda: self._sums(rows, key))
        wanted = asked.combine_chunks().dictionary_encode()
        rows_of = pyarrow.compute.index_in(found.column("pointed"), wanted.dictionary)
        if isinstance(rows_of, pyarrow.ChunkedArray):
            rows_of = rows_of.combine_chunks()
        here = numpy.asarray(rows_of.is_valid())
        at = numpy.asarray(rows_of.fill_null(0))
        width, height = len(self._placed.feature.keys), len(wanted.dictionary)
        total, count = numpy.zeros(height * width), numpy.zeros(height * width)
        columns = self._columns(found.column("key"), current, fetch)
        sums = _numbers(found.column("total"))
        many = _numbers(found.column("many"))
        # A coded key may have several codes, and the other way round: each adds to its column.
        for column in columns:
            used = here & (column >= 0)
            flat = at[used] * width + column[used]
            total += numpy.bincount(flat, weights=sums[used], minlength=height * width)
            count += numpy.bincount(flat, weights=many[used], minlength=height * width)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            means = (total / count).reshape(height, width)
            if self._placed.feature.log2:
                means = numpy.where(means > -1, numpy.log2(1 + means), numpy.nan)
        codes = wanted.indices
        present = numpy.asarray(codes.is_valid())
        result = numpy.full((len(asked), width), numpy.nan)
        result[present] = means[numpy.asarray(codes.fill_null(0))[present]]
        return result

    def _sums(self, rows: Expression, key: str) -> Expression:
        value = self._placed.value.name
        kept = rows.filter(rows[key].notnull() & rows[value].notnull())
        named = kept.select(kept[key].name("pointed"), kept[self._column].name("key"), kept[value].name("value"))
        return named.group_by(["pointed", "key"]).aggregate(total=named["value"].sum(), many=named["value"].count())

    def _columns(
        self, keys: pyarrow.ChunkedArray, current: Mapping[str, Generation], fetch: Fetch
    ) -> list[NDArray[numpy.int64]]:
        """Of each row the place of its key among the feature's, -1 for none; more than one list where names repeat."""
        places = {name: place for place, name in enumerate(self._placed.feature.keys)}
        if not (self._placed.key.coded or self._placed.key.alias_of):
            # The checked values are the keys in their order, by the names that count today.
            places = {str(value): place for place, value in enumerate(self._values)}
            coded = keys.combine_chunks().dictionary_encode()
            known = numpy.array([places.get(str(one), -1) for one in coded.dictionary.to_pylist()], dtype=numpy.int64)
            return [known[coded.indices.to_numpy()] if len(coded) else numpy.empty(0, dtype=numpy.int64)]
        names = self._names(current, fetch)
        codes = keys.to_numpy()
        size = max(names, default=0) + 1
        lookup = numpy.full(size, -1, dtype=numpy.int64)
        for code, name in names.items():
            lookup[code] = places.get(name, -1)
        return [lookup[codes]]

    def _names(self, current: Mapping[str, Generation], fetch: Fetch) -> dict[int, str]:
        dataset, key = self._placed.dataset, self._placed.key
        coded = dataset.field(key.alias_of) if key.alias_of else key

        def build() -> Expression:
            codes = codes_table(dataset, coded, current[dataset.name])
            named = codes[key.name if key.alias_of else "value"]
            return codes.filter(named.isin(self._placed.feature.keys)).select(codes["code"], named.name("name"))

        table = fetch(build)
        return dict(zip(table.column("code").to_pylist(), table.column("name").to_pylist(), strict=True))


def _values(checked: Filter) -> tuple[object, ...]:
    assert isinstance(checked, OneOf)
    return checked.values


def _numbers(column: pyarrow.ChunkedArray) -> NDArray[numpy.float64]:
    return numpy.asarray(pyarrow.compute.cast(column, pyarrow.float64()).to_numpy(), dtype=numpy.float64)


def _texts(column: pyarrow.ChunkedArray) -> tuple[NDArray[numpy.int32], tuple[str, ...]]:
    coded = column.combine_chunks().dictionary_encode()
    values = [str(one) for one in coded.dictionary.to_pylist()]
    # In the order of the values, so that the order of rows on disk makes no difference.
    rank = numpy.argsort(numpy.array(values, dtype=object)) if values else numpy.empty(0, dtype=numpy.int64)
    places = numpy.empty(len(values) + 1, dtype=numpy.int32)
    places[rank] = numpy.arange(len(values), dtype=numpy.int32)
    places[len(values)] = -1
    codes = numpy.asarray(coded.indices.fill_null(len(values)))
    return places[codes], tuple(values[one] for one in rank)


def _order(base: pyarrow.Table) -> NDArray[numpy.int64]:
    """By donor and id, and by everything else where rows have no id: the same rows always come the same way."""
    names = ["donor", "key"] if "key" in base.column_names else base.column_names
    return numpy.asarray(pyarrow.compute.sort_indices(base, [(name, "ascending") for name in names]))
