"""A real PostgreSQL server, run from installed binaries for the time of the tests."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

OWNER = "connexon"
START_SECONDS = 60


def find_binaries() -> Path | None:
    """The folder with initdb and postgres, the newest version first; None where there is none."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _version(path.parent), reverse=True)
    found = shutil.which("initdb")
    folders = [*installed, *([Path(found).resolve().parent] if found else [])]
    return next((path for path in folders if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _version(folder: Path) -> int:
    return int(folder.name) if folder.name.isdecimal() else 0


@dataclass
class PostgresqlServer:
    """A running server that listens on a Unix socket only."""

    sockets: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextmanager
    def started(cls, binaries: Path) -> Iterator[PostgresqlServer]:
        """Make a cluster, run it, and stop and remove it at the end."""
        # A short path: the name of a Unix socket has at most 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="cnx-pg-", dir="/tmp"))
        try:
            user = _unprivileged_user()
            if user is not None:
                os.chown(folder, user.pw_uid, user.pw_gid)
            initdb = (binaries / "initdb", "-D", folder / "data", "-U", OWNER, *_INITDB)
            _run_as(user, folder, *initdb).wait_for_success()
            postgres = (binaries / "postgres", "-D", folder / "data", "-k", folder, "-h", "", *_POSTGRES)
            process = _run_as(user, folder, *postgres)
            try:
                process.wait_until_ready()
                yield cls(folder)
            finally:
                process.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def new_database(self) -> Iterator[str]:
        """The URL of an empty database, which is dropped at the end."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"create database {name}")
        try:
            yield f"postgresql+psycopg://{OWNER}@/{name}?host={self.sockets}"
        finally:
            self.execute(f"drop database {name} with (force)")

    def execute(self, statement: str) -> None:
        """Run a statement beside every database."""
        with psycopg.connect(host=str(self.sockets), user=OWNER, dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())


_INITDB = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
# These databases last for one test: nothing is gained by waiting for the disk.
_POSTGRES = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=60")


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom to run as: PostgreSQL refuses to run as root. None means as we are."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def wait_for_success(self) -> None:
        if self.process.wait(START_SECONDS) != 0:
            raise RuntimeError(f"initdb failed:\n{self.log.read_text()}")

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(host=str(self.folder), user=OWNER, dbname="postgres").close()
            except psycopg.OperationalError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}") from error
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        # SIGINT is PostgreSQL's "fast shutdown": it ends sessions and leaves.
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _run_as(user: pwd.struct_passwd | None, folder: Path, *command: str | Path) -> _Process:
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            extra_groups=None if user is None else [],
        )
    return _Process(process, folder)
