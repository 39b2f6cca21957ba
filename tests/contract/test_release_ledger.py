"""The release ledger and the settling on it: what is known is remembered, and decides what leaves next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from connexon.service.database import Database
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.values import Cell, CellTable, Cohort, Computed, Released, ReleaseMoved
from connexon_node.release import ReleaseControl, UnknownShape
from connexon_node.release.ledger import ReleaseLedger
from connexon_node.settings import ReleaseSection
from connexon_node.state import open_state
from tests.support.center import ask, exactly, granted, permit

EVERYBODY = numpy.arange(1, 201, dtype=numpy.int32)
Donors = NDArray[numpy.int32]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


@pytest.fixture
def release(database: Database) -> ReleaseControl:
    return granted(ReleaseSection(minimum_donors=5, round_to=1), database)


def donors(*ranges: tuple[int, int]) -> Donors:
    """Donor numbers from ranges, both ends included."""
    return numpy.concatenate([numpy.arange(low, high + 1, dtype=numpy.int32) for low, high in ranges])


def computed(groups: Mapping[Any, Donors], by: tuple[str, ...] = (), everybody: Donors = EVERYBODY) -> Computed:
    cells = tuple(Cell(key, behind.size, numpy.unique(behind).size, behind) for key, behind in groups.items())
    cohort = Cohort(permit=permit(ask("donors", analysis=exactly(*by))), profiles=frozenset({1}), epoch=1)
    return Computed(cohort, CellTable(by, cells), {"donors": 1}, DICTIONARY.version, everybody)


def seal(database: Database, released: Released) -> dict[tuple[str, ...], int]:
    """The numbers that leave, written down as the recorder would."""
    assert released.commit is not None
    with database.writing() as connection:
        released.commit(connection)
    return {tuple(value.text for value in cell.key): cell.number for cell in released.answer.count.cells}


def total(release: ReleaseControl, database: Database, behind: Donors, everybody: Donors = EVERYBODY) -> int:
    return seal(database, release.protect(computed({(): behind}, everybody=everybody)))[()]


def test_a_cohort_near_a_known_one_gets_its_number(release: ReleaseControl, database: Database) -> None:
    assert total(release, database, donors((1, 40))) == 40
    assert total(release, database, donors((1, 39))) == 40
    assert total(release, database, donors((1, 38), (100, 101))) == 40
    assert total(release, database, donors((1, 35))) == 35


def test_what_is_known_outlives_the_process(release: ReleaseControl, database: Database) -> None:
    total(release, database, donors((1, 40)))
    again = granted(ReleaseSection(minimum_donors=5, round_to=1), database)
    assert total(again, database, donors((2, 40))) == 40


def test_what_a_donor_had_before_a_restart_is_no_way_to_who_changed(
    release: ReleaseControl, database: Database
) -> None:
    """One donor had twelve records more; their difference shows in two earlier numbers, and would show in a third."""
    more = numpy.concatenate([EVERYBODY, numpy.ones(12, dtype=numpy.int32)])
    assert total(release, database, more[numpy.isin(more, donors((1, 100)))], everybody=more) == 112
    assert total(release, database, donors((41, 100)), everybody=more) == 60
    again = granted(ReleaseSection(minimum_donors=5, round_to=1), database)
    assert total(again, database, donors((1, 40))) == 52


def test_everybody_counts_as_known(release: ReleaseControl, database: Database) -> None:
    assert total(release, database, donors((1, 197))) == 200
    assert total(release, database, donors((1, 195))) == 195


def test_the_sum_and_the_difference_of_two_known_cohorts_count_as_known(
    release: ReleaseControl, database: Database
) -> None:
    total(release, database, donors((1, 40)))
    total(release, database, donors((41, 70)))
    assert total(release, database, donors((1, 70), (80, 82))) == 70
    total(release, database, donors((1, 100)))
    assert total(release, database, donors((41, 98))) == 60


def test_the_records_of_donors_are_compared_not_their_names(release: ReleaseControl, database: Database) -> None:
    twice = numpy.concatenate([EVERYBODY, EVERYBODY])
    assert total(release, database, donors((1, 40), (1, 3)), twice) == 43
    assert total(release, database, donors((1, 40)), twice) == 43
    assert total(release, database, donors((1, 40), (1, 10)), twice) == 50


def test_a_table_whose_sum_is_known_hides_its_small_groups(release: ReleaseControl, database: Database) -> None:
    total(release, database, donors((1, 60)))
    groups = {("DE",): donors((1, 40)), ("FR",): donors((41, 57)), ("IS",): donors((58, 60))}
    table = computed(groups, ("country_iso2",))
    assert seal(database, release.protect(table)) == {("DE",): 43, ("FR",): 17}
    assert total(release, database, donors((1, 40))) == 43


def test_a_number_that_is_known_takes_up_nothing(release: ReleaseControl, database: Database) -> None:
    assert total(release, database, donors((1, 40))) == 40
    assert total(release, database, donors((1, 93))) == 93
    groups = {("DE",): donors((1, 40)), ("FR",): donors((41, 70)), ("IT",): donors((71, 90)), ("IS",): donors((91, 93))}
    table = computed(groups, ("country_iso2",))
    assert seal(database, release.protect(table)) == {("DE",): 40, ("FR",): 33, ("IT",): 20}


def test_the_sum_after_the_table_is_that_of_its_groups(release: ReleaseControl, database: Database) -> None:
    groups = {("DE",): donors((1, 40)), ("FR",): donors((41, 57)), ("IS",): donors((58, 60))}
    assert seal(database, release.protect(computed(groups, ("country_iso2",)))) == {("DE",): 40, ("FR",): 17}
    assert total(release, database, donors((1, 60))) == 57


def test_an_earlier_number_over_several_groups_is_no_way_to_what_is_left(
    release: ReleaseControl, database: Database
) -> None:
    total(release, database, donors((1, 60), (90, 92)))
    groups = {(f"C{n}",): donors((1 + 20 * n, 20 + 20 * n)) for n in range(3)} | {("IS",): donors((90, 140))}
    shown = seal(database, release.protect(computed(groups, ("country_iso2",))))
    assert sum(shown[f"C{n}",] for n in range(3)) == 63


def test_an_earlier_number_that_hides_enough_changes_nothing(release: ReleaseControl, database: Database) -> None:
    assert total(release, database, donors((1, 60), (90, 94))) == 65
    groups = {(f"C{n}",): donors((1 + 20 * n, 20 + 20 * n)) for n in range(3)} | {("IS",): donors((90, 140))}
    shown = seal(database, release.protect(computed(groups, ("country_iso2",))))
    assert sum(shown[f"C{n}",] for n in range(3)) == 60


def test_what_the_shown_groups_add_up_to_counts_as_known(release: ReleaseControl, database: Database) -> None:
    """Many groups: no two of them make the sum, and enough are hidden for it to be far from the total."""
    groups = {(f"C{n}",): donors((1 + 40 * n, 40 + 40 * n)) for n in range(3)}
    groups |= {("IS",): donors((121, 124)), ("MT",): donors((125, 128))}
    assert len(seal(database, release.protect(computed(groups, ("country_iso2",))))) == 3
    assert total(release, database, donors((1, 122))) == 120


def test_a_number_worked_out_from_two_that_are_off_stays_inside(release: ReleaseControl, database: Database) -> None:
    """One stands for a table's shown groups and is too low, the other takes up what is hidden and is too high."""
    groups = {("DE",): donors((1, 40)), ("FR",): donors((41, 57)), ("IS",): donors((58, 60))}
    seal(database, release.protect(computed(groups, ("country_iso2",))))
    assert total(release, database, donors((1, 52), (100, 130), (140, 142))) == 86
    groups = {("DE",): donors((1, 52)), ("FR",): donors((100, 130)), ("IS",): donors((140, 142))}
    assert seal(database, release.protect(computed(groups, ("country_iso2",)))) == {("DE",): 55, ("FR",): 31}
    assert seal(database, release.protect(computed({(): donors((53, 60))}))) == {}, "57 - 55 is less than the minimum"


