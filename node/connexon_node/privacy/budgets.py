"""Budgets: who has spent how much of the privacy of a dataset, in the node's database, and what is left.

An account is a researcher, a project and a dataset. What it may spend is the default of the settings unless the steward
gave it a limit of its own. Charges and refills are lines that are only ever added; only the steward adds refills and
limits, from the command line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Connection, func, insert, select

from connexon.clock import now_ms
from connexon.database import Database
from connexon.errors import InvalidQuery, Refused
from connexon.signed import Asked
from connexon_node.policy.asking import Requester
from connexon_node.privacy.accounting import epsilon_of, rho_of
from connexon_node.privacy.tables import PrivacyEntryRow
from connexon_node.settings import PrivacySection

_ENTRIES = PrivacyEntryRow.metadata.tables[str(PrivacyEntryRow.__tablename__)]
_SLACK = 1e-9
"""Share of a limit by which sums may miss it: floating-point additions are not exact."""


class BudgetSpent(Refused):
    """The account does not have enough left."""

    code = "budget.spent"


def project_of(asked: Asked, *, at_ms: int) -> str:
    """The project whose account a question draws on: its own where its credential vouches for that, else none ("").

    A project is a word that anybody can write; without this, many words would be many budgets.
    """
    project = asked.question.purpose.project
    return project if project in Requester.of(asked.researcher, at_ms=at_ms).grants else ""


class Kind(Enum):
    """What a line of an account is."""

    CHARGE = "charge"
    REFILL = "refill"
    LIMIT = "limit"


@dataclass(frozen=True)
class Entry:
    """One line of an account. A charge names its query and task, a refill or limit who made it and why."""

    kind: Kind
    rho: float
    delta: float
    query_id: str
    task: str
    by: str
    note: str
    at_ms: int


@dataclass(frozen=True)
class Account:
    """Where an account stands, in rho. `ever_spent` is what really left, refills or not; `own_limit` is the steward's.

    `delta_spent` and `delta_limit` are about what thresholds add to the delta (see why.md).
    """

    researcher: str
    project: str
    dataset: str
    limit: float
    spent: float
    ever_spent: float
    delta_limit: float
    delta_spent: float
    own_limit: bool

    @property
    def left(self) -> float:
        """Rho that may still be spent; never negative."""
        return max(0.0, self.limit - self.spent)

    def covers(self, rho: float, delta: float) -> bool:
        """Whether a charge fits."""
        return (
            self.limit > 0
            and self.spent + rho <= self.limit * (1 + _SLACK)
            and self.delta_spent + delta <= self.delta_limit * (1 + _SLACK)
        )


class Budgets:
    """The table of accounts. Whoever charges does so within the transaction that lets the answer out."""

    def __init__(self, database: Database, section: PrivacySection) -> None:
        self._database = database
        self._section = section
        # Half of the delta is for what rho stands for, half for the thresholds that hide groups.
        self._half = section.budget_delta / 2
        self._limit = self.rho(section.budget_epsilon)

    @property
    def delta(self) -> float:
        """At which epsilons hold here."""
        return self._section.budget_delta

    def rho(self, epsilon: float) -> float:
        """What a limit of this epsilon comes to."""
        return rho_of(epsilon, self._half) if epsilon > 0 else 0.0

    def epsilon(self, rho: float) -> float:
        """What an amount comes to as epsilon, at the settings' budget_delta."""
        return epsilon_of(rho, self._half) if rho > 0 else 0.0

    def charge(
        self,
        connection: Connection,
        *,
        researcher: str,
        project: str,
        dataset: str,
        rho: float,
        query_id: str,
        task: str = "",
        at_ms: int,
        delta: float = 0.0,
    ) -> None:
        """Write down a charge, within the transaction that seals what it is for: that happens once.

        Raises BudgetSpent, having written nothing, where the account does not cover it.
        """
        if not (math.isfinite(rho) and rho > 0 and 0 <= delta < 1):
            raise ValueError("a charge is a positive rho and a delta below 1")
        self.require(connection, researcher=researcher, project=project, dataset=dataset, rho=rho, delta=delta)
        line = Entry(Kind.CHARGE, rho, delta, query_id, task, "", "", at_ms)
        _write(connection, (researcher, project, dataset), line)

    def require(
        self, connection: Connection, *, researcher: str, project: str, dataset: str, rho: float, delta: float = 0.0
    ) -> None:
        """Raise BudgetSpent where the account does not cover a charge."""
        account = self.account(connection, researcher=researcher, project=project, dataset=dataset)
        if not account.covers(rho, delta):
            raise self._spent(account, rho)

    def left(self, connection: Connection, *, researcher: str, project: str, dataset: str) -> float:
        """Rho that the account may still spend."""
        return self.account(connection, researcher=researcher, project=project, dataset=dataset).left

    def account(self, connection: Connection, *, researcher: str, project: str, dataset: str) -> Account:
        """Where an account stands; one that nobody has used yet has all of the default limit."""
        names = (researcher, project, dataset)
        sums = select(
            _ENTRIES.c.kind, func.sum(_ENTRIES.c.rho).label("rho"), func.sum(_ENTRIES.c.delta).label("delta")
        ).where(_of(names), _ENTRIES.c.kind != Kind.LIMIT.value)
        found = {row.kind: row for row in connection.execute(sums.group_by(_ENTRIES.c.kind))}
        limits = select(_ENTRIES.c.rho).where(_of(names), _ENTRIES.c.kind == Kind.LIMIT.value)
        own = connection.execute(limits.order_by(_ENTRIES.c.id.desc()).limit(1)).scalar_one_or_none()
        charged, refilled = found.get(Kind.CHARGE.value), found.get(Kind.REFILL.value)
        ever = float(charged.rho) if charged else 0.0
        return Account(
            *names,
            limit=self._limit if own is None else float(own),
            spent=max(0.0, ever - (float(refilled.rho) if refilled else 0.0)),
            ever_spent=ever,
            delta_limit=self._half,
            delta_spent=max(0.0, _delta(charged) - _delta(refilled)),
            own_limit=own is not None,
        )

    def accounts(self) -> list[Account]:
        """Every account that was ever used or given a limit, by researcher, project and dataset."""
        names = [_ENTRIES.c.researcher, _ENTRIES.c.project, _ENTRIES.c.dataset]
        with self._database.reading() as connection:
            rows = connection.execute(select(*names).distinct().order_by(*names)).all()
            return [
                self.account(connection, researcher=researcher, project=project, dataset=dataset)
                for researcher, project, dataset in rows
            ]

    def entries(self, *, researcher: str, project: str, dataset: str) -> list[Entry]:
        """The lines of an account, oldest first."""
        query = select(_ENTRIES).where(_of((researcher, project, dataset))).order_by(_ENTRIES.c.id)
        with self._database.reading() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def refill(
        self, *, researcher: str, project: str, dataset: str, by: str, because: str, rho: float | None = None
    ) -> Account:
        """For the steward alone: give back what was spent, or `rho` of it. What left stays known outside.

        Raises InvalidQuery where nothing was spent.
        """
        names = {"researcher": researcher, "project": project, "dataset": dataset}
        with self._database.writing() as connection:
            before = self.account(connection, **names)
            if before.spent == 0 and before.delta_spent == 0:
                raise InvalidQuery(
                    "Nothing of this budget is spent, so there is nothing to refill.", code="budget.full"
                )
            given = before.spent if rho is None else min(rho, before.spent)
            if not given > 0:
                raise InvalidQuery("A refill is an epsilon above 0.", code="budget.refill")
            # Thresholds' deltas come back in the same proportion.
            delta = before.delta_spent * given / before.spent
            line = Entry(Kind.REFILL, given, delta, "", "", by, because, now_ms())
            _write(connection, (researcher, project, dataset), line)
            return self.account(connection, **names)

    def set_limit(self, *, researcher: str, project: str, dataset: str, rho: float, by: str, because: str) -> Account:
        """For the steward alone: give an account a limit of its own; zero closes it."""
        if not (math.isfinite(rho) and rho >= 0):
            raise InvalidQuery("A limit is an epsilon from 0.", code="budget.limit")
        with self._database.writing() as connection:
            line = Entry(Kind.LIMIT, rho, 0.0, "", "", by, because, now_ms())
            _write(connection, (researcher, project, dataset), line)
            return self.account(connection, researcher=researcher, project=project, dataset=dataset)

    def _spent(self, account: Account, rho: float) -> BudgetSpent:
        what = f"{account.dataset} for project {account.project}" if account.project else account.dataset
        if account.limit == 0:
            return BudgetSpent(f"This center has closed your privacy budget for {what}; ask its steward.")
        spent, after = self.epsilon(account.spent), self.epsilon(account.spent + rho)
        return BudgetSpent(
            f"Your privacy budget for {what} at this center does not cover this: of epsilon "
            f"{self.epsilon(account.limit):.3g}, {spent:.3g} is spent, and with this question it would be {after:.3g}. "
            "Ask with a smaller epsilon, or ask the center's steward for a refill. Questions that were answered before "
            "cost nothing."
        )


def _of(names: Sequence[str]) -> Any:
    researcher, project, dataset = names
    return (_ENTRIES.c.researcher == researcher) & (_ENTRIES.c.project == project) & (_ENTRIES.c.dataset == dataset)


def _write(connection: Connection, names: Sequence[str], line: Entry) -> None:
    last = connection.execute(select(func.max(_ENTRIES.c.id))).scalar_one() or 0
    researcher, project, dataset = names
    account = {"id": last + 1, "researcher": researcher, "project": project, "dataset": dataset}
    connection.execute(insert(_ENTRIES), {**account, **vars(line), "kind": line.kind.value})


def _entry(row: Any) -> Entry:
    return Entry(Kind(row.kind), row.rho, row.delta, row.query_id, row.task, row.by, row.note, row.at_ms)


def _delta(sums: Any) -> float:
    return 0.0 if sums is None else float(sums.delta)
