"""How rows become inputs, fitted over all centers: numbers standardised, booleans 0 and 1, categories one-hot.

A column is what a recipe names, in its order; a set of features gives one column for each key. An input is a column of
the matrix that a model sees. Fitted once, from each center's summary, and part of the model ever after.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy
from numpy.typing import ArrayLike, NDArray

from connexon.conditions.where_text import to_text
from connexon.errors import Refused
from connexon.learning.moments import Moments, together
from connexon.learning.recipe import MAXIMUM_CATEGORIES, FeatureSet, FieldFeature, Range, Recipe

if TYPE_CHECKING:
    from flwr.app import RecordDict

Kind = Literal["number", "boolean", "category"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KINDS_KEY = "kinds"
NUMBERS = ("count", "mean", "squared-deviations")
"""What a summary tells of each column that is a number."""
_ROUNDING = 1e-14
"""A standard deviation that is smaller beside the mean is rounding: numbers have 16 digits."""
_SMALLEST_SD = 1e-140


class PreprocessingRefused(Refused):
    """A preprocessing, or a summary it would be fitted from, that does not hold."""

    code = "preprocessing.refused"


@dataclass(frozen=True)
class Column:
    """One column and how it is encoded. Of a number: mean and standard deviation; of a category: its values.

    A number that no center could describe is not `used`: it is 0 in every row, since nobody knows its scale.
    """

    name: str
    kind: Kind
    mean: float = 0.0
    sd: float = 1.0
    categories: tuple[str, ...] = ()
    used: bool = True

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of its inputs."""
        if self.kind == "category":
            return tuple(f"{self.name}={category}" for category in self.categories)
        return (self.name,)


