"""Which parts of a condition count: those that enough donors decide."""

from __future__ import annotations

from collections.abc import Mapping

import numpy
import pytest

from connexon.conditions.filters import All, Any, Compare, Filter, Has, Not, OneOf, Operator
from connexon.errors import InvalidQuery
from connexon_node.engine.condition_parts import CountedRows, Counting, Truth, looked_up, parts_of


def is_(field: str, value: str) -> Compare:
    return Compare(field, Operator.EQUAL, value)


A, B, C = is_("x", "a"), is_("x", "b"), is_("x", "c")


def rows(*donors: int) -> Truth:
    """True for rows 1 to 100 whose number is named, false for others."""
    truth = numpy.zeros(100, dtype=numpy.int8)
    truth[[donor - 1 for donor in donors]] = 2
    return truth


def counted(
    condition: Filter, truth: Mapping[Filter, Truth], group: list[int] | None = None, *, once: bool = True
) -> list[int]:
    """The donors who count, of a hundred with one row each, at a minimum of five."""
    groups = numpy.zeros(100, dtype=numpy.int64) if group is None else numpy.array(group)
    table = CountedRows(numpy.arange(1, 101, dtype=numpy.int32), groups, int(groups.max()) + 1, once=once)
    held = Counting(parts_of(condition), table, 5, truth).counted()
    return (numpy.flatnonzero(held) + 1).tolist()


MANY, FEW = range(1, 41), range(41, 45)


def test_a_part_of_an_or_that_adds_too_few_does_not_count() -> None:
    truth: dict[Filter, Truth] = {A: rows(*MANY), B: rows(*FEW), C: rows(*range(50, 55))}
    assert counted(Any((A, B)), truth) == list(MANY)
    assert counted(OneOf("x", ("a", "b", "c")), truth) == [*MANY, *range(50, 55)]


def test_a_part_of_an_and_that_takes_too_few_away_does_not_count() -> None:
    truth: dict[Filter, Truth] = {A: rows(*MANY), B: rows(*range(4, 101)), C: rows(*range(6, 101))}
    assert counted(All((A, B)), truth) == list(MANY)
    assert counted(All((A, C)), truth) == list(range(6, 41))


def test_other_words_for_the_same_make_no_difference() -> None:
    truth: dict[Filter, Truth] = {A: rows(*MANY), B: rows(*FEW), C: rows(*range(3, 101))}
    assert counted(Not(All((Not(A), Not(B)))), truth) == list(MANY)
    assert counted(Not(Any((Not(A), Not(C)))), truth) == list(MANY)
    assert counted(Not(OneOf("x", ("b",))), truth) == list(range(1, 101))


def test_wide_parts_that_single_few_out_together_do_not_count() -> None:
    """In a list of few, each value is wide elsewhere."""
    truth: dict[Filter, Truth] = {A: rows(*range(1, 51)), B: rows(*range(50, 101)), C: rows(*range(48, 101))}
    assert counted(All((A, Any((B, C)))), truth) in ([], list(range(1, 51)))


def test_two_words_for_the_same_do_not_cancel_each_other() -> None:
    assert counted(All((A, A, A)), {A: rows(*MANY)}) == list(MANY)
    assert counted(Any((A, A)), {A: rows(*MANY)}) == list(MANY)


def test_each_group_decides_for_itself() -> None:
    group = [0] * 30 + [1] * 70
    truth: dict[Filter, Truth] = {A: rows(*MANY), B: rows(*FEW, *range(1, 3))}
    assert counted(All((A, Not(B))), truth, group) == list(MANY)
    assert counted(All((A, Not(B))), {A: rows(*MANY), B: rows(*range(20, 41))}, group) == list(range(1, 20))


def test_inside_a_has_an_or_is_taken_apart_and_an_and_may_be_left_out() -> None:
    either, both = Has("lots", Any((A, B))), Has("lots", All((A, B)))
    alone, other = Has("lots", A), Has("lots", B)
    lots = {Has("lots"): rows(*range(1, 95))}
    assert counted(either, {alone: rows(*MANY), other: rows(*FEW), **lots}) == list(MANY)
    truth: dict[Filter, Truth] = {
        both: rows(*range(3, 41)),
        alone: rows(*MANY),
        other: rows(*range(3, 90)),
        Has("lots"): rows(*range(1, 95)),
    }
    assert set(looked_up(parts_of(both))) == set(truth)
    assert counted(both, truth) == list(MANY)


def test_what_is_neither_true_nor_false_stays_so() -> None:
    missing = rows(*MANY)
    missing[40:60] = 1
    assert counted(Not(A), {A: missing}) == list(range(61, 101))


@pytest.mark.parametrize("many", [101, 400])
def test_too_many_parts_are_refused_by_words_alone(many: int) -> None:
    with pytest.raises(InvalidQuery) as refused:
        parts_of(OneOf("x", tuple(map(str, range(many)))))
    assert refused.value.code == "granted.too_many_parts"
