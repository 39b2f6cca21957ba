"""Editions and their first-ask tables, on both databases: all of it or nothing, and what they change in answers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from connexon.analyses.describe import Describe
from connexon.errors import ConnexonError, InvalidQuery, NotFound
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.retention import collect
from connexon_node.editions import Edition, NoEdition, NotInEdition
from connexon_node.privacy import Share
from connexon_node.privacy.account import Account
from connexon_node.settings import DataSection, PrivacySection
from tests.support.editions import EditionCenter

ROOT = Path(__file__).resolve().parents[2]
DISEASES = ("MONDO:0005180", "MONDO:0004975", "", "MONDO:0000001")
MANY = 400
MUCH = PrivacySection(lifetime=40, year=10, tables=0.46, questions=9, researcher=9, models=0.1)
"""Enough for the questions of a test, and for one edition's tables as shipped."""


def donors(number: int) -> list[dict[str, object]]:
    """Half female; diseases in turn: two that the list has, none, and one that is no bank's."""
    return [
        {
            "id": f"D{one}",
            "sex": ("female", "male")[one % 2],
            "age_range_y": ("60-64", "30-34")[one % 2],
            "country_iso2": ("FR", "JP")[one % 2],
            "primary_disease_term": DISEASES[one % 4],
            "eligibility": "eligible",
        }
        for one in range(number)
    ]


def consents(number: int, **other: object) -> list[dict[str, object]]:
    """Everybody agreed to health research."""
    return [
        {
            "id": f"C{one}",
            "donor_id": f"D{one}",
            "form_version": "1",
            "obtained_on": "2026-01-10",
            "status": "active",
            "scope": "research",
            "duo_permission": "DUO:0000006",
            **other,
        }
        for one in range(number)
    ]


def lines(number: int) -> list[dict[str, object]]:
    """A line of every other donor."""
    return [
        {"id": f"L{one}", "donor_id": f"D{one}", "type": "iPSC", "grade": "research"} for one in range(0, number, 2)
    ]


@pytest.fixture
def center(tmp_path: Path, database_url: str) -> Iterator[EditionCenter]:
    made = EditionCenter(tmp_path / "node", database_url, privacy=MUCH)
    made.load_rows("consents", consents(MANY))
    made.load_rows("donors", donors(MANY))
    yield made
    made.close()


def number(answer: answer_pb2.Answer) -> int:
    (cell,) = answer.count.cells
    return cell.number


def spent(center: EditionCenter) -> float:
    return Account(center.database, center.privacy).state().total.spent


def withdraw(center: EditionCenter, many: int) -> None:
    center.load_rows(
        "consents",
        consents(many)
        + [{**one, "status": "withdrawn", "withdrawn_on": "2026-02-01"} for one in consents(MANY)[many:]],
    )


def test_without_an_edition_questions_about_persons_are_refused_and_others_are_not(center: EditionCenter) -> None:
    with pytest.raises(NoEdition) as refused:
        center.decide(center.question("donors"))
    assert refused.value.code == "edition.none"
    with pytest.raises(NotFound):
        center.decide(center.question("cell_lines"))
    assert center.editions.latest() is None


def test_an_edition_is_opened_with_its_tables_and_the_charge_for_them(center: EditionCenter) -> None:
    edition = center.open()
    assert edition == center.editions.latest() == center.editions.one(1)
    assert (edition.number, edition.generations, edition.opened_by) == (1, {"consents": 1, "donors": 1}, "steward")
    assert edition.rho == pytest.approx(0.46)
    account = Account(center.database, center.privacy).state()
    assert account.shares[Share.TABLES].spent == pytest.approx(edition.rho)
    assert account.total.spent == pytest.approx(edition.rho)
    tables = center.editions.tables(edition)
    assert tables is not None
    assert tables.half_width <= 10
    # Read again from the database, they are the same to the last bit.
    again = type(center.editions)(center.database).tables(edition)
    assert again is not None
    for name, residual in tables.estimates.residuals.items():
        assert numpy.array_equal(residual, again.estimates.residuals[name])


