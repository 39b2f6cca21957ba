"""Founding a federation: everything that `init` makes, in an order that leaves nothing half believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from connexon import identity
from connexon.errors import Misconfigured
from connexon.policies_folder import shipped
from connexon_hub import authority, settings
from connexon_hub.folder import HubFolder
from connexon_hub.members import MemberStore
from connexon_hub.roster_publication import RootFolder, RosterStore, policy_files
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
    """Make a hub and its root. Raises InvalidQuery or Misconfigured before anything is written, if it can."""
    folder, root = HubFolder(directory.resolve()), RootFolder(plan.root_folder.resolve())
    identity.federation_name(plan.federation)
    _require_apart(folder, root)
    addresses = _addresses(plan)
    baseline = policy_files(plan.policies or shipped())
    folder.make()
    root_key = root.create()
    fingerprint = identity.fingerprint(root_key.public)
    hub_authority = authority.create(folder, plan.federation)
    database = open_state(plan.state_url or folder.default_state_url)
    try:
        rosters = RosterStore(database, MemberStore(database), root_fingerprint=fingerprint)
        first = rosters.draft(
            federation=plan.federation, authority=hub_authority.der, days=_ROSTER_DAYS, policy_files=baseline
        )
        rosters.publish(root.sign(first))
    finally:
        database.close()
    # Last: a folder with settings is a hub.
    section = FederationSection(name=plan.federation, root_fingerprint=fingerprint.hex())
    identity.replace_file(
        folder.settings_file, settings.to_toml(section, addresses, plan.state_url).encode(), private=True
    )
    return Founded(folder, identity.readable(fingerprint))


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


def _addresses(plan: Plan) -> AddressesSection:
    try:
        return AddressesSection(
            public=plan.address,
            link=plan.link_address,
            listen=plan.listen or _listen(plan.address),
            link_listen=plan.link_listen or _listen(plan.link_address),
        )
    except ValidationError as error:
        raise Misconfigured(
            "Write addresses as HOST:PORT, for example hub.example.org:7443.", code="settings.invalid"
        ) from error


def _listen(address: str) -> str:
    """Loopback stays on loopback; any other name is bound on all of this machine's addresses."""
    host, _, port = address.rpartition(":")
    return address if host in ("127.0.0.1", "localhost", "[::1]") else f"[::]:{port}"
