"""How rows become inputs: fitted from what the centers tell, the same as over all rows at once, and strict to read."""

from __future__ import annotations

import json
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.conditions.filters import Compare, Operator
from connexon.learning import preprocessing as prep
from connexon.learning.moments import Moments, moments_of
from connexon.learning.preprocessing import Column, Preprocessing, PreprocessingRefused, Summary
from connexon.learning.recipe import FeatureSet, FieldFeature, Linear, LocalWork, Recipe, Target

RECIPE = Recipe(
    name="niche-score",
    target=Target("cell_count"),
    features=(
        FieldFeature("donor.age_years"),
        FieldFeature("donor.sex"),
        FieldFeature("xeno_free"),
        FeatureSet("timepoints", "attribute", ("ph", "lactate"), "value", log2=True),
        FeatureSet("timepoints", "attribute", ("ph",), "value", filter=Compare("day", Operator.LESS_OR_EQUAL, 3)),
    ),
    model=Linear(LocalWork(0.1)),
    rounds=3,
)
KINDS: dict[str, prep.Kind] = {"donor.age_years": "number", "donor.sex": "category", "xeno_free": "boolean"}


def summary(numbers: list[float], *, categories: dict[int, tuple[str, ...]] | None = None) -> Summary:
    told = moments_of(numpy.array(numbers))
    if categories is None:
        return Summary(("number",), (told,), examples=len(numbers))
    return Summary(("number", "category"), (told, Moments()), categories, len(numbers))


def test_every_column_has_a_name_of_its_own() -> None:
    assert prep.names_of(RECIPE) == (
        "donor.age_years",
        "donor.sex",
        "xeno_free",
        "log2(1 + timepoints.value[attribute=ph])",
        "log2(1 + timepoints.value[attribute=lactate])",
        "timepoints.value[attribute=ph; day <= 3]",
    )
    assert [column.kind for column in prep.columns_of(RECIPE, KINDS)] == [
        "number",
        "category",
        "boolean",
        *["number"] * 3,
    ]


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), min_size=1, max_size=4))
def test_what_the_centers_tell_gives_mean_and_spread_of_all_rows(centers: list[list[float]]) -> None:
    (column,) = prep.combine([Column("x", "number")], [summary(values) for values in centers]).columns
    everything = numpy.concatenate([numpy.array(values) for values in centers])
    assert column.used is bool(len(everything))
    if not len(everything):
        return
    assert column.mean == pytest.approx(everything.mean(), rel=1e-12, abs=1e-9 * everything.std() + 1e-300)
    # A smaller spread is rounding, or has no square.
    if everything.std() > max(1e-13 * abs(everything.mean()), 1e-139):
        near = max(1e-9, 2 * numpy.finfo(float).eps * abs(everything.mean()) / everything.std())
        assert column.sd == pytest.approx(everything.std(), rel=near, abs=0)
    assert column.sd > 0


@pytest.mark.parametrize(
    ("mean", "sd"), [(1e5, 0.05), (1e9, 1e3), (-3e7, 50.0), (0.0, 1e-9), (5e-9, 1e-12), (1e120, 1e119)]
)
def test_a_column_is_scaled_whatever_its_unit_and_however_far_from_nothing(mean: float, sd: float) -> None:
    values = numpy.random.default_rng(5).normal(mean, sd, 600)
    centers = numpy.split(values, [1, 2, 40, 300])
    (column,) = prep.combine([Column("x", "number")], [summary(list(one)) for one in centers]).columns
    assert column.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-9 * sd)
    assert column.sd == pytest.approx(values.std(), rel=1e-9)
    encoded = Preprocessing((column,)).encode({"x": values})
    assert encoded.std() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("value", [0.1, 37.1, 1e5, -1e-9, 0.0])
def test_a_column_of_equal_numbers_is_nothing_in_every_row(value: float) -> None:
    told = [summary([value] * rows) for rows in (49, 3, 7, 1)]
    (column,) = prep.combine([Column("x", "number")], told).columns
    assert (column.mean, column.sd) == (value, 1.0)
    assert Preprocessing((column,)).encode({"x": [value]}).tolist() == [[0.0]]


