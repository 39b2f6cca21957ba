"""Settling and finding likeness, against the plain computation they stand for."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from connexon_node.release import known_sums
from connexon_node.release.differencing import Settling
from connexon_node.release.donor_multiset import Counted, Sketches, differing, distinct, donors_of, same_donors, times
from connexon_node.release.known_outside import KnownOutside
from connexon_node.release.released_cohorts import Known, KnownCohorts

MINIMUM = 4
SKETCHES = Sketches(16)
RECORDS = st.lists(st.integers(1, 30), max_size=60).map(lambda donors: numpy.array(donors, dtype=numpy.int32))


def counted(behind: NDArray[numpy.int32]) -> Counted:
    return Counted(behind, distinct(behind), SKETCHES.of([behind])[0])


def outside(*cohorts: NDArray[numpy.int32]) -> KnownOutside:
    found = KnownOutside(MINIMUM, SKETCHES.width)
    for behind in cohorts:
        one = counted(behind)
        found.cohorts.add([Known(one, one.donors, one.records, one.records, one.sketch)])
    found.cohorts.heaviest = 60
    return found


def known(*cohorts: NDArray[numpy.int32]) -> KnownCohorts:
    return outside(*cohorts).cohorts


def apart(one: NDArray[numpy.int32], *others: tuple[int, NDArray[numpy.int32]]) -> int:
    """How many donors one cohort counts differently from a sum of others, plainly."""
    left = Counter(one.tolist())
    for sign, other in others:
        for donor, records in Counter(other.tolist()).items():
            left[donor] -= sign * records
    return sum(1 for records in left.values() if records)


def _as_records(donors: list[int]) -> NDArray[numpy.int32]:
    return numpy.array(donors, dtype=numpy.int32)


@given(RECORDS, RECORDS)
def test_bitmaps_tell_which_donors_are_counted_differently(
    one: NDArray[numpy.int32], other: NDArray[numpy.int32]
) -> None:
    assert differing(counted(one).bitmap, counted(other).bitmap) == apart(one, (1, other))
    assert set(donors_of(counted(one).bitmap).tolist()) == set(one.tolist())
    assert times(counted(one).bitmap, 31).tolist() == numpy.bincount(one, minlength=31).tolist()


@given(st.lists(RECORDS, min_size=1, max_size=8), st.data())
def test_several_cells_find_what_each_would_find_alone(
    cohorts: list[NDArray[numpy.int32]], data: st.DataObject
) -> None:
    # Cells that are known as they are, in another order, with a donor exchanged, and ones that are new.
    exchanged = st.sampled_from(cohorts).map(lambda behind: numpy.append(behind[:-1], numpy.int32(31)))
    shuffled = st.sampled_from(cohorts).flatmap(lambda behind: st.permutations(behind.tolist())).map(_as_records)
    listed = st.sampled_from(cohorts).map(numpy.sort)
    cells = [counted(one) for one in data.draw(st.lists(listed | shuffled | exchanged | RECORDS, max_size=6))]
    world = known(*cohorts, *map(numpy.sort, cohorts))
    together = world.nearest(cells)
    assert [id(one) for one in together] == [id(world.nearest([cell])[0]) for cell in cells]
    for cell, found in zip(cells, together, strict=True):
        same = next((one for one in world.all if differing(one.bitmap, cell.bitmap) == 0), None)
        if same is not None:
            assert found is same


@given(RECORDS, RECORDS)
def test_donors_are_the_same_whatever_their_order(one: NDArray[numpy.int32], other: NDArray[numpy.int32]) -> None:
    listed = numpy.unique(one)
    for behind in (numpy.flip(listed), numpy.resize(other, listed.size)):
        assert same_donors(listed, behind) == (sorted(behind.tolist()) == listed.tolist())


@given(st.lists(RECORDS, min_size=1, max_size=12), RECORDS)
def test_no_known_cohort_that_is_near_is_missed(cohorts: list[NDArray[numpy.int32]], new: NDArray[numpy.int32]) -> None:
    (found,) = known(*cohorts).nearest([counted(new)])
    distances = [apart(new, (1, behind)) for behind in cohorts]
    near = [place for place, distance in enumerate(distances) if distance < MINIMUM]
    if not near:
        assert found is None
        return
    wanted = distances.index(0) if 0 in distances else near[0]
    assert found is not None
    assert found.bitmap == counted(cohorts[wanted]).bitmap


@given(st.sets(st.integers(1, 400), min_size=1), st.sets(st.integers(1, 400), max_size=2 * MINIMUM))
def test_no_large_cohort_that_is_near_is_missed(donors: set[int], changed: set[int]) -> None:
    one, other = (counted(numpy.array(sorted(who), dtype=numpy.int32)) for who in (donors, donors ^ changed))
    others = [numpy.arange(first, first + 50, dtype=numpy.int32) for first in range(401, 800, 50)]
    (found,) = known(*others, one.behind, *others).nearest([other])
    assert (found is not None) == (len(changed) < MINIMUM)


@settings(max_examples=60)
@given(st.lists(RECORDS, min_size=2, max_size=6), RECORDS)
def test_no_sum_or_difference_of_two_that_is_near_is_missed(
    cohorts: list[NDArray[numpy.int32]], new: NDArray[numpy.int32]
) -> None:
    (found,) = outside(*cohorts).pairs.worked_out([counted(new)])
    near = any(
        apart(new, (1, one), (sign, other)) < MINIMUM
        for one, other in itertools.permutations(cohorts, 2)
        for sign in (1, -1)
    )
    assert (found is not None) == near


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_sketches_add_up_as_cohorts_do(parts: list[NDArray[numpy.int32]]) -> None:
    together = numpy.concatenate(parts)
    assert (SKETCHES.of(parts).sum(axis=0) == SKETCHES.of([together])[0]).all()


def test_sketches_of_millions_of_records_are_exact() -> None:
    """As many records of one donor as a large table of measurements has."""
    many = (1 << 22) + 1
    behind = numpy.concatenate([numpy.full(many, donor, dtype=numpy.int32) for donor in range(1, 5)])
    each = SKETCHES.of([numpy.array([donor], dtype=numpy.int32) for donor in range(1, 5)])
    assert numpy.array_equal(SKETCHES.of([behind])[0], many * each.sum(axis=0))
    assert numpy.array_equal(SKETCHES.of([behind[: 2 * many], behind[2 * many :]])[1], many * each[2:].sum(axis=0))


def test_forgetting_leaves_what_was_known_before() -> None:
    world = outside(numpy.arange(1, 20, dtype=numpy.int32))
    cohorts = world.cohorts
    new = counted(numpy.arange(40, 60, dtype=numpy.int32))
    assert cohorts.nearest([new]) == [None]
    cohorts.add([Known(new, new.donors, new.records, 7, new.sketch)])
    (found,) = cohorts.nearest([new])
    assert found is not None
    assert found.value == 7
    both = counted(numpy.concatenate([numpy.arange(1, 20), numpy.arange(40, 60)]).astype(numpy.int32))
    assert world.pairs.worked_out([both]) != [None]
    assert world.sums.values([both.bitmap]) == [26]
    cohorts.forget(1)
    assert world.sums.values([both.bitmap]) == [None]
    assert len(cohorts.all) == 1
    assert cohorts.nearest([new]) == [None]
    assert world.pairs.worked_out([both]) == [None]
    assert cohorts.nearest([counted(numpy.arange(1, 20, dtype=numpy.int32))]) != [None]


@pytest.mark.parametrize("minimum", [2, 5, 20])
def test_small_cohorts_in_few_compartments_are_found_too(minimum: int) -> None:
    sketches = Sketches(max(16, 4 * minimum))
    cohorts = KnownCohorts(minimum, sketches.width)
    behind = numpy.arange(1, minimum + 1, dtype=numpy.int32)
    one = Counted(behind, minimum, sketches.of([behind])[0])
    cohorts.add([Known(one, one.donors, one.records, one.records, one.sketch)])
    other = numpy.concatenate([behind[1:], [900]]).astype(numpy.int32)
    (found,) = cohorts.nearest([Counted(other, minimum, sketches.of([other])[0])])
    assert (found is not None) == (minimum > 2)


@given(
    st.lists(st.integers(MINIMUM, 200), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
    st.integers(0, MINIMUM - 1),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_no_earlier_sum_of_several_cells_is_missed(sizes: list[int], seed: int, few: int, heaviest: int) -> None:
    random = numpy.random.default_rng(seed)
    donors = random.permutation(numpy.arange(1, 2_000, dtype=numpy.int32))
    bounds = numpy.cumsum([0, *sizes])
    cells = [
        numpy.repeat(donors[begin:end], random.integers(1, heaviest + 1, end - begin))
        for begin, end in itertools.pairwise(bounds.tolist())
    ]
    summed = sorted(random.choice(len(cells), size=int(random.integers(2, len(cells) + 1)), replace=False).tolist())
    whole = numpy.concatenate([cells[place] for place in summed])
    lacking = random.choice(numpy.unique(whole), size=int(random.integers(0, few + 1)), replace=False)
    added = donors[1_500 : 1_500 + few - lacking.size]
    earlier = numpy.concatenate([whole[~numpy.isin(whole, lacking)], added])
    others = [random.choice(donors, size=int(random.integers(1, 1_000)), replace=False) for _ in range(3)]
    settling = Settling(outside(*others[:2], earlier, others[2]), lambda groups, _donors: list(map(counted, groups)))
    settling._known.heaviest = heaviest
    found = [line for line in settling._earlier_sums([counted(cell) for cell in cells]) if line.shown == summed]
    assert [(line.hidden, line.value) for line in found] == [(few, earlier.size)]


SPLIT = st.lists(st.sets(st.integers(1, 300), min_size=MINIMUM, max_size=60), min_size=2, max_size=6)


@given(SPLIT, st.data())
@settings(max_examples=100, deadline=None)
def test_what_several_known_numbers_come_to_is_found_but_for_a_few_donors(
    cohorts: list[set[int]], data: st.DataObject
) -> None:
    """Any whole factors: the vector is a multiset as long as no donor's number is below zero."""
    factors = data.draw(st.lists(st.integers(0, 2), min_size=len(cohorts), max_size=len(cohorts)))
    times_each: Counter[int] = Counter()
    for factor, cohort in zip(factors, cohorts, strict=True):
        times_each.update({donor: factor for donor in cohort if factor})
    few = data.draw(st.sets(st.integers(301, 400), max_size=MINIMUM - 1))
    behind = _as_records(sorted([*times_each.elements(), *few]))
    if not times_each:
        return
    world = outside(*(_as_records(sorted(one)) for one in cohorts))
    assert world.sums.values([counted(behind).bitmap]) == [behind.size - len(few)]


