"""What centers have revoked: written down, refused at the hub's own door, and carried to every center.

The hub is not believed: each center checks the signatures by itself. Who attaches hears of all that still counts, so
nobody need remember what whom was told, and a center whose database was put back from a copy has it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from connexon.clock import now_ms
from connexon.identity import revocation
from connexon.identity.credential import MAXIMUM_LIFE_MS
from connexon.identity.keys import CenterId
from connexon.identity.revocation import AT_ONCE, MOST_PER_CENTER, Revocation, RevocationRefused
from connexon.identity.roster import Roster
from connexon.service.database import Database
from connexon.v1 import link_pb2, revocation_pb2
from connexon_hub.routing.sessions import Session, Sessions, cannot_write
from connexon_hub.state.tables import REVOCATIONS
from connexon_hub.state.writer import Writer

if TYPE_CHECKING:
    import asyncio

LOG = logging.getLogger("connexon.hub")

_NEWEST = (
    select(REVOCATIONS.c.center_id, REVOCATIONS.c.subject, func.max(REVOCATIONS.c.issued_before_ms).label("before"))
    .where(REVOCATIONS.c.issued_before_ms > bindparam("over"))
    .group_by(REVOCATIONS.c.center_id, REVOCATIONS.c.subject)
)
_KNOWN = select(func.max(REVOCATIONS.c.issued_before_ms)).where(
    REVOCATIONS.c.center_id == bindparam("center"), REVOCATIONS.c.subject == bindparam("subject")
)
_COUNT = select(func.count()).where(
    REVOCATIONS.c.center_id == bindparam("center"), REVOCATIONS.c.issued_before_ms > bindparam("over")
)


@dataclass(frozen=True)
class Heard:
    """A revocation, proved to be its center's own word, and as that center signed it."""

    revocation: Revocation
    signed: revocation_pb2.SignedRevocation
    received_ms: int

    @property
    def name(self) -> tuple[CenterId, str]:
        """Whose credentials it is about."""
        return self.revocation.center, self.revocation.subject


def believed(
    said: revocation_pb2.Revocations, roster: Roster, *, of: CenterId
) -> tuple[list[Heard], RevocationRefused | None]:
    """What a center says of its own researchers, and why the first of what does not hold is left out.

    Its session goes on: one signed before the center got other keys must not keep it from everything else.
    """
    heard: list[Heard] = []
    refused: RevocationRefused | None = None
    if len(said.revocations) > AT_ONCE:
        return [], RevocationRefused(f"At most {AT_ONCE} revocations come at once.")
    for signed in said.revocations:
        try:
            heard.append(_believed(signed, roster, of))
        except RevocationRefused as refusal:
            refused = refused or refusal
    return heard, refused


def _believed(signed: revocation_pb2.SignedRevocation, roster: Roster, of: CenterId) -> Heard:
    one = revocation.verify(signed, roster)
    if one.center != of:
        raise RevocationRefused(f"{of} cannot revoke a researcher of {one.center}.", code="revocation.other_center")
    return Heard(one, signed, now_ms())


class RevocationStore:
    """The table of revocations: rows are added, and forgotten when they say nothing more."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, at_ms: int) -> dict[tuple[CenterId, str], int]:
        """The moment that counts of every researcher of whom something was revoked."""
        with self._database.reading() as connection:
            rows = connection.execute(_NEWEST, {"over": at_ms - MAXIMUM_LIFE_MS})
            return {(CenterId(row.center_id), row.subject): row.before for row in rows}

    def counting(self, at_ms: int) -> list[revocation_pb2.SignedRevocation]:
        """Of every researcher the newest, as their center signed it."""
        newest = _NEWEST.subquery()
        same = (
            (REVOCATIONS.c.center_id == newest.c.center_id)
            & (REVOCATIONS.c.subject == newest.c.subject)
            & (REVOCATIONS.c.issued_before_ms == newest.c.before)
        )
        with self._database.reading() as connection:
            rows = connection.execute(
                select(REVOCATIONS.c.signed).join(newest, same), {"over": at_ms - MAXIMUM_LIFE_MS}
            ).scalars()
            return [revocation_pb2.SignedRevocation.FromString(bytes(signed)) for signed in rows]

    def keep(self, connection: Connection, batches: Sequence[Sequence[Heard]]) -> list[list[Heard]]:
        """Step: write down what is newer than what is known; gives of each batch what is beyond a center's measure."""
        return [[one for one in batch if not _keep(connection, one)] for batch in batches]

    def forget(self, connection: Connection, moments: Sequence[int]) -> list[int]:
        """Step: forget what says nothing more at a moment; returns how many went."""
        return [
            connection.execute(
                delete(REVOCATIONS).where(REVOCATIONS.c.issued_before_ms <= at_ms - MAXIMUM_LIFE_MS)
            ).rowcount
            for at_ms in moments
        ]


