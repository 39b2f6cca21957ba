"""Founding a federation: everything that `init` makes, in an order that leaves nothing half believed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from connexon.errors import Misconfigured
from connexon.identity import keys
from connexon.service.database import Database, first_use
from connexon.service.policy_files import shipped
from connexon_hub import settings
from connexon_hub.folder import HubFolder
from connexon_hub.membership import authority
from connexon_hub.membership.members import MemberStore
from connexon_hub.membership.roster import RootFolder, RosterStore, policy_files
from connexon_hub.settings import AddressesSection, FederationSection
from connexon_hub.state import open_state


@dataclass(frozen=True)
class Plan:
    """What the founder decides; empty texts take the default."""

    federation: str
    root_folder: Path
    address: str
    link_address: str
    listen: str = ""
    link_listen: str = ""
    state_url: str = ""
    policies: Path | None = None


@dataclass(frozen=True)
class Founded:
    """What was made. `fingerprint` is the root key's, for people."""

    folder: HubFolder
    fingerprint: str


def found(directory: Path, plan: Plan) -> Founded:
    """Make a hub and its root. Where it raises InvalidQuery, Misconfigured or OSError, both folders are as before."""
    folder, root = HubFolder(directory.resolve()), RootFolder(plan.root_folder.resolve())
    keys.federation_name(plan.federation)
    _require_apart(folder, root)
    addresses = _addresses(plan)
    baseline = policy_files(plan.policies or shipped())
    with _emptied_on_failure(folder.root, root.root):
        folder.make()
        # Before any key is made: of all that is needed, the database is most likely to be missing.
        database = _new_state(plan.state_url or folder.default_state_url)
        try:
            return _found(folder, root, plan, addresses, baseline, database)
        finally:
            database.close()


def _found(
    folder: HubFolder,
    root: RootFolder,
    plan: Plan,
    addresses: AddressesSection,
    baseline: Mapping[str, bytes],
    database: Database,
) -> Founded:
    root_key = root.create()
    fingerprint = keys.fingerprint(root_key.public)
    hub_authority = authority.create(folder, plan.federation)
    rosters = RosterStore(database, MemberStore(database), root_fingerprint=fingerprint)
    first = rosters.draft(
        federation=plan.federation, authority=hub_authority.der, days=_ROSTER_DAYS, policy_files=baseline
    )
    rosters.publish(root.sign(first))
    # Last: a folder with settings is a hub.
    section = FederationSection(name=plan.federation, root_fingerprint=fingerprint.hex())
    keys.replace_file(folder.settings_file, settings.to_toml(section, addresses, plan.state_url).encode(), private=True)
    return Founded(folder, keys.readable(fingerprint))


def _new_state(url: str) -> Database:
    """The database with its tables. Raises Misconfigured where it cannot be used, or a hub has published there."""
    with first_use():
        database = open_state(url)
        if RosterStore(database, MemberStore(database), root_fingerprint=b"").revision() != (0, 0):
            database.close()
            raise Misconfigured(
                "The database is another hub's already; name an empty one with --state-url.", code="database.in_use"
            )
    return database


@contextmanager
def _emptied_on_failure(*folders: Path) -> Iterator[None]:
    """Take away what a failed founding has made, so that it can be tried again.

    INVARIANT: the folders were empty or not there before; whatever lies in them was made within the block.
    """
    there = [folder for folder in folders if folder.exists()]
    try:
        yield
    except BaseException:
        for folder in folders:
            for made in folder.iterdir() if folder.is_dir() else ():
                shutil.rmtree(made) if made.is_dir() else made.unlink()
            if folder not in there and folder.is_dir():
                folder.rmdir()
        raise


_ROSTER_DAYS = float(settings.HubSettings.model_fields["roster_days"].default)


def _require_apart(folder: HubFolder, root: RootFolder) -> None:
    if folder.root == root.root or folder.root in root.root.parents or root.root in folder.root.parents:
        raise Misconfigured(
            "The root key's folder must lie apart from the hub's: neither inside the other.", code="root.not_apart"
        )
    if folder.settings_file.exists():
        raise Misconfigured(f"There is a hub in {folder.root} already.", code="hub.exists")
    if root.key_file.exists():
        raise Misconfigured(f"There is a root key in {root.root} already; it is not replaced.", code="key.exists")
    for path, option in ((folder.root, "--dir"), (root.root, "--root-dir")):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise Misconfigured(
                f"{path} is not an empty folder; name a new one with {option}.", code="folder.not_empty"
            )


def _addresses(plan: Plan) -> AddressesSection:
    try:
        found = AddressesSection(
            public=plan.address,
            link=plan.link_address,
            listen=plan.listen or _listen(plan.address),
            link_listen=plan.link_listen or _listen(plan.link_address),
        )
    except ValidationError as error:
        option = _OPTIONS[str(error.errors()[0]["loc"][0])]
        raise Misconfigured(
            f"Write {option} as HOST:PORT, for example hub.example.org:7443.", code="settings.invalid"
        ) from error
    for one, other in (("public", "link"), ("listen", "link_listen")):
        address = getattr(found, one)
        # Port 0 takes any that is free, each time another.
        if address == getattr(found, other) and not address.endswith(":0"):
            raise Misconfigured(
                f"{_OPTIONS[one]} and {_OPTIONS[other]} are both {address}; they need ports of their own.",
                code="settings.invalid",
            )
    return found


_OPTIONS = {"public": "--address", "link": "--link-address", "listen": "--listen", "link_listen": "--link-listen"}


def _listen(address: str) -> str:
    """Loopback stays on loopback; any other name is bound on all of this machine's addresses."""
    host, _, port = address.rpartition(":")
    return address if host in ("127.0.0.1", "localhost", "[::1]") else f"[::]:{port}"
