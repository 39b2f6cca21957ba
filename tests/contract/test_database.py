"""What connexon.service.database promises, on both kinds of database."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, func, insert, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

import connexon.service.database
from connexon.errors import ConnexonError, Misconfigured, Unavailable
from connexon.service.database import Database
from tests.support.postgresql import PostgresqlServer

LOTS = Table(
    "lots",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("digest", LargeBinary),
    Column("frozen_at_ms", BigInteger),
    Column("label", String),
)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    with database.writing() as connection:
        LOTS.create(connection)
    yield database
    database.close()


def _count(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(LOTS)).scalar_one()


class TestBothDatabases:
    def test_what_was_written_is_there_for_another_connection(self, database: Database, database_url: str) -> None:
        with database.writing() as connection:
            connection.execute(insert(LOTS).values(number=1))
        other = Database(database_url)
        assert _count(other) == 1
        other.close()

    def test_an_exception_undoes_the_whole_block(self, database: Database) -> None:
        with pytest.raises(ZeroDivisionError), database.writing() as connection:
            connection.execute(insert(LOTS).values(number=1))
            raise ZeroDivisionError
        assert _count(database) == 0

    def test_a_failed_statement_undoes_the_ones_before_it(self, database: Database) -> None:
        with pytest.raises(IntegrityError), database.writing() as connection:
            connection.execute(insert(LOTS).values(number=1))
            connection.execute(insert(LOTS).values(number=1))
        assert _count(database) == 0

    def test_bytes_large_integers_and_text_come_back_as_they_were(self, database: Database) -> None:
        row = {"number": 1, "digest": bytes(range(256)), "frozen_at_ms": 2**63 - 1, "label": "Müller 🧫 'x'; --"}
        with database.writing() as connection:
            connection.execute(insert(LOTS).values(row))
        with database.reading() as connection:
            assert dict(connection.execute(select(LOTS)).mappings().one()) == row

    def test_a_reader_sees_one_moment_throughout(self, database: Database) -> None:
        with database.reading() as reader:
            before = reader.execute(select(func.count()).select_from(LOTS)).scalar_one()
            with database.writing() as writer:
                writer.execute(insert(LOTS).values(number=1))
            after = reader.execute(select(func.count()).select_from(LOTS)).scalar_one()
        assert (before, after) == (0, 0)
        assert _count(database) == 1

    def test_writers_come_one_after_the_other_so_no_update_is_lost(self, database: Database) -> None:
        with database.writing() as connection:
            connection.execute(insert(LOTS).values(number=1, frozen_at_ms=0))

        def add_ten() -> None:
            for _ in range(10):
                with database.writing() as connection:
                    value = connection.execute(select(LOTS.c.frozen_at_ms)).scalar_one()
                    connection.execute(LOTS.update().values(frozen_at_ms=value + 1))

        threads = [threading.Thread(target=add_ten) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with database.reading() as connection:
            assert connection.execute(select(LOTS.c.frozen_at_ms)).scalar_one() == 40

    def test_a_writer_that_waits_for_too_long_is_told_to_try_again(
        self, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connexon.service.database, "BUSY_TIMEOUT_SECONDS", 1)
        impatient = Database(database_url)
        with database.writing() as connection:
            connection.execute(insert(LOTS).values(number=1))
            with pytest.raises(Unavailable, match="try again") as caught, impatient.writing():
                pytest.fail("two writers at once")
        assert caught.value.code == "database.unavailable"
        with impatient.writing() as connection:
            connection.execute(insert(LOTS).values(number=2))
        assert _count(database) == 2
        impatient.close()

    def test_a_wrong_statement_is_a_fault_and_not_called_temporary(self, database: Database) -> None:
        with pytest.raises(SQLAlchemyError) as caught, database.reading() as connection:
            connection.execute(text("select nothing from nowhere"))
        assert not isinstance(caught.value, ConnexonError)


@pytest.mark.postgres
class TestPostgresql:
    def test_a_connection_that_is_cut_is_unavailable_and_the_next_one_works(
        self, postgresql_server: PostgresqlServer
    ) -> None:
        with postgresql_server.new_database() as url:
            database, other = Database(url), Database(url)
            with pytest.raises(Unavailable), database.writing() as connection:
                LOTS.create(connection)
                process = connection.execute(text("select pg_backend_pid()")).scalar_one()
                with other.reading() as killer:
                    killer.execute(select(func.pg_terminate_backend(process)))
                connection.execute(insert(LOTS).values(number=1))
            with database.writing() as connection:
                LOTS.create(connection)
            assert _count(database) == 0
            database.close()
            other.close()


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "state.db"

    def test_writes_are_flushed_to_the_disk(self, path: Path) -> None:
        database = Database.sqlite(path)
        with database.reading() as connection:
            assert connection.execute(text("pragma journal_mode")).scalar_one() == "wal"
            assert connection.execute(text("pragma synchronous")).scalar_one() == 2
            assert connection.execute(text("pragma foreign_keys")).scalar_one() == 1
        database.close()

    def test_a_full_disk_is_unavailable_and_leaves_what_was_there(self, path: Path) -> None:
        database = Database.sqlite(path)
        with database.writing() as connection:
            LOTS.create(connection)
            connection.execute(insert(LOTS).values(number=1))
        with pytest.raises(Unavailable) as caught, database.writing() as connection:
            pages = connection.execute(text("pragma page_count")).scalar_one()
            connection.execute(text(f"pragma max_page_count = {pages + 2}"))
            connection.execute(insert(LOTS).values(number=2, digest=bytes(1_000_000)))
        assert caught.value.code == "database.unavailable"
        assert _count(database) == 1
        database.close()

    def test_a_file_locked_by_another_program_is_unavailable(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connexon.service.database, "BUSY_TIMEOUT_SECONDS", 0.2)
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("begin exclusive")
            database = Database.sqlite(path)
            with pytest.raises(Unavailable), database.reading() as connection:
                connection.execute(text("select 1"))
        other.close()
        database.close()

    def test_a_full_disk_says_so(self, path: Path) -> None:
        database = Database.sqlite(path)
        with database.writing() as connection:
            connection.execute(text("create table kept (word text)"))
            connection.execute(text("pragma max_page_count = 3"))
        with pytest.raises(Unavailable, match="make room") as caught, database.writing() as connection:
            connection.execute(text("insert into kept values (:word)"), {"word": "x" * 100_000})
        assert caught.value.code == "database.unavailable"
        database.close()

    def test_a_damaged_file_says_so_and_asks_for_the_backup(self, path: Path) -> None:
        path.write_bytes(b"this is not a database" * 100)
        database = Database.sqlite(path)
        with pytest.raises(Misconfigured, match="backup") as caught, database.reading() as connection:
            connection.execute(text("select * from sqlite_master"))
        assert caught.value.code == "database.damaged"
        database.close()

    def test_a_folder_that_is_not_there_is_unavailable(self, tmp_path: Path) -> None:
        database = Database.sqlite(tmp_path / "absent" / "state.db")
        with pytest.raises(Unavailable), database.reading():
            pytest.fail("opened a database that cannot be")


class TestUrls:
    @pytest.mark.parametrize("url", ["", "nonsense", "mysql://u@h/d", "sqlite+aiosqlite:///x", "://", "a:b"])
    def test_anything_but_sqlite_and_postgresql_is_misconfigured(self, url: str) -> None:
        with pytest.raises(Misconfigured) as caught:
            Database(url)
        assert caught.value.code == "database.bad_url"

    @pytest.mark.parametrize(
        "url", ["mysql://ada:secret@host/name", "postgresql//ada:secret@host", "x://a:secret@h:port/n"]
    )
    def test_a_password_in_a_bad_url_is_not_repeated(self, url: str) -> None:
        with pytest.raises(Misconfigured) as caught:
            Database(url)
        assert "secret" not in caught.value.public

    @pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
    def test_every_spelling_of_postgresql_uses_the_one_driver(self, scheme: str) -> None:
        assert Database(f"{scheme}://ada@host/name").engine.url.drivername == "postgresql+psycopg"

    def test_an_unreachable_postgresql_is_unavailable(self, tmp_path: Path) -> None:
        database = Database(f"postgresql://ada@/name?host={tmp_path}")
        with pytest.raises(Unavailable), database.writing():
            pytest.fail("reached a server that is not there")
        assert isinstance(database.engine, sqlalchemy.Engine)
