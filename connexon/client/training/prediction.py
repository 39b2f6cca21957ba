"""A researcher's own rows as a model wants them: columns by name, from whatever holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from connexon.errors import InvalidQuery
from connexon.learning.models import missing_input
from connexon.learning.preprocessing import Column, Preprocessing, names_of
from connexon.learning.recipe import FeatureSet, Recipe
from connexon.suggest import hint

_LISTED = 8
"""Categories named in an error."""
_TRUTH = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}


class RowsUnfit(InvalidQuery):
    """Rows that do not have what a model predicts from."""

    code = "model.columns"


class ColumnMissing(RowsUnfit):
    """A column that the model predicts from is not there. `lacks` is the sentence without where to look."""

    code = "model.column_missing"

    def __init__(self, lacks: str) -> None:
        super().__init__(f"{lacks}; model.columns names them.")
        self.lacks = lacks


def encoded(preprocessing: Preprocessing, recipe: Recipe, data: Any) -> NDArray[numpy.float64]:
    """The matrix that the model sees. Raises RowsUnfit."""
    names, fetch = _table(data)
    raw = _raw_names(recipe)
    columns: dict[str, Any] = {}
    for column in preprocessing.columns:
        found = next((name for name in (column.name, *raw.get(column.name, ())) if name in names), None)
        if found is None:
            raise ColumnMissing(
                f"There is no column {column.name!r}.{hint(column.name, names)} "
                f"The model predicts from {len(preprocessing.columns)} columns"
            )
        values = _read(column, fetch(found))
        # A column under its full name is already on the model's scale.
        columns[column.name] = _log2(values) if found != column.name and column.name.startswith("log2(") else values
    if len({len(values) for values in columns.values()}) > 1:
        raise RowsUnfit("The columns have different numbers of rows.")
    return preprocessing.encode(columns, missing=missing_input(recipe))


def used_names(preprocessing: Preprocessing, recipe: Recipe) -> set[str]:
    """Every name under which a column may be given."""
    raw = _raw_names(recipe)
    return {name for column in preprocessing.columns for name in (column.name, *raw.get(column.name, ()))}


def _raw_names(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Other names of a set's columns: as measured, and by the key alone where no other column has it."""
    names = iter(names_of(recipe))
    sets: dict[str, tuple[str, str]] = {}
    fields: list[str] = []
    for feature in recipe.features:
        if isinstance(feature, FeatureSet):
            for key in feature.keys:
                name = next(names)
                measured = name.removeprefix("log2(1 + ").removesuffix(")") if feature.log2 else name
                sets[name] = (measured, key)
        else:
            fields.append(next(names))
    keys = [*fields, *(key for _, key in sets.values())]
    return {name: (measured, key) if keys.count(key) == 1 else (measured,) for name, (measured, key) in sets.items()}


def _table(data: Any) -> tuple[list[str], Callable[[str], Sequence[Any]]]:
    """Names of the columns, and how to get one."""
    if isinstance(data, Mapping):
        return [str(name) for name in data], lambda name: _listed(data[name])
    if hasattr(data, "column_names"):  # Arrow
        return list(data.column_names), lambda name: list(data.column(name).to_pylist())
    if hasattr(data, "get_column"):  # polars
        return list(data.columns), lambda name: list(data.get_column(name).to_list())
    if hasattr(data, "columns"):  # pandas
        return [str(name) for name in data.columns], lambda name: list(data[name].tolist())
    raise RowsUnfit("Rows are given as a pandas or polars frame, an Arrow table, or a mapping of columns.")


def _listed(values: Any) -> Sequence[Any]:
    """A column of a mapping; a single value is one row."""
    if isinstance(values, str | int | float | bool) or values is None:
        return [values]
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _read(column: Column, values: Sequence[Any]) -> Any:
    """The values as their column's kind; what is missing as None, or not a number."""
    if column.kind == "category":
        return _categories(column, [None if _missing(value) else _word(value) for value in values])
    numbers = numpy.full(len(values), math.nan)
    for row, value in enumerate(values):
        if not _missing(value):
            numbers[row] = _number(column, row, value)
    return numbers


def _word(value: Any) -> str:
    """A category as it is written: a column of whole numbers with gaps becomes one of floats in a frame."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _categories(column: Column, words: list[str | None]) -> list[str | None]:
    """The words. One that is no category counts as none of them; where none is, they mean something else."""
    given = [word for word in words if word]
    if given and column.categories and not any(word in column.categories for word in given):
        known = ", ".join(column.categories[:_LISTED]) + (" ..." if len(column.categories) > _LISTED else "")
        raise RowsUnfit(
            f"Column {column.name!r} holds one of {known}; the first row that has any has {given[0][:40]!r}."
        )
    return words


def _number(column: Column, row: int, value: Any) -> float:
    text = value.strip().lower() if isinstance(value, str) else None
    try:
        number = _TRUTH[text] if text is not None and column.kind == "boolean" else float(value)
    except (TypeError, ValueError, KeyError):
        number = math.inf
    if math.isinf(number) or (column.kind == "boolean" and number not in (0.0, 1.0)):
        wanted = "true or false" if column.kind == "boolean" else "a number"
        raise RowsUnfit(f"Column {column.name!r} holds {wanted}; row {row + 1} has {str(value)[:40]!r}.")
    return number


def _missing(value: Any) -> bool:
    # pandas' NA is neither equal to itself nor a float.
    return (
        value is None
        or value == ""
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in (*("NAType", "NaTType"),)
    )


def _log2(values: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    if bool((values <= -1).any()):
        raise RowsUnfit("A value of a set with log2 is -1 or less; give it as it was measured.")
    return numpy.asarray(numpy.log2(1 + values), dtype=numpy.float64)
