"""Runs as they begin: written down in the transaction of their queries. connexon_hub.training does the rest."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, insert, select

from connexon.v1 import models_pb2
from connexon_hub.routing.store import Submission
from connexon_hub.state.tables import RUNS

GATHERING = models_pb2.RUN_STATE_GATHERING
RUNNING = models_pb2.RUN_STATE_RUNNING
LIVE = (GATHERING, RUNNING)
SEED_BYTES = 16


def begin(connection: Connection, submissions: Sequence[Submission]) -> None:
    """Write new runs down within the transaction of their queries."""
    if submissions:
        connection.execute(
            insert(RUNS).values(code="", message="", centers="", model_id=""),
            [
                {
                    "query_id": one.query_id,
                    "researcher_id": one.researcher_id,
                    "state": GATHERING,
                    "rounds": one.rounds,
                    "noise_seed": secrets.token_bytes(SEED_BYTES),
                    "created_ms": one.accepted_ms,
                }
                for one in submissions
            ],
        )


def live_counts(connection: Connection, researchers: Collection[str]) -> Counter[str]:
    """How many runs of each researcher have not ended."""
    if not researchers:
        return Counter()
    rows = connection.execute(
        select(RUNS.c.researcher_id, func.count().label("live"))
        .where(RUNS.c.state.in_(LIVE), RUNS.c.researcher_id.in_(researchers))
        .group_by(RUNS.c.researcher_id)
    )
    return Counter({row.researcher_id: row.live for row in rows})
