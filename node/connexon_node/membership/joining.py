"""Joining a federation with a one-time invitation.

Keys are made here and stay here. Everything can be repeated: the same code and the same keys give the same membership.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import grpc

from connexon import errors
from connexon.errors import Conflict, Misconfigured, Refused
from connexon.identity import certificates, invitation
from connexon.identity import keys as identity_keys
from connexon.identity import roster as rosters
from connexon.identity.keys import CenterId, SpiffeId
from connexon.identity.roster import Roster
from connexon.link import frames
from connexon.service.database import Database, first_use
from connexon.v1 import membership_pb2, membership_pb2_grpc, roster_pb2
from connexon_node import settings
from connexon_node.folder import NodeFolder
from connexon_node.membership import keys
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.recovery import marker
from connexon_node.settings import HubSection
from connexon_node.state import open_state

TIMEOUT_SECONDS = 30.0
_LONGEST_CODE = 100_000
_LONGEST_NAME = 255
"""Characters of a file's name; a code is longer."""


@dataclass(frozen=True)
class Joined:
    """What joining made. The member is not yet in the roster until the root key has signed the next one."""

    folder: NodeFolder
    center: CenterId
    federation: str
    accrediting_fingerprint: str
    answering_fingerprint: str
    roster: Roster

    @property
    def is_active(self) -> bool:
        """Whether the roster already names the center as an active member."""
        member = self.roster.member(self.center)
        return member is not None and member.status is rosters.MemberStatus.ACTIVE


