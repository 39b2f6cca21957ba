"""How many independent groups of donors exact numbers have told of, for each project and in all.

Numbers about n cohorts are n equations in what each donor is. With about as many equations as donors they can be
solved, rounded as they are (Dinur and Nissim, PODS 2003, doi:10.1145/773153.773173; Kasiviswanathan, Rudelson and
Smith, SODA 2013, doi:10.1137/1.9781611973105.103), and with a tenth as many hardly at all: see why.md. So a project
gets a share of the number of donors. Numbers that follow from earlier ones are no new equations and use nothing up.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Index, func, insert, select
from sqlmodel import Field

from connexon.clock import now_ms
from connexon.errors import Refused
from connexon.service.database import Database
from connexon_node.pipeline.values import ReleaseMoved
from connexon_node.release.grants import ANY, Grant
from connexon_node.state import NodeTable

FEW = 20
"""Of few donors a project may have so many cohorts, while they are no more than twice its share."""
PROJECTS = 3
"""All projects together may have so many times the share of one."""
_STEPS = 10
"""The number of donors counts in whole tens here, so that one donor seldom decides."""


class CohortsSpent(Refused):
    """Exact numbers have told of as many groups of donors as may be."""

    code = "granted.cohorts_spent"


class GrantedCohortsRow(NodeTable, table=True):
    """New cohorts that one answer told exact numbers of."""

    __tablename__ = "granted_cohorts"

    __table_args__ = (Index("ix_granted_cohorts_holder", "holder"),)

    query_id: str = Field(primary_key=True, max_length=64)
    holder: str = Field(max_length=1000, description="the project, or a researcher whose grant names none")
    cohorts: int
    donors: int = Field(description="donors whom the purpose reached")
    at_ms: int = Field(sa_type=BigInteger)


_USED = GrantedCohortsRow.metadata.tables["granted_cohorts"]


class Use(NamedTuple):
    """What an answer uses up: `cohorts` new ones, by `holder`, where a purpose reaches `donors`."""

    holder: str
    cohorts: int
    donors: int


class Stand(NamedTuple):
    """How many cohorts have been told and how many may be, of one holder and of all together; None: not known yet."""

    holder: str
    used: int
    allowed: int | None
    all_used: int
    all_allowed: int | None


def holder_of(grant: Grant) -> str:
    """Who uses up cohorts: the project that a grant names, whoever asks; else the researcher, whatever they name."""
    if grant.project == ANY:
        return f"researcher {grant.researcher}"
    return f"project {grant.project}"


def allowed(donors: int, share: float) -> tuple[int, int]:
    """How many cohorts a project may have, and all together."""
    donors = donors // _STEPS * _STEPS
    project = max(int(donors * share), min(FEW, int(donors * 2 * share)))
    return project, max(project, int(donors * share * PROJECTS))


class CohortsUsed:
    """The cohorts used up so far, of one center. Rows are never deleted: a grant that is given anew begins nothing."""

    def __init__(self, database: Database, share: float) -> None:
        self._database = database
        self._share = share

    def require(self, use: Use, connection: Connection | None = None) -> None:
        """Raise CohortsSpent where that much is not left."""
        if not use.cohorts:
            return
        if connection is None:
            with self._database.reading() as own:
                self.require(use, own)
            return
        of_holder, of_all = allowed(use.donors, self._share)
        if self._used(connection, use.holder) + use.cohorts > of_holder:
            whose = "your project" if use.holder.startswith("project ") else "you"
        elif self._used(connection) + use.cohorts > of_all:
            whose = "all projects together"
        else:
            return
        raise CohortsSpent(
            f"This would tell exact numbers of more groups of donors than the center lets {whose} have, since many "
            "such numbers together give single donors away. What was told stays free to ask again; ask for fewer "
            "groups at once, or without exact for numbers with noise."
        )

    def write(self, connection: Connection, use: Use, query_id: str) -> None:
        """Write down what an answer uses up, in the transaction that seals it. Raises ReleaseMoved."""
        if not use.cohorts:
            return
        try:
            self.require(use, connection)
        except CohortsSpent as spent:
            # Decided again, it is a refusal that is sealed like any other.
            raise ReleaseMoved("Another answer has used up cohorts meanwhile.") from spent
        row = {**use._asdict(), "query_id": query_id, "at_ms": now_ms()}
        connection.execute(insert(_USED), row)

    def stand(self, holder: str) -> Stand:
        """Where a holder stands, by the number of donors that the last exact answer reached."""
        with self._database.reading() as connection:
            last = select(_USED.c.donors).order_by(_USED.c.at_ms.desc(), _USED.c.query_id).limit(1)
            donors = connection.execute(last).scalar_one_or_none()
            used, all_used = self._used(connection, holder), self._used(connection)
        of_holder, of_all = (None, None) if donors is None else allowed(donors, self._share)
        return Stand(holder, used, of_holder, all_used, of_all)

    def _used(self, connection: Connection, holder: str | None = None) -> int:
        query = select(func.coalesce(func.sum(_USED.c.cohorts), 0))
        if holder is not None:
            query = query.where(_USED.c.holder == holder)
        return int(connection.execute(query).scalar_one())
