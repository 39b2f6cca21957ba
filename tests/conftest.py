"""What every test may ask for: an empty database of either kind, and the shared example data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.service import gc_tuning
from tests.support.postgresql import PostgresqlServer, find_binaries

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below tests/e2e, and give it time: real processes on a machine that has other work to do."""
    for item in items:
        if ROOT / "tests" / "e2e" in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


def pytest_collection_finish() -> None:
    """Look for garbage as seldom as what serves does, and no more in what is loaded."""
    gc_tuning.look_less_often()
    gc_tuning.keep_loaded()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One real PostgreSQL for the whole session, started when a test first asks for it."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("No PostgreSQL is installed here (looked for initdb in PATH and /usr/lib/postgresql/*/bin).")
    with PostgresqlServer.started(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, empty database; the test runs once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'database.db'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    with server.new_database() as url:
        yield url


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public example data beside the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("The shared example data is not beside the project (../shared/data).")
    return folder
