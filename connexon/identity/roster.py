"""The roster: the one document, signed by the federation's root key, that says who is a member.

A party learns the root key's fingerprint once and afterwards believes only rosters which that key
signed, never an older serial, and nothing on an expired one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from google.protobuf import json_format

from connexon import strict
from connexon.clock import END, to_text
from connexon.errors import ConnexonError, InvalidQuery, NotFound, Refused, Unauthenticated
from connexon.identity import keys as identity_keys
from connexon.identity import visible_text
from connexon.identity.countries import CODES
from connexon.identity.keys import CenterId, PublicKey, SigningKey
from connexon.v1 import roster_pb2

USE = "roster"
MAXIMUM_SIZE = 4 * 1024 * 1024
_CERTIFICATE_SERIAL = re.compile(r"[0-9a-f]{1,64}\Z")


class RosterRefused(Refused):
    """A roster that must not be believed."""

    code = "roster.refused"


class OrganisationKind(Enum):
    """What kind of organisation a center is."""

    ACADEMIC = "academic"
    PUBLIC = "public"
    NON_PROFIT = "non_profit"
    COMMERCIAL = "commercial"


class MemberStatus(Enum):
    """Whether a member takes part."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@dataclass(frozen=True, order=True)
class Protocol:
    """A version of the wire protocol."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True)
class Member:
    """A center as the roster knows it."""

    center: CenterId
    legal_name: str
    country: str
    organisation_kind: OrganisationKind
    status: MemberStatus
    accrediting_keys: tuple[PublicKey, ...] = ()
    answering_keys: tuple[PublicKey, ...] = ()


@dataclass(frozen=True)
class RosterPin:
    """A roster by its serial number and the SHA-256 of its signed bytes: whoever starts with it takes none older."""

    serial: int
    sha256: bytes

    @classmethod
    def of(cls, signed: roster_pb2.SignedRoster) -> RosterPin:
        """The pin that names a signed roster, which is read and not yet believed. Raises RosterRefused."""
        return cls(peek(signed).serial, hashlib.sha256(signed.payload).digest())

    def __post_init__(self) -> None:
        if not 0 < self.serial < 2**63 or len(self.sha256) != 32:
            raise ValueError("a roster has a serial number from 1 and a digest of 32 bytes")

    def require(self, roster: Roster, signed: roster_pb2.SignedRoster, *, named_in: str) -> None:
        """Raise RosterRefused for a roster older than this one, or another of the same serial number.

        `named_in` says where the pin came from: the invitation, the login file.
        """
        if roster.serial < self.serial:
            raise RosterRefused(
                f"The hub shows roster {roster.serial}, and the {named_in} names roster {self.serial}: an older one "
                "may list keys that no longer count. Ask the hub's operator to publish the roster in force.",
                code="roster.older",
            )
        if roster.serial == self.serial and hashlib.sha256(signed.payload).digest() != self.sha256:
            raise RosterRefused(
                f"The hub shows another roster {roster.serial} than the {named_in} names. Tell the hub's operator and "
                "the holder of the root key.",
                code="roster.forked",
            )


@dataclass(frozen=True)
class Roster:
    """A roster's content. Get one that may be believed from `believe`."""

    federation: str
    serial: int
    issued_at_ms: int
    expires_at_ms: int
    hub_certificate_authority: bytes
    members: tuple[Member, ...] = ()
    revoked_certificates: frozenset[str] = frozenset()
    lowest_protocol: Protocol = Protocol(1, 0)
    policy_files: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def _by_center(self) -> dict[CenterId, Member]:
        return {member.center: member for member in self.members}

    def member(self, center: CenterId) -> Member | None:
        """The member of that id, whatever its status, or None."""
        return self._by_center.get(center)

    def active(self, center: CenterId) -> Member:
        """The member, if it takes part now. Raises NotFound or Refused."""
        member = self.member(center)
        if member is None:
            raise NotFound(f"{center} is not a member of {self.federation}.", code="membership.not_a_member")
        if member.status is not MemberStatus.ACTIVE:
            raise Refused(
                f"{center} is {member.status.value} in {self.federation}.",
                code=f"membership.{member.status.value}",
            )
        return member

    @property
    def active_members(self) -> tuple[Member, ...]:
        """Members that take part, in the roster's order."""
        return tuple(member for member in self.members if member.status is MemberStatus.ACTIVE)

    def require_fresh(self, now_ms: int) -> None:
        """Raise RosterRefused when the roster has expired at `now_ms`."""
        if now_ms >= self.expires_at_ms:
            raise RosterRefused(
                f"The roster expired on {to_text(self.expires_at_ms)}; the hub's operator must publish a new one.",
                code="roster.expired",
            )


