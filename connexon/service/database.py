"""Operational state: one SQLAlchemy engine on SQLite or PostgreSQL, and the migrations that shape it.

Only hub and node import this; it needs their extras.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from connexon.errors import Misconfigured, Unavailable
from connexon.safe_text import plain

BUSY_TIMEOUT_SECONDS = 10
_WRITING = "connexon_writing"
_WRITER_LOCK = 7_263_112
"""Number of the PostgreSQL advisory lock that a writer holds."""
_POSTGRESQL_FULL = "53100"
"""SQLSTATE disk_full."""


class Database:
    """A place that remembers. What `writing` has left is on disk, also after a power cut.

    INVARIANT: both kinds of database behave alike. A `reading` block sees one moment throughout; `writing` blocks come
    one after the other, so that what one has read stays true until it ends. Never open one inside another.
    """

    def __init__(self, url: str) -> None:
        """Open `url`, such as sqlite:////var/lib/connexon/state.db or postgresql+psycopg://user@host/name."""
        parsed = _parsed(url)
        self.is_sqlite = parsed.drivername == "sqlite"
        options: dict[str, Any] = {"pool_pre_ping": True}
        if self.is_sqlite:
            options = {"connect_args": {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False}}
        self.engine: Engine = sqlalchemy.create_engine(parsed, **options)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "connect", _prepare_postgresql)
            event.listen(self.engine, "begin", _begin_postgresql)

    @classmethod
    def sqlite(cls, path: Path) -> Database:
        """A SQLite file."""
        return cls(f"sqlite:///{path.resolve()}")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view. Raises Unavailable where the database cannot be reached or stays locked."""
        with _translated(), self.engine.connect() as plain:
            # PostgreSQL's ordinary level would show every statement another moment; SQLite has one level only.
            connection = plain if self.is_sqlite else plain.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, durable when the block ends without an exception, undone otherwise.

        Raises Unavailable where the database is unreachable, locked for long, or its disk full.
        """
        with _translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_WRITING: True})
            with connection.begin():
                yield connection

    def migrate(self, scripts: Path) -> None:
        """Bring the tables to the newest version in the Alembic folder `scripts`, whose files are named by revision.

        Raises Misconfigured where the tables have a version that is not among them.
        """
        known = sorted(path.stem for path in (scripts / "versions").glob("[0-9]*.py"))
        present = self.version()
        if present == known[-1]:
            return
        if present is not None and present not in known:
            raise Misconfigured(
                "The database holds the tables of another program, or of a newer version of Connexon. Name another "
                "database, or upgrade.",
                code="database.other_tables",
            )
        # Loaded here: it takes longer than most commands, and is hardly ever needed.
        import alembic.command
        import alembic.config

        config = alembic.config.Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        # Two processes may start at once: one migrates, the other waits for the writer's lock.
        with self.writing() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def require_newest(self, scripts: Path, *, upgrade: str) -> None:
        """Raise Misconfigured unless the tables have the newest version of `scripts`; `upgrade` is what to type.

        For whoever looks beside a process that serves: it may be an older one, which newer tables would break.
        """
        known = sorted(path.stem for path in (scripts / "versions").glob("[0-9]*.py"))
        present = self.version()
        if present == known[-1]:
            return
        if present is None:
            raise Misconfigured(
                "The database that the settings name is empty: it was moved, or never made here. Put it back.",
                code="database.empty",
            )
        if present not in known:
            self.migrate(scripts)  # which says what is wrong
        raise Misconfigured(
            f"The database has the tables of an older version of Connexon. Stop the process that serves, and run:  "
            f"{upgrade}",
            code="database.older_tables",
        )

    def back_up(self, target: Path) -> None:
        """Write a copy of a SQLite database, whole and at one moment. Raises Misconfigured where the file is there."""
        if target.exists():
            raise Misconfigured(f"{target} is there already and is not overwritten.", code="database.backup_exists")
        with _translated(), self.engine.connect() as connection, closing(sqlite3.connect(target)) as copy:
            driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # SQLite's
            driver.backup(copy)
        target.chmod(0o600)

    def damage(self) -> str:
        """What SQLite finds wrong in the file's pages, in its words; empty where nothing is, and on PostgreSQL."""
        if not self.is_sqlite:
            return ""
        with self.reading() as connection:
            found = str(connection.exec_driver_sql("pragma quick_check(1)").scalar_one())
        return "" if found == "ok" else plain(found[:200])

    def give_back(self, pages: int = 500) -> bool:
        """Give free pages at a SQLite file's end back to the disk, a few at a time; whether there may be more.

        PostgreSQL does so by itself; a file made by an earlier version only after `compact`.
        """
        if not self.is_sqlite:
            return False
        with self.writing() as connection:
            before = connection.exec_driver_sql("pragma freelist_count").scalar_one()
            # By the driver, which does one step of a pragma, and a step frees one page.
            driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
            for _ in range(min(pages, int(before))):
                driver.execute("pragma incremental_vacuum(1)")
            return 0 < int(connection.exec_driver_sql("pragma freelist_count").scalar_one()) < int(before)

    def compact(self) -> None:
        """Write a SQLite file anew without its free pages, so that it gives back by itself from now on."""
        if self.is_sqlite:
            with _translated(), self.engine.connect() as connection:
                driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # SQLite's
                driver.execute("pragma auto_vacuum=incremental")
                driver.execute("vacuum")

    def version(self) -> str | None:
        """The version that the tables have, or None where there are none yet."""
        with self.reading() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                return None
            version: str | None = connection.exec_driver_sql("select version_num from alembic_version").scalar()
            return version

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


