"""Who may take part now: the roster in force, narrowed by what the operator has said since it was signed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from connexon.errors import NotFound, Refused, Unauthenticated
from connexon.identity.keys import CenterId, SpiffeId
from connexon.identity.roster import Member, MemberStatus, Roster
from connexon.v1 import roster_pb2


class HubStatus(Enum):
    """A center as the hub's operator sees it."""

    INVITED = "invited"
    """Has a code and no keys yet."""
    JOINED = "joined"
    """Has brought its keys; no roster in force lists it as active with them."""
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


_CLOSED = {HubStatus.SUSPENDED: MemberStatus.SUSPENDED, HubStatus.REVOKED: MemberStatus.REVOKED}


def status_by_roster(
    present: HubStatus, member: Member | None, *, accrediting_key: bytes | None, answering_key: bytes | None
) -> HubStatus:
    """What a center's status becomes beside the roster entry `member`; the operator's own closing stands.

    Active takes a roster that lists the center as active with the very keys it has brought.
    """
    if present in _CLOSED or accrediting_key is None or answering_key is None:
        return present
    listed = (
        member is not None
        and member.status is MemberStatus.ACTIVE
        and accrediting_key in member.accrediting_keys
        and answering_key in member.answering_keys
    )
    return HubStatus.ACTIVE if listed else HubStatus.JOINED


def require_link_key(center: CenterId, known: bytes | None, key: bytes) -> None:
    """Raise Unauthenticated where a center is known to have another key behind its certificates than this one."""
    if known is not None and key != known:
        raise Unauthenticated(f"{center} has joined with another key than this one.", code="certificate.other_key")


def certificate_revoked() -> Refused:
    """How a certificate that counts no more is refused."""
    return Refused("The center's certificate has been revoked.", code="certificate.revoked")


@dataclass(frozen=True)
class Standing:
    """One consistent view of roster and members. `revision` tells it from an older one."""

    roster: Roster
    signed_roster: roster_pb2.SignedRoster
    statuses: Mapping[CenterId, HubStatus] = field(default_factory=dict)
    link_keys: Mapping[CenterId, bytes] = field(default_factory=dict)
    """The key behind each center's certificates; a center that only the roster knows has none here."""
    revoked_certificates: frozenset[str] = frozenset()
    revision: tuple[int, int] = (0, 0)

    def closed(self, center: CenterId) -> MemberStatus | None:
        """Suspended or revoked, by roster or operator, whichever is stricter; None where neither."""
        member = self.roster.member(center)
        words = {_CLOSED.get(self.statuses.get(center, HubStatus.ACTIVE)), member.status if member else None}
        for word in (MemberStatus.REVOKED, MemberStatus.SUSPENDED):
            if word in words:
                return word
        return None

    def require_certificate(self, identity: SpiffeId, serial: str, key: bytes) -> None:
        """Raise Refused unless a certificate with this identity, serial number and key still counts."""
        if identity.federation != self.roster.federation:
            raise Refused(
                f"The certificate is of {identity.federation}, not of {self.roster.federation}.",
                code="identity.other_federation",
            )
        if serial in self.revoked_certificates or serial in self.roster.revoked_certificates:
            raise certificate_revoked()
        require_link_key(identity.center, self.link_keys.get(identity.center), key)

    def require_open(self, center: CenterId) -> None:
        """Raise Refused where a center is suspended or revoked."""
        word = self.closed(center)
        if word is not None:
            raise Refused(f"{center} is {word.value} in {self.roster.federation}.", code=f"membership.{word.value}")

    def require_active(self, center: CenterId) -> None:
        """Raise Refused unless a center takes part now."""
        self.require_open(center)
        if self.roster.member(center) is None or self.statuses.get(center, HubStatus.ACTIVE) is not HubStatus.ACTIVE:
            raise Refused(
                f"{center} is not yet active: the federation's root key has to sign a roster with its keys.",
                code="membership.not_active",
            )

    def require_addressable(self, centers: Iterable[CenterId]) -> None:
        """Raise NotFound or Refused, naming the center, unless a question may be put to every one of these.

        One that the hub has closed while the roster has not is asked like one that is away: it gets nothing before it
        is let in again. Otherwise everybody who goes by the roster could ask nobody until the next is signed.
        """
        for center in centers:
            member = self.roster.member(center)
            if member is None:
                raise NotFound(f"{center} is not a member of {self.roster.federation}.", code="membership.not_a_member")
            if member.status is not MemberStatus.ACTIVE:
                self.require_open(center)