def _keep(connection: Connection, one: Heard) -> bool:
    center, subject = one.name
    known = connection.execute(_KNOWN, {"center": center, "subject": subject}).scalar_one() or 0
    # Not by this clock: one that is ahead would leave out what still counts. What has ended is forgotten soon enough.
    if one.revocation.issued_before_ms <= known:
        return True
    # Rows and not researchers: a center that revokes one over and over would have every other write without end.
    over = one.received_ms - MAXIMUM_LIFE_MS
    if connection.execute(_COUNT, {"center": center, "over": over}).scalar_one() >= MOST_PER_CENTER:
        return False
    connection.execute(
        insert(REVOCATIONS).values(
            center_id=center,
            subject=subject,
            issued_before_ms=one.revocation.issued_before_ms,
            received_ms=one.received_ms,
            signed=one.signed.SerializeToString(),
        )
    )
    return True


class Revoked:
    """What is revoked, at hand where the hub lets people in (credential.Revocations). Lives on the event loop."""

    def __init__(self, database: Database, writer: Writer, sessions: Sessions) -> None:
        self.store = RevocationStore(database)
        self._writer = writer
        self._sessions = sessions
        # All that are kept: by a clock that is ahead they would all have ended.
        self._before = self.store.newest(0)
        self.revision = 0
        """Grows with all that is new."""

    def issued_before(self, center: CenterId, subject: str) -> int:
        """See credential.Revocations."""
        return self._before.get((center, subject), 0)

    def take(self, session: Session, heard: Sequence[Heard]) -> asyncio.Future[list[Heard]]:
        """Write down what a center has revoked, then heed it and carry it to all: also when that center has gone.

        The center hears of its own with the others, and knows from this that the hub has it. Not of what was beyond its
        measure, which the future gives.
        """
        future = self._writer.write(self.store.keep, heard)
        future.add_done_callback(partial(self._kept, session, heard))
        return future

    def _kept(self, session: Session, heard: Sequence[Heard], future: asyncio.Future[list[Heard]]) -> None:
        if future.cancelled() or future.exception() is not None:
            # The center says it again when it has come back.
            session.end(cannot_write())
            return
        beyond = {id(one) for one in future.result()}
        kept = [one for one in heard if id(one) not in beyond]
        new = [one for one in kept if one.revocation.issued_before_ms > self._before.get(one.name, 0)]
        self.revision += bool(new)
        for one in new:
            self._before[one.name] = max(one.revocation.issued_before_ms, self._before.get(one.name, 0))
            center = one.revocation.center
            LOG.warning("%s has revoked what it said of %s/%s", center, *one.name, extra={"party": center})
        for other in self._sessions:
            _tell(other, kept if other is session else new)

    def forget(self, at_ms: int) -> asyncio.Future[int]:
        """Forget what says nothing more."""
        over = at_ms - MAXIMUM_LIFE_MS
        self._before = {name: before for name, before in self._before.items() if before > over}
        return self._writer.write(self.store.forget, at_ms)


def frames(signed: Iterable[revocation_pb2.SignedRevocation]) -> list[link_pb2.AttachResponse]:
    """What is said to a center of revocations."""
    return [link_pb2.AttachResponse(revocations=batch) for batch in revocation.batches(signed)]


def _tell(session: Session, heard: Iterable[Heard]) -> None:
    for frame in frames(one.signed for one in heard):
        session.tell(frame)
