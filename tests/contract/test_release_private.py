"""Private numbers, on both databases: bounded, noisy, drawn and paid for once, refined, and in their limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from connexon.analyses.count import Count
from connexon.analyses.spec import Kind, Unit
from connexon.conditions.filters import All as AllOf
from connexon.conditions.filters import Any as AnyOf
from connexon.conditions.filters import Compare, DescendsFrom, Filter, Has, Not, OneOf, Operator
from connexon.conditions.wire_filter import value_from_wire
from connexon.errors import Refused
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.values import Cell, CellTable, Cohort, Computed, Permit, Released, ReleaseMoved, Uncomputed
from connexon_node.privacy import Account, BudgetSpent, draws
from connexon_node.privacy.contributions import OtherDonors
from connexon_node.release import ReleaseControl
from connexon_node.release.floors import Floors, PrivacyFloors
from connexon_node.release.granted import NotGranted
from connexon_node.release.grants import Grants
from connexon_node.settings import PrivacySection, ReleaseSection
from connexon_node.state import open_state
from tests.support.federation import HEALTH, Asker, new_federation

Donors = NDArray[numpy.int32]
EVERYBODY = numpy.arange(1, 1001, dtype=numpy.int32)
FEDERATION = new_federation()
ROSTER = FEDERATION.roster()
ADA, BOB = FEDERATION.researcher("lyon", "ada"), FEDERATION.researcher("boston", "bob")
FEMALE, ADULT = (Compare("sex", Operator.EQUAL, "female"), Compare("eligibility", Operator.EQUAL, "eligible"))
PARKINSON = Compare("primary_disease_term", Operator.EQUAL, "MONDO:0005180")
MUCH = PrivacySection(
    lifetime=100, year=100, tables=0, questions=100, researcher=100, models=0, delta=1e-6, delta_of_year=1e-4
)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


def control(database: Database, section: PrivacySection = MUCH) -> ReleaseControl:
    return ReleaseControl(ReleaseSection(), DICTIONARY, database, privacy=section)


def computed(
    groups: Mapping[Any, Donors],
    by: tuple[str, ...] = (),
    *,
    within: int | None = None,
    who: Asker = ADA,
    dataset: str = "donors",
    where: Filter | None = None,
    unit: Unit = Unit.DONORS,
    kind: Kind = Kind.PRIVATE,
    project: str = "",
    epoch: int = 0,
    profiles: frozenset[int] = frozenset({1}),
    price_only: bool = False,
) -> Computed:
    purpose = replace(HEALTH, project=project)
    question = who.question(["kyoto"], Count(by, unit, kind), dataset=dataset, where=where, purpose=purpose)
    question = replace(question, within=within, price_only=price_only)
    asked = signed.verify_query(who.sign(question), ROSTER, NOTHING_REVOKED)
    cells = tuple(Cell(key, one.size, numpy.unique(one).size, one) for key, one in groups.items())
    cohort = Cohort(Permit(asked, "rule", "abc"), profiles, epoch)
    shape = Uncomputed() if price_only else CellTable(by, cells)
    return Computed(cohort, shape, {dataset: 1}, DICTIONARY.version, EVERYBODY, edition=1, parts=5)


def donors(low: int, high: int) -> Donors:
    return numpy.arange(low, high + 1, dtype=numpy.int32)


def seal(database: Database, released: Released) -> answer_pb2.Answer:
    assert released.commit is not None
    with database.writing() as connection:
        released.commit(connection)
    return released.answer


def ask(release: ReleaseControl, database: Database, one: Computed) -> dict[tuple[object, ...], int]:
    answer = seal(database, release.protect(one))
    return {tuple(value_from_wire(value) for value in cell.key): cell.number for cell in answer.count.cells}


def spent(database: Database, section: PrivacySection = MUCH) -> float:
    return sum(entry.charge.rho for entry in Account(database, section).entries())


def test_a_total_has_noise_that_the_answer_states(database: Database) -> None:
    answer = seal(database, control(database).protect(computed({(): donors(1, 400)}, within=8)))
    noise = answer.protection.noise
    assert answer.protection.kind == query_pb2.NUMBER_KIND_PRIVATE
    assert answer.protection.unit == query_pb2.COUNT_UNIT_DONORS
    assert (noise.half_width, noise.contributions, noise.shown_from, noise.delta) == (8, 1, 0, 0)
    assert noise.scale == pytest.approx(4.3464, abs=1e-4)
    assert noise.rho == noise.charged == pytest.approx(0.02647, abs=1e-5)
    assert abs(answer.count.cells[0].number - 400) < 10 * noise.scale
    assert spent(database) == pytest.approx(noise.rho)


@pytest.mark.parametrize(
    ("within", "sigma", "rho"),
    [(3, 1.8089, 0.1528), (5, 2.8210, 0.0628), (10, 5.3650, 0.0174), (15, 7.9136, 0.0080), (30, 15.5642, 0.0021)],
)
def test_the_price_is_the_least_that_is_as_close_as_asked(
    database: Database, within: int, sigma: float, rho: float
) -> None:
    noise = control(database).protect(computed({(): donors(1, 9)}, within=within)).answer.protection.noise
    assert (noise.scale, noise.rho) == (pytest.approx(sigma, abs=1e-4), pytest.approx(rho, abs=1e-4))


def test_numbers_are_neither_clamped_nor_rounded_so_that_their_mean_is_the_truth(database: Database) -> None:
    release = control(database)
    numbers = [
        ask(release, database, computed({(): donors(1, 2)}, within=15, project=f"p{step}"))[()] for step in range(120)
    ]
    assert min(numbers) < 0
    assert len({number % 5 for number in numbers}) == 5
    assert abs(sum(numbers) / 120 - 2) < 6 * 7.92 / 120**0.5


def test_the_same_question_gets_the_same_numbers_and_is_paid_for_once(database: Database) -> None:
    groups = {("female",): donors(1, 300), ("male",): donors(301, 700)}
    first = ask(control(database), database, computed(groups, ("sex",)))
    paid = spent(database)
    again = seal(database, control(database).protect(computed(groups, ("sex",))))
    assert {tuple(value_from_wire(value) for value in cell.key): cell.number for cell in again.count.cells} == first
    assert again.protection.noise.charged == 0
    assert spent(database) == paid


def test_more_accuracy_buys_the_difference_and_less_costs_nothing(database: Database) -> None:
    release = control(database)
    wide = seal(database, release.protect(computed({(): donors(1, 400)}, within=15))).protection.noise
    close = seal(database, release.protect(computed({(): donors(1, 400)}, within=8)))
    noise = close.protection.noise
    assert noise.charged == pytest.approx(0.02647 - wide.rho, abs=1e-5)
    assert (noise.rho, noise.half_width) == (pytest.approx(0.02647, abs=1e-5), 8)
    assert spent(database) == pytest.approx(noise.rho)
    wide_again = seal(database, release.protect(computed({(): donors(1, 400)}, within=30)))
    assert wide_again.count == close.count
    assert (wide_again.protection.noise.charged, wide_again.protection.noise.half_width) == (0, 8)


def test_refined_numbers_lie_within_what_is_stated(database: Database) -> None:
    release, inside = control(database), 0
    for step in range(200):
        for within in (20, 12, 8):
            answer = seal(database, release.protect(computed({(): donors(1, 400)}, within=within, project=f"p{step}")))
        inside += abs(answer.count.cells[0].number - 400) <= 8
    # 95 % of 200 with four standard deviations of room.
    assert inside >= 190 - 4 * math.sqrt(200 * 0.95 * 0.05)


@pytest.mark.parametrize(
    "other",
    [
        AllOf((ADULT, FEMALE)),
        AllOf((FEMALE, AllOf((ADULT, ADULT)))),
        Not(AnyOf((Not(FEMALE), Not(ADULT)))),
        Not(AnyOf((Compare("sex", Operator.NOT_EQUAL, "female"), Not(ADULT)))),
    ],
)
def test_other_words_for_the_same_condition_are_the_same_question(database: Database, other: Filter) -> None:
    release = control(database)
    first = ask(release, database, computed({(): donors(1, 300)}, where=AllOf((FEMALE, ADULT))))
    assert ask(release, database, computed({(): donors(1, 300)}, where=other)) == first


def test_another_order_of_fields_is_the_same_question(database: Database) -> None:
    release = control(database)
    first = ask(release, database, computed({("female", "eligible"): donors(1, 300)}, ("sex", "eligibility")))
    paid = spent(database)
    other = ask(release, database, computed({("eligible", "female"): donors(1, 300)}, ("eligibility", "sex")))
    assert {(second, key): number for (key, second), number in other.items()} == first
    assert spent(database) == paid


def test_what_the_data_is_never_decides_whether_questions_are_the_same(database: Database) -> None:
    """Neither the donors selected nor whose consent counts: equal numbers would tell that they are equal."""
    release = control(database)
    ask(release, database, computed({(): donors(1, 300)}, where=FEMALE))
    paid = spent(database)
    ask(release, database, computed({(): donors(1, 300)}, where=ADULT))
    assert spent(database) == pytest.approx(2 * paid)
    changed = computed({(): donors(5, 600)}, where=FEMALE, epoch=9, profiles=frozenset({1, 2}))
    again = seal(database, release.protect(changed))
    assert again.protection.noise.charged == 0
    assert spent(database) == pytest.approx(2 * paid)


def test_who_asks_for_another_purpose_or_as_somebody_else_pays_for_it(database: Database) -> None:
    release = control(database)
    for one in (
        computed({(): donors(1, 300)}),
        computed({(): donors(1, 300)}, who=BOB),
        computed({(): donors(1, 300)}, project="atlas"),
        computed({(): donors(1, 300)}, unit=Unit.RECORDS, dataset="cell_lines"),
        computed({(): donors(1, 300)}, dataset="cell_lines"),
    ):
        before = spent(database)
        seal(database, release.protect(one))
        assert spent(database) > before


def test_every_group_known_by_name_is_there_also_that_of_nobody(database: Database) -> None:
    numbers = ask(control(database), database, computed({("female",): donors(1, 300)}, ("sex",)))
    assert set(numbers) == {("female",), ("male",), ("intersex",), ("unknown",)}
    assert abs(numbers[("male",)]) < 100


def test_open_names_show_only_where_noise_hides_on_whom_they_rest(database: Database) -> None:
    release = control(database)
    groups = {("FR",): donors(1, 400), ("IS",): donors(401, 401), ("DE",): donors(402, 406)}
    answer = seal(database, release.protect(computed(groups, ("country_iso2",), within=8)))
    assert [cell.key[0].text for cell in answer.count.cells] == ["FR"]
    assert answer.count.groups_withheld
    noise = answer.protection.noise
    assert noise.delta == MUCH.delta
    assert noise.shown_from == 1 + 1 + math.ceil(4.3464 * 4.7534)
    nobody = seal(database, release.protect(computed({("IS",): donors(1, 1)}, ("country_iso2",), where=FEMALE)))
    assert nobody.reason.code == "release.too_few_donors"
    # What is withheld was measured all the same, so it is paid for all the same.
    assert nobody.protection.noise.charged > 0


def test_a_donor_counts_in_no_more_groups_than_allowed(database: Database) -> None:
    """Of a donor in three groups of lines two are counted, by a hash: the sum says so, within noise."""
    everywhere = {(name,): donors(1, 500) for name in ("iPSC", "ESC", "derived")}
    answer = seal(database, control(database).protect(computed(everywhere, ("type",), dataset="cell_lines", within=3)))
    assert answer.protection.noise.contributions == 2
    counted = sum(cell.number for cell in answer.count.cells)
    assert abs(counted - 1000) < 12 * answer.protection.noise.scale * math.sqrt(len(answer.count.cells))
    by_own = computed({("female",): donors(1, 500)}, ("donor.sex",), dataset="cell_lines")
    assert control(database).protect(by_own).answer.protection.noise.contributions == 1


def test_no_donor_counts_for_more_records_than_allowed_and_where_there_are_too_many_none_are_counted(
    database: Database,
) -> None:
    one = numpy.concatenate([numpy.repeat(numpy.array([7], dtype=numpy.int32), 400), donors(1, 100)])
    records = computed({(): one}, dataset="cell_lines", unit=Unit.RECORDS, within=30)
    answer = seal(database, control(database).protect(records))
    assert answer.protection.noise.contributions == 3
    assert answer.protection.unit == query_pb2.COUNT_UNIT_RECORDS
    assert abs(answer.count.cells[0].number - 102) < 12 * answer.protection.noise.scale
    with pytest.raises(Refused) as caught:
        control(database).protect(computed({(): one}, dataset="variants", unit=Unit.RECORDS))
    assert caught.value.code == "privacy.records"


@pytest.mark.parametrize(
    "where",
    [
        DescendsFrom("UKKi023-A"),
        Compare("parent_line.type", Operator.EQUAL, "iPSC"),
        Not(Has("parent_line.lots")),
    ],
)
def test_a_question_that_looks_at_other_donors_rows_gets_no_answer(database: Database, where: Filter) -> None:
    with pytest.raises(OtherDonors):
        control(database).protect(computed({(): donors(1, 300)}, dataset="cell_lines", where=where))


def test_a_question_that_fixes_the_disease_is_charged_to_those_who_have_it(database: Database) -> None:
    release = control(database)
    for where, stratum in (
        (PARKINSON, "MONDO:0005180"),
        (AllOf((FEMALE, PARKINSON)), "MONDO:0005180"),
        (OneOf("primary_disease_term", ("MONDO:0005180",)), "MONDO:0005180"),
        (AnyOf((FEMALE, PARKINSON)), ""),
        (Not(PARKINSON), ""),
        (None, ""),
    ):
        seal(database, release.protect(computed({(): donors(1, 300)}, where=where, project=str(where))))
        assert Account(database, MUCH).entries()[-1].charge.stratum == stratum


def test_an_account_that_is_spent_refuses_and_what_was_answered_is_answered(database: Database) -> None:
    section = PrivacySection()
    release = control(database, section)
    first = ask(release, database, computed({(): donors(1, 300)}, within=3))
    with pytest.raises(BudgetSpent) as caught:
        release.protect(computed({(): donors(1, 300)}, within=5, where=FEMALE))
    assert caught.value.code == "budget.spent"
    assert ask(release, database, computed({(): donors(1, 300)}, within=3)) == first


def test_a_charge_that_another_answer_made_impossible_is_decided_again(database: Database) -> None:
    section = PrivacySection()
    release = control(database, section)
    one = release.protect(computed({(): donors(1, 300)}, within=4))
    other = release.protect(computed({(): donors(1, 300)}, within=4, where=FEMALE))
    seal(database, one)
    with pytest.raises(ReleaseMoved):
        seal(database, other)


def test_two_that_ask_the_same_at_once_get_one_draw(database: Database) -> None:
    release = control(database)
    one, other = (release.protect(computed({(): donors(1, 300)})) for _ in range(2))
    seal(database, one)
    with pytest.raises(ReleaseMoved):
        seal(database, other)
    assert seal(database, release.protect(computed({(): donors(1, 300)}))).count == one.answer.count


def test_an_answer_that_is_never_sealed_costs_nothing(database: Database) -> None:
    control(database).protect(computed({(): donors(1, 300)}))
    assert spent(database) == 0


def test_a_price_is_told_without_reading_or_charging_anything(database: Database) -> None:
    release = control(database, PrivacySection())
    price = release.protect(computed({}, within=8, price_only=True)).answer.price
    assert (price.rho, price.charge) == pytest.approx((0.02647, 0.02647), abs=1e-5)
    assert (price.half_width, price.kind) == (8, query_pb2.NUMBER_KIND_PRIVATE)
    assert (price.left_of_researcher, price.left_of_center) == pytest.approx((0.16, 0.64))
    assert spent(database) == 0
    seal(database, release.protect(computed({(): donors(1, 300)}, within=8)))
    again = release.protect(computed({}, within=8, price_only=True)).answer.price
    assert (again.charge, again.left_of_researcher) == (0, pytest.approx(0.16 - price.rho))
    finer = release.protect(computed({}, within=5, price_only=True)).answer.price
    assert finer.charge == pytest.approx(finer.rho - price.rho)


def test_exact_numbers_are_for_the_grants_researcher_project_and_datasets_until_it_ends(database: Database) -> None:
    release, grants = control(database), Grants(database)
    exact = computed({(): donors(1, 300)}, kind=Kind.GRANTED, project="atlas", where=FEMALE)
    with pytest.raises(NotGranted):
        release.protect(exact)
    grant = grants.give(
        researcher="lyon/ada",
        project="atlas",
        datasets=frozenset({"donors"}),
        because="a contract",
        by="marie",
        ends_at_ms=exact.cohort.permit.asked.question.expires_at_ms,
    )
    answer = seal(database, release.protect(exact))
    assert (answer.protection.kind, answer.protection.grant) == (query_pb2.NUMBER_KIND_GRANTED, grant.id)
    assert [cell.number for cell in answer.count.cells] == [300]
    assert spent(database) == 0
    for other in (
        computed({(): donors(1, 300)}, kind=Kind.GRANTED, project="another"),
        computed({(): donors(1, 300)}, kind=Kind.GRANTED, project="atlas", who=BOB),
        computed({(): donors(1, 300)}, kind=Kind.GRANTED, project="atlas", dataset="cell_lines"),
        computed({(): donors(1, 300)}, kind=Kind.GRANTED, project="atlas", where=Has("cell_lines")),
    ):
        with pytest.raises(NotGranted):
            release.protect(other)
    decided = release.protect(exact)
    grants.withdraw(grant.id, because="over")
    with pytest.raises(ReleaseMoved):
        seal(database, decided)
    with pytest.raises(NotGranted):
        release.protect(exact)


def test_the_federation_may_forbid_grants_and_lower_the_account(database: Database) -> None:
    release, grants = control(database), Grants(database)
    exact = computed({(): donors(1, 300)}, kind=Kind.GRANTED)
    ends = exact.cohort.permit.asked.question.expires_at_ms
    names = frozenset({"*"})
    grants.give(researcher="lyon/ada", project="*", datasets=names, because="x", by="marie", ends_at_ms=ends)
    release.protect(exact)
    release.raise_to(Floors(privacy=PrivacyFloors(grants=False, year=0.01, lifetime=1.0)))
    with pytest.raises(NotGranted):
        release.protect(exact)
    with pytest.raises(BudgetSpent):
        release.protect(computed({(): donors(1, 300)}, within=8))


def test_which_draws_counted_a_donor_is_told(database: Database) -> None:
    release = control(database)
    one = computed({("FR",): donors(1, 300), ("IS",): donors(301, 301)}, ("country_iso2",))
    seal(database, release.protect(one))
    query_id = one.cohort.permit.asked.question.query_id
    for donor, counted in ((300, True), (301, True), (302, False)):
        assert [found[:2] for found in draws.counting(database, donor)] == ([("donors", query_id)] if counted else [])