def test_what_only_rounding_tells_apart_is_equal() -> None:
    near = float(numpy.nextafter(37.1, 38))
    (column,) = prep.combine([Column("x", "number")], [summary([37.1] * 30), summary([near] * 30)]).columns
    assert column.sd == 1.0


def test_a_column_that_nobody_tells_of_is_nothing_in_every_row() -> None:
    nothing = Summary(("number",), (Moments(),))
    fitted = prep.combine([Column("x", "number")], [nothing])
    assert fitted.columns == (Column("x", "number", used=False),)
    # Numbers of an unknown scale would make the model leap.
    assert fitted.encode({"x": [1e9, None, -3.0]}).tolist() == [[0.0], [0.0], [0.0]]
    assert Preprocessing.from_json(fitted.to_json()) == fitted


def test_categories_are_those_of_all_centers_in_order() -> None:
    columns = [Column("x", "number"), Column("sex", "category")]
    told = [summary([1.0], categories={1: ("male",)}), summary([2.0], categories={1: ("female", "male")})]
    assert prep.combine(columns, told).columns[1].categories == ("female", "male")


def test_centers_that_hold_a_column_differently_are_not_combined() -> None:
    with pytest.raises(PreprocessingRefused, match="same kind"):
        prep.combine([Column("x", "category")], [summary([1.0])])


def test_numbers_are_standardised_and_missing_is_nothing() -> None:
    fitted = Preprocessing(
        (Column("x", "number", 10.0, 2.0), Column("b", "boolean"), Column("s", "category", categories=("f", "m")))
    )
    matrix = fitted.encode({"x": [14.0, None, math.nan], "b": [True, None, False], "s": ["m", "other", None]})
    assert fitted.inputs == ("x", "b", "s=f", "s=m")
    assert fitted.width == 4
    assert matrix.tolist() == [[2.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert matrix.dtype == numpy.float64
    told = fitted.encode({"x": [14.0, None], "b": [None, True], "s": ["m", None]}, missing=math.nan)
    assert numpy.array_equal(told, [[2.0, math.nan, 0.0, 1.0], [math.nan, 1.0, 0.0, 0.0]], equal_nan=True)


def test_a_column_that_is_not_given_is_an_error() -> None:
    with pytest.raises(KeyError):
        Preprocessing((Column("x", "number"),)).encode({})


def test_it_comes_back_from_json_as_it_went() -> None:
    fitted = Preprocessing((Column("x", "number", 0.1, 3.0), Column("größe", "category", categories=("a", "b"))))
    assert Preprocessing.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize(
    "change",
    [
        {"sd": 0},
        {"used": 1},
        {"kind": "boolean", "used": False},
        {"sd": float("nan")},
        {"kind": "text"},
        {"categories": ["a"]},
        {"mean": "0"},
        {"more": 1},
        {"name": 3},
    ],
)
def test_json_that_does_not_hold_is_refused(change: dict[str, object]) -> None:
    column = {"name": "x", "kind": "number", "mean": 0.0, "sd": 1.0, "categories": [], "used": True, **change}
    with pytest.raises(PreprocessingRefused):
        Preprocessing.from_json(json.dumps({"columns": [column]}))


def test_a_summary_travels_as_records() -> None:
    sent = summary([1.0, 2.0], categories={1: ("female",)})
    received = Summary.from_records(sent.to_records())
    assert received.kinds == sent.kinds
    assert received.categories == {1: ("female",)}
    assert received.examples == 2
    assert received.moments == (Moments(2, 1.5, 0.5), Moments())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("count", [-1.0]),
        ("count", [math.nan]),
        ("mean", [math.inf]),
        ("mean", [1e200]),
        ("mean", [1.0, 2.0]),
        ("squared-deviations", [-1e-9]),
        ("squared-deviations", [1e301]),
    ],
)
def test_a_summary_that_cannot_be_is_refused(name: str, values: list[float]) -> None:
    from flwr.app import Array

    records = summary([1.0]).to_records()
    records.array_records["numbers"][name] = Array(numpy.array(values))
    with pytest.raises(PreprocessingRefused):
        Summary.from_records(records)