@contextmanager
def first_use() -> Iterator[None]:
    """Within the block a database is used for the first time: Misconfigured says what is wrong with what was named."""
    try:
        yield
    except Unavailable as error:
        raise Misconfigured(
            "The database that --state-url names cannot be used: check that it is there and runs, and that host, port, "
            "name, user and password are right.",
            code="database.unreachable",
        ) from error
    except DatabaseError as error:
        # First of them: a schema that is not for this user.
        words = str(error.orig).split("\n", 1)[0]
        raise Misconfigured(
            f"The database that --state-url names does not take Connexon's tables: {plain(words)}.",
            code="database.refused",
        ) from error


def _parsed(url: str) -> sqlalchemy.URL:
    # The URL may hold a password: it is never repeated.
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Misconfigured("The database URL cannot be read.", code="database.bad_url") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise Misconfigured(
            "The database URL must begin with sqlite:/// or postgresql://.",
            code="database.bad_url",
        )
    return parsed


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DatabaseError, PoolTimeoutError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        number = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if number in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Misconfigured(
                "The database file is damaged; restore it from a backup.", code="database.damaged"
            ) from error
        # SQLITE_ERROR is a wrong statement: a fault of ours that no second try mends.
        temporary = isinstance(error, OperationalError | PoolTimeoutError | sqlite3.OperationalError)
        if not temporary or number == sqlite3.SQLITE_ERROR:
            raise
        full = number == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == _POSTGRESQL_FULL
        raise Unavailable(
            "The disk of the database is full; make room, and try again."
            if full
            else "The database cannot be used at the moment; try again shortly.",
            code="database.unavailable",
        ) from error


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by _begin_sqlite, not by the driver's guesses.
    connection.isolation_level = None
    # Counts for a new file only, and before anything is written to it.
    connection.execute("pragma auto_vacuum=incremental")
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute("pragma foreign_keys=on")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute(f"set lock_timeout = '{BUSY_TIMEOUT_SECONDS}s'")
    connection.commit()


def _begin_postgresql(connection: Connection) -> None:
    # As on SQLite, one writer at a time: what it has checked cannot change before it commits.
    if connection.get_execution_options().get(_WRITING, False):
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_WRITER_LOCK})")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: two that both began by reading could never both go on.
    writing = connection.get_execution_options().get(_WRITING, False)
    # By the driver itself: every question begins several transactions, and this takes half as long.
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    driver.execute("begin immediate" if writing else "begin")