def sign(roster: Roster, root: SigningKey) -> roster_pb2.SignedRoster:
    """Sign a roster with the federation's root key."""
    payload = _to_wire(roster).SerializeToString(deterministic=True)
    return roster_pb2.SignedRoster(payload=payload, signature=root.sign(USE, payload), root_key=root.public)


def unsigned(roster: Roster) -> roster_pb2.SignedRoster:
    """A roster on its way to whoever holds the root key. Nobody believes it; `peek` reads it."""
    return roster_pb2.SignedRoster(payload=_to_wire(roster).SerializeToString(deterministic=True))


def believe(
    signed: roster_pb2.SignedRoster,
    *,
    root_fingerprint: bytes,
    present: Roster | None = None,
    now_ms: int | None = None,
) -> Roster:
    """Return the roster if it may be believed; raise RosterRefused otherwise.

    `root_fingerprint` is the pinned SHA-256 of the root's public key. `present` is the roster held now: an
    older serial, or another roster of the same serial, is refused. `now_ms`, where given, refuses an expired one.
    """
    if identity_keys.fingerprint(signed.root_key) != root_fingerprint:
        raise RosterRefused("The roster is signed by another root key than the one pinned.", code="roster.other_root")
    if not identity_keys.verify(signed.root_key, USE, signed.payload, signed.signature):
        raise RosterRefused("The roster's signature does not hold.", code="roster.bad_signature")
    roster = peek(signed)
    if present is not None:
        _refuse_older(roster, present)
    if now_ms is not None:
        roster.require_fresh(now_ms)
    return roster


def _refuse_older(roster: Roster, present: Roster) -> None:
    if roster.federation != present.federation:
        raise RosterRefused(
            f"The roster is of {roster.federation}, not of {present.federation}.",
            code="roster.other_federation",
        )
    if roster.serial < present.serial:
        raise RosterRefused(
            f"The roster has serial {roster.serial}; {present.serial} is known already.", code="roster.older"
        )
    if roster.serial == present.serial and roster != present:
        raise RosterRefused(f"Two different rosters carry serial {roster.serial}.", code="roster.forked")


def to_text_file(signed: roster_pb2.SignedRoster) -> str:
    """A signed roster as a text file that can be mailed."""
    return json.dumps(json_format.MessageToDict(signed, preserving_proto_field_name=True), indent=1) + "\n"


def from_text_file(text: str) -> roster_pb2.SignedRoster:
    """The inverse of to_text_file; RosterRefused where it cannot be read."""
    try:
        return json_format.Parse(text, roster_pb2.SignedRoster())
    except (json_format.ParseError, RecursionError) as error:
        raise RosterRefused("The file is not a signed roster.", code="roster.unreadable") from error


def peek(signed: roster_pb2.SignedRoster) -> Roster:
    """Read a roster without believing it, to show it to somebody. Raises RosterRefused."""
    if len(signed.payload) > MAXIMUM_SIZE:
        raise RosterRefused(f"A roster may have {MAXIMUM_SIZE} bytes.", code="roster.too_large")
    try:
        strict.refuse_unknown(signed, what="roster")
        return _from_wire(strict.parse(roster_pb2.Roster, signed.payload, what="roster"))
    except InvalidQuery as error:
        raise RosterRefused(error.public, code=error.code) from error


_STATUS = {
    MemberStatus.ACTIVE: roster_pb2.MEMBER_STATUS_ACTIVE,
    MemberStatus.SUSPENDED: roster_pb2.MEMBER_STATUS_SUSPENDED,
    MemberStatus.REVOKED: roster_pb2.MEMBER_STATUS_REVOKED,
}
_STATUS_READ = {number: status for status, number in _STATUS.items()}
_KIND = {
    OrganisationKind.ACADEMIC: roster_pb2.ORGANISATION_KIND_ACADEMIC,
    OrganisationKind.PUBLIC: roster_pb2.ORGANISATION_KIND_PUBLIC,
    OrganisationKind.NON_PROFIT: roster_pb2.ORGANISATION_KIND_NON_PROFIT,
    OrganisationKind.COMMERCIAL: roster_pb2.ORGANISATION_KIND_COMMERCIAL,
}
_KIND_READ = {number: kind for kind, number in _KIND.items()}


