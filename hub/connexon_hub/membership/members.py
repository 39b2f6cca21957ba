"""Members and their invitations: what the hub's operator decides, written down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, func, insert, select, update

from connexon.clock import now_ms
from connexon.errors import Conflict, InvalidQuery, NotFound, Refused
from connexon.identity.invitation import InvitationRefused
from connexon.identity.keys import CenterId
from connexon.identity.roster import Member, MemberStatus, OrganisationKind, Roster
from connexon.service.database import Database
from connexon_hub.membership import certificates
from connexon_hub.membership.certificate_quota import require_left
from connexon_hub.membership.certificates import IssuedCertificate
from connexon_hub.membership.standing import HubStatus, require_link_key, status_by_roster
from connexon_hub.settings import Measure
from connexon_hub.state.tables import INVITATIONS, MEMBERS


@dataclass(frozen=True)
class HubMember:
    """A center as the hub knows it. `link_key` is a SubjectPublicKeyInfo in DER; the others raw Ed25519 keys."""

    center: CenterId
    legal_name: str
    country: str
    organisation_kind: OrganisationKind
    status: HubStatus
    because: str = ""
    accrediting_key: bytes | None = None
    answering_key: bytes | None = None
    link_key: bytes | None = None
    joined_ms: int | None = None
    changed_ms: int = 0


@dataclass(frozen=True)
class BroughtKeys:
    """The keys a node made for itself and brings when it joins."""

    accrediting: bytes
    answering: bytes
    link: bytes

    @property
    def digest(self) -> str:
        """SHA-256 over the three, hexadecimal."""
        return hashlib.sha256(b"\0".join((self.accrediting, self.answering, self.link))).hexdigest()


class MemberStore:
    """Members and invitations in the hub's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[HubMember]:
        """Every center that was ever invited, by id."""
        with self._database.reading() as connection:
            return self.listed(connection)

    def listed(self, connection: Connection) -> list[HubMember]:
        """The same, as of a moment."""
        return [_member(row) for row in connection.execute(select(MEMBERS).order_by(MEMBERS.c.center_id))]

    def find(self, center: CenterId) -> HubMember | None:
        """One center, or None."""
        with self._database.reading() as connection:
            return _find(connection, center)

    def revision(self, connection: Connection) -> int:
        """Grows with every change to a member."""
        return connection.execute(select(func.max(MEMBERS.c.revision))).scalar() or 0

    def statuses(self, connection: Connection) -> dict[CenterId, HubStatus]:
        """Every center's status."""
        rows = connection.execute(select(MEMBERS.c.center_id, MEMBERS.c.status))
        return {CenterId(row.center_id): HubStatus(row.status) for row in rows}

    def link_keys(self, connection: Connection) -> dict[CenterId, bytes]:
        """The key behind each center's link certificates, where the hub knows it."""
        rows = connection.execute(
            select(MEMBERS.c.center_id, MEMBERS.c.link_key).where(MEMBERS.c.link_key.is_not(None))
        )
        return {CenterId(row.center_id): row.link_key for row in rows}

    def invite(self, member: HubMember, token: bytes, *, expires_ms: int, replace_keys: bool = False) -> None:
        """Write an invitation down; older ones of the center become void.

        `member` holds what the invitation says of the center. Raises Refused for a revoked center, and Conflict for
        one that has joined unless `replace_keys`.
        """
        now = now_ms()
        with self._database.writing() as connection:
            present = _find(connection, member.center)
            if present is not None:
                _require_invitable(present, replace_keys=replace_keys)
            connection.execute(
                update(INVITATIONS)
                .where(INVITATIONS.c.center_id == member.center, INVITATIONS.c.voided_ms.is_(None))
                .values(voided_ms=now)
            )
            said = {
                "legal_name": member.legal_name,
                "country": member.country,
                "organisation_kind": member.organisation_kind.value,
            }
            connection.execute(
                insert(INVITATIONS).values(
                    token_sha256=_digest(token),
                    center_id=member.center,
                    created_ms=now,
                    expires_ms=expires_ms,
                    used_by="",
                    **said,
                )
            )
            if present is None:
                self._insert(connection, member, HubStatus.INVITED)
            elif present.status is HubStatus.INVITED:
                self._change(connection, member.center, said)

    def join(self, token: bytes, keys: BroughtKeys) -> HubMember:
        """Take an invitation up; the same keys again give the same membership again.

        Raises InvitationRefused, Conflict where other keys have used it or another center holds one of them, Refused
        for a center that is suspended or revoked.
        """
        now = now_ms()
        with self._database.writing() as connection:
            invitation = connection.execute(
                select(INVITATIONS).where(INVITATIONS.c.token_sha256 == _digest(token))
            ).one_or_none()
            if invitation is None or invitation.voided_ms is not None:
                raise InvitationRefused("The invitation is not valid, or a newer one has replaced it.")
            center = CenterId(invitation.center_id)
            present = _find(connection, center)
            assert present is not None, "an invitation always comes with a member"
            _require_joinable(present)
            if invitation.used_ms is not None:
                if invitation.used_by != keys.digest:
                    raise Conflict("The invitation has been used already.", code="invitation.used")
                return present
            if now >= invitation.expires_ms:
                raise InvitationRefused(
                    "The invitation has expired; ask the hub's operator for a new one.", code="invitation.expired"
                )
            _require_own_keys(connection, center, keys)
            connection.execute(
                update(INVITATIONS)
                .where(INVITATIONS.c.token_sha256 == _digest(token))
                .values(used_ms=now, used_by=keys.digest)
            )
            # Whoever held the center's former keys is no longer the center.
            certificates.revoke(connection, center, now)
            self._change(
                connection,
                center,
                {
                    "legal_name": invitation.legal_name,
                    "country": invitation.country,
                    "organisation_kind": invitation.organisation_kind,
                    "status": HubStatus.JOINED.value,
                    "accrediting_key": keys.accrediting,
                    "answering_key": keys.answering,
                    "link_key": keys.link,
                    "joined_ms": now,
                },
            )
            joined = _find(connection, center)
            assert joined is not None
            return joined

    def remember_certificate(self, issued: IssuedCertificate, measure: Measure) -> None:
        """Write down a certificate that is about to be handed out.

        Raises Refused for a center that is suspended or revoked, for a key that is not the center's (any more), where
        the certificate it renews has been revoked, and beyond the measure.
        """
        with self._database.writing() as connection:
            # INVARIANT: judged here and not before: else whoever holds a former key could renew while the center joins
            # anew, and hold a certificate that the joining does not know of.
            present = _find(connection, issued.center)
            if present is not None:
                _require_joinable(present)
                require_link_key(issued.center, present.link_key, issued.key)
            require_left(connection, issued.center, measure)
            certificates.remember(connection, issued)

    def suspend(self, center: CenterId, because: str) -> None:
        """Shut a center out for a while. Raises NotFound or Refused."""
        with self._database.writing() as connection:
            present = _require(connection, center)
            if present.status is HubStatus.REVOKED:
                raise Refused(f"{center} is revoked, for good.", code="membership.revoked")
            if present.accrediting_key is None:
                raise Refused(
                    f"{center} has not joined; its invitation can be revoked instead.", code="membership.not_joined"
                )
            self._change(connection, center, {"status": HubStatus.SUSPENDED.value, "because": because})

    def reinstate(self, center: CenterId, roster: Roster) -> HubStatus:
        """Let a suspended center in again; active at once where `roster`, in force, still says so."""
        with self._database.writing() as connection:
            present = _require(connection, center)
            if present.status is not HubStatus.SUSPENDED:
                raise Refused(f"{center} is {present.status.value}, not suspended.", code="membership.not_suspended")
            status = status_by_roster(
                HubStatus.JOINED,
                roster.member(center),
                accrediting_key=present.accrediting_key,
                answering_key=present.answering_key,
            )
            self._change(connection, center, {"status": status.value, "because": ""})
            return status

    def revoke(self, center: CenterId, because: str) -> None:
        """Shut a center out for good: its invitations and certificates no longer count. Raises NotFound."""
        now = now_ms()
        with self._database.writing() as connection:
            _require(connection, center)
            certificates.revoke(connection, center, now)
            connection.execute(
                update(INVITATIONS)
                .where(INVITATIONS.c.center_id == center, INVITATIONS.c.voided_ms.is_(None))
                .values(voided_ms=now)
            )
            self._change(connection, center, {"status": HubStatus.REVOKED.value, "because": because})

    def follow_roster(self, connection: Connection, roster: Roster) -> None:
        """Bring every member's status in line with a roster that comes into force.

        A center that only the roster knows (the hub's database was lost, say) is written down as it stands there.
        """
        known = {member.center: member for member in self.listed(connection)}
        for present in known.values():
            status = status_by_roster(
                present.status,
                roster.member(present.center),
                accrediting_key=present.accrediting_key,
                answering_key=present.answering_key,
            )
            if status is not present.status:
                self._change(connection, present.center, {"status": status.value})
        for member in roster.members:
            if member.center not in known:
                self._insert(connection, _from_roster(member), HubStatus(member.status.value))

    def _change(self, connection: Connection, center: CenterId, values: Mapping[str, object]) -> None:
        stamp = {"changed_ms": now_ms(), "revision": self.revision(connection) + 1}
        connection.execute(update(MEMBERS).where(MEMBERS.c.center_id == center).values(**values, **stamp))

    def _insert(self, connection: Connection, member: HubMember, status: HubStatus) -> None:
        connection.execute(
            insert(MEMBERS).values(
                center_id=member.center,
                legal_name=member.legal_name,
                country=member.country,
                organisation_kind=member.organisation_kind.value,
                status=status.value,
                because=member.because,
                accrediting_key=member.accrediting_key,
                answering_key=member.answering_key,
                link_key=member.link_key,
                joined_ms=member.joined_ms,
                changed_ms=now_ms(),
                revision=self.revision(connection) + 1,
            )
        )


