"""The account of persons: all that leaves with noise is charged here, whoever asks, whatever it is about.

An amount is rho of zero-concentrated differential privacy about one donor of this center, who is there or not (add or
remove one). Rho adds up over answers (Bun and Steinke 2016), also where each question depends on the answers before it:
the account is a privacy filter, which stops hard at its limits (Feldman and Zrnic 2021, arXiv:2008.11193).

A charge with a *stratum* concerns only donors of one value of a field that gives each donor one value, the main disease
(parallel composition). So what any single donor has paid is the sum of the charges without a stratum and of those of
one stratum, and every limit is held to the largest such sum.

A year begins with the first charge and has 365 days. It may spend `year`, and never more than a quarter of what is left
of `lifetime`, so that a center can go on answering for good; shares go down in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Connection, func, insert, select

from connexon.clock import DAY, now_ms
from connexon.errors import InvalidQuery, Refused
from connexon.service.database import Database
from connexon_node.privacy.tables import PrivacyChargeRow, PrivacyShareRow
from connexon_node.settings import PrivacySection

YEAR_MS = 365 * DAY
OF_WHAT_IS_LEFT = 4
"""A year may spend this part of what is left of the lifetime."""
EVERYBODY = ""
"""The stratum of a charge that concerns every donor."""

_CHARGES = PrivacyChargeRow.metadata.tables[str(PrivacyChargeRow.__tablename__)]
_SHARES = PrivacyShareRow.metadata.tables[str(PrivacyShareRow.__tablename__)]
_SLACK = 1e-9
"""Share of a limit by which sums may miss it: floating-point additions are not exact."""


class BudgetSpent(Refused):
    """The account does not have enough left."""

    code = "budget.spent"


class Share(Enum):
    """What a charge is for; `value` is how it is stored."""

    TABLES = "tables"
    QUESTIONS = "questions"
    MODELS = "models"


@dataclass(frozen=True)
class Charge:
    """What an answer costs. `delta` is what thresholds add for groups whose names are not public."""

    share: Share
    rho: float
    delta: float = 0.0
    researcher: str = ""
    project: str = ""
    stratum: str = EVERYBODY

    def __post_init__(self) -> None:
        """Raise ValueError for what is no price."""
        if not (math.isfinite(self.rho) and self.rho > 0 and 0 <= self.delta < 1):
            raise ValueError("a charge is a positive rho and a delta below 1")


@dataclass(frozen=True)
class Entry:
    """A charge that was made, with the query and the task of a training run that it paid for."""

    charge: Charge
    query_id: str
    task: str
    at_ms: int


@dataclass(frozen=True)
class Balance:
    """What may be spent in the present year, what is spent of it, and what is left; in rho."""

    limit: float
    spent: float

    @property
    def left(self) -> float:
        """What may still be spent; never negative."""
        return max(0.0, self.limit - self.spent)

    def covers(self, rho: float) -> bool:
        """Whether so much more fits."""
        return self.limit > 0 and self.spent + rho <= self.limit * (1 + _SLACK)


@dataclass(frozen=True)
class State:
    """Where the account stands. `year` counts from 1; `begins_ms` and `ends_ms` bound the present year."""

    year: int
    begins_ms: int
    ends_ms: int
    total: Balance
    shares: Mapping[Share, Balance]
    lifetime: Balance
    models: int
    """Trainings that were paid for in the present year."""


class Account:
    """The account of persons of this center. Who charges does so within the transaction that lets the answer out."""

    def __init__(self, database: Database, section: PrivacySection) -> None:
        self._database = database
        self._section = section

    def charge(
        self, connection: Connection, charge: Charge, *, query_id: str, task: str = "", at_ms: int | None = None
    ) -> None:
        """Write a charge down. Raises BudgetSpent, having written nothing, where a limit does not cover it."""
        moment = now_ms() if at_ms is None else at_ms
        self.require(connection, charge, at_ms=moment)
        last = connection.execute(select(func.max(_CHARGES.c.id))).scalar_one() or 0
        row = {
            "id": last + 1,
            "share": charge.share.value,
            "researcher": charge.researcher,
            "project": charge.project,
            "stratum": charge.stratum,
            "rho": charge.rho,
            "delta": charge.delta,
            "query_id": query_id,
            "task": task,
            "at_ms": moment,
        }
        connection.execute(insert(_CHARGES), row)

    def require(self, connection: Connection, charge: Charge, *, at_ms: int | None = None) -> None:
        """Raise BudgetSpent where a limit does not cover a charge."""
        books = _Books(connection, self._section, now_ms() if at_ms is None else at_ms)
        if not books.total(charge.stratum).covers(charge.rho):
            raise BudgetSpent(
                "This center has told of its donors what it may tell this year, so it gives no new numbers. Questions "
                "that were answered before, and its first-ask tables, cost nothing."
            )
        if not books.of_share(charge.share, charge.stratum).covers(charge.rho):
            raise BudgetSpent(
                f"What this center may spend on {_IN_WORDS[charge.share]} this year does not cover this. Ask for wider "
                "numbers, or for what was answered before, which costs nothing."
            )
        if charge.researcher and not books.of_researcher(charge.researcher, charge.stratum).covers(charge.rho):
            own = books.of_researcher(charge.researcher, charge.stratum)
            raise BudgetSpent(
                f"Your share of this center's privacy account does not cover this: it costs {charge.rho:.4f}, and "
                f"{own.left:.4f} of {own.limit:.4f} is left this year. Ask for wider numbers (--within), or ask the "
                "center's steward for a larger share. Questions that you asked before cost nothing."
            )
        if books.delta() + charge.delta > self._section.delta_of_year:
            raise BudgetSpent(
                "This center has answered as many questions about groups with open names as it may this year. Group "
                "by fields with known values."
            )

    def state(self, *, at_ms: int | None = None) -> State:
        """Where the account stands: the largest sum that any single donor can have paid."""
        with self._database.reading() as connection:
            books = _Books(connection, self._section, now_ms() if at_ms is None else at_ms)
            return State(
                year=books.year,
                begins_ms=books.begins_ms,
                ends_ms=books.begins_ms + YEAR_MS,
                total=books.total(EVERYBODY),
                shares={share: books.of_share(share, EVERYBODY) for share in Share},
                lifetime=Balance(self._section.lifetime, books.before + books.total(EVERYBODY).spent),
                models=books.models(),
            )

    def of_researcher(
        self, connection: Connection, researcher: str, *, stratum: str = EVERYBODY, at_ms: int | None = None
    ) -> Balance:
        """A researcher's share of the present year."""
        books = _Books(connection, self._section, now_ms() if at_ms is None else at_ms)
        return books.of_researcher(researcher, stratum)

    def of_researchers(self, connection: Connection, *, stratum: str = EVERYBODY, at_ms: int | None = None) -> Balance:
        """What all researchers together may spend on questions in the present year, within the center's total."""
        books = _Books(connection, self._section, now_ms() if at_ms is None else at_ms)
        share, total = books.of_share(Share.QUESTIONS, stratum), books.total(stratum)
        return share if share.left <= total.left else total

    def of_models(self, connection: Connection, *, stratum: str = EVERYBODY, at_ms: int | None = None) -> Balance:
        """What all researchers together may spend on models in the present year, within the center's total."""
        books = _Books(connection, self._section, now_ms() if at_ms is None else at_ms)
        share, total = books.of_share(Share.MODELS, stratum), books.total(stratum)
        return share if share.left <= total.left else total

    def researchers(self, *, at_ms: int | None = None) -> dict[str, Balance]:
        """Every researcher who has spent anything or has a share of their own, by id."""
        with self._database.reading() as connection:
            books = _Books(connection, self._section, now_ms() if at_ms is None else at_ms)
            names = {row.researcher for row in connection.execute(select(_CHARGES.c.researcher).distinct())}
            names |= {row.researcher for row in connection.execute(select(_SHARES.c.researcher).distinct())}
            return {name: books.of_researcher(name, EVERYBODY) for name in sorted(names - {""})}

    def entries(self, researcher: str | None = None) -> list[Entry]:
        """The charges that were made, oldest first."""
        query = select(_CHARGES).order_by(_CHARGES.c.id)
        if researcher is not None:
            query = query.where(_CHARGES.c.researcher == researcher)
        with self._database.reading() as connection:
            return [
                Entry(
                    Charge(Share(row.share), row.rho, row.delta, row.researcher, row.project, row.stratum),
                    row.query_id,
                    row.task,
                    row.at_ms,
                )
                for row in connection.execute(query)
            ]

    def set_share(self, researcher: str, *, rho: float, by: str, because: str) -> Balance:
        """For the steward alone: give a researcher a yearly share of their own; zero closes it.

        The limits of the center stay as they are: nothing refills those.
        """
        if not (math.isfinite(rho) and rho >= 0):
            raise InvalidQuery("A share is an amount of rho from 0.", code="budget.limit")
        with self._database.writing() as connection:
            last = connection.execute(select(func.max(_SHARES.c.id))).scalar_one() or 0
            row = {"id": last + 1, "researcher": researcher, "rho": rho, "by": by, "note": because, "at_ms": now_ms()}
            connection.execute(insert(_SHARES), row)
            return _Books(connection, self._section, now_ms()).of_researcher(researcher, EVERYBODY)


