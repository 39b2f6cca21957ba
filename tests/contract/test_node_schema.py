"""The migrations make exactly the tables that the node's rooms declare."""

from __future__ import annotations

import importlib
import pkgutil

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import connexon_node
from connexon_node.state import NodeTable, open_state


def load_every_room() -> None:
    """Tables are known once the modules that declare them are loaded."""
    for module in pkgutil.walk_packages(connexon_node.__path__, "connexon_node."):
        if ".cli" not in module.name and ".migrations" not in module.name:
            importlib.import_module(module.name)


def test_the_migrated_database_is_what_the_rooms_declare(database_url: str) -> None:
    load_every_room()
    database = open_state(database_url)
    try:
        with database.reading() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            differences = compare_metadata(context, NodeTable.metadata)
    finally:
        database.close()
    assert differences == []


def test_migrating_again_changes_nothing(database_url: str) -> None:
    for _ in range(2):
        open_state(database_url).close()