def for_roster(members: Sequence[HubMember], present: Roster | None) -> tuple[Member, ...]:
    """The members of the next roster: every center that has brought keys, in order of id.

    Keys that the present roster lists and the hub no longer knows are left out: only one set per center counts.
    Members the hub's table does not know are carried over as they are.
    """
    listed = {
        member.center: Member(
            center=member.center,
            legal_name=member.legal_name,
            country=member.country,
            organisation_kind=member.organisation_kind,
            status=_ROSTER_STATUS[member.status],
            accrediting_keys=(member.accrediting_key,),
            answering_keys=(member.answering_key,),
        )
        for member in members
        if member.accrediting_key is not None and member.answering_key is not None
    }
    carried = {member.center: member for member in (present.members if present else ())}
    return tuple(member for _, member in sorted((carried | listed).items()))


_ROSTER_STATUS = {
    HubStatus.INVITED: MemberStatus.SUSPENDED,
    HubStatus.JOINED: MemberStatus.ACTIVE,
    HubStatus.ACTIVE: MemberStatus.ACTIVE,
    HubStatus.SUSPENDED: MemberStatus.SUSPENDED,
    HubStatus.REVOKED: MemberStatus.REVOKED,
}


def _digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _find(connection: Connection, center: CenterId) -> HubMember | None:
    row = connection.execute(select(MEMBERS).where(MEMBERS.c.center_id == center)).one_or_none()
    return None if row is None else _member(row)


