"""Queries that were taken back while a center was away and that it still has: it must hear of them when it comes."""

from __future__ import annotations

from sqlalchemy import or_, select

from connexon.identity.keys import CenterId
from connexon.service.database import Database
from connexon_hub.routing.store import CANCELLED
from connexon_hub.state.tables import DELIVERIES, QUERIES

MOST = 1_000
"""Those taken back last; of another one the center hears when it sends its answer."""


def taken_back(database: Database, center: CenterId, *, at_ms: int) -> list[str]:
    """Ids of the cancelled queries, not expired, that a center has received, the one cancelled last first."""
    # An answer may have overtaken the receipt, which is then not written.
    had = or_(DELIVERIES.c.received_ms.is_not(None), DELIVERIES.c.answered_ms.is_not(None))
    with database.reading() as connection:
        rows = connection.execute(
            select(DELIVERIES.c.query_id)
            .join(QUERIES, QUERIES.c.query_id == DELIVERIES.c.query_id)
            .where(DELIVERIES.c.center_id == center, DELIVERIES.c.state == CANCELLED, had, QUERIES.c.expires_ms > at_ms)
            .order_by(QUERIES.c.cancelled_ms.desc(), QUERIES.c.query_id)
            .limit(MOST)
        )
        return list(rows.scalars())