@dataclass(frozen=True)
class Preprocessing:
    """All columns of a recipe, fitted."""

    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        """Number of inputs."""
        return sum(len(column.categories) if column.kind == "category" else 1 for column in self.columns)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return tuple(name for column in self.columns for name in column.inputs)

    def encode(self, columns: Mapping[str, ArrayLike], *, missing: float = 0.0) -> NDArray[numpy.float64]:
        """The matrix [rows, inputs] of columns by name. A number or boolean that is None or not a number is `missing`.

        Raises KeyError for a column that is not given. Values of a set with log2 are given as log2(1 + mean).
        """
        parts = [_encoded(column, columns[column.name], missing) for column in self.columns]
        return numpy.ascontiguousarray(numpy.concatenate(parts, axis=1))

    def to_json(self) -> str:
        """As it travels and is kept; the same for the same preprocessing."""
        columns = [
            {
                "name": one.name,
                "kind": one.kind,
                "mean": one.mean,
                "sd": one.sd,
                "categories": list(one.categories),
                "used": one.used,
            }
            for one in self.columns
        ]
        return json.dumps({"columns": columns}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """Read and check. Raises PreprocessingRefused."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PreprocessingRefused("The preprocessing is not JSON.") from error
        if (
            not isinstance(document, dict)
            or document.keys() != {"columns"}
            or not isinstance(document["columns"], list)
        ):
            raise PreprocessingRefused("The preprocessing has columns and nothing else.")
        return cls(tuple(_column(one) for one in document["columns"]))


@dataclass(frozen=True)
class Summary:
    """What one center tells of its rows, column by column: the moments of numbers, and none of others.

    `categories` has, by column, the values that enough donors have.
    """

    kinds: tuple[Kind, ...]
    moments: tuple[Moments, ...]
    categories: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    examples: int = 0

    def to_records(self) -> RecordDict:
        """As a reply to query.summary."""
        from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

        columns = [(one.count, one.mean, one.squared_deviations) for one in self.moments]
        numbers = numpy.array(columns, dtype=numpy.float64).reshape(len(columns), len(NUMBERS))
        told: dict[str, Any] = {str(place): list(found) for place, found in self.categories.items()}
        told[_KINDS_KEY] = list(self.kinds)
        return RecordDict(
            {
                "numbers": ArrayRecord({name: Array(numbers[:, place].copy()) for place, name in enumerate(NUMBERS)}),
                "categories": ConfigRecord(told),
                "metrics": MetricRecord({"num-examples": self.examples}),
            }
        )

    @classmethod
    def from_records(cls, records: RecordDict) -> Summary:
        """From a reply to query.summary. Raises PreprocessingRefused."""
        try:
            numbers = records.array_records["numbers"]
            categories = cast("Mapping[str, Any]", records.config_records["categories"])
            kinds = tuple(categories[_KINDS_KEY])
            arrays = [numbers[name].numpy() for name in NUMBERS]
            values = {int(place): tuple(found) for place, found in categories.items() if place != _KINDS_KEY}
            examples = int(cast("int", records.metric_records["metrics"]["num-examples"]))
        except (KeyError, ValueError, TypeError) as error:
            raise PreprocessingRefused("A center's summary is not complete.") from error
        if any(one.dtype != numpy.float64 or one.shape != (len(kinds),) for one in arrays):
            raise PreprocessingRefused("A center's summary does not have three numbers for each column.")
        moments = tuple(Moments(*numbers) for numbers in zip(*(one.tolist() for one in arrays), strict=True))
        summary = cls(kinds, moments, values, examples)
        summary.require_whole()
        return summary

    def require_whole(self) -> None:
        """Raise PreprocessingRefused where its parts do not fit each other."""
        if len(self.moments) != len(self.kinds) or not all(one.sound for one in self.moments):
            raise PreprocessingRefused("A center's summary holds a number that cannot be.")
        if any(kind not in KINDS for kind in self.kinds):
            raise PreprocessingRefused("A center's summary has a column of an unknown kind.")
        for place, found in self.categories.items():
            if not 0 <= place < len(self.kinds) or self.kinds[place] != "category":
                raise PreprocessingRefused("A center's summary gives values to a column that has none.")
            if len(found) > MAXIMUM_CATEGORIES or not all(
                isinstance(one, str) and 0 < len(one) <= 200 for one in found
            ):
                raise PreprocessingRefused("A center's summary gives too many values to a column, or no texts.")


def names_of(recipe: Recipe) -> tuple[str, ...]:
    """Names of a recipe's columns, such as donor.sex or timepoints.value[attribute=ph], in order."""
    return tuple(name for feature in recipe.features for name in names_in(feature))


def names_in(feature: FieldFeature | FeatureSet) -> tuple[str, ...]:
    """Names of the columns of one feature."""
    if isinstance(feature, FieldFeature):
        return (feature.field,)
    condition = "" if feature.filter is None else f"; {to_text(feature.filter)}"
    names = [f"{feature.dataset}.{feature.value}[{feature.key}={key}{condition}]" for key in feature.keys]
    return tuple(f"log2(1 + {name})" if feature.log2 else name for name in names)


def moments_in(usual: Range) -> Moments:
    """Of numbers of which only the range is known: the middle, and a quarter of the range for a standard deviation."""
    low, high = usual
    return Moments(1.0, (low + high) / 2, ((high - low) / 4) ** 2)


def columns_of(recipe: Recipe, kinds: Mapping[str, Kind]) -> tuple[Column, ...]:
    """A recipe's columns before fitting. `kinds` are those of its fields; a set's columns are numbers."""
    return tuple(
        Column(name, kinds[feature.field] if isinstance(feature, FieldFeature) else "number")
        for feature in recipe.features
        for name in names_in(feature)
    )


def fit(recipe: Recipe, summaries: Sequence[Summary]) -> Preprocessing:
    """The preprocessing of a recipe from what each center told. Raises PreprocessingRefused."""
    if not summaries:
        raise PreprocessingRefused("No center told of its rows.")
    kinds = summaries[0].kinds
    names = names_of(recipe)
    if len(kinds) != len(names):
        raise PreprocessingRefused("A center's summary has other columns than the recipe.")
    return combine(tuple(map(Column, names, kinds)), summaries)


def combine(columns: Sequence[Column], summaries: Sequence[Summary]) -> Preprocessing:
    """Fit columns to what the centers told. Raises PreprocessingRefused where a center has other columns."""
    for summary in summaries:
        summary.require_whole()
        if summary.kinds != tuple(column.kind for column in columns):
            raise PreprocessingRefused("The centers do not hold a column as the same kind of value.")
    return Preprocessing(tuple(_fitted(column, place, summaries) for place, column in enumerate(columns)))


def _fitted(column: Column, place: int, summaries: Sequence[Summary]) -> Column:
    match column.kind:
        case "number":
            found = together([one.moments[place] for one in summaries])
            if not found.count:
                return Column(column.name, "number", used=False)
            spread = found.sd > max(_ROUNDING * abs(found.mean), _SMALLEST_SD)
            return Column(column.name, "number", found.mean, found.sd if spread else 1.0)
        case "category":
            values = {value for one in summaries for value in one.categories.get(place, ())}
            return Column(column.name, "category", categories=tuple(sorted(values)[:MAXIMUM_CATEGORIES]))
        case "boolean":
            return Column(column.name, "boolean")


def _encoded(column: Column, values: ArrayLike, missing: float) -> NDArray[numpy.float64]:
    match column.kind:
        case "number" if not column.used:
            return numpy.zeros((len(numpy.asarray(values)), 1))
        case "number" | "boolean":
            numbers = _numbers(values)
            told = (numbers - column.mean) / column.sd if column.kind == "number" else numbers != 0
            return numpy.asarray(numpy.where(numpy.isnan(numbers), missing, told), dtype=numpy.float64)[:, None]
        case "category":
            texts = numpy.asarray(values, dtype=object)
            hot = numpy.zeros((len(texts), len(column.categories)))
            place = {category: number for number, category in enumerate(column.categories)}
            for row, text in enumerate(texts):
                if text in place:
                    hot[row, place[text]] = 1.0
            return hot


def _numbers(values: ArrayLike) -> NDArray[numpy.float64]:
    """As numbers; None is not a number."""
    array = numpy.asarray(values)
    if array.dtype == object:
        array = numpy.array([math.nan if one is None else one for one in array], dtype=numpy.float64)
    return array.astype(numpy.float64)


def _column(document: Any) -> Column:
    try:
        column = Column(**{**document, "categories": tuple(document["categories"])})
        right = (
            isinstance(column.name, str)
            and column.kind in KINDS
            and isinstance(column.mean, (int, float))
            and isinstance(column.sd, (int, float))
            and math.isfinite(column.mean)
            and math.isfinite(column.sd)
            and column.sd > 0
            and len(column.categories) <= MAXIMUM_CATEGORIES
            and all(isinstance(one, str) for one in column.categories)
            and len(set(column.categories)) == len(column.categories)
            and (column.kind == "category" or not column.categories)
            and isinstance(column.used, bool)
            and (column.kind == "number" or column.used)
        )
    except (TypeError, KeyError) as error:
        raise PreprocessingRefused("A column of the preprocessing is not right.") from error
    if not right:
        raise PreprocessingRefused(f"The column {column.name!r} of the preprocessing is not right.")
    return column
