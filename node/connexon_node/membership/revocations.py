"""What centers have revoked, in the node's database: this one's own word, and that of others, each proved by its key.

Nothing here is remembered beside the database: the steward revokes from another process than the one that serves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from connexon.clock import SECOND, now_ms
from connexon.errors import NotFound, Refused
from connexon.identity import revocation
from connexon.identity.credential import MAXIMUM_LIFE_MS
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.revocation import MOST_PER_CENTER, Revocation, RevocationRefused
from connexon.identity.roster import Roster
from connexon.service.database import Database
from connexon.suggest import hint
from connexon.v1 import revocation_pb2
from connexon_node.state.requests import AccreditationRow, RevocationRow

LOG = logging.getLogger("connexon.node")
_REVOCATIONS = RevocationRow.__table__  # type: ignore[attr-defined]  # SQLModel gives it at run time
_ACCREDITATIONS = AccreditationRow.__table__  # type: ignore[attr-defined]  # as above
_OF = (_REVOCATIONS.c.center_id == bindparam("home")) & (_REVOCATIONS.c.subject == bindparam("who"))
# Built once: every question asks it.
_ISSUED_BEFORE = select(func.max(_REVOCATIONS.c.issued_before_ms)).where(_OF)
_COUNT = select(func.count()).where(
    _REVOCATIONS.c.center_id == bindparam("home"), _REVOCATIONS.c.issued_before_ms > bindparam("over")
)
_HUB_HAS = (
    update(_REVOCATIONS)
    .where(_OF, _REVOCATIONS.c.issued_before_ms == bindparam("before"), _REVOCATIONS.c.hub_has_at_ms.is_(None))
    .values(hub_has_at_ms=bindparam("at"))
)


@dataclass(frozen=True)
class Revoked:
    """The newest word on one of this center's researchers. Times: milliseconds since 1970-01-01 UTC."""

    subject: str
    issued_before_ms: int
    received_at_ms: int
    """When it was said."""
    revoked_by: str
    because: str
    hub_has_at_ms: int | None

    def is_untold(self, at_ms: int) -> bool:
        """Whether the hub should know of it and has not shown yet that it does."""
        return self.hub_has_at_ms is None and at_ms < self.issued_before_ms + MAXIMUM_LIFE_MS


class RevocationStore:
    """The table revocations, of which the newest row of a researcher counts (credential.Revocations)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def issued_before(self, center: CenterId, subject: str) -> int:
        """See credential.Revocations."""
        with self._database.reading() as connection:
            return issued_before(connection, center, subject)

    def revoke(
        self, said: Revocation, key: SigningKey, *, by: str, because: str, unlisted: bool = False
    ) -> tuple[Revoked, bool]:
        """Write down that every credential issued to `said.subject` so far counts no more; False where none did.

        The moment is after `said.issued_before_ms`, and after every credential in the list. Raises NotFound for a
        researcher who is not in the list, unless `unlisted`, and Refused where too many are revoked already.
        """
        with self._database.writing() as connection:
            last = _last_issued(connection, said.subject)
            before = issued_before(connection, said.center, said.subject)
            if last is None and not unlisted:
                raise _unknown(connection, said)
            if before and not unlisted and (last or 0) < before:
                return _own(connection, said.center)[said.subject], False
            if _count(connection, said.center) >= MOST_PER_CENTER:
                raise Refused(
                    f"The federation keeps {MOST_PER_CENTER} revocations of one center; the oldest goes when it is 90 "
                    "days old. Where all of a center's researchers are concerned, ask the hub's operator for an "
                    "invitation with new keys.",
                    code="revocation.too_many",
                )
            # A whole second, since a credential says its time in seconds; the next one is issued in it or later.
            moment = -(-(max(said.issued_before_ms, last or 0, before) + 1) // SECOND) * SECOND
            final = Revocation(said.federation, said.center, said.subject, moment)
            _insert(connection, final, revocation.sign(final, key), by=by, because=because)
            return _own(connection, said.center)[said.subject], True

    def receive(self, said: revocation_pb2.Revocations, roster: Roster, *, home: CenterId) -> list[Revocation]:
        """Write down what the hub brings and what is new in it, which is returned; one that does not hold is left out.

        One of this center's own among them tells that the hub has written it down.
        """
        believed, new = _believed(said, roster), []
        with self._database.writing() as connection:
            for one, signed in believed:
                if self._keep(connection, one, signed):
                    new.append(one)
                if one.center == home:
                    moment = {"before": one.issued_before_ms, "at": now_ms()}
                    connection.execute(_HUB_HAS, {"home": one.center, "who": one.subject, **moment})
        return new

    def _keep(self, connection: Connection, one: Revocation, signed: revocation_pb2.SignedRevocation) -> bool:
        known = issued_before(connection, one.center, one.subject)
        # Not by this clock: by one that is ahead nothing would count, and the hub says it once in a session.
        if one.issued_before_ms <= known:
            return False
        if _count(connection, one.center) >= MOST_PER_CENTER:
            LOG.error("%s has revoked more than is kept of one center; what is beyond is left out", one.center)
            return False
        _insert(connection, one, signed)
        return True

    def to_say(self, home: CenterId) -> list[revocation_pb2.SignedRevocation]:
        """This center's own that still say something, the oldest first."""
        own = (
            select(_REVOCATIONS.c.signed)
            .where(_REVOCATIONS.c.center_id == home, _REVOCATIONS.c.issued_before_ms > now_ms() - MAXIMUM_LIFE_MS)
            .order_by(_REVOCATIONS.c.issued_before_ms, _REVOCATIONS.c.subject)
        )
        with self._database.reading() as connection:
            found = connection.execute(own).scalars()
            return [revocation_pb2.SignedRevocation.FromString(bytes(signed)) for signed in found]

    def own(self, home: CenterId) -> Mapping[str, Revoked]:
        """The newest that this center said of each of its researchers, also what has come to its end."""
        with self._database.reading() as connection:
            return _own(connection, home)

    def prune(self, at_ms: int) -> int:
        """Forget what says nothing more at a moment; this steward's own acts stay. Returns how many went."""
        over = _REVOCATIONS.c.issued_before_ms <= at_ms - MAXIMUM_LIFE_MS
        with self._database.writing() as connection:
            return connection.execute(delete(_REVOCATIONS).where(over, _REVOCATIONS.c.revoked_by == "")).rowcount


