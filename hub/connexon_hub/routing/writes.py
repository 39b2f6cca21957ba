"""Writing of queries and deliveries: steps for connexon_hub.state.writer, each serving many items at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, and_, bindparam, delete, exists, func, insert, select, update

from connexon.clock import DAY
from connexon.errors import Conflict, ConnexonError, Refused
from connexon.identity.keys import CenterId
from connexon.v1 import query_pb2
from connexon_hub.health import log_witness
from connexon_hub.routing import run_rows
from connexon_hub.routing.store import (
    ANSWERED,
    BODY_KEPT,
    CANCELLED,
    EXPIRED,
    OPEN,
    RECEIVED,
    REMOVED,
    WAITING,
    Arrival,
    Kept,
    Receipt,
    State,
    Submission,
    keep,
    no_such_query,
    pages,
)
from connexon_hub.state.tables import DELIVERIES, QUERIES, RUNS

FORGOTTEN_AT_ONCE = 1_000
"""Queries in one transaction: nobody waits long for it."""

# Put together once: SQLAlchemy takes longer to make such a statement than SQLite to run it.
_PRESENT = select(QUERIES.c.query_id, QUERIES.c.researcher_id, QUERIES.c.signed).where(
    QUERIES.c.query_id.in_(bindparam("ids", expanding=True))
)
_OPEN_COUNTS = (
    select(QUERIES.c.researcher_id, func.count().label("open"))
    .where(QUERIES.c.closed_ms.is_(None), QUERIES.c.researcher_id.in_(bindparam("researchers", expanding=True)))
    .group_by(QUERIES.c.researcher_id)
)
_TODAYS_COUNTS = (
    select(QUERIES.c.researcher_id, func.count().label("asked"))
    .where(
        QUERIES.c.researcher_id.in_(bindparam("researchers", expanding=True)),
        QUERIES.c.accepted_ms > bindparam("since"),
    )
    .group_by(QUERIES.c.researcher_id)
)
_STATES = select(DELIVERIES.c.center_id, DELIVERIES.c.state).where(
    DELIVERIES.c.query_id == bindparam("query"), DELIVERIES.c.center_id.in_(bindparam("centers", expanding=True))
)
_KEEP_ANSWER = (
    update(DELIVERIES)
    .where(DELIVERIES.c.query_id == bindparam("q"), DELIVERIES.c.center_id == bindparam("c"))
    .values(
        state=bindparam("state_now"),
        answered_ms=bindparam("at"),
        answer=bindparam("what"),
        answer_status=bindparam("how"),
    )
)
_CLOSE_FINISHED = (
    update(QUERIES)
    .where(
        QUERIES.c.query_id.in_(bindparam("ids", expanding=True)),
        QUERIES.c.closed_ms.is_(None),
        ~exists().where(DELIVERIES.c.query_id == QUERIES.c.query_id, DELIVERIES.c.state.in_(OPEN)),
    )
    .values(closed_ms=bindparam("at"))
)


class QuerySteps:
    """Each takes a connection and a sequence of items, and gives one outcome per item."""

    def __init__(self, *, open_queries: int, queries_per_day: int, runs_per_researcher: int) -> None:
        self._open_queries = open_queries
        self._queries_per_day = queries_per_day
        self._runs_per_researcher = runs_per_researcher

    def submit(self, connection: Connection, submissions: Sequence[Submission]) -> list[bool | ConnexonError]:
        """Write queries down. True for a new one, False for the same query again.

        Conflict for other bytes, or another researcher, under the same id; Refused above the limit of open queries,
        of a day's, or of runs that have not ended.
        """
        present = self._present(connection, [submission.query_id for submission in submissions])
        researchers = {submission.researcher_id for submission in submissions}
        open_now = self._open_counts(connection, researchers)
        today = self._todays_counts(connection, researchers, max(one.accepted_ms for one in submissions))
        live = run_rows.live_counts(connection, {one.researcher_id for one in submissions if one.rounds})
        outcomes: list[bool | ConnexonError] = []
        fresh: dict[str, Submission] = {}
        for submission in submissions:
            known = present.get(submission.query_id) or _identity(fresh.get(submission.query_id))
            if known is not None:
                same = known == _identity(submission)
                outcomes.append(False if same else _reused())
            elif open_now[submission.researcher_id] >= self._open_queries:
                outcomes.append(_too_many_open(self._open_queries))
            elif today[submission.researcher_id] >= self._queries_per_day:
                outcomes.append(_too_many_today(self._queries_per_day))
            elif submission.rounds and live[submission.researcher_id] >= self._runs_per_researcher:
                outcomes.append(_too_many_runs(self._runs_per_researcher))
            else:
                open_now[submission.researcher_id] += 1
                today[submission.researcher_id] += 1
                live[submission.researcher_id] += bool(submission.rounds)
                fresh[submission.query_id] = submission
                outcomes.append(True)
        self._insert(connection, list(fresh.values()))
        return outcomes

    def receive(self, connection: Connection, receipts: Sequence[Receipt]) -> list[None]:
        """Note that centers have queries. Of no consequence where a delivery is further already."""
        statement = (
            update(DELIVERIES)
            .where(
                DELIVERIES.c.query_id == bindparam("q"),
                DELIVERIES.c.center_id == bindparam("c"),
                DELIVERIES.c.state == WAITING,
            )
            .values(state=RECEIVED, received_ms=bindparam("at"))
        )
        # Sorted, so that two transactions on PostgreSQL cannot wait for each other's rows.
        rows = sorted((receipt.query_id, receipt.center, receipt.at_ms) for receipt in receipts)
        connection.execute(statement, [{"q": query, "c": center, "at": at} for query, center, at in rows])
        return [None] * len(receipts)

    def answer(self, connection: Connection, arrivals: Sequence[Arrival]) -> list[Kept]:
        """Keep answers, and close the queries that have them all. One that awaits the steward leaves its query open."""
        present = self._delivery_states(connection, arrivals)
        log_witness.note_told(connection, [(one.center, one.told) for one in arrivals if one.told is not None])
        outcomes: list[Kept] = []
        rows: list[dict[str, object]] = []
        for arrival in arrivals:
            place = (arrival.query_id, arrival.center)
            outcome = keep(present.get(place), arrival.status)
            outcomes.append(outcome)
            if outcome in (Kept.KEPT, Kept.FOR_NOW):
                present[place] = ANSWERED if outcome is Kept.KEPT else RECEIVED
                rows.append(
                    {
                        "q": arrival.query_id,
                        "c": arrival.center,
                        "at": arrival.at_ms,
                        "what": arrival.answer,
                        "how": arrival.status,
                        "state_now": present[place],
                    }
                )
        if rows:
            connection.execute(_KEEP_ANSWER, rows)
            latest = max(arrival.at_ms for arrival in arrivals)
            self._close_finished(connection, {str(row["q"]) for row in rows}, latest)
        return outcomes

    def cancel(
        self, connection: Connection, requests: Sequence[tuple[str, str, int]]
    ) -> list[list[CenterId] | ConnexonError]:
        """End queries, each (query id, researcher id, time). Gives the centers that had not answered.

        NotFound where the query is not this researcher's, which looks like there being none.
        """
        outcomes: list[list[CenterId] | ConnexonError] = []
        for query_id, researcher_id, at_ms in requests:
            owner = connection.execute(select(QUERIES.c.researcher_id).where(QUERIES.c.query_id == query_id)).scalar()
            if owner != researcher_id:
                outcomes.append(no_such_query())
                continue
            ended = self._end(connection, query_id, CANCELLED, at_ms)
            if ended:
                connection.execute(update(QUERIES).where(QUERIES.c.query_id == query_id).values(cancelled_ms=at_ms))
            outcomes.append(ended)
        return outcomes

    def expire(self, connection: Connection, moments: Sequence[int]) -> list[dict[str, list[CenterId]]]:
        """End the queries whose time is over. Gives query id -> centers that had not answered."""
        outcomes: list[dict[str, list[CenterId]]] = []
        for moment in moments:
            over = connection.execute(
                select(QUERIES.c.query_id).where(QUERIES.c.closed_ms.is_(None), QUERIES.c.expires_ms <= moment)
            ).scalars()
            outcomes.append({query_id: self._end(connection, query_id, EXPIRED, moment) for query_id in list(over)})
        return outcomes

    def remove(self, connection: Connection, befores: Sequence[int]) -> list[int]:
        """Delete the bytes of answers that came before a moment. Gives how many."""
        return [
            connection.execute(
                update(DELIVERIES)
                .where(DELIVERIES.c.state == ANSWERED, DELIVERIES.c.answered_ms < before)
                .values(state=REMOVED, answer=None)
            ).rowcount
            for before in befores
        ]

    def forget(self, connection: Connection, befores: Sequence[int]) -> list[int]:
        """Delete the bytes of queries that were closed, and had run out, before a moment, with their deliveries.

        At most FORGOTTEN_AT_ONCE; gives how many. Their answers have gone by then. The query's row stays, so that its
        id stays taken; a run's query stays whole: it says what its model was trained for.
        """
        return [self._forget(connection, before) for before in befores]

    def _forget(self, connection: Connection, before: int) -> int:
        over = (
            select(*(column for column in QUERIES.c if column.name not in ("signed", "traceparent")))
            .where(
                QUERIES.c.closed_ms < before,
                QUERIES.c.expires_ms < before,
                BODY_KEPT,
                ~exists().where(RUNS.c.query_id == QUERIES.c.query_id),
            )
            .limit(FORGOTTEN_AT_ONCE)
        )
        rows = [{**row._mapping, "signed": b"", "traceparent": ""} for row in connection.execute(over)]
        for page in pages([str(row["query_id"]) for row in rows]):
            connection.execute(delete(DELIVERIES).where(DELIVERIES.c.query_id.in_(page)))
            connection.execute(delete(QUERIES).where(QUERIES.c.query_id.in_(page)))
        if rows:
            # Written anew, together: a row that was made small where it stands keeps its page to itself.
            connection.execute(insert(QUERIES), rows)
        return len(rows)

    def _present(self, connection: Connection, ids: Sequence[str]) -> dict[str, tuple[str, bytes]]:
        return {
            row.query_id: (row.researcher_id, query_pb2.SignedQuery.FromString(row.signed).payload)
            for page in pages(ids)
            for row in connection.execute(_PRESENT, {"ids": page})
        }

    def _open_counts(self, connection: Connection, researchers: Iterable[str]) -> defaultdict[str, int]:
        counts: defaultdict[str, int] = defaultdict(int)
        for page in pages(sorted(researchers)):
            rows = connection.execute(_OPEN_COUNTS, {"researchers": page})
            counts.update({row.researcher_id: row.open for row in rows})
        return counts

    def _todays_counts(self, connection: Connection, researchers: Iterable[str], at_ms: int) -> defaultdict[str, int]:
        """What each has asked in the 24 hours before, closed or not."""
        counts: defaultdict[str, int] = defaultdict(int)
        for page in pages(sorted(researchers)):
            rows = connection.execute(_TODAYS_COUNTS, {"researchers": page, "since": at_ms - DAY})
            counts.update({row.researcher_id: row.asked for row in rows})
        return counts

    def _insert(self, connection: Connection, submissions: Sequence[Submission]) -> None:
        if not submissions:
            return
        connection.execute(
            insert(QUERIES),
            [
                {
                    "query_id": submission.query_id,
                    "researcher_id": submission.researcher_id,
                    "signed": submission.signed.SerializeToString(),
                    "traceparent": submission.traceparent,
                    "accepted_ms": submission.accepted_ms,
                    "expires_ms": submission.expires_ms,
                }
                for submission in submissions
            ],
        )
        run_rows.begin(connection, [one for one in submissions if one.rounds])
        connection.execute(
            insert(DELIVERIES),
            [
                {"query_id": submission.query_id, "center_id": center, "state": WAITING, "answer_status": 0}
                for submission in submissions
                for center in submission.centers
            ],
        )

    def _delivery_states(
        self, connection: Connection, arrivals: Sequence[Arrival]
    ) -> dict[tuple[str, CenterId], State]:
        by_query: defaultdict[str, set[str]] = defaultdict(set)
        for arrival in arrivals:
            by_query[arrival.query_id].add(arrival.center)
        return {
            (query_id, CenterId(center)): state
            for query_id, centers in by_query.items()
            for page in pages(sorted(centers))
            for center, state in connection.execute(_STATES, {"query": query_id, "centers": page})
        }

    def _close_finished(self, connection: Connection, ids: Iterable[str], at_ms: int) -> None:
        for page in pages(sorted(ids)):
            connection.execute(_CLOSE_FINISHED, {"ids": page, "at": at_ms})

    def _end(self, connection: Connection, query_id: str, state: State, at_ms: int) -> list[CenterId]:
        still_open = and_(DELIVERIES.c.query_id == query_id, DELIVERIES.c.state.in_(OPEN))
        centers = list(connection.execute(select(DELIVERIES.c.center_id).where(still_open)).scalars())
        connection.execute(update(DELIVERIES).where(still_open).values(state=state, answer=None))
        connection.execute(
            update(QUERIES).where(QUERIES.c.query_id == query_id, QUERIES.c.closed_ms.is_(None)).values(closed_ms=at_ms)
        )
        return [CenterId(center) for center in centers]


def _too_many_open(most: int) -> Refused:
    return Refused(f"You have {most} queries that wait for answers; cancel some first.", code="hub.too_many_queries")


def _too_many_today(most: int) -> Refused:
    return Refused(
        f"You have asked {most} queries in the last 24 hours, as many as this hub takes from one researcher. Ask again "
        "later; if you need more, ask the hub's operator (queries_per_day).",
        code="hub.too_many_queries_today",
    )


def _too_many_runs(most: int) -> Refused:
    return Refused(f"You have {most} training runs that have not ended; cancel some first.", code="hub.too_many_runs")


def _reused() -> Conflict:
    return Conflict("Another query has this id already; ask with a new one.", code="query.id_reused")


def _identity(submission: Submission | None) -> tuple[str, bytes] | None:
    return None if submission is None else (submission.researcher_id, submission.signed.payload)
