"""What the hub's database costs as the years go by, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from connexon.clock import DAY, now_ms
from connexon.service.database import Database
from connexon_hub.routing import writes
from connexon_hub.routing.store import ANSWERED, WAITING
from connexon_hub.routing.writes import QuerySteps
from connexon_hub.state import open_state
from connexon_hub.state.tables import DELIVERIES, QUERIES

MANY = 4_000


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_state(database_url)
    yield database
    database.close()


def _ask(connection: Connection, count: int, *, closed: bool, body: bytes = b"x" * 300) -> None:
    """So many queries of ada, asked long ago, each with one delivery."""
    long_ago = now_ms() - 90 * DAY
    names = [f"{'closed' if closed else 'open'}-{number}" for number in range(count)]
    queries = [
        {
            "query_id": name,
            "researcher_id": "lyon/ada",
            "signed": body,
            "traceparent": "00-trace",
            "accepted_ms": long_ago,
            "expires_ms": long_ago + DAY,
            "closed_ms": long_ago + DAY if closed else None,
        }
        for name in names
    ]
    connection.execute(insert(QUERIES), queries)
    state = ANSWERED if closed else WAITING
    rows = [{"query_id": name, "center_id": "kyoto", "state": state, "answer_status": 0} for name in names]
    connection.execute(insert(DELIVERIES), rows)


def _count(connection: Connection, table: object) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()  # type: ignore[arg-type]  # a Table


def test_counting_open_queries_reads_no_closed_one(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL plans by its statistics")
    with database.writing() as connection:
        _ask(connection, MANY, closed=True)
        _ask(connection, 3, closed=False)
    statement = writes._OPEN_COUNTS.params(researchers=["lyon/ada"])
    with database.reading() as connection:
        compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True, "literal_binds": True})
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"explain query plan {compiled}"))
        [row] = connection.execute(writes._OPEN_COUNTS, {"researchers": ["lyon/ada"]})
    assert "ix_queries_open_of_researcher" in plan
    assert row.open == 3


def test_what_is_forgotten_is_looked_at_once_and_leaves_little(database: Database) -> None:
    steps = QuerySteps(open_queries=10, queries_per_day=10, runs_per_researcher=10)
    with database.writing() as connection:
        _ask(connection, MANY, closed=True)
    forgotten: list[int] = []
    while not forgotten or forgotten[-1]:
        with database.writing() as connection:
            forgotten += steps.forget(connection, [now_ms()])
    assert sum(forgotten) == MANY
    assert max(forgotten) <= writes.FORGOTTEN_AT_ONCE
    with database.reading() as connection:
        assert _count(connection, DELIVERIES) == 0
        # The ids stay taken.
        assert _count(connection, QUERIES) == MANY
        if database.is_sqlite:
            sql = "explain query plan select query_id from queries where closed_ms < 5 and length(signed) > 0"
            plan = " ".join(str(row) for row in connection.exec_driver_sql(sql))
            assert "ix_queries_kept" in plan


def test_a_file_gives_its_room_back(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    database = open_state(f"sqlite:///{path}")
    steps = QuerySteps(open_queries=10, queries_per_day=10, runs_per_researcher=10)
    with database.writing() as connection:
        _ask(connection, MANY, closed=True, body=b"x" * 3_000)
    full = _size(database, path)
    while True:
        with database.writing() as connection:
            if steps.forget(connection, [now_ms()]) == [0]:
                break
    while database.give_back():
        pass
    assert _size(database, path) < full / 4
    database.close()


def _size(database: Database, path: Path) -> int:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("pragma wal_checkpoint(truncate)").all()
    return path.stat().st_size