_IN_WORDS = {Share.TABLES: "first-ask tables", Share.QUESTIONS: "researchers' questions", Share.MODELS: "models"}


class _Books:
    """The account as one transaction sees it."""

    def __init__(self, connection: Connection, section: PrivacySection, at_ms: int) -> None:
        self._connection = connection
        self._section = section
        first = connection.execute(select(func.min(_CHARGES.c.at_ms))).scalar_one()
        opened = at_ms if first is None else min(int(first), at_ms)
        past = (at_ms - opened) // YEAR_MS
        self.year = 1 + past
        self.begins_ms = opened + past * YEAR_MS
        self.before = self._largest(_CHARGES.c.at_ms < self.begins_ms)
        left = max(0.0, section.lifetime - self.before)
        self._year_limit = min(section.year, left / OF_WHAT_IS_LEFT)

    def total(self, stratum: str) -> Balance:
        """Of everything in the present year, as a donor of the stratum has paid it."""
        return Balance(self._year_limit, self._spent(stratum))

    def of_share(self, share: Share, stratum: str) -> Balance:
        """Of one share."""
        limit = {
            Share.TABLES: self._section.tables,
            Share.QUESTIONS: self._section.questions,
            Share.MODELS: self._section.models,
        }[share]
        return Balance(limit * self._proportion, self._spent(stratum, _CHARGES.c.share == share.value))

    def of_researcher(self, researcher: str, stratum: str) -> Balance:
        """Of one researcher."""
        own = _own_share(self._connection, researcher)
        limit = self._section.researcher if own is None else own
        return Balance(limit * self._proportion, self._spent(stratum, _CHARGES.c.researcher == researcher))

    def delta(self) -> float:
        """What thresholds have added to the delta in the present year, over all strata together."""
        query = select(func.sum(_CHARGES.c.delta)).where(_CHARGES.c.at_ms >= self.begins_ms)
        return float(self._connection.execute(query).scalar_one() or 0.0)

    def models(self) -> int:
        """Trainings of the present year: each was charged once, when the center took part."""
        of_models = (_CHARGES.c.share == Share.MODELS.value) & (_CHARGES.c.at_ms >= self.begins_ms)
        query = select(func.count(_CHARGES.c.query_id.distinct())).where(of_models)
        return int(self._connection.execute(query).scalar_one())

    @property
    def _proportion(self) -> float:
        return self._year_limit / self._section.year

    def _spent(self, stratum: str, *conditions: object) -> float:
        sums = self._sums((_CHARGES.c.at_ms >= self.begins_ms, *conditions))
        if stratum == EVERYBODY:
            return _largest(sums)
        return sums.get(EVERYBODY, 0.0) + sums.get(stratum, 0.0)

    def _largest(self, *conditions: object) -> float:
        return _largest(self._sums(conditions))

    def _sums(self, conditions: Iterable[object]) -> dict[str, float]:
        query = select(_CHARGES.c.stratum, func.sum(_CHARGES.c.rho).label("rho"))
        for condition in conditions:
            query = query.where(condition)  # type: ignore[arg-type]  # columns compare to what mypy takes for bool
        return {row.stratum: float(row.rho) for row in self._connection.execute(query.group_by(_CHARGES.c.stratum))}


def _largest(sums: Mapping[str, float]) -> float:
    """What the donor has paid who has paid the most."""
    strata = [spent for stratum, spent in sums.items() if stratum != EVERYBODY]
    return sums.get(EVERYBODY, 0.0) + max(strata, default=0.0)


def _own_share(connection: Connection, researcher: str) -> float | None:
    """The yearly share that the steward gave a researcher; None where it is the settings'."""
    query = select(_SHARES.c.rho).where(_SHARES.c.researcher == researcher).order_by(_SHARES.c.id.desc()).limit(1)
    own = connection.execute(query).scalar_one_or_none()
    return None if own is None else float(own)
