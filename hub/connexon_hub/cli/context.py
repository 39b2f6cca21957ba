"""What most commands need: the hub's folder, settings and stores, opened together and closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connexon.service.database import Database
from connexon_hub import settings
from connexon_hub.folder import HubFolder
from connexon_hub.membership.members import MemberStore
from connexon_hub.membership.roster import RosterStore
from connexon_hub.settings import HubSettings
from connexon_hub.state import open_present


@dataclass(frozen=True)
class OpenHub:
    """A hub's folder with its stores, beside whatever process serves it."""

    folder: HubFolder
    settings: HubSettings
    database: Database
    members: MemberStore
    rosters: RosterStore


@contextmanager
def opened(root: Path) -> Iterator[OpenHub]:
    """Open the hub in a folder. Raises Misconfigured or Unavailable."""
    folder = HubFolder.find(root)
    present = settings.load(folder)
    database = open_present(present.state_url)
    try:
        members = MemberStore(database)
        rosters = RosterStore(database, members, root_fingerprint=present.root_fingerprint)
        yield OpenHub(folder, present, database, members, rosters)
    finally:
        database.close()