def test_a_count_inside_the_tables_is_free_the_same_for_all_and_says_its_edition(center: EditionCenter) -> None:
    center.open()
    before = spent(center)
    answer = center.answer(center.question("donors", "sex = 'female'"))
    assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED
    assert abs(number(answer) - MANY // 2) <= 40
    assert answer.protection.kind == query_pb2.NUMBER_KIND_PRIVATE
    assert answer.protection.edition == 1
    noise = answer.protection.noise
    assert (noise.charged, noise.rho) == (0.0, pytest.approx(0.46))
    assert 0 < noise.half_width <= 12
    assert dict(answer.provenance.generations) == {"donors": 1}
    other = center.answer(center.question("donors", "not (sex in ('male', 'intersex', 'unknown'))"))
    assert number(other) == number(answer)
    assert spent(center) == before
    grouped = center.answer(center.question("donors", "", "primary_disease_term"))
    cells = {cell.key[0].text or None: cell.number for cell in grouped.count.cells}
    assert abs(cells["MONDO:0005180"] - MANY // 4) <= 40
    assert abs(cells["other"] - MANY // 4) <= 40
    assert abs(cells[None] - MANY // 4) <= 40


def test_more_accuracy_another_purpose_and_what_tables_do_not_tell_are_charged(center: EditionCenter) -> None:
    center.open()
    before = spent(center)
    paid = [
        center.question("donors", "sex = 'female'", within=5),
        center.question("donors", "sex = 'female'", purpose="disease=MONDO:0005180"),
        center.question("donors", "sex = 'female' and country_iso2 = 'FR'"),
    ]
    for question in paid:
        answer = center.answer(question)
        assert answer.protection.noise.charged > 0
        assert answer.protection.edition == 1
        after = spent(center)
        assert after == pytest.approx(before + answer.protection.noise.charged)
        before = after
    free = center.question("donors", "sex = 'female'")
    price = center.answer(type(free)(**{**vars(free), "price_only": True})).price
    assert (price.rho, price.charge) == (0.0, 0.0)
    assert price.left_of_researcher > 0
    dear = center.question("donors", "sex = 'female'", within=4)
    assert center.answer(type(dear)(**{**vars(dear), "price_only": True})).price.charge > 0


def test_imports_change_no_private_number_until_the_next_edition(center: EditionCenter) -> None:
    center.load_rows("cell_lines", lines(MANY))
    center.open()
    asked = center.question("donors", "sex = 'female' and country_iso2 = 'FR'", within=3)
    free = center.question("cell_lines")
    first, tables = number(center.answer(asked)), number(center.answer(free))
    center.load_rows("consents", consents(10 * MANY))
    center.load_rows("donors", donors(10 * MANY))
    center.load_rows("cell_lines", lines(10 * MANY))
    assert number(center.answer(asked)) == first
    assert number(center.answer(free)) == tables
    new = center.question("donors", "sex = 'female' and country_iso2 in ('FR', 'FI')", within=3)
    assert abs(number(center.answer(new)) - MANY // 2) <= 15
    opened = center.open("many donors came")
    assert opened.number == 2
    # The tables' share of this year is spent: the edition opens all the same, without them.
    assert opened.rho == 0
    assert "is left for them until" in opened.without_tables
    answer = center.answer(new)
    assert answer.protection.edition == 2
    assert abs(number(answer) - 5 * MANY) <= 15
    assert center.answer(center.question("donors", "sex = 'female'")).protection.noise.charged > 0


def test_a_withdrawal_counts_at_once_in_what_is_asked_anew_and_not_in_tables(center: EditionCenter) -> None:
    center.open()
    free = center.question("donors", "sex = 'female'")
    before = number(center.answer(free))
    withdraw(center, 100)
    assert number(center.answer(free)) == before
    anew = center.question("donors", "sex = 'female' and country_iso2 = 'FR'", within=3)
    assert abs(number(center.answer(anew)) - 50) <= 15
    center.open("many withdrew")
    assert abs(number(center.answer(center.question("donors", "sex = 'female'", within=5))) - 50) <= 25


def test_a_dataset_that_came_later_is_not_in_the_edition(center: EditionCenter) -> None:
    center.open()
    center.load_rows("cell_lines", lines(MANY))
    for text in ("", "donor.sex = 'female'"):
        with pytest.raises(NotInEdition) as refused:
            center.decide(center.question("cell_lines", text))
        assert refused.value.code == "dataset.not_in_edition"
    with pytest.raises(NotInEdition):
        center.decide(center.question("donors", "has cell_lines"))


def test_a_killed_opening_leaves_neither_edition_nor_charge_nor_tables(
    center: EditionCenter, database_url: str
) -> None:
    command = [sys.executable, "-m", "tests.support.editions", str(center.folder), database_url]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert center.editions.latest() is None
    assert spent(center) == 0
    with pytest.raises(NoEdition):
        center.decide(center.question("donors"))
    edition = center.open()
    assert (edition.number, spent(center)) == (1, pytest.approx(edition.rho))


def test_consents_that_change_while_tables_are_measured_are_measured_again(
    center: EditionCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = center.opener()
    measured = opener._measured
    calls: list[object] = []

    def meanwhile(*given: object) -> object:
        found = measured(*given)  # type: ignore[arg-type]
        if not calls:
            center.ledger.withdraw("D7", by="steward")
        calls.append(found)
        return found

    monkeypatch.setattr(opener, "_measured", meanwhile)
    edition = opener.open(by="steward")
    assert len(calls) == 2
    assert spent(center) == pytest.approx(edition.rho)


def test_within_a_year_the_steward_says_why(center: EditionCenter) -> None:
    center.open()
    with pytest.raises(InvalidQuery, match="less than a year ago") as refused:
        center.open()
    assert refused.value.code == "edition.because"
    assert center.editions.latest() == center.editions.one(1)
    assert center.open("a mistake in the last").because == "a mistake in the last"
    assert [one.number for one in center.editions.all()] == [1, 2]


def test_donors_whose_consent_has_conditions_on_who_asks_are_not_in_the_tables(
    tmp_path: Path, database_url: str
) -> None:
    center = EditionCenter(tmp_path / "other", database_url)
    given = consents(MANY)
    conditions = ("DUO:0000045", "DUO:0000022=ISO:FR", "DUO:0000020", "DUO:0000021")
    held = [{**one, "modifiers": conditions[number % 4]} for number, one in enumerate(given[100:])]
    center.load_rows("consents", given[:100] + held)
    center.load_rows("donors", donors(MANY))
    center.open()
    assert abs(number(center.answer(center.question("donors"))) - 100) <= 40
    center.close()


def test_an_edition_whose_tables_cannot_be_paid_opens_without(tmp_path: Path, database_url: str) -> None:
    section = PrivacySection(year=0.64, tables=0, questions=0.6, models=0.04)
    center = EditionCenter(tmp_path / "poor", database_url, privacy=section)
    with pytest.raises(ConnexonError, match="Nothing is imported"):
        center.open()
    center.load_rows("consents", consents(MANY))
    center.load_rows("donors", donors(MANY))
    edition = center.open()
    assert (edition.rho, spent(center)) == (0.0, 0.0)
    assert edition.without_tables
    assert center.answer(center.question("donors")).protection.noise.charged > 0
    center.close()


def test_garbage_collection_keeps_what_the_edition_in_force_is_made_of(center: EditionCenter) -> None:
    center.open()
    for _ in range(3):
        center.load_rows("donors", donors(MANY))
    none_kept = DataSection(keep_generations=1, keep_days=0)
    removed = collect(center.generations, center.editions, none_kept, dry_run=False).removed
    assert [(one.dataset, one.number) for one in removed] == [("donors", 2), ("donors", 3)]
    center.answer(center.question("donors", "sex = 'female' and country_iso2 = 'FR'"))
    center.open("the next")
    removed = collect(center.generations, center.editions, none_kept, dry_run=False).removed
    assert [(one.dataset, one.number) for one in removed] == [("donors", 1)]


def test_a_catalog_gives_the_numbers_that_tables_tell_at_no_price(center: EditionCenter) -> None:
    center.load_rows("cell_lines", lines(MANY))
    edition: Edition = center.open()
    question = center.question("donors")
    described = type(question)(**{**vars(question), "dataset": "", "analysis": Describe()})
    answer = center.answer(described)
    found = {one.name: one for one in answer.description.datasets}
    assert abs(found["donors"].number - MANY) <= 40
    assert abs(found["cell_lines"].number - MANY // 2) <= 60
    assert found["donors"].kind == query_pb2.NUMBER_KIND_PRIVATE
    assert found["donors"].noise.charged == 0
    assert not found["consents"].HasField("number")
    assert answer.protection.edition == edition.number
    assert spent(center) == pytest.approx(edition.rho)
    other = type(question)(**{**vars(described), "purpose": center.question("donors", purpose="methods").purpose})
    assert not any(one.HasField("number") for one in center.answer(other).description.datasets)
