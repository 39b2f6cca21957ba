"""What noise rests on: one donor changes counts by no more than the bound, and sameness is read from words alone."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from connexon.conditions.filters import All, Any, Between, Compare, Filter, Has, IsMissing, Not, OneOf, Operator, Scalar
from connexon_node.privacy.contributions import bounded_groups, bounded_records
from connexon_node.privacy.normal_form import MAXIMUM_ATOMS, canonical

Donors = NDArray[numpy.int32]
KEYS: list[tuple[str | None]] = [("a",), ("b",), (None,), ("d",), ("e",)]
RECORDS = st.lists(st.tuples(st.integers(1, 12), st.sampled_from(range(len(KEYS)))), max_size=60)


def tables(records: list[tuple[int, int]]) -> tuple[list[tuple[str | None]], list[Donors]]:
    """The keys that occur, and the donors of their records, as an engine gives them."""
    present = sorted({group for _, group in records})
    groups = [numpy.array([d for d, group in records if group == one], dtype=numpy.int32) for one in present]
    return [KEYS[one] for one in present], groups


def counts(records: list[tuple[int, int]], allowed: int) -> dict[tuple[str | None], int]:
    keys, groups = tables(records)
    return dict(zip(keys, bounded_records(keys, groups, allowed), strict=True))


@given(RECORDS, st.integers(1, 5), st.integers(1, 12))
def test_a_donor_who_goes_changes_the_counts_by_no_more_than_allowed(
    records: list[tuple[int, int]], allowed: int, donor: int
) -> None:
    before = counts(records, allowed)
    after = counts([one for one in records if one[0] != donor], allowed)
    changes = [before.get(key, 0) - after.get(key, 0) for key in KEYS]
    assert min(changes) >= 0
    assert sum(changes) <= allowed


@given(RECORDS, st.integers(1, 5), st.integers(1, 12))
def test_a_donor_who_goes_is_missed_once_in_no_more_groups_than_allowed(
    records: list[tuple[int, int]], allowed: int, donor: int
) -> None:
    def groups_of(records: list[tuple[int, int]]) -> dict[tuple[str | None], int]:
        keys, groups = tables(records)
        return dict(zip(keys, bounded_groups(keys, groups, allowed), strict=True))

    before, after = groups_of(records), groups_of([one for one in records if one[0] != donor])
    changes = [before.get(key, 0) - after.get(key, 0) for key in KEYS]
    assert set(changes) <= {0, 1}
    own = len({group for one, group in records if one == donor})
    assert sum(changes) == min(own, allowed)
    assert sum(change**2 for change in changes) <= allowed**2


@given(RECORDS, st.integers(1, 5), st.randoms())
def test_what_is_kept_does_not_depend_on_the_order_of_rows(
    records: list[tuple[int, int]], allowed: int, random: object
) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert counts(shuffled, allowed) == counts(records, allowed)


@given(RECORDS, st.integers(1, 5))
def test_nothing_of_a_donor_within_the_bound_is_left_out(records: list[tuple[int, int]], allowed: int) -> None:
    each: dict[int, int] = {}
    for donor, _ in records:
        each[donor] = each.get(donor, 0) + 1
    assert sum(counts(records, allowed).values()) == sum(min(many, allowed) for many in each.values())


def test_no_value_is_favored_where_records_are_left_out() -> None:
    records = [(donor, group) for donor in range(1, 2001) for group in range(len(KEYS))]
    kept = counts(records, 1)
    # 2,000 donors over five groups: 400 each, with a standard deviation of 18; six of them.
    assert all(abs(number - 400) < 108 for number in kept.values())


def test_of_a_donor_with_more_than_is_allowed_one_record_is_counted() -> None:
    groups = [numpy.array([1, 1, 2], dtype=numpy.int32), numpy.array([1, 3], dtype=numpy.int32)]
    one, other = bounded_records([("a",), ("b",)], groups, 1)
    assert one + other == 3
    assert bounded_records([], [], 3) == bounded_groups([], [], 3) == []


def is_(field: str, value: Scalar) -> Compare:
    return Compare(field, Operator.EQUAL, value)


A, B, C = is_("a", 1), is_("b", "x"), Compare("c", Operator.LESS, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (All((A, B)), All((B, A, B))),
        (A, Not(Not(A))),
        (A, Any((A, All((A, B))))),
        (A, All((A, Any((A, C))))),
        (Not(All((A, B))), Any((Not(A), Not(B)))),
        (All((A, Any((B, C)))), Any((All((A, B)), All((C, A))))),
        (Compare("c", Operator.GREATER_OR_EQUAL, 3), Not(C)),
        (Compare("a", Operator.NOT_EQUAL, 1), Not(A)),
        (is_("a", 1), is_("a", 1.0)),
        (OneOf("b", ("x", "y")), Any((is_("b", "y"), is_("b", "x")))),
        (OneOf("b", ("x",)), B),
        (
            Between("c", 1, 2),
            All((Compare("c", Operator.LESS_OR_EQUAL, 2), Compare("c", Operator.GREATER_OR_EQUAL, 1))),
        ),
        (Has("lots", All((A, B))), Has("lots", All((B, A)))),
        (All((A, Any((IsMissing("b"), Not(IsMissing("b")))))), A),
    ],
)
def test_conditions_that_logic_makes_equal_are_the_same(one: Filter, other: Filter) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (A, B),
        (A, Not(A)),
        # Where b is missing, neither it nor its opposite holds: such rows do not count.
        (All((A, Any((B, Not(B))))), A),
        (A, is_("a", True)),
        (A, is_("a", "1")),
        (Has("lots", A), Has("vials", A)),
        (A, None),
    ],
)
def test_conditions_that_may_differ_are_not_the_same(one: Filter, other: Filter | None) -> None:
    assert canonical(one) != canonical(other)


def test_what_is_always_so_is_as_no_condition() -> None:
    assert canonical(Any((IsMissing("b"), Not(IsMissing("b"))))) == canonical(None)


many = st.lists(st.integers(0, 30), min_size=MAXIMUM_ATOMS + 1, max_size=20, unique=True)


@given(many, st.randoms())
def test_of_many_conditions_order_nesting_and_repetition_do_not_matter(numbers: list[int], random: object) -> None:
    atoms = [is_("a", number) for number in numbers]
    shuffled = [*atoms, atoms[0]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    nested = All((All(tuple(shuffled[:4])), Not(Not(All(tuple(shuffled[4:]))))))
    assert canonical(nested) == canonical(All(tuple(atoms)))
    assert canonical(Any(tuple(atoms))) != canonical(All(tuple(atoms)))


RANDOM = st.recursive(
    st.sampled_from([A, B, C, IsMissing("b")]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: All(tuple(parts)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: Any(tuple(parts)))
        | inner.map(Not)
    ),
    max_leaves=8,
)


def holds(node: Filter, row: dict[str, object]) -> bool | None:
    """What a condition is of a row, by the rules of the question language."""
    match node:
        case All(filters):
            parts = [holds(child, row) for child in filters]
            return False if False in parts else None if None in parts else True
        case Any(filters):
            parts = [holds(child, row) for child in filters]
            return True if True in parts else None if None in parts else False
        case Not(child):
            inner = holds(child, row)
            return None if inner is None else not inner
        case IsMissing(field):
            return row[field] is None
        case Compare(field, how, value):
            if row[field] is None:
                return None
            return row[field] == value if how is Operator.EQUAL else row[field] < value
        case _:
            raise TypeError(node)


ROWS: list[dict[str, object]] = [
    {"a": a, "b": b, "c": c} for a in (1, 2, None) for b in ("x", "y", None) for c in (1, 5, None)
]


@given(RANDOM, RANDOM)
def test_the_same_conditions_select_the_same_rows(one: Filter, other: Filter) -> None:
    if canonical(one) == canonical(other):
        for row in ROWS:
            assert (holds(one, row) is True) == (holds(other, row) is True)
