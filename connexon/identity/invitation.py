"""Invitation codes: where to go, whom to believe, and a token that works once."""

from __future__ import annotations

import zlib

from connexon import strict
from connexon.clock import now_ms
from connexon.errors import InvalidQuery
from connexon.identity import keys
from connexon.identity.roster import RosterPin
from connexon.v1 import membership_pb2

_PREFIX = "cnx1-"
_LONGEST_ADDRESS = 300
"""Characters of host:port: whoever joins reads it beside the fingerprint that they compare."""


class InvitationRefused(InvalidQuery):
    """A code that is no invitation, or no longer one."""

    code = "invitation.refused"


def to_code(invitation: membership_pb2.Invitation) -> str:
    """The invitation as one word to paste, with a checksum against losing its end."""
    payload = invitation.SerializeToString(deterministic=True)
    return _PREFIX + keys.base64url(payload + zlib.crc32(payload).to_bytes(4, "big"))


def from_code(code: str, *, at_ms: int | None = None) -> membership_pb2.Invitation:
    """Read a code, ignoring white space that mail programs put in. Raises InvitationRefused."""
    word = "".join(code.split())
    try:
        if not word.startswith(_PREFIX):
            raise ValueError
        data = keys.from_base64url(word.removeprefix(_PREFIX))
        payload, checksum = data[:-4], data[-4:]
        if zlib.crc32(payload).to_bytes(4, "big") != checksum:
            raise ValueError
        invitation = strict.parse(membership_pb2.Invitation, payload, what="invitation")
        keys.federation_name(invitation.federation)
        keys.center_id(invitation.center_id)
        # INVARIANT: a joining node is never left without somebody to believe.
        if len(invitation.root_fingerprint) != 32 or not invitation.hub_certificate_authority or not invitation.token:
            raise ValueError
        RosterPin(invitation.roster_serial, invitation.roster_sha256)
        if len(invitation.hub_address) > _LONGEST_ADDRESS or len(invitation.link_address) > _LONGEST_ADDRESS:
            raise ValueError
        if not (invitation.hub_address + invitation.link_address).isprintable():
            raise ValueError
    except (ValueError, InvalidQuery) as error:
        raise InvitationRefused(
            "This is not a whole invitation code, or a hub of an earlier version made it. Paste all of it, from "
            "'cnx1-' to the end, or ask the hub's operator for a new one.",
            code="invitation.unreadable",
        ) from error
    if (now_ms() if at_ms is None else at_ms) >= invitation.expires_at_ms:
        raise InvitationRefused(
            "The invitation has expired; ask the hub's operator for a new one.", code="invitation.expired"
        )
    return invitation