def test_half_of_three_unions_is_found() -> None:
    """Of A and B, A and C, B and C follows A, though no sum or difference of two of them is near it."""
    a, b, c = (numpy.arange(first, first + 30, dtype=numpy.int32) for first in (1, 41, 81))
    world = outside(*(numpy.concatenate(both) for both in ((a, b), (a, c), (b, c))))
    assert world.sums.values([counted(a).bitmap]) == [30]
    assert world.sums.values([counted(numpy.arange(1, 200, 7, dtype=numpy.int32)).bitmap]) == [None]


def test_sums_of_many_donors_and_of_more_cohorts_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_sums, "SPANNED", 40)
    monkeypatch.setattr(known_sums, "_KEPT", 30)
    random = numpy.random.default_rng(5)
    cohorts = [numpy.flatnonzero(random.random(20_000) < 0.1).astype(numpy.int32) + 1 for _ in range(100)]
    world = outside(*cohorts)
    latest = numpy.concatenate([cohorts[-1], cohorts[-2], cohorts[-3], [19_000, 19_001]]).astype(numpy.int32)
    assert world.sums.values([counted(latest).bitmap]) == [latest.size - 2]
    fresh = numpy.flatnonzero(random.random(20_000) < 0.1).astype(numpy.int32) + 1
    assert world.sums.values([counted(fresh).bitmap]) == [None]
