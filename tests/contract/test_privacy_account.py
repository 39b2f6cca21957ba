"""The account of persons, on both databases: charged once, never beyond a limit, and kept apart by disease."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.clock import DAY
from connexon.errors import InvalidQuery
from connexon.service.database import Database
from connexon_node.privacy import Account, BudgetSpent, Charge, Share
from connexon_node.privacy.account import YEAR_MS
from connexon_node.settings import PrivacySection
from connexon_node.state import open_state

BEGUN = 1_790_000_000_000
DEFAULT = PrivacySection()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


@pytest.fixture
def account(database: Database) -> Account:
    return Account(database, DEFAULT)


def ask(rho: float, who: str = "lyon/ada", stratum: str = "", delta: float = 0.0) -> Charge:
    return Charge(Share.QUESTIONS, rho, delta, researcher=who, stratum=stratum)


def pay(account: Account, charge: Charge, at_ms: int = BEGUN) -> None:
    with account._database.writing() as connection:
        account.charge(connection, charge, query_id="q", at_ms=at_ms)


def test_a_charge_is_taken_from_the_researcher_their_share_the_year_and_the_lifetime(account: Account) -> None:
    pay(account, ask(0.1))
    state = account.state(at_ms=BEGUN)
    assert (state.total.spent, state.lifetime.spent) == pytest.approx((0.1, 0.1))
    assert state.shares[Share.QUESTIONS].left == pytest.approx(0.54)
    assert state.shares[Share.TABLES].left == pytest.approx(0.46)
    assert account.researchers(at_ms=BEGUN)["lyon/ada"].left == pytest.approx(0.06)


def test_one_researcher_and_all_of_them_together_have_limits(account: Account) -> None:
    pay(account, ask(0.16))
    with pytest.raises(BudgetSpent, match="Your share"):
        pay(account, ask(0.001))
    for number in range(3):
        pay(account, ask(0.16, f"lyon/{number}"))
    with pytest.raises(BudgetSpent, match="researchers' questions"):
        pay(account, ask(0.001, "lyon/late"))
    assert account.state(at_ms=BEGUN).total.spent == pytest.approx(0.64)


def test_no_share_spends_what_another_has_but_all_stay_within_the_year(database: Database) -> None:
    account = Account(database, PrivacySection(year=1.0, tables=0.4, questions=0.3, models=0.3))
    pay(account, Charge(Share.TABLES, 0.4))
    pay(account, Charge(Share.MODELS, 0.3))
    with pytest.raises(BudgetSpent):
        pay(account, Charge(Share.MODELS, 0.01))
    pay(account, ask(0.16))
    pay(account, ask(0.14, "lyon/bob"))
    with pytest.raises(BudgetSpent, match="this year"):
        pay(account, ask(0.01, "lyon/bob"))


def test_questions_about_one_disease_are_charged_to_those_who_have_it(account: Account) -> None:
    for number in range(8):
        pay(account, ask(0.15, stratum=f"MONDO:{number}"))
    assert account.state(at_ms=BEGUN).total.spent == pytest.approx(0.15)
    # A question about everybody finds the stratum that has spent the most.
    with pytest.raises(BudgetSpent):
        pay(account, ask(0.02))
    pay(account, ask(0.01))
    with pytest.raises(BudgetSpent):
        pay(account, ask(0.01, stratum="MONDO:3"))
    pay(account, ask(0.14, stratum="MONDO:99"))


def test_a_year_may_spend_a_quarter_of_what_is_left_of_the_lifetime(database: Database) -> None:
    account = Account(database, PrivacySection(researcher=2.0))
    limits = []
    for year in range(6):
        moment = BEGUN + year * YEAR_MS + DAY
        limits.append(account.state(at_ms=moment).total.limit)
        pay(account, Charge(Share.TABLES, 0.46 * limits[-1] / 1.28), BEGUN if year == 0 else moment)
        pay(account, ask(0.64 * limits[-1] / 1.28), moment)
        pay(account, Charge(Share.MODELS, 0.18 * limits[-1] / 1.28), moment)
    assert limits[:4] == pytest.approx([1.28, 0.96, 0.72, 0.54])
    assert account.state(at_ms=BEGUN + 5 * YEAR_MS + DAY).lifetime.spent < 5.12


def test_what_an_earlier_year_left_over_is_not_added_to_the_next(account: Account) -> None:
    pay(account, ask(0.1))
    later = BEGUN + YEAR_MS
    assert account.state(at_ms=later).year == 2
    assert account.state(at_ms=later).total.limit == pytest.approx(min(1.28, (5.12 - 0.1) / 4))
    assert account.researchers(at_ms=later)["lyon/ada"].spent == 0


def test_only_the_steward_gives_a_researcher_another_share_and_the_center_has_its_limits_still(
    account: Account,
) -> None:
    pay(account, ask(0.16))
    assert account.set_share("lyon/ada", rho=0.6, by="marie", because="a big study").limit == pytest.approx(0.6)
    pay(account, ask(0.44))
    with pytest.raises(BudgetSpent):
        pay(account, ask(0.05))
    account.set_share("lyon/ada", rho=0.0, by="marie", because="it is over")
    with pytest.raises(BudgetSpent, match="Your share"):
        pay(account, ask(0.001))
    with pytest.raises(InvalidQuery):
        account.set_share("lyon/ada", rho=float("nan"), by="marie", because="?")


def test_deltas_of_thresholds_add_up_to_a_limit_of_their_own(database: Database) -> None:
    account = Account(database, PrivacySection(delta=1e-6, delta_of_year=2e-6))
    pay(account, ask(0.001, delta=1e-6))
    pay(account, ask(0.001, delta=1e-6, stratum="MONDO:1"))
    with pytest.raises(BudgetSpent, match="open names"):
        pay(account, ask(0.001, delta=1e-6))
    pay(account, ask(0.001))


def test_a_refused_charge_leaves_nothing_and_entries_tell_what_was_paid_for(account: Account) -> None:
    pay(account, ask(0.1, stratum="MONDO:1"))
    with pytest.raises(BudgetSpent):
        pay(account, ask(0.1, stratum="MONDO:1"))
    (entry,) = account.entries("lyon/ada")
    assert (entry.charge, entry.query_id) == (ask(0.1, stratum="MONDO:1"), "q")


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_a_price_is_a_positive_number(rho: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        ask(rho)


STRATA = ["", "MONDO:1", "MONDO:2"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.4), st.sampled_from(STRATA), st.sampled_from(Share), st.integers(0, 4))))
def test_whatever_is_charged_no_donor_ever_pays_more_than_a_limit(
    charges: list[tuple[float, str, Share, int]],
) -> None:
    database = open_state("sqlite://")
    account = Account(database, DEFAULT)
    paid: list[tuple[float, str, int]] = []
    for rho, stratum, share, year in sorted(charges, key=lambda one: one[3]):
        moment = BEGUN + year * YEAR_MS + len(paid)
        try:
            pay(account, Charge(share, rho, stratum=stratum), moment)
        except BudgetSpent:
            continue
        paid.append((rho, stratum, (moment - (BEGUN + paid[0][2] * YEAR_MS if paid else moment)) // YEAR_MS))
    for donor in STRATA:
        own = [rho for rho, stratum, _ in paid if stratum in ("", donor)]
        assert sum(own) <= DEFAULT.lifetime + 1e-6
    database.close()
