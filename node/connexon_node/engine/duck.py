"""The engine on DuckDB: reads Parquet generations and nothing else, on cursors of its own, within limits."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any as Cursor
from typing import Any as Schema

import duckdb
import pyarrow
import pyarrow.parquet
from ibis.backends.sql.datatypes import DuckDBType

from connexon.errors import Unavailable
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import Dictionary
from connexon_node.data.generations import Generations
from connexon_node.editions import Editions
from connexon_node.engine.lists import DuckCompiler
from connexon_node.engine.permitted import IS_PERMITTED
from connexon_node.engine.session import OutOfMemory
from connexon_node.engine.sql import SqlEngine
from connexon_node.importing.sql import file as sql_file
from connexon_node.ontology import Ontologies
from connexon_node.pipeline.values import Work
from connexon_node.settings import EngineSection

LOG = logging.getLogger(__name__)
_SET_PERMITTED = "SET VARIABLE permitted = CAST($1 AS BIT)"


class DuckEngine(SqlEngine):
    """Implements pipeline.Engine. Thread-safe; one per process."""

    def __init__(
        self,
        generations: Generations,
        ledger: Ledger,
        ontologies: Ontologies,
        dictionary: Dictionary,
        limits: EngineSection,
        editions: Editions,
    ) -> None:
        super().__init__(generations, ledger, ontologies, dictionary, limits, editions, DuckCompiler())
        self._duckdb = _open(generations, limits)
        self._views = _Views(self._duckdb)

    def close(self) -> None:
        """Give up DuckDB's memory. No query may run any more."""
        self._duckdb.close()

    @contextlib.contextmanager
    def session(self, work: Work) -> Iterator[_Session]:
        """A cursor of its own."""
        with self._cursor(work) as cursor:
            yield _Session(cursor, self._views)

    @contextlib.contextmanager
    def _cursor(self, work: Work) -> Iterator[Cursor]:
        """A cursor of its own, stopped with the work; DuckDB's errors become Connexon's."""
        cursor = self._duckdb.cursor()
        with contextlib.closing(cursor), self._watch.stopping(cursor.interrupt, work, self._limits.seconds) as why:
            try:
                yield cursor
            except duckdb.InterruptException as error:
                why()
                raise Unavailable("The query was interrupted; ask again.", code="engine.interrupted") from error
            except duckdb.OutOfMemoryException as error:
                raise OutOfMemory from error
            except (duckdb.Error, pyarrow.ArrowException, OSError) as error:
                LOG.error("DuckDB could not run a query: %s", type(error).__name__)
                raise Unavailable(
                    "The center could not read its data, so there is no answer; try again later.",
                    code="engine.failed",
                ) from error


class _Views:
    """The views over Parquet files, which all cursors share; each is made when first read. Thread-safe."""

    def __init__(self, connection: Cursor) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._offered: dict[str, tuple[Schema, tuple[Path, ...]]] = {}
        self._made: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._offered

    def offer(self, name: str, schema: Schema, files: Sequence[Path]) -> None:
        """Remember what the view is to be, and forget views whose files were removed."""
        with self._lock:
            for gone in [view for view, (_, read) in self._offered.items() if not read[0].exists()]:
                del self._offered[gone]
                if gone in self._made:
                    self._connection.execute(f'DROP VIEW "{gone}"')
                    self._made.remove(gone)
            self._offered[name] = (schema, tuple(files))

    def make(self, sql: str) -> None:
        """Make the views that a query names."""
        if all(name in self._made for name in tuple(self._offered) if f'"{name}"' in sql):
            return
        with self._lock:
            for name, (schema, files) in self._offered.items():
                if name not in self._made and f'"{name}"' in sql:
                    self._connection.execute(_view(name, schema, files))
                    self._made.add(name)


@dataclass(frozen=True)
class _Session:
    """A cursor as one query uses it."""

    cursor: Cursor
    views: _Views

    def offers(self, name: str) -> bool:
        return name in self.views

    def offer(self, name: str, schema: Schema, files: Sequence[Path]) -> None:
        self.views.offer(name, schema, files)

    def permit(self, bits: bytes) -> None:
        self.cursor.execute(_SET_PERMITTED, [bits])

    def fetch(self, sql: str) -> pyarrow.Table:
        self.views.make(sql)
        return self.cursor.execute(sql).to_arrow_table()


def _view(name: str, schema: Schema, files: Sequence[Path]) -> str:
    listed = ", ".join(map(sql_file, files))
    # A generation that an older dictionary wrote lacks the newer fields: nothing was collected.
    written = pyarrow.parquet.read_schema(files[0]).names
    lacking = "".join(
        f', NULL::{DuckDBType.to_string(kind)} AS "{column}"'
        for column, kind in schema.items()
        if column not in written
    )
    return f'CREATE VIEW "{name}" AS SELECT *{lacking} FROM read_parquet([{listed}])'  # noqa: S608 paths and names


def _open(generations: Generations, limits: EngineSection) -> Cursor:
    """A DuckDB that can read below the data folder, write nowhere, and not be talked into more."""
    folder = str(generations.folder).replace("'", "''")
    connection = duckdb.connect(":memory:")
    for setting in (
        f"threads = {limits.threads}",
        f"memory_limit = '{limits.memory}'",
        # Nowhere to spill: rows of persons are not written to another place, and the limit is a limit.
        "temp_directory = ''",
        "parquet_metadata_cache = true",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        f"allowed_directories = ['{folder}/']",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    connection.execute(f"CREATE MACRO {IS_PERMITTED}(donor) AS get_bit(getvariable('permitted'), donor) = 1")
    # The first statement with a parameter loads modules, which takes a while: not in the first question.
    connection.cursor().execute(_SET_PERMITTED, [b"\0"])
    return connection
