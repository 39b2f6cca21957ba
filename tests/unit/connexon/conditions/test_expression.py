"""Conditions and questions as Python builds them."""

from __future__ import annotations

import datetime

import numpy
import pytest

from connexon import col, descends_from, has
from connexon.client.terms import duration_ms
from connexon.conditions.expression import check, equals
from connexon.conditions.filters import (
    All,
    Any,
    Between,
    Compare,
    DescendsFrom,
    Has,
    IsMissing,
    Not,
    OneOf,
    Operator,
    Under,
)
from connexon.errors import InvalidQuery


def test_columns_make_the_same_tree_as_text() -> None:
    condition = (col("passage_no") > 10) & col("disease_term").under("MONDO:0005180") & ~col("rrid").is_missing()
    assert condition.filter == All(
        (
            Compare("passage_no", Operator.GREATER, 10),
            Under("disease_term", "MONDO:0005180"),
            Not(IsMissing("rrid")),
        )
    )
    either = (col("a") == 1) | (col("a").between(2, 3)) | col("b").isin(["x", "y"])
    assert either.filter == Any((Compare("a", Operator.EQUAL, 1), Between("a", 2, 3), OneOf("b", ("x", "y"))))


def test_none_means_missing_and_a_list_means_one_of() -> None:
    assert equals("a", None) == IsMissing("a")
    assert equals("a", ["x"]) == OneOf("a", ("x",))
    assert (col("a") != None).filter == Not(IsMissing("a"))  # noqa: E711 - the column reads it


def test_python_s_own_and_is_refused_since_it_would_drop_a_condition() -> None:
    with pytest.raises(TypeError, match="&"):
        assert col("a") == 1 and col("b") == 2  # noqa: PT018 - the mistake itself
    with pytest.raises(TypeError, match="between"):
        assert 1 < col("a") < 3


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**63,
        "\ud800",
        datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        object(),
        b"x",
        {"a": 1},
    ],
)
def test_a_value_that_cannot_be_sent_is_refused(value: object) -> None:
    with pytest.raises(InvalidQuery) as caught:
        equals("a", value)
    assert caught.value.code == "query.invalid_value"


def test_the_numbers_of_arrays_are_taken() -> None:
    assert equals("a", numpy.int64(3)) == Compare("a", Operator.EQUAL, 3)
    assert equals("a", numpy.bool_(True)) == Compare("a", Operator.EQUAL, True)


def test_one_text_is_not_a_list_of_letters() -> None:
    with pytest.raises(InvalidQuery, match="list of values"):
        col("a").isin("iPSC")


def test_a_condition_built_too_deep_is_refused_and_exhausts_no_stack() -> None:
    condition = col("a") == 1
    for _ in range(5_000):
        condition = ~condition
    with pytest.raises(InvalidQuery, match="32 deep"):
        check(condition.filter)


def test_durations_are_read_and_bounded() -> None:
    assert duration_ms("90m") == 90 * 60 * 1000
    assert duration_ms(datetime.timedelta(days=2)) == 2 * 86_400_000
    for wrong in ("", "7", "7w", "-1d", "0d", "31d", "d"):
        with pytest.raises(InvalidQuery, match="90m, 12h or 7d"):
            duration_ms(wrong)


def test_has_and_descends_from_reach_other_rows() -> None:
    condition = has("karyotype_findings", col("clone_pct") > 10, change="gain") & ~descends_from("UKKi023-A")
    assert condition.filter == All(
        (
            Has(
                "karyotype_findings",
                All((Compare("clone_pct", Operator.GREATER, 10), Compare("change", Operator.EQUAL, "gain"))),
            ),
            Not(DescendsFrom("UKKi023-A")),
        )
    )
    assert has("lots").filter == Has("lots")
    with pytest.raises(InvalidQuery):
        descends_from("no such name")