def test_groups_known_by_name_cannot_be_worked_out_from_their_number(
    release: ReleaseControl, database: Database
) -> None:
    """Two of four sexes are hidden with four donors each: eight hidden would say four and four."""
    groups = {
        ("female",): donors((1, 40)),
        ("male",): donors((41, 80)),
        ("intersex",): donors((81, 84)),
        ("unknown",): donors((85, 88)),
    }
    seal(database, release.protect(computed(groups, ("sex",))))
    assert total(release, database, donors((1, 88))) == 80


@pytest.mark.parametrize("few", range(5))
def test_a_margin_that_two_earlier_numbers_tell_hides_its_small_groups(
    release: ReleaseControl, database: Database, few: int
) -> None:
    """Women are everybody in one number less the men in another; a table shows them but for a few."""
    women, young_men, men = donors((1, 60)), donors((61, 80)), donors((61, 160))
    total(release, database, numpy.concatenate([women, young_men]))
    total(release, database, young_men)
    table = {("f", "x"): women[:30], ("f", "y"): women[30 : 60 - few], ("m", "x"): men[:50], ("m", "y"): men[50:]}
    if few:
        table["f", "z"] = women[60 - few :]
    shown = seal(database, release.protect(computed(table, ("sex", "primary_disease_term"))))
    assert shown["f", "x"] + shown["f", "y"] == 60
    assert ("f", "z") not in shown


