"""Making an invitation: what the code says, and what the hub remembers of it."""

from __future__ import annotations

import re
import secrets

from connexon import invitation
from connexon.clock import DAY, now_ms
from connexon.errors import InvalidQuery, Misconfigured
from connexon.identity import CenterId
from connexon.roster import OrganisationKind
from connexon.v1 import membership_pb2
from connexon_hub import authority
from connexon_hub.folder import HubFolder
from connexon_hub.members import HubMember, MemberStore
from connexon_hub.settings import HubSettings
from connexon_hub.standing import HubStatus

LONGEST_NAME = 200
"""Characters of a center's legal name."""


def invite(
    folder: HubFolder,
    settings: HubSettings,
    members: MemberStore,
    *,
    center: CenterId,
    legal_name: str,
    country: str,
    kind: OrganisationKind,
    valid_days: int,
    replace_keys: bool,
) -> tuple[str, int]:
    """Return the code and when it expires, ms since 1970-01-01 UTC. Raises InvalidQuery, Refused or Conflict."""
    if not re.fullmatch(r"[A-Z]{2}", country):
        raise InvalidQuery(f"{country!r} is not a country such as FR (ISO 3166-1 alpha-2).", code="invitation.country")
    _require_legal_name(legal_name)
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
    )
    member = HubMember(
        center=center,
        legal_name=legal_name.strip(),
        country=country,
        organisation_kind=kind,
        status=HubStatus.INVITED,
    )
    members.invite(member, token, expires_ms=expires_ms, replace_keys=replace_keys)
    return invitation.to_code(content), expires_ms


def _require_legal_name(text: str) -> None:
    wrong = ""
    if not text.strip():
        wrong = "is empty; write the center's full name"
    elif len(text) > LONGEST_NAME:
        wrong = f"has {len(text)} characters; at most {LONGEST_NAME} fit"
    elif not text.isprintable():
        wrong = "has a line break or a control character; write it in one line"
    if wrong:
        raise InvalidQuery(f"The legal name {wrong}.", code="invitation.legal_name")


def _reachable(folder: HubFolder, address: str, name: str) -> str:
    """The advertised address; where its port is 0, the one that the serving process has taken."""
    if not address.endswith(":0"):
        return address
    present = folder.present_process()
    if name not in present:
        raise Misconfigured("The hub takes any free port: start it before you invite.", code="hub.not_serving")
    return str(present[name])
