"""Release under differential privacy, on both databases: bounded, noisy, drawn and paid for once, and in its limits."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace

import numpy
import pytest
from numpy.typing import NDArray

from connexon import signed
from connexon.credential import NOTHING_REVOKED
from connexon.database import Database
from connexon.errors import Refused
from connexon.question import All as AllOf
from connexon.question import Any as AnyOf
from connexon.question import Compare, Count, DescendsFrom, Describe, DifferentialPrivacy, Has, Not, Operator
from connexon.v1 import answer_pb2
from connexon.wire_filter import value_from_wire
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.dictionary import DICTIONARY
from connexon_node.pipeline import Cell, CellTable, Cohort, Computed, Offer, Permit, Reach, Released, ReleaseMoved
from connexon_node.privacy import BudgetSpent, draws, epsilon_of
from connexon_node.privacy.contributions import OtherDonors
from connexon_node.release import ReleaseControl
from connexon_node.release.floors import Floors, PrivacyFloors
from connexon_node.release.ledger import ReleaseLedger
from connexon_node.settings import PrivacySection, ReleaseSection
from connexon_node.state import open_state
from tests.support.federation import Asker, new_federation

Donors = NDArray[numpy.int32]
EVERYBODY = numpy.arange(1, 1001, dtype=numpy.int32)
GENERAL = ConsentProfile.parse("DUO:0000042", form_version="1")
TERMS = DifferentialPrivacy(1.0, 1e-6)
FEDERATION = new_federation()
ROSTER = FEDERATION.roster()
ADA, BOB = FEDERATION.researcher("lyon", "ada"), FEDERATION.researcher("boston", "bob")
FEMALE, ADULT = (Compare("sex", Operator.EQUAL, "female"), Compare("eligibility", Operator.EQUAL, "eligible"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


def control(database: Database, *, minimum: int = 5, to: int = 1, **privacy: float) -> ReleaseControl:
    section = PrivacySection(**privacy)  # type: ignore[arg-type]
    return ReleaseControl(ReleaseSection(minimum_donors=minimum, round_to=to), DICTIONARY, database, privacy=section)


def computed(
    groups: dict[tuple[object, ...], Donors],
    by: tuple[str, ...] = (),
    *,
    terms: DifferentialPrivacy | None = TERMS,
    who: Asker = ADA,
    dataset: str = "donors",
    where: object = None,
    epoch: int = 0,
    profiles: frozenset[int] = frozenset({1}),
    generation: int = 1,
) -> Computed:
    question = who.question(["kyoto"], Count(by), dataset=dataset, where=where)  # type: ignore[arg-type]
    asked = signed.verify_query(who.sign(replace(question, privacy=terms)), ROSTER, NOTHING_REVOKED)
    cells = tuple(Cell(key, one.size, numpy.unique(one).size, one) for key, one in groups.items())  # type: ignore[arg-type]
    cohort = Cohort(Permit(asked, "rule", "abc"), profiles, epoch)
    return Computed(cohort, CellTable(by, cells), {dataset: generation}, DICTIONARY.version, EVERYBODY)


def described(reaches: tuple[Reach, ...], terms: DifferentialPrivacy | None) -> Computed:
    question = replace(ADA.question(["kyoto"], Describe(), dataset=""), privacy=terms)
    asked = signed.verify_query(ADA.sign(question), ROSTER, NOTHING_REVOKED)
    cohort = Cohort(Permit(asked, "rule", "abc"), frozenset({1}), 0)
    return Computed(cohort, Offer(reaches), {}, DICTIONARY.version)


def donors(low: int, high: int) -> Donors:
    return numpy.arange(low, high + 1, dtype=numpy.int32)


def seal(database: Database, released: Released) -> answer_pb2.Answer:
    assert released.commit is not None
    with database.writing() as connection:
        released.commit(connection)
    return released.answer


def ask(release: ReleaseControl, database: Database, one: Computed) -> dict[tuple[object, ...], int]:
    answer = seal(database, release.protect(one))
    return {tuple(value_from_wire(value) for value in cell.key): cell.count for cell in answer.count.cells}


def spent(release: ReleaseControl, who: str = "lyon/ada", dataset: str = "donors") -> float:
    budgets = release._private.budgets
    entries = budgets.entries(researcher=who, project="", dataset=dataset)
    return sum(entry.rho for entry in entries)


def test_a_total_has_noise_that_the_answer_states(database: Database) -> None:
    answer = seal(database, control(database).protect(computed({(): donors(1, 400)})))
    noise = answer.protection.noise
    assert answer.count.noisy
    assert (noise.epsilon, noise.delta, noise.records_per_donor) == (1.0, 1e-6, 1)
    assert noise.scale == pytest.approx(1 / (2 * noise.rho) ** 0.5, rel=1e-9)
    assert epsilon_of(noise.rho, noise.delta * 0.995) <= 1.0
    assert noise.half_width == pytest.approx(1.96 * noise.scale, abs=1)
    assert abs(answer.count.cells[0].count - 400) < 10 * noise.scale


def test_noise_is_drawn_from_around_the_true_number(database: Database) -> None:
    release = control(database, minimum=1, budget_epsilon=1000.0, maximum_epsilon=10.0)
    numbers = [
        ask(release, database, computed({(): donors(1, 400)}, terms=DifferentialPrivacy(1.0 + step * 1e-6, 1e-6)))[()]
        for step in range(60)
    ]
    assert len(set(numbers)) > 5
    assert abs(sum(numbers) / 60 - 400) < 6 * 4.6 / 60**0.5


def test_the_same_question_gets_the_same_numbers_whoever_asks_and_is_paid_for_once(database: Database) -> None:
    release = control(database)
    groups = {("female",): donors(1, 300), ("male",): donors(301, 700)}
    first = ask(release, database, computed(groups, ("sex",)))
    paid = spent(release)
    assert paid > 0
    assert ask(release, database, computed(groups, ("sex",))) == first
    assert ask(control(database), database, computed(groups, ("sex",), who=BOB)) == first
    assert spent(release) == paid
    assert spent(release, "boston/bob") == 0


@pytest.mark.parametrize(
    "other",
    [
        AllOf((ADULT, FEMALE)),
        AllOf((FEMALE, AllOf((ADULT, ADULT)))),
        Not(AnyOf((Not(FEMALE), Not(ADULT)))),
        AllOf((FEMALE, ADULT, AnyOf((FEMALE, Compare("age_range_y", Operator.EQUAL, "30-34"))))),
        Not(AnyOf((Compare("sex", Operator.NOT_EQUAL, "female"), Not(ADULT)))),
    ],
)
def test_other_words_for_the_same_condition_are_the_same_question(database: Database, other: object) -> None:
    release = control(database)
    first = ask(release, database, computed({(): donors(1, 300)}, where=AllOf((FEMALE, ADULT))))
    assert ask(release, database, computed({(): donors(1, 300)}, where=other, who=BOB)) == first
    assert spent(release, "boston/bob") == 0


def test_another_order_of_fields_is_the_same_question(database: Database) -> None:
    release = control(database, minimum=1)
    groups = {("female", "eligible"): donors(1, 300), ("male", "ineligible"): donors(301, 700)}
    first = ask(release, database, computed(groups, ("sex", "eligibility")))  # type: ignore[arg-type]
    turned = {(two, one): behind for (one, two), behind in groups.items()}
    second = ask(release, database, computed(turned, ("eligibility", "sex"), who=BOB))  # type: ignore[arg-type]
    assert {(two, one): number for (one, two), number in second.items()} == first
    assert spent(release, "boston/bob") == 0


@pytest.mark.parametrize(
    "other",
    [
        {"terms": DifferentialPrivacy(0.9, 1e-6)},
        {"generation": 2},
        {"profiles": frozenset({1, 2})},
        {"where": FEMALE},
        {"dataset": "consents"},
    ],
)
def test_another_question_is_drawn_and_paid_for_by_itself(database: Database, other: dict[str, object]) -> None:
    release = control(database)
    ask(release, database, computed({(): donors(1, 300)}))
    ask(release, database, computed({(): donors(1, 300)}, who=BOB, **other))  # type: ignore[arg-type]
    assert spent(release, "boston/bob", str(other.get("dataset", "donors"))) > 0


def test_equal_cohorts_of_different_questions_do_not_show_that_they_are_equal(database: Database) -> None:
    """A draw that depended on the cohort would tell that two conditions select the same donors."""
    release = control(database, minimum=1, budget_epsilon=1000.0)
    same = [
        ask(release, database, computed({(): donors(1, 300)}, where=Compare("age_range_y", Operator.EQUAL, f"{n}")))
        for n in range(12)
    ]
    assert len({numbers[()] for numbers in same}) > 3


def test_a_draw_stands_until_enough_donors_consents_have_changed(database: Database) -> None:
    release, ledger = control(database, minimum=3), Ledger(database)
    first = ask(release, database, computed({(): donors(1, 300)}, epoch=ledger.epoch()))
    for number in range(1, 5):
        ledger.record(ConsentRecord(f"D-{number}", GENERAL, datetime.date(2026, 1, 1)), by="steward")
        ask(release, database, computed({(): donors(1, 300)}, epoch=ledger.epoch()))
        assert (len(release._private.budgets.entries(researcher="lyon/ada", project="", dataset="donors")) > 1) == (
            number >= 3
        )
    assert first


def test_an_answer_that_is_never_sealed_costs_nothing_and_its_noise_is_gone(database: Database) -> None:
    release = control(database)
    for _ in range(3):
        release.protect(computed({(): donors(1, 300)}))
    assert spent(release) == 0
    one = computed({(): donors(1, 300)})
    with pytest.raises(RuntimeError), database.writing() as connection:
        unsealed = release.protect(one)
        assert unsealed.commit is not None
        unsealed.commit(connection)
        raise RuntimeError
    assert spent(release) == 0
    ask(release, database, one)
    assert len(release._private.budgets.entries(researcher="lyon/ada", project="", dataset="donors")) == 1


def test_two_that_ask_the_same_at_once_get_one_draw(database: Database) -> None:
    release = control(database)
    one, other = computed({(): donors(1, 300)}), computed({(): donors(1, 300)}, who=BOB)
    early, late = release.protect(one), release.protect(other)
    seal(database, early)
    with pytest.raises(ReleaseMoved):
        seal(database, late)
    assert seal(database, release.protect(other)).count == early.answer.count
    assert spent(release, "boston/bob") == 0


def test_an_empty_budget_refuses_and_says_so_and_what_was_answered_is_answered(database: Database) -> None:
    release = control(database, budget_epsilon=1.2)
    first = ask(release, database, computed({(): donors(1, 300)}))
    with pytest.raises(BudgetSpent) as refusal:
        release.protect(computed({(): donors(1, 300)}, where=FEMALE))
    assert refusal.value.code == "budget.spent"
    assert ask(release, database, computed({(): donors(1, 300)})) == first
    ask(release, database, computed({(): donors(1, 300)}, where=FEMALE, who=BOB))


def test_a_budget_that_another_answer_took_meanwhile_is_decided_again(database: Database) -> None:
    release = control(database, budget_epsilon=1.2)
    slow = release.protect(computed({(): donors(1, 300)}, where=FEMALE))
    ask(release, database, computed({(): donors(1, 300)}))
    with pytest.raises(ReleaseMoved):
        seal(database, slow)
    with pytest.raises(BudgetSpent):
        release.protect(computed({(): donors(1, 300)}, where=FEMALE))


def test_no_number_rests_on_fewer_donors_and_names_of_small_groups_stay_inside(database: Database) -> None:
    release = control(database, minimum=5, budget_epsilon=1000.0)
    groups = {("DE",): donors(1, 400), ("IS",): donors(401, 404), ("FR",): donors(405, 410)}
    for step in range(40):
        answer = seal(
            database,
            release.protect(computed(groups, ("country_iso2",), terms=DifferentialPrivacy(1.0 + step * 1e-6, 1e-6))),
        )
        assert [cell.key[0].text for cell in answer.count.cells] == ["DE"]
        assert answer.count.groups_withheld
        assert answer.protection.noise.shown_from > 5 + 4 * answer.protection.noise.scale


def test_where_one_donor_may_show_every_group_known_by_name_gets_noise(database: Database) -> None:
    release = control(database, minimum=1)
    answer = seal(database, release.protect(computed({("female",): donors(1, 300)}, ("sex",))))
    assert {cell.key[0].text for cell in answer.count.cells} == {"female", "male", "intersex", "unknown"}
    assert not answer.count.groups_withheld
    assert answer.protection.noise.shown_from == 0
    unknown = seal(database, release.protect(computed({("DE",): donors(1, 1)}, ("country_iso2",))))
    assert unknown.status == answer_pb2.ANSWER_STATUS_SUPPRESSED
    assert unknown.protection.noise.shown_from > 0


def test_nobody_and_a_few_are_told_alike_and_cost_alike(database: Database) -> None:
    answers = []
    for number, high in enumerate((0, 4)):
        release = control(database)
        one = computed({(): donors(1, high)}, where=Compare("age_range_y", Operator.EQUAL, f"{number}"))
        answers.append(seal(database, release.protect(one)))
    for answer in answers:
        assert answer.status == answer_pb2.ANSWER_STATUS_SUPPRESSED
        answer.ClearField("query_id")
        answer.ClearField("query_sha256")
    assert answers[0] == answers[1]


def test_numbers_are_rounded_after_the_noise(database: Database) -> None:
    answer = seal(database, control(database, to=25).protect(computed({(): donors(1, 400)})))
    assert answer.count.cells[0].count % 25 == 0
    assert answer.protection.noise.half_width == pytest.approx(1.96 * answer.protection.noise.scale + 12, abs=1)


def test_no_donor_counts_for_more_records_than_allowed(database: Database) -> None:
    release = control(database, minimum=1, records_per_donor=2, budget_epsilon=1000.0, maximum_epsilon=10.0)
    many = numpy.concatenate([donors(1, 100), numpy.repeat(numpy.int32(1), 5_000).astype(numpy.int32)])
    answer = seal(
        database,
        release.protect(computed({(): many}, dataset="lots", terms=DifferentialPrivacy(10.0, 1e-6))),
    )
    assert answer.protection.noise.records_per_donor == 2
    assert abs(answer.count.cells[0].count - 101) < 12 * answer.protection.noise.scale


def test_a_question_that_looks_at_other_donors_rows_gets_no_noise_and_no_answer(database: Database) -> None:
    release = control(database)
    parent = Compare("parent_line.type", Operator.EQUAL, "iPSC")
    child = Has("cell_lines", FEMALE)
    for where in (parent, Not(parent), AllOf((child, parent)), child, DescendsFrom("UKKi023-A")):
        with pytest.raises(OtherDonors) as refusal:
            release.protect(computed({(): donors(1, 300)}, dataset="cell_lines", where=where))
        assert refusal.value.code == "privacy.other_donors"
    with pytest.raises(OtherDonors):
        release.protect(computed({("iPSC",): donors(1, 300)}, ("parent_line.type",), dataset="cell_lines"))
    own = AllOf((Compare("donor.sex", Operator.EQUAL, "female"), Has("lots", None)))
    assert ask(release, database, computed({(): donors(1, 900)}, dataset="cell_lines", where=own))


def test_more_than_the_center_gives_is_refused(database: Database) -> None:
    release = control(database, maximum_epsilon=1.5)
    for terms in (DifferentialPrivacy(1.6, 1e-6), DifferentialPrivacy(1.0, 1e-5)):
        with pytest.raises(Refused) as refusal:
            release.protect(computed({(): donors(1, 300)}, terms=terms))
        assert refusal.value.code == "privacy.too_much"


def test_a_center_that_demands_noise_gives_it_to_who_asks_for_none_and_says_so(database: Database) -> None:
    release = control(database, required=True, epsilon=0.5, delta=1e-7)
    answer = seal(database, release.protect(computed({(): donors(1, 500)}, terms=None)))
    assert answer.count.noisy
    assert (answer.protection.noise.epsilon, answer.protection.noise.delta) == (0.5, 1e-7)
    assert spent(release) > 0
    assert ReleaseLedger(database, 5).sizes() == {}


def test_the_federation_may_demand_it_from_the_next_answer_on(database: Database) -> None:
    release = control(database)
    assert not release.protect(computed({(): donors(1, 500)}, terms=None)).answer.count.noisy
    release.raise_to(Floors(privacy=PrivacyFloors(required=True, maximum_epsilon=0.25, budget_epsilon=1.0)))
    assert release.privacy_in_force.budget_epsilon == 1.0
    answer = release.protect(computed({(): donors(1, 500)}, terms=None)).answer
    assert answer.protection.noise.epsilon == 0.25


def test_a_description_shares_its_price_among_its_datasets(database: Database) -> None:
    release = control(database)
    reaches = (
        Reach("donors", 900, 900, donors(1, 900)),
        Reach("lots", 900, 900, donors(1, 900)),
        Reach("protocols", 7, 0, None),
    )
    offer = described(reaches, TERMS)
    answer = seal(database, release.protect(offer))
    by_name = {dataset.name: dataset for dataset in answer.description.datasets}
    assert by_name["protocols"].records == 7
    assert not by_name["protocols"].HasField("noise")
    assert by_name["donors"].noise.scale * 3 == pytest.approx(by_name["lots"].noise.scale)
    together = spent(release) + spent(release, dataset="lots")
    assert epsilon_of(together, TERMS.delta * 0.995) <= TERMS.epsilon
    assert answer.protection.noise.rho == pytest.approx(together)
    again = seal(database, release.protect(offer))
    assert again.description == answer.description


def test_a_description_without_noise_has_no_numbers_where_noise_is_demanded(database: Database) -> None:
    reaches = (Reach("donors", 900, 900, donors(1, 900)), Reach("protocols", 7, 0, None))
    answer = control(database, required=True).protect(described(reaches, None)).answer
    by_name = {dataset.name: dataset for dataset in answer.description.datasets}
    assert not by_name["donors"].HasField("records")
    assert by_name["protocols"].records == 7


def test_which_draws_counted_a_donor_is_told(database: Database) -> None:
    one = computed({("DE",): donors(1, 400), ("IS",): donors(401, 402)}, ("country_iso2",))
    seal(database, control(database).protect(one))
    query_id = one.cohort.permit.asked.question.query_id
    for donor in (7, 401):
        assert [(dataset, query) for dataset, query, _ in draws.counting(database, donor)] == [("donors", query_id)]
    assert draws.counting(database, 403) == []


def test_trying_pays_nothing_and_keeps_nothing(database: Database) -> None:
    release = control(database)
    decision = release.decide(computed({(): donors(1, 400)}))
    assert decision.judged[0].why.startswith("noise of scale")
    assert spent(release) == 0
    assert ask(release, database, computed({(): donors(1, 400)}))