def test_an_answer_that_another_one_overtook_is_decided_again(release: ReleaseControl, database: Database) -> None:
    late = release.protect(computed({(): donors((1, 39))}))
    unmoved = release.protect(computed({(): donors((100, 139))}))
    total(release, database, donors((1, 40)))
    assert seal(database, unmoved) == {(): 40}
    with pytest.raises(ReleaseMoved):
        seal(database, late)
    assert total(release, database, donors((1, 39))) == 40


def test_trying_makes_nothing_known(release: ReleaseControl, database: Database) -> None:
    decision = release.decide(computed({(): donors((1, 39))}))
    assert [(one.number, one.why) for one in decision.judged] == [(39, "exact")]
    assert ReleaseLedger(database, 5).sizes() == {}


def test_a_number_that_was_rounded_is_not_called_exact(database: Database) -> None:
    release = granted(ReleaseSection(minimum_donors=5, round_to=5), database)
    asked = computed({(): donors((1, 39))})
    (judged,) = release.decide(asked).judged
    assert (judged.number, judged.why) == (40, "rounded to a multiple of 5")
    seal(database, release.protect(asked))
    (judged,) = release.decide(computed({(): donors((1, 40))})).judged
    assert (judged.number, judged.why) == (40, "known from earlier, rounded to a multiple of 5")


def test_a_withdrawal_changes_a_number_once_enough_donors_changed(release: ReleaseControl, database: Database) -> None:
    assert total(release, database, donors((1, 40))) == 40
    for left in range(1, 5):
        assert total(release, database, donors((1 + left, 40)), EVERYBODY[left:]) == 40
    assert total(release, database, donors((6, 40)), EVERYBODY[5:]) == 35


def test_the_ledger_tells_which_releases_counted_a_donor(release: ReleaseControl, database: Database) -> None:
    first = computed({(): donors((1, 40))})
    seal(database, release.protect(first))
    seal(database, release.protect(computed({(): donors((50, 90))})))
    counting = ReleaseLedger(database, 5).counting(7)
    query_id = first.cohort.permit.asked.question.query_id
    assert {(dataset, query) for dataset, query, _ in counting} == {("donors", query_id)}


def test_random_rounding_gives_the_same_for_the_same_cohort(database: Database) -> None:
    section = ReleaseSection(minimum_donors=5, round_to=10, rounding="random")
    numbers = {
        total(granted(section, database), database, donors((1, size))) for _ in range(5) for size in (73, 72, 71)
    }
    assert len(numbers) == 1
    assert numbers <= {70, 80}


def test_a_result_that_cannot_say_who_is_behind_it_does_not_leave(release: ReleaseControl) -> None:
    whole = computed({(): donors((1, 40))})
    with pytest.raises(UnknownShape):
        release.protect(replace(whole, population=None))
    with pytest.raises(UnknownShape):
        release.protect(replace(whole, shape=CellTable((), (Cell((), 40, 40),))))
