"""Conditions as text: read, written back, and pointed at where they are wrong."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.conditions import where, wire_filter
from connexon.conditions.expression import check
from connexon.conditions.filters import (
    All,
    Any,
    Between,
    Compare,
    DescendsFrom,
    Filter,
    Has,
    IsMissing,
    Not,
    OneOf,
    Operator,
    Under,
)
from connexon.conditions.where_errors import WhereUnreadable
from connexon.errors import InvalidQuery
from tests.support.questions import is_bounded


def test_a_condition_is_read_into_the_tree_that_is_sent() -> None:
    text = (
        "disease_term under MONDO:0005180 and (passage_no between 10 and 20 or not type = 'iPSC') "
        "and rrid is missing and grade in ('research','clinical') and derived_on >= 2024-01-01"
    )
    assert where.parse(text) == All(
        (
            Under("disease_term", "MONDO:0005180"),
            Any((Between("passage_no", 10, 20), Not(Compare("type", Operator.EQUAL, "iPSC")))),
            IsMissing("rrid"),
            OneOf("grade", ("research", "clinical")),
            Compare("derived_on", Operator.GREATER_OR_EQUAL, datetime.date(2024, 1, 1)),
        )
    )


def test_conditions_reach_other_datasets_by_paths_and_has() -> None:
    text = (
        "cell_line.donor.sex = 'female' and not has karyotype_findings (change = 'gain' and has lots) "
        "and descends_from('UKKi023-A')"
    )
    inside = All((Compare("change", Operator.EQUAL, "gain"), Has("lots")))
    assert where.parse(text) == All(
        (
            Compare("cell_line.donor.sex", Operator.EQUAL, "female"),
            Not(Has("karyotype_findings", inside)),
            DescendsFrom("UKKi023-A"),
        )
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.b.c.d.e = 1", "over 3 other rows"),
        ("has a (has b (has c (has d)))", "At most 3 'has'"),
        ("descends_from('two words')", "not the name of a cell line"),
        ("has lots (", "Here it ends"),
        ("donor.Sex = 1", "not the name of a field"),
    ],
)
def test_what_reaches_too_far_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        where.parse(text)
    assert said in caught.value.public


def test_and_binds_tighter_than_or_and_not_tighter_than_both() -> None:
    a, b, c = (Compare(name, Operator.EQUAL, 1) for name in "abc")
    assert where.parse("a = 1 or b = 1 and c = 1") == Any((a, All((b, c))))
    assert where.parse("(a = 1 or b = 1) and c = 1") == All((Any((a, b)), c))
    assert where.parse("not a = 1 and b = 1") == All((Not(a), b))
    assert where.parse("not (a = 1 and b = 1)") == Not(All((a, b)))


def test_keywords_are_read_in_any_case_and_names_that_begin_with_them_are_names() -> None:
    assert where.parse("a IS NOT Missing AND b NOT IN (1)") == All((Not(IsMissing("a")), Not(OneOf("b", (1,)))))
    assert where.parse("order_no = 1 and inside = true") == All(
        (Compare("order_no", Operator.EQUAL, 1), Compare("inside", Operator.EQUAL, True))
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"),
        (r"'it\'s'", "it's"),
        (r"'\''''", "''"),
        ('"a ""b"" \'\' c"', "a \"b\" '' c"),
        (r"'tab\t \u{e9} \\'", "tab\t é \\"),
        ("MONDO:0005180", "MONDO:0005180"),
        ("-12", -12),
        ("1.50", 1.5),
        ("2e3", 2000.0),
        ("2024-02-29", datetime.date(2024, 2, 29)),
        ("'2024-02-29'", "2024-02-29"),
        ("TRUE", True),
        ("false", False),
    ],
)
def test_values_keep_their_kind(text: str, value: object) -> None:
    parsed = where.parse(f"a = {text}")
    assert isinstance(parsed, Compare)
    assert parsed.value == value
    assert type(parsed.value) is type(value)


@pytest.mark.parametrize(
    ("text", "pointed_at", "said"),
    [
        ("type = iPSC and a = 1", "iPSC", "Write text in quotes: 'iPSC'."),
        ("disease undr MONDO:1", "undr", "Did you mean 'under'?"),
        ("a = 1 nad b = 2", "nad", "Did you mean 'and'?"),
        ("a = 'x", "'x", "never closed"),
        ("a = ‘x’", "‘", "straight quotes"),
        ("a = 2024-1-31", "2024-1-31", "year-month-day"),
        ("a = 2024-13-01", "2024-13-01", "no such day"),
        ("a is null", "null", "is missing"),
        ("a = 1)", ")", "the end"),
        ("a in ()", ")", "a value such as"),
        ("Type = 1", "Type", "lower case"),
        ("a under ' '", "' '", "ontology term"),
        ("a = 9999999999999999999", "9999999999999999999", "too large"),
        ("a = 1e999", "1e999", "not finite"),
        (r"a = '\q'", r"'\q'", "backslash"),
        ("日本語 = 1", "日本語", "a field's name"),
    ],
)
def test_an_unreadable_condition_is_pointed_at(text: str, pointed_at: str, said: str) -> None:
    with pytest.raises(WhereUnreadable) as caught:
        where.parse(text)
    assert caught.value.code == "where.unreadable"
    assert said in caught.value.public
    _, line, carets, _ = caught.value.public.split("\n")
    # Japanese letters are two columns wide, so columns are compared on text without them.
    if line.isascii():
        assert line[carets.index("^") : carets.rindex("^") + 1] == pointed_at
    else:
        assert carets.strip("^ ") == ""


def test_the_place_is_shown_in_a_long_condition_without_wrapping_a_small_terminal() -> None:
    text = " and ".join(f"field_{number} = {number}" for number in range(100)) + " and bad = word and c = 1\n and d = 1"
    with pytest.raises(WhereUnreadable) as caught:
        where.parse(text)
    _, line, carets, _ = caught.value.public.split("\n")
    assert line[carets.index("^") : carets.rindex("^") + 1] == "word"
    assert len(line) <= 60


def test_an_end_that_comes_too_early_says_what_should_follow() -> None:
    with pytest.raises(WhereUnreadable, match="Here it ends, but '\\)' should follow"):
        where.parse("(a = 1")


@pytest.mark.parametrize(
    "text",
    [
        "not " * 40_000 + "a = 1",
        " and ".join(["a = 1"] * 501),
        f"a in ({', '.join(['1'] * 1001)})",
        "a = 1 or " * 40_000,
    ],
)
def test_a_condition_beyond_the_bounds_is_refused_before_it_is_sent(text: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        where.parse(text)
    assert caught.value.code == "where.too_large"


def test_a_text_beyond_the_bounds_is_pointed_at() -> None:
    with pytest.raises(WhereUnreadable, match="longer than 1000"):
        where.parse(f"a = '{'x' * 1001}'")


def test_parentheses_cost_no_depth_and_exhaust_no_stack() -> None:
    assert where.parse("(" * 5_000 + "a = 1" + ")" * 5_000) == Compare("a", Operator.EQUAL, 1)


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True) | st.sampled_from(
    ["and", "not", "missing", "under", "has", "descends_from"]
)
FIELDS = st.lists(NAMES, min_size=1, max_size=4).map(".".join)
VALUES = (
    st.text(max_size=20).filter(lambda text: not re.search(r"[\ud800-\udfff]", text))
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.dates()
)
TERMS = st.from_regex(r"[A-Z]{2,6}:[0-9]{3,7}", fullmatch=True)
LEAVES: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Compare, FIELDS, st.sampled_from(Operator), VALUES),
    st.builds(OneOf, FIELDS, st.lists(VALUES, min_size=1, max_size=4).map(tuple)),
    st.builds(Between, FIELDS, VALUES, VALUES),
    st.builds(IsMissing, FIELDS),
    st.builds(Under, FIELDS, TERMS),
    st.builds(Has, FIELDS),
    st.builds(DescendsFrom, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,20}", fullmatch=True)),
)
INSIDE = st.one_of(LEAVES, st.builds(Not, LEAVES), st.builds(All, st.lists(LEAVES, min_size=2, max_size=3).map(tuple)))
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    st.one_of(LEAVES, st.builds(Has, FIELDS, INSIDE), st.builds(Has, FIELDS, st.builds(Has, FIELDS, INSIDE))),
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(All, st.lists(inner, min_size=2, max_size=4).map(tuple)),
        st.builds(Any, st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=12,
).filter(is_bounded)


@settings(max_examples=200, deadline=None)
@given(FILTERS)
def test_what_is_written_is_read_back_the_same(node: Filter) -> None:
    check(node)
    assert where.parse(where.to_text(node)) == node


PIECES = [
    "a",
    "type",
    "and",
    "or",
    "not",
    "in",
    "(",
    ")",
    ",",
    "=",
    "<>",
    "under",
    "MONDO:1",
    "'",
    '"',
    "\\",
    "is",
    "1",
]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        node = where.parse(text)
    except InvalidQuery:
        return
    check(node)
    assert where.parse(where.to_text(node)) == node


def test_the_bounds_are_those_of_the_question() -> None:
    assert where.parse(" and ".join(["a = 1"] * (wire_filter.MAXIMUM_FILTERS - 1)))
