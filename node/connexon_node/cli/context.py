"""What most commands need: the node's folder, settings and database, opened together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from connexon.service.database import Database
from connexon_node import settings
from connexon_node.folder import NodeFolder
from connexon_node.settings import NodeSettings
from connexon_node.state import open_present


@dataclass(frozen=True)
class OpenNode:
    """A node's folder with its settings and its database, beside whatever process serves it."""

    folder: NodeFolder
    settings: NodeSettings
    database: Database


def opened(directory: Path) -> OpenNode:
    """Open the node in a folder. Raises Misconfigured or Unavailable."""
    folder = NodeFolder.find(directory)
    present = settings.load(folder)
    return OpenNode(folder, present, open_present(present.state_url))
