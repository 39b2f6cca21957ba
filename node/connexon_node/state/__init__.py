"""The node's operational state: every room declares its tables with NodeTable, and one history shapes them all."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from sqlalchemy import MetaData
from sqlmodel import SQLModel

from connexon.service.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"


class NodeTable(SQLModel):
    """Base of every table of the node, apart from the hub's where both are loaded in one process."""

    metadata: ClassVar[MetaData] = MetaData()


def open_state(url: str) -> Database:
    """Open the node's database and bring its tables up to date: for whoever serves, and alone."""
    database = Database(url)
    database.migrate(MIGRATIONS)
    return database


def open_present(url: str) -> Database:
    """Open the node's database beside whatever process serves it. Raises Misconfigured for other tables."""
    database = Database(url)
    database.require_newest(MIGRATIONS, upgrade="connexon-node upgrade")
    return database
