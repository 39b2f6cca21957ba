"""Making an invitation: what the code says, and what the hub remembers of it."""

from __future__ import annotations

import secrets
import unicodedata

from connexon.clock import DAY, now_ms
from connexon.errors import InvalidQuery, Misconfigured
from connexon.identity import invitation, visible_text
from connexon.identity.countries import CODES
from connexon.identity.keys import CenterId
from connexon.identity.roster import OrganisationKind, RosterPin
from connexon.v1 import membership_pb2
from connexon_hub.folder import HubFolder
from connexon_hub.membership import authority
from connexon_hub.membership.members import HubMember, MemberStore
from connexon_hub.membership.standing import HubStatus
from connexon_hub.settings import HubSettings


def invite(
    folder: HubFolder,
    settings: HubSettings,
    members: MemberStore,
    *,
    roster: RosterPin,
    center: CenterId,
    legal_name: str,
    country: str,
    kind: OrganisationKind,
    valid_days: int,
    replace_keys: bool,
) -> tuple[str, int]:
    """Return the code and when it expires, ms since 1970-01-01 UTC. Raises InvalidQuery, Refused or Conflict."""
    if country not in CODES:
        raise InvalidQuery(
            f"{country!r} is not a country. Use a two-letter country code: FR for France.", code="invitation.country"
        )
    legal_name = _legal_name(legal_name)
    token, expires_ms = secrets.token_bytes(32), now_ms() + valid_days * DAY
    content = membership_pb2.Invitation(
        federation=settings.federation.name,
        center_id=center,
        hub_address=_reachable(folder, settings.addresses.public, "address"),
        link_address=_reachable(folder, settings.addresses.link, "link_address"),
        hub_certificate_authority=authority.load(folder).der,
        root_fingerprint=settings.root_fingerprint,
        token=token,
        expires_at_ms=expires_ms,
        roster_serial=roster.serial,
        roster_sha256=roster.sha256,
    )
    member = HubMember(
        center=center,
        legal_name=legal_name,
        country=country,
        organisation_kind=kind,
        status=HubStatus.INVITED,
    )
    members.invite(member, token, expires_ms=expires_ms, replace_keys=replace_keys)
    return invitation.to_code(content), expires_ms


def _legal_name(text: str) -> str:
    # What was typed on a Mac, or copied with a space, is put right; what would not be seen is for the operator to mend.
    name = unicodedata.normalize("NFC", text.strip())
    if wrong := visible_text.wrong_with(name):
        raise InvalidQuery(f"The legal name {wrong}; write the center's full name.", code="invitation.legal_name")
    return name


def _reachable(folder: HubFolder, address: str, name: str) -> str:
    """The advertised address; where its port is 0, the one that the serving process has taken."""
    if not address.endswith(":0"):
        return address
    present = folder.present_process()
    if name not in present:
        raise Misconfigured("The hub takes any free port: start it before you invite.", code="hub.not_serving")
    return str(present[name])
