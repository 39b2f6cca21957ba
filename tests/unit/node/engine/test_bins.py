"""How fine a condition on persons may be where numbers are exact: decided by words and dictionary."""

from __future__ import annotations

import datetime

import pytest

from connexon.conditions.filters import All, Between, Compare, Filter, Has, Not, OneOf, Operator, Scalar
from connexon.errors import InvalidQuery
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.engine.bins import require_bins

LINES, LOTS = DICTIONARY.dataset("cell_lines"), DICTIONARY.dataset("lots")


def on(month: int, day: int) -> datetime.date:
    return datetime.date(2020, month, day)


def compare(how: str, value: Scalar, field: str) -> Filter:
    return Compare(field, Operator(how), value)


@pytest.mark.parametrize(
    "condition",
    [
        compare(">=", on(3, 1), "derived_on"),
        compare("<", on(4, 1), "derived_on"),
        compare("<=", on(2, 29), "derived_on"),
        compare(">", on(12, 31), "derived_on"),
        Between("derived_on", on(3, 1), on(5, 31)),
        Not(All((compare(">=", on(3, 1), "derived_on"),))),
    ],
)
def test_whole_months_may_be_asked_about(condition: Filter) -> None:
    require_bins(DICTIONARY, LINES, condition)


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        (compare("=", on(3, 5), "derived_on"), "between 2020-03-01 and 2020-03-31"),
        (compare("!=", on(3, 1), "derived_on"), "between 2020-03-01 and 2020-03-31"),
        (compare(">=", on(3, 2), "derived_on"), ">= 2020-03-01 or >= 2020-04-01"),
        (compare("<=", on(3, 1), "derived_on"), "<= 2020-03-31 or <= 2020-02-29"),
        (OneOf("derived_on", (on(3, 1),)), "between 2020-03-01 and 2020-03-31"),
        (Has("lots", compare("<", on(3, 2), "frozen_on")), "< 2020-03-01 or < 2020-04-01"),
    ],
)
def test_days_are_refused_with_the_nearest_months(condition: Filter, hint: str) -> None:
    with pytest.raises(InvalidQuery) as refused:
        require_bins(DICTIONARY, LINES, condition)
    assert refused.value.code == "granted.finer_than_month"
    assert hint in refused.value.public


@pytest.mark.parametrize(("how", "value"), [(">=", 10), ("<", 20), ("<=", 19), (">", 9), ("=", 1), (">=", 30)])
def test_edges_of_bins_may_be_asked_about(how: str, value: int) -> None:
    require_bins(DICTIONARY, LOTS, compare(how, value, "passage_no"))


@pytest.mark.parametrize(("how", "value"), [("=", 17), (">=", 17), ("<=", 20), (">", 10), ("!=", 12)])
def test_finer_numbers_are_refused_with_the_edges_beside_them(how: str, value: int) -> None:
    with pytest.raises(InvalidQuery) as refused:
        require_bins(DICTIONARY, LOTS, compare(how, value, "passage_no"))
    assert refused.value.code == "granted.finer_than_bin"
    assert f">= {value // 10 * 10}  and  < {value // 10 * 10 + 10}" in refused.value.public


def test_a_measured_number_is_no_edge_by_a_hair() -> None:
    require_bins(DICTIONARY, LOTS, compare(">=", 0.5, "cells_per_vial_1e6"))
    for how, value in ((">=", 0.500001), (">", 0.5), ("=", 0.5)):
        with pytest.raises(InvalidQuery):
            require_bins(DICTIONARY, LOTS, compare(how, value, "cells_per_vial_1e6"))
