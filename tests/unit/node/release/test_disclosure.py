from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.conditions.wire_filter import value_from_wire
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.values import Cell, CellTable, Cohort, Computed, Obligation, Offer, Reach
from connexon_node.release import UnknownShape
from connexon_node.release.rules import domains_of, rounded
from connexon_node.settings import ReleaseSection
from connexon_node.state import open_state
from tests.support.center import ask, exactly, granted, permit

DATABASE: Database
SEXES = ("female", "male", "intersex", "unknown")


@pytest.fixture(scope="module", autouse=True)
def nothing_released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A database in which nothing ever becomes known: no answer here is sealed."""
    global DATABASE  # one for all: hypothesis would make hundreds
    DATABASE = open_state(f"sqlite:///{tmp_path_factory.mktemp('release') / 'state.db'}")
    yield
    DATABASE.close()


def behind(first: int, records: int, donors: int) -> NDArray[numpy.int32]:
    """`records` of `donors` distinct donors, numbered from `first` on; the last has all that are over."""
    return numpy.minimum(numpy.arange(first, first + records, dtype=numpy.int32), first + max(donors, 1) - 1)


def with_donors(shape: Any) -> tuple[Any, NDArray[numpy.int32]]:
    """The same shape with donors behind it, no two cells sharing one, and a population that has others too."""
    others = numpy.arange(10_000, 10_100, dtype=numpy.int32)
    if not isinstance(shape, CellTable):
        if isinstance(shape, Offer):
            reaches = (replace(one, behind=behind(1, one.records, one.donors)) for one in shape.reaches)
            return Offer(tuple(reaches)), others
        return shape, others
    cells = [
        replace(cell, behind=behind(1 + 100 * number, cell.records, cell.donors))
        for number, cell in enumerate(shape.cells)
    ]
    return replace(shape, cells=tuple(cells)), numpy.concatenate([others, *(cell.behind for cell in cells)])


def computed(shape: Any, by: tuple[str, ...] = ()) -> Computed:
    cohort = Cohort(
        permit=permit(ask("donors", analysis=Describe() if isinstance(shape, Offer) else exactly(*by))),
        profiles=frozenset({1}),
        epoch=3,
        obligations=(Obligation("DUO:0000019", "Publish."),),
        ontologies={"MONDO": "2026-01"},
    )
    shape, population = with_donors(shape)
    return Computed(
        cohort=cohort, shape=shape, generations={"donors": 4}, dictionary_version="1.0", population=population
    )


def protect(shape: Any, minimum: int = 5, to: int = 5, by: tuple[str, ...] = ()) -> answer_pb2.Answer:
    step = granted(ReleaseSection(minimum_donors=minimum, round_to=to), DATABASE)
    return step.protect(computed(shape, by)).answer


def table(*cells: tuple[tuple[Any, ...], int, int], by: tuple[str, ...] = ("sex",)) -> CellTable:
    return CellTable(by, tuple(Cell(*cell) for cell in cells))


numbers = st.integers(0, 60).flatmap(lambda donors: st.tuples(st.integers(donors, 90), st.just(donors)))
tables = st.dictionaries(
    st.tuples(st.none() | st.sampled_from(SEXES), st.none() | st.integers(-5, 5) | st.booleans()), numbers, max_size=12
).map(lambda cells: table(*((key, *cell) for key, cell in cells.items()), by=("sex", "country_iso2")))


@given(tables, st.integers(1, 20), st.integers(1, 12))
@settings(deadline=None)
def test_no_released_number_rests_on_fewer_donors_and_each_is_rounded(shape: CellTable, minimum: int, to: int) -> None:
    answer = protect(shape, minimum, to, shape.by)
    enough = {cell.key: cell for cell in shape.cells if cell.donors >= minimum}
    released = {tuple(value_from_wire(value) for value in cell.key): cell.number for cell in answer.count.cells}
    assert released.keys() == enough.keys()
    for key, count in released.items():
        assert count > 0
        assert count % to == 0
        assert abs(count - enough[key].records) <= max(to / 2, to - enough[key].records)
    assert (answer.status == answer_pb2.ANSWER_STATUS_RELEASED) == bool(enough)


@given(tables, st.integers(1, 20))
@settings(deadline=None)
def test_what_is_suppressed_leaves_no_trace_in_the_answer(shape: CellTable, minimum: int) -> None:
    without = table(
        *((cell.key, cell.records, cell.donors) for cell in shape.cells if cell.donors >= minimum), by=shape.by
    )
    one, other = protect(shape, minimum, by=shape.by), protect(without, minimum, by=shape.by)
    other.query_id = one.query_id
    assert one == other


@given(tables, st.randoms())
def test_the_order_of_groups_says_nothing_of_their_counts(shape: CellTable, random: Any) -> None:
    shuffled = list(shape.cells)
    random.shuffle(shuffled)
    one, other = protect(shape, by=shape.by), protect(CellTable(shape.by, tuple(shuffled)), by=shape.by)
    assert list(one.count.cells) == list(other.count.cells)


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_rounding_goes_to_the_nearest_multiple_and_never_to_zero(count: int, to: int) -> None:
    near = rounded(count, to)
    assert near % to == 0
    assert near >= to
    if count >= to:
        assert abs(near - count) * 2 <= to
    if (2 * count) % (2 * to) == to:
        assert near > count


def test_none_and_a_few_are_told_in_the_same_words() -> None:
    none, few = (protect(table(((), donors, donors), by=())) for donors in (0, 4))
    few.query_id = none.query_id
    assert none == few
    assert none.status == answer_pb2.ANSWER_STATUS_SUPPRESSED
    assert none.reason.code == "release.too_few_donors"
    assert not none.HasField("count")


def test_many_records_of_few_donors_do_not_leave() -> None:
    assert protect(table(((), 900, 4), by=())).status == answer_pb2.ANSWER_STATUS_SUPPRESSED
    assert protect(table(((), 900, 5), by=())).count.cells[0].number == 900


def test_groups_count_as_withheld_unless_every_possible_group_is_shown() -> None:
    some = table((("female",), 9, 9), (("male",), 9, 9))
    every = table(*(((sex,), 9, 9) for sex in SEXES))
    a_few_of_one = table(*(((sex,), 9, 9) for sex in SEXES[:3]), (("unknown",), 2, 2))
    assert protect(some, by=("sex",)).count.groups_withheld
    assert protect(a_few_of_one, by=("sex",)).count.groups_withheld
    assert not protect(every, by=("sex",)).count.groups_withheld
    assert not protect(table(((), 9, 9), by=())).count.groups_withheld


def test_a_field_that_may_be_missing_has_missing_among_its_groups() -> None:
    values = [*(DICTIONARY.dataset("donors").field("eligibility").values), None]
    keys = list(itertools.product(SEXES, values))
    by = ("sex", "eligibility")
    assert not protect(table(*((key, 9, 9) for key in keys), by=by), by=by).count.groups_withheld
    assert protect(table(*((key, 9, 9) for key in keys[:-1]), by=by), by=by).count.groups_withheld


def test_a_field_without_fixed_values_may_always_have_more_groups() -> None:
    by = ("primary_disease_term",)
    assert protect(table((("MONDO:0005180",), 9, 9), ((None,), 9, 9), by=by), by=by).count.groups_withheld


def test_a_description_costs_nothing_so_it_has_no_numbers_about_persons() -> None:
    answer = protect(Offer((Reach("donors", 123, 123), Reach("lots", 50, 4), Reach("protocols", 7, 0))))
    assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED
    donors, lots, protocols = answer.description.datasets
    assert not donors.HasField("number")
    assert not lots.HasField("number")
    assert (protocols.number, protocols.kind) == (7, query_pb2.NUMBER_KIND_PUBLISHED)
    described = {field.name: field for field in donors.fields}
    assert "id" not in described
    assert described["primary_disease_term"].ontology == "MONDO"
    assert list(described["sex"].values) == list(SEXES)
    assert {field.name: field.unit for field in lots.fields}["cells_per_vial_1e6"] == "10*6"


@pytest.mark.parametrize("shape", [None, 7, {"female": 3}, (Cell((), 9, 9),), object()])
def test_a_result_of_unknown_shape_does_not_leave(shape: object) -> None:
    with pytest.raises(UnknownShape) as caught:
        protect(shape)
    assert caught.value.code == "release.unknown_result"


def test_the_answer_says_what_it_rests_on_and_what_was_done_to_it() -> None:
    answer = protect(table(((), 50, 50), by=()), minimum=7, to=10)
    assert dict(answer.provenance.generations) == {"donors": 4}
    assert answer.provenance.dictionary_version == "1.0"
    assert answer.provenance.policy_version == "abc123"
    assert dict(answer.provenance.ontologies) == {"MONDO": "2026-01"}
    assert [(duty.term, duty.message) for duty in answer.obligations] == [("DUO:0000019", "Publish.")]
    assert (answer.protection.minimum_donors, answer.protection.rounded_to) == (7, 10)
    assert answer.query_sha256 == b"\7" * 32


def test_counts_of_what_belongs_to_nobody_leave_exact_without_a_minimum() -> None:
    cells = (Cell(("assay",), 3, 0), Cell(("culture",), 12, 0))
    cohort = Cohort(permit=permit(ask("protocols", None, Count(("kind",)))), profiles=frozenset(), epoch=1)
    result = Computed(cohort, CellTable(("kind",), cells), {"protocols": 1}, "2.0")
    answer = granted(ReleaseSection(minimum_donors=5, round_to=5), DATABASE).protect(result).answer
    assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED
    assert [(value_from_wire(cell.key[0]), cell.number) for cell in answer.count.cells] == [
        ("assay", 3),
        ("culture", 12),
    ]


def test_a_group_in_another_row_may_always_be_missing() -> None:
    lines = DICTIONARY.dataset("cell_lines")
    (domain,) = domains_of(("donor.sex",), lines, DICTIONARY)
    assert domain is not None
    assert set(domain) == {*SEXES, None}
