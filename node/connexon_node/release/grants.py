"""Grants of exact numbers: the steward's recorded decisions, each for one researcher, one project and a time.

A granted number has no noise. It is protected by the rules of disclosure control, which hold against careless reading
and many clever questions, and not against somebody who knows enough donors: see why.md.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, insert, select, update
from sqlmodel import Field

from connexon.analyses.train import Train
from connexon.clock import DAY, now_ms
from connexon.errors import InvalidQuery, NotFound
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon_node.state import NodeTable

LONGEST_MS = 366 * DAY
"""No grant holds longer; it can be given anew."""
ANY = "*"
"""Every project of the researcher, and questions that name none; or every dataset."""
COUNTS, TRAINING = "counts", "training"
WHAT = (COUNTS, TRAINING)
"""What can be granted: exact numbers, and training with exact updates."""


class GrantRow(NodeTable, table=True):
    """One grant. Rows are never deleted; taking one back is written into it."""

    __tablename__ = "exact_grants"

    id: str = Field(primary_key=True, max_length=64)
    researcher: str = Field(max_length=200, index=True)
    project: str = Field(max_length=1000)
    datasets: str = Field(description="names, separated by commas, or *")
    because: str
    by: str = Field(max_length=200)
    given_at_ms: int = Field(sa_type=BigInteger)
    ends_at_ms: int = Field(sa_type=BigInteger)
    withdrawn_at_ms: int | None = Field(sa_type=BigInteger, default=None)
    withdrawn_because: str = ""
    what: str = Field(default=COUNTS, max_length=200, description="of WHAT, separated by commas")


_GRANTS = GrantRow.metadata.tables[str(GrantRow.__tablename__)]


@dataclass(frozen=True)
class Grant:
    """Exact numbers about `datasets` for a researcher and a project, from `given_at_ms` until `ends_at_ms`.

    `what` says which: COUNTS, TRAINING or both.
    """

    id: str
    researcher: str
    project: str
    datasets: frozenset[str]
    because: str
    by: str
    given_at_ms: int
    ends_at_ms: int
    withdrawn_at_ms: int | None = None
    withdrawn_because: str = ""
    what: frozenset[str] = frozenset({COUNTS})

    def covers(self, researcher: str, project: str, datasets: frozenset[str], *, what: str, at_ms: int) -> bool:
        """Whether a question of this researcher for this project that looks into these may be answered exactly."""
        return (
            self.researcher == researcher
            and what in self.what
            and self.project in (ANY, project)
            and (ANY in self.datasets or datasets <= self.datasets)
            and self.withdrawn_at_ms is None
            and self.given_at_ms <= at_ms < self.ends_at_ms
        )


class Grants:
    """The grants of this center."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def give(
        self,
        *,
        researcher: str,
        project: str,
        datasets: frozenset[str],
        because: str,
        by: str,
        ends_at_ms: int,
        what: frozenset[str] = frozenset({COUNTS}),
    ) -> Grant:
        """Write a grant down. Raises InvalidQuery for one without a reason, or that ends before now or too late."""
        moment = now_ms()
        if not because.strip() or not researcher or not project or not datasets:
            raise InvalidQuery("A grant names a researcher, a project, datasets and a reason.", code="grant.incomplete")
        if not what or not what <= set(WHAT):
            raise InvalidQuery(f"A grant is of {' or '.join(WHAT)}, or both.", code="grant.incomplete")
        if not moment < ends_at_ms <= moment + LONGEST_MS:
            raise InvalidQuery("A grant ends after today and within a year; give it anew then.", code="grant.end")
        grant = Grant(uuid.uuid4().hex[:12], researcher, project, datasets, because, by, moment, ends_at_ms, what=what)
        with self._database.writing() as connection:
            lists = {"datasets": ",".join(sorted(datasets)), "what": ",".join(sorted(what))}
            connection.execute(insert(_GRANTS), {**vars(grant), **lists})
        return grant

    def withdraw(self, id_: str, *, because: str) -> Grant:
        """Take a grant back: it covers nothing from now on. Raises NotFound."""
        with self._database.writing() as connection:
            row = connection.execute(select(_GRANTS).where(_GRANTS.c.id == id_)).one_or_none()
            if row is None:
                raise NotFound("There is no such grant; see:  connexon-node grant list", code="grant.unknown")
            if row.withdrawn_at_ms is None:
                taken = {"withdrawn_at_ms": now_ms(), "withdrawn_because": because}
                connection.execute(update(_GRANTS).where(_GRANTS.c.id == id_).values(taken))
            return _grant(connection.execute(select(_GRANTS).where(_GRANTS.c.id == id_)).one())

    def all(self) -> list[Grant]:
        """Every grant ever given, oldest first."""
        with self._database.reading() as connection:
            query = select(_GRANTS).order_by(_GRANTS.c.given_at_ms, _GRANTS.c.id)
            return [_grant(row) for row in connection.execute(query)]

    def covering(self, asked: Asked, datasets: frozenset[str], connection: Connection | None = None) -> Grant | None:
        """The grant by which a question that looks into these datasets may be answered exactly, if there is one."""
        if connection is None:
            with self._database.reading() as own:
                return self.covering(asked, datasets, own)
        researcher, moment = asked.researcher.id, now_ms()
        rows = connection.execute(select(_GRANTS).where(_GRANTS.c.researcher == researcher))
        project = asked.question.purpose.project
        what = TRAINING if isinstance(asked.question.analysis, Train) else COUNTS
        found = (_grant(row) for row in rows)
        return next((one for one in found if one.covers(researcher, project, datasets, what=what, at_ms=moment)), None)


def _grant(row: object) -> Grant:
    values = dict(row._mapping)  # type: ignore[attr-defined]  # a row of SQLAlchemy's Core has no types
    lists = {name: frozenset(values[name].split(",")) for name in ("datasets", "what")}
    return Grant(**{**values, **lists})
