"""The store of editions: which is in force, what it is made of, and what its tables are."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Row, func, insert, select

from connexon.clock import DAY
from connexon.errors import Conflict, NotFound, Refused
from connexon.service.database import Database
from connexon_node.editions.tables import EditionGenerationRow, EditionRow, EditionTablesRow

if TYPE_CHECKING:
    # NumPy, which commands that only speak of editions need not load.
    from connexon_node.editions.first_ask import Tables

YEAR_MS = 365 * DAY
"""Editions are opened so far apart, unless the steward says why."""

_EDITIONS = EditionRow.metadata.tables[str(EditionRow.__tablename__)]
_GENERATIONS = EditionGenerationRow.metadata.tables[str(EditionGenerationRow.__tablename__)]
_TABLES = EditionTablesRow.metadata.tables[str(EditionTablesRow.__tablename__)]
_LATEST = select(func.max(_EDITIONS.c.number))


class NoEdition(Refused):
    """Private numbers are asked for, and the steward has opened no edition."""

    code = "edition.none"

    def __init__(self) -> None:
        super().__init__(
            "This center has not opened an edition of its data yet, so it gives no numbers about persons. Its steward "
            "opens one; ask again later."
        )


class NotInEdition(Refused):
    """A dataset was imported for the first time after the edition in force was opened."""

    code = "dataset.not_in_edition"

    def __init__(self, dataset: str, edition: int) -> None:
        super().__init__(
            f"This center imported {dataset} after it had opened edition {edition} of its data, which numbers about "
            "persons describe. They come with its next edition."
        )


@dataclass(frozen=True)
class Edition:
    """One edition. `generations` is what it is made of, by dataset; `without_tables` why it has no first-ask tables.

    `rho` is what its tables cost the account of persons, 0 where it has none.
    """

    number: int
    opened_at_ms: int
    opened_by: str
    because: str
    generations: Mapping[str, int]
    rho: float = 0.0
    without_tables: str = ""

    @property
    def next_is_usual_from_ms(self) -> int:
        """When the next one may be opened without saying why."""
        return self.opened_at_ms + YEAR_MS


class Editions:
    """The editions of a center. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: Edition | None = None
        self._tables: tuple[int, Tables | None] | None = None
        """The edition whose tables were read last, and they: of what is written nothing changes."""

    def latest(self) -> Edition | None:
        """The edition in force; None where none was ever opened."""
        with self._database.reading() as connection:
            number = connection.execute(_LATEST).scalar_one()
            with self._lock:
                known = self._known
            if number is None or (known is not None and known.number == number):
                return known if number is not None else None
            found = _of(connection, connection.execute(select(_EDITIONS).where(_EDITIONS.c.number == number)).one())
        with self._lock:
            self._known = found
        return found

    def in_force(self) -> Edition:
        """The edition in force. Raises NoEdition."""
        edition = self.latest()
        if edition is None:
            raise NoEdition
        return edition

    def all(self) -> list[Edition]:
        """Every edition, the first one first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(_EDITIONS).order_by(_EDITIONS.c.number)).all()
            return [_of(connection, row) for row in rows]

    def one(self, number: int) -> Edition:
        """The edition of that number. Raises NotFound."""
        for edition in self.all():
            if edition.number == number:
                return edition
        raise NotFound(f"There is no edition {number}; connexon-node edition list shows all.", code="edition.unknown")

    def tables(self, edition: Edition) -> Tables | None:
        """The first-ask tables of an edition; None where it has none, or other ones than this software can read."""
        with self._lock:
            if self._tables is not None and self._tables[0] == edition.number:
                return self._tables[1]
        from connexon_node.editions import first_ask

        with self._database.reading() as connection:
            row = connection.execute(select(_TABLES).where(_TABLES.c.edition == edition.number)).one_or_none()
        tables = None if row is None else first_ask.read(row.frame, bytes(row.arrays), row.rho)
        with self._lock:
            self._tables = (edition.number, tables)
        return tables

    def write(self, connection: Connection, edition: Edition) -> None:
        """Put an edition in force, within the transaction that pays for its tables. Raises Conflict."""
        if (connection.execute(_LATEST).scalar_one() or 0) != edition.number - 1:
            raise Conflict("Another edition was opened meanwhile.", code="edition.opened_meanwhile")
        row = {
            "number": edition.number,
            "opened_at_ms": edition.opened_at_ms,
            "opened_by": edition.opened_by,
            "because": edition.because,
            "without_tables": edition.without_tables,
        }
        connection.execute(insert(_EDITIONS), row)
        made_of = [
            {"edition": edition.number, "dataset": dataset, "generation": generation}
            for dataset, generation in sorted(edition.generations.items())
        ]
        connection.execute(insert(_GENERATIONS), made_of)

    def write_tables(self, connection: Connection, edition: Edition, row: Mapping[str, object]) -> None:
        """Keep an edition's tables, within the same transaction; `row` has all columns but the edition's number."""
        connection.execute(insert(_TABLES), {"edition": edition.number, **row})


def _of(connection: Connection, row: Row[tuple[object, ...]]) -> Edition:
    generations = select(_GENERATIONS).where(_GENERATIONS.c.edition == row.number)
    rho = connection.execute(select(_TABLES.c.rho).where(_TABLES.c.edition == row.number)).scalar_one_or_none()
    return Edition(
        number=row.number,
        opened_at_ms=row.opened_at_ms,
        opened_by=row.opened_by,
        because=row.because,
        generations={one.dataset: one.generation for one in connection.execute(generations)},
        rho=float(rho or 0.0),
        without_tables=row.without_tables,
    )