def _to_wire(roster: Roster) -> roster_pb2.Roster:
    return roster_pb2.Roster(
        federation=roster.federation,
        serial=roster.serial,
        issued_at_ms=roster.issued_at_ms,
        expires_at_ms=roster.expires_at_ms,
        hub_certificate_authority=roster.hub_certificate_authority,
        members=[
            roster_pb2.Member(
                center_id=member.center,
                legal_name=member.legal_name,
                country=member.country,
                organisation_kind=_KIND[member.organisation_kind],
                status=_STATUS[member.status],
                accrediting_keys=list(member.accrediting_keys),
                answering_keys=list(member.answering_keys),
            )
            for member in roster.members
        ],
        revoked_certificates=sorted(roster.revoked_certificates),
        lowest_protocol=roster_pb2.ProtocolVersion(
            major=roster.lowest_protocol.major, minor=roster.lowest_protocol.minor
        ),
        policy_files=[
            roster_pb2.PolicyFile(path=path, content=content) for path, content in sorted(roster.policy_files.items())
        ],
    )


def _from_wire(wire: roster_pb2.Roster) -> Roster:
    try:
        members = tuple(_member(member) for member in wire.members)
        federation = identity_keys.federation_name(wire.federation)
    except (ConnexonError, KeyError) as error:
        raise RosterRefused("The roster holds a member that cannot be read.", code="roster.unreadable") from error
    if len({member.center for member in members}) != len(members):
        raise RosterRefused("The roster names a center twice.", code="roster.unreadable")
    if not 0 < wire.issued_at_ms < wire.expires_at_ms < END or not 0 < wire.serial < 2**63:
        raise RosterRefused("The roster's serial number or times are impossible.", code="roster.unreadable")
    policy_files = {file.path: file.content for file in wire.policy_files}
    if len(policy_files) != len(wire.policy_files):
        raise RosterRefused("The roster holds a policy file twice.", code="roster.unreadable")
    if not all(map(_CERTIFICATE_SERIAL.match, wire.revoked_certificates)):
        raise RosterRefused("The roster lists a certificate by what is no serial number.", code="roster.unreadable")
    for member in members:
        _require_seen(member)
    for path in policy_files:
        if wrong := visible_text.wrong_with(path):
            raise RosterRefused(f"The name of a policy file in the roster {wrong}.", code="roster.unprintable")
    return Roster(
        federation=federation,
        serial=wire.serial,
        issued_at_ms=wire.issued_at_ms,
        expires_at_ms=wire.expires_at_ms,
        hub_certificate_authority=wire.hub_certificate_authority,
        members=members,
        revoked_certificates=frozenset(wire.revoked_certificates),
        lowest_protocol=Protocol(wire.lowest_protocol.major, wire.lowest_protocol.minor),
        policy_files=policy_files,
    )


def _require_seen(member: Member) -> None:
    """Raise RosterRefused unless people can read the name and the country by which they decide about a member."""
    if wrong := visible_text.wrong_with(member.legal_name):
        raise RosterRefused(f"The legal name of {member.center} {wrong}.", code="roster.unprintable")
    if member.country not in CODES:
        raise RosterRefused(
            f"The country of {member.center} is not one of ISO 3166-1 alpha-2, such as FR.", code="roster.bad_country"
        )


def _member(wire: roster_pb2.Member) -> Member:
    keys = (*wire.accrediting_keys, *wire.answering_keys)
    if any(len(key) != 32 for key in keys):
        raise Unauthenticated("A key is not 32 bytes long.")
    return Member(
        center=identity_keys.center_id(wire.center_id),
        legal_name=wire.legal_name,
        country=wire.country,
        organisation_kind=_KIND_READ[wire.organisation_kind],
        status=_STATUS_READ[wire.status],
        accrediting_keys=tuple(wire.accrediting_keys),
        answering_keys=tuple(wire.answering_keys),
    )