def read_code(text: str) -> membership_pb2.Invitation:
    """Read an invitation from a code, or from the file that holds one. Raises InvitationRefused or Misconfigured."""
    # os.path.isfile, since a long text is no name that a file could have.
    is_file = not text.strip().startswith("cnx1-") and os.path.isfile(text)  # noqa: PTH113 - see above
    if not is_file:
        _require_no_path(text)
        return invitation.from_code(text)
    if Path(text).stat().st_size > _LONGEST_CODE:
        raise Misconfigured(f"{text} is too large to hold an invitation.", code="invitation.unreadable")
    try:
        return invitation.from_code(Path(text).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{text} cannot be read.", code="invitation.unreadable") from error


def _require_no_path(text: str) -> None:
    """Raise Misconfigured for what was meant as the name of a file: it is no code that lost its end."""
    if not text.strip().startswith("cnx1-") and (len(text) <= _LONGEST_NAME or os.sep in text):
        raise Misconfigured(
            f"There is no file {text[:200]}. Name the one that holds the invitation, or paste its code, all of it: it "
            "begins with cnx1-.",
            code="invitation.no_file",
        )


def join(folder: NodeFolder, invited: membership_pb2.Invitation, *, state_url: str = "") -> Joined:
    """Make the node in `folder` a member. Raises ConnexonError with what to do next.

    `state_url` names another database than SQLite in the folder; settings that are there already are not changed by it.
    """
    hub = HubSection(
        federation=identity_keys.federation_name(invited.federation),
        center=identity_keys.center_id(invited.center_id),
        link_address=invited.link_address,
        public_address=invited.hub_address,
        root_fingerprint=invited.root_fingerprint.hex(),
    )
    _require_same(folder, hub)
    _require_state(folder, state_url)
    folder.make()
    node_keys = NodeKeys.load_or_make(folder)
    response = _ask(invited, node_keys)
    roster = _believed(response.roster, invited)
    spiffe_id = SpiffeId(hub.federation, CenterId(hub.center))
    certificate = LinkCertificate.checked(response.certificate, node_keys.link, spiffe_id)
    keys.save_authority(folder, invited.hub_certificate_authority)
    certificate.save(folder)
    _write_settings(folder, hub, state_url)
    _keep_roster(folder, hub, response.roster)
    return Joined(
        folder=folder,
        center=CenterId(hub.center),
        federation=hub.federation,
        accrediting_fingerprint=identity_keys.readable(identity_keys.fingerprint(node_keys.accrediting.public)),
        answering_fingerprint=identity_keys.readable(identity_keys.fingerprint(node_keys.answering.public)),
        roster=roster,
    )


def _require_same(folder: NodeFolder, hub: HubSection) -> None:
    """Refuse a folder that belongs to another center; joining again as the same one is allowed."""
    if not folder.settings_file.exists():
        return
    present = settings.load(folder).hub
    if (present.federation, present.center) != (hub.federation, hub.center):
        raise Conflict(
            f"{folder.root} is the node of {present.center} in {present.federation}; choose another folder with --dir.",
            code="node.already_here",
        )
    if present.root_fingerprint != hub.root_fingerprint:
        raise Conflict(
            "The invitation names another root key than the one this node trusts. If the federation really has a new "
            "root, join with a new folder.",
            code="invitation.other_root",
        )


def _require_state(folder: NodeFolder, state_url: str) -> None:
    """Try the database before any key is made. Raises Misconfigured or Conflict."""
    if not state_url:
        return
    if folder.settings_file.exists() and settings.load(folder).state_url != state_url:
        raise Conflict(
            f"{folder.settings_file} names another database already. Set state_url there, and run this again with the "
            "same code.",
            code="settings.other_database",
        )
    with first_use():
        open_state(state_url).close()


def _ask(invited: membership_pb2.Invitation, node_keys: NodeKeys) -> membership_pb2.JoinResponse:
    credentials = grpc.ssl_channel_credentials(certificates.to_pem(invited.hub_certificate_authority))
    request = membership_pb2.JoinRequest(
        token=invited.token,
        certificate_request=node_keys.link.request(),
        accrediting_key=node_keys.accrediting.public,
        answering_key=node_keys.answering.public,
    )
    # A roster may be larger than a frame of the link.
    options = [
        *(option for option in frames.CHANNEL_OPTIONS if option[0] != "grpc.max_receive_message_length"),
        ("grpc.max_receive_message_length", 2 * rosters.MAXIMUM_SIZE),
    ]
    with grpc.secure_channel(invited.hub_address, credentials, options=options) as channel:
        try:
            return membership_pb2_grpc.MembershipStub(channel).Join(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from error


def _believed(signed: roster_pb2.SignedRoster, invited: membership_pb2.Invitation) -> Roster:
    roster = rosters.believe(signed, root_fingerprint=invited.root_fingerprint)
    rosters.RosterPin(invited.roster_serial, invited.roster_sha256).require(roster, signed, named_in="invitation")
    if roster.federation != invited.federation:
        raise Refused("The hub's roster is of another federation than the invitation.", code="roster.other_federation")
    if roster.hub_certificate_authority != invited.hub_certificate_authority:
        raise Refused(
            "The roster names another hub than the invitation does. Ask the hub's operator, by telephone, which holds.",
            code="roster.other_hub",
        )
    return roster


def _write_settings(folder: NodeFolder, hub: HubSection, state_url: str) -> None:
    path = folder.settings_file
    if not path.exists():
        identity_keys.replace_file(path, settings.template(hub, state_url).encode(), private=True)
        return
    # The steward's own lines stay; only where the hub is may have changed.
    text = path.read_text()
    for name in ("link_address", "public_address"):
        line = f"{name} = {settings.quoted(getattr(hub, name))}"
        text = re.sub(rf"(?m)^{name}\s*=.*$", lambda _, line=line: line, text)  # type: ignore[misc]  # bound per turn
    identity_keys.replace_file(path, text.encode(), private=True)


def _begin_marker(folder: NodeFolder, database: Database) -> None:
    """From now on a database that is missing is missed. One that is there already says of itself that it is older."""
    if marker.read(folder) is None:
        marker.Marker(folder, database).touch()


def _keep_roster(folder: NodeFolder, hub: HubSection, signed: roster_pb2.SignedRoster) -> None:
    database = open_state(settings.load(folder).state_url)
    try:
        root = bytes.fromhex(hub.root_fingerprint)
        RosterKeeper(database, root_fingerprint=root, federation=hub.federation).receive(signed)
        _begin_marker(folder, database)
    finally:
        database.close()