def _require(connection: Connection, center: CenterId) -> HubMember:
    present = _find(connection, center)
    if present is None:
        raise NotFound(f"No center {center} was ever invited; see connexon-hub members.", code="membership.unknown")
    return present


def _require_invitable(present: HubMember, *, replace_keys: bool) -> None:
    if present.status is HubStatus.REVOKED:
        raise Refused(f"{present.center} is revoked, for good; invite it under another id.", code="membership.revoked")
    if present.accrediting_key is not None and not replace_keys:
        raise Conflict(
            f"{present.center} has joined already. To let it join again with new keys, add --replace-keys.",
            code="membership.joined",
        )


def _require_joinable(present: HubMember) -> None:
    if present.status in (HubStatus.SUSPENDED, HubStatus.REVOKED):
        raise Refused(
            f"{present.center} is {present.status.value} in this federation.", code=f"membership.{present.status.value}"
        )


def _require_own_keys(connection: Connection, center: CenterId, keys: BroughtKeys) -> None:
    if keys.accrediting == keys.answering:
        raise InvalidQuery("The accrediting and the answering key must differ.", code="membership.bad_keys")
    theirs: Iterable[Row[tuple[bytes | None, bytes | None, bytes | None]]] = connection.execute(
        select(MEMBERS.c.accrediting_key, MEMBERS.c.answering_key, MEMBERS.c.link_key).where(
            MEMBERS.c.center_id != center
        )
    )
    taken = {key for row in theirs for key in row if key is not None}
    if taken & {keys.accrediting, keys.answering, keys.link}:
        raise Conflict("Another center holds one of these keys.", code="membership.key_taken")


def _from_roster(member: Member) -> HubMember:
    return HubMember(
        center=member.center,
        legal_name=member.legal_name,
        country=member.country,
        organisation_kind=member.organisation_kind,
        status=HubStatus(member.status.value),
        accrediting_key=member.accrediting_keys[0] if member.accrediting_keys else None,
        answering_key=member.answering_keys[0] if member.answering_keys else None,
    )


def _member(row: Row[tuple[object, ...]]) -> HubMember:
    return HubMember(
        center=CenterId(row.center_id),
        legal_name=row.legal_name,
        country=row.country,
        organisation_kind=OrganisationKind(row.organisation_kind),
        status=HubStatus(row.status),
        because=row.because,
        accrediting_key=row.accrediting_key,
        answering_key=row.answering_key,
        link_key=row.link_key,
        joined_ms=row.joined_ms,
        changed_ms=row.changed_ms,
    )
