"""Budgets on both databases: charged once, never beyond, refilled by the steward alone, and by several at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from connexon import signed
from connexon.clock import DAY, now_ms
from connexon.credential import NOTHING_REVOKED, Grant
from connexon.database import Database
from connexon.errors import InvalidQuery
from connexon.question import Purpose
from connexon_node.privacy import Account, Budgets, BudgetSpent, Kind, epsilon_of, project_of, rho_of
from connexon_node.settings import PrivacySection
from connexon_node.state import open_state
from tests.support.federation import new_federation

SECTION = PrivacySection(budget_epsilon=2.0, budget_delta=1e-5)
ADA = {"researcher": "kyoto/ada", "project": "atlas", "dataset": "donors"}
WHOLE = rho_of(2.0, 5e-6)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


@pytest.fixture
def budgets(database: Database) -> Budgets:
    return Budgets(database, SECTION)


def charge(
    budgets: Budgets, database: Database, share: float, query: str, *, task: str = "", delta: float = 0.0, **other: str
) -> None:
    with database.writing() as connection:
        budgets.charge(
            connection, **{**ADA, **other}, rho=WHOLE * share, query_id=query, task=task, at_ms=7, delta=delta
        )


def account(budgets: Budgets, database: Database, **other: str) -> Account:
    with database.reading() as connection:
        return budgets.account(connection, **{**ADA, **other})


def test_an_account_that_nobody_used_has_the_whole_default_limit(budgets: Budgets, database: Database) -> None:
    with database.reading() as connection:
        assert budgets.left(connection, **ADA) == pytest.approx(WHOLE)
    assert budgets.accounts() == []


def test_charges_add_up_and_stop_at_the_limit(budgets: Budgets, database: Database) -> None:
    for number in range(10):
        charge(budgets, database, 0.1, f"q{number}")
    assert account(budgets, database).left == pytest.approx(0, abs=1e-9)
    with pytest.raises(BudgetSpent) as refusal:
        charge(budgets, database, 0.01, "q10")
    assert refusal.value.code == "budget.spent"
    assert "of epsilon 2, 2 is spent" in refusal.value.public
    assert len(budgets.entries(**ADA)) == 10


def test_every_charge_counts_whatever_id_it_comes_under(budgets: Budgets, database: Database) -> None:
    """What is sealed once is charged once; an id that was used before pays for nothing that comes later."""
    charge(budgets, database, 0.01, "q1", task="round-1")
    charge(budgets, database, 0.6, "q1", task="round-1")
    charge(budgets, database, 0.3, "q1", task="round-2")
    assert account(budgets, database).left == pytest.approx(WHOLE * 0.09)
    with pytest.raises(BudgetSpent):
        charge(budgets, database, 0.1, "q1", task="round-2")


def test_a_charge_that_is_rolled_back_was_never_made(budgets: Budgets, database: Database) -> None:
    with pytest.raises(RuntimeError), database.writing() as connection:
        budgets.charge(connection, **ADA, rho=WHOLE, query_id="q1", at_ms=7)
        raise RuntimeError
    assert account(budgets, database).spent == 0


@pytest.mark.parametrize("other", [{"researcher": "kyoto/bob"}, {"project": ""}, {"dataset": "lots"}])
def test_accounts_are_apart_by_researcher_project_and_dataset(
    budgets: Budgets, database: Database, other: dict[str, str]
) -> None:
    charge(budgets, database, 1.0, "q1")
    assert account(budgets, database, **other).left == pytest.approx(WHOLE)
    charge(budgets, database, 1.0, "q2", **other)
    assert len(budgets.accounts()) == 2


def test_only_a_refill_gives_back_and_what_left_stays_known(budgets: Budgets, database: Database) -> None:
    charge(budgets, database, 0.8, "q1", delta=4e-6)
    after = budgets.refill(**ADA, by="steward", because="a new year", rho=WHOLE * 0.4)
    assert after.spent == pytest.approx(WHOLE * 0.4)
    assert after.delta_spent == pytest.approx(2e-6)
    after = budgets.refill(**ADA, by="steward", because="and more")
    assert (after.spent, after.delta_spent) == (pytest.approx(0), pytest.approx(0))
    assert after.ever_spent == pytest.approx(WHOLE * 0.8)
    assert [entry.kind for entry in budgets.entries(**ADA)] == [Kind.CHARGE, Kind.REFILL, Kind.REFILL]
    assert budgets.entries(**ADA)[1].note == "a new year"


def test_a_refill_never_gives_more_than_was_spent(budgets: Budgets, database: Database) -> None:
    with pytest.raises(InvalidQuery) as refusal:
        budgets.refill(**ADA, by="steward", because="for nothing")
    assert refusal.value.code == "budget.full"
    charge(budgets, database, 0.1, "q1")
    assert budgets.refill(**ADA, by="steward", because="much", rho=100.0).left == pytest.approx(WHOLE)
    charge(budgets, database, 0.1, "q2")
    for wrong in (0.0, -1.0):
        with pytest.raises(InvalidQuery):
            budgets.refill(**ADA, by="steward", because="wrong", rho=wrong)


def test_a_limit_of_its_own_stands_before_the_default_and_zero_closes(budgets: Budgets, database: Database) -> None:
    after = budgets.set_limit(**ADA, rho=budgets.rho(4.0), by="steward", because="a trial of theirs")
    assert after.own_limit
    assert budgets.epsilon(after.limit) == pytest.approx(4.0)
    charge(budgets, database, 1.5, "q1")
    budgets.set_limit(**ADA, rho=0.0, by="steward", because="misuse")
    with pytest.raises(BudgetSpent, match="closed"):
        charge(budgets, database, 0.001, "q2")
    assert account(budgets, database).left == 0


def test_a_default_of_zero_closes_every_account(database: Database) -> None:
    closed = Budgets(database, PrivacySection(budget_epsilon=0.0))
    with database.writing() as connection, pytest.raises(BudgetSpent):
        closed.charge(connection, **ADA, rho=1e-12, query_id="q1", at_ms=7)


def test_what_thresholds_add_to_the_delta_is_limited_too(budgets: Budgets, database: Database) -> None:
    charge(budgets, database, 0.01, "q1", delta=4e-6)
    with pytest.raises(BudgetSpent):
        charge(budgets, database, 0.01, "q2", delta=2e-6)
    charge(budgets, database, 0.01, "q3", delta=1e-6)
    assert account(budgets, database).delta_spent == pytest.approx(5e-6)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_charge_is_a_positive_number(budgets: Budgets, database: Database, wrong: float) -> None:
    with database.writing() as connection, pytest.raises(ValueError, match="charge"):
        budgets.charge(connection, **ADA, rho=wrong, query_id="q1", at_ms=7)


def test_many_at_once_spend_no_more_than_there_is(budgets: Budgets, database: Database) -> None:
    refused = []

    def spend(number: int) -> None:
        try:
            charge(budgets, database, 0.3, f"q{number}")
        except BudgetSpent:
            refused.append(number)

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
    assert account(budgets, database).spent == pytest.approx(WHOLE * 0.9)


def test_a_full_account_holds_its_epsilon_at_its_delta(budgets: Budgets, database: Database) -> None:
    for number in range(10):
        charge(budgets, database, 0.1, f"q{number}")
    assert epsilon_of(account(budgets, database).ever_spent, SECTION.budget_delta / 2) <= 2.0 * (1 + 1e-6)


def test_a_project_has_an_account_of_its_own_only_where_a_credential_vouches_for_it() -> None:
    federation = new_federation()
    moment = now_ms()
    vouched = Grant(
        "ControlledAccessGrants", "atlas", source="", by="", asserted_ms=moment - 1, expires_ms=moment + DAY
    )
    for grants, project in (((), ""), ((vouched,), "atlas")):
        asker = federation.researcher("lyon", "ada", grants=grants)
        for named, expected in (("atlas", project), ("another", ""), ("", "")):
            purpose = Purpose(research=("DUO:0000037",), project=named)
            query = asker.sign(asker.question(["kyoto"], purpose=purpose))
            asked = signed.verify_query(query, federation.roster(), NOTHING_REVOKED)
            assert project_of(asked, at_ms=now_ms()) == expected