def issued_before(connection: Connection, center: CenterId, subject: str) -> int:
    """As credential.Revocations, within a transaction."""
    return connection.execute(_ISSUED_BEFORE, {"home": center, "who": subject}).scalar_one() or 0


class RevocationsIn:
    """What is revoked as a transaction sees it (credential.Revocations)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def issued_before(self, center: CenterId, subject: str) -> int:
        """See credential.Revocations."""
        return issued_before(self._connection, center, subject)


def _believed(
    said: revocation_pb2.Revocations, roster: Roster
) -> list[tuple[Revocation, revocation_pb2.SignedRevocation]]:
    believed, refusals = [], []
    for signed in said.revocations:
        try:
            believed.append((revocation.verify(signed, roster), signed))
        except RevocationRefused as refusal:
            # One that does not hold must not keep out those beside it.
            refusals.append(refusal)
    if refusals:
        first = refusals[0]
        LOG.error("%d revocations are not believed; the first: %s (%s)", len(refusals), first.public, first.code)
    return believed


def _own(connection: Connection, home: CenterId) -> dict[str, Revoked]:
    names = [_REVOCATIONS.c[name] for name in Revoked.__dataclass_fields__]
    said = select(*names).where(_REVOCATIONS.c.center_id == home).order_by(_REVOCATIONS.c.issued_before_ms)
    return {row.subject: Revoked(**row._mapping) for row in connection.execute(said)}


def _insert(
    connection: Connection,
    one: Revocation,
    signed: revocation_pb2.SignedRevocation,
    *,
    by: str = "",
    because: str = "",
) -> None:
    row = {
        "center_id": one.center,
        "subject": one.subject,
        "issued_before_ms": one.issued_before_ms,
        "signed": signed.SerializeToString(),
        "received_at_ms": now_ms(),
        "revoked_by": by,
        "because": because,
        "hub_has_at_ms": None,
    }
    connection.execute(insert(_REVOCATIONS), row)


def _count(connection: Connection, center: CenterId) -> int:
    return connection.execute(_COUNT, {"home": center, "over": now_ms() - MAXIMUM_LIFE_MS}).scalar_one()


def _last_issued(connection: Connection, subject: str) -> int | None:
    last = select(func.max(_ACCREDITATIONS.c.issued_at_ms)).where(_ACCREDITATIONS.c.subject == subject)
    found: int | None = connection.execute(last).scalar_one()
    return found


def _unknown(connection: Connection, said: Revocation) -> NotFound:
    known = connection.execute(select(_ACCREDITATIONS.c.subject).distinct()).scalars()
    return NotFound(
        f"Nobody was accredited here as {said.subject!r}.{hint(said.subject, known)} connexon-node accredit --list "
        "shows who was. If an older copy of the database was put back since, add --unlisted.",
        code="revocation.unknown_subject",
    )
