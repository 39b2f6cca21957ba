"""An explicit upgrade of a database's tables: a copy first, and nobody who serves beside it."""

from __future__ import annotations

from pathlib import Path

from connexon.clock import now_ms, to_datetime
from connexon.errors import Misconfigured
from connexon.service.database import Database


def upgrade(url: str, scripts: Path, folder: Path, *, backed_up: bool) -> tuple[str, Path | None]:
    """Bring the tables at `url` to the newest version; what they had, and the copy that was written into `folder`.

    Call it where nobody serves. Raises Misconfigured for an empty database, or for a PostgreSQL of which nobody says
    that it is `backed_up`.
    """
    database = Database(url)
    try:
        present = database.version()
        if present is None:
            raise Misconfigured("The database that the settings name is empty. Put it back.", code="database.empty")
        copy = None
        if database.is_sqlite:
            copy = folder / f"state-{present}-{to_datetime(now_ms()):%Y%m%d-%H%M%S}.db"
            database.back_up(copy)
        elif not backed_up:
            raise Misconfigured(
                "Back this PostgreSQL up first, for example with pg_dump, and run this again with --backed-up.",
                code="database.no_backup",
            )
        database.migrate(scripts)
        database.compact()
        return present, copy
    finally:
        database.close()
