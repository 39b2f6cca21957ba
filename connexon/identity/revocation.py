"""A revocation: a center's word that credentials it gave to one of its researchers count no more.

Signed with one of the center's accrediting keys in the roster: whoever carries it can neither make nor change one. What
it means is decided in one place, connexon.identity.credential.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from connexon import strict
from connexon.clock import DAY, END, now_ms
from connexon.errors import ConnexonError, Unauthenticated
from connexon.identity import credential
from connexon.identity import keys as identity_keys
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import Roster
from connexon.v1 import revocation_pb2

USE = "revocation"
MAXIMUM_SIZE = 1024
"""Bytes of a signed one."""
AT_ONCE = 1_000
"""Revocations in one frame, at most."""
FURTHEST_AHEAD_MS = DAY
"""How far in the future its moment may be: what a stolen accrediting key signed must not outlive that key for long."""
MOST_PER_CENTER = 5_000
"""Revocations of one center that are kept at a time. The same for every receiver: the center itself makes no more."""


class RevocationRefused(Unauthenticated):
    """A revocation that must not be believed."""

    code = "revocation.refused"


@dataclass(frozen=True)
class Revocation:
    """Credentials of `subject` at `center` that were issued before a moment, ms since 1970, do not count."""

    federation: str
    center: CenterId
    subject: str
    issued_before_ms: int

    @property
    def ends_at_ms(self) -> int:
        """From when on it says nothing more: every credential that it is about has run out."""
        return self.issued_before_ms + credential.MAXIMUM_LIFE_MS


def sign(revocation: Revocation, key: SigningKey) -> revocation_pb2.SignedRevocation:
    """Sign a revocation with the center's accrediting key; the same bytes each time."""
    payload = revocation_pb2.Revocation(
        federation=revocation.federation,
        center_id=revocation.center,
        subject=revocation.subject,
        issued_before_ms=revocation.issued_before_ms,
    ).SerializeToString(deterministic=True)
    return revocation_pb2.SignedRevocation(payload=payload, signature=key.sign(USE, payload))


def verify(signed: revocation_pb2.SignedRevocation, roster: Roster, *, at_ms: int | None = None) -> Revocation:
    """Return the revocation if the center it names said so. Raises RevocationRefused.

    The center need not be active: what it said before it was suspended counts when it is back.
    """
    said = peek(signed)
    member = roster.member(said.center)
    keys = member.accrediting_keys if member else ()
    if not any(identity_keys.verify(key, USE, signed.payload, signed.signature) for key in keys):
        raise RevocationRefused(
            f"The revocation is not signed by {said.center}'s accrediting key.", code="revocation.bad_signature"
        )
    if said.federation != roster.federation:
        raise RevocationRefused("The revocation is for another federation.", code="revocation.other_federation")
    if said.issued_before_ms > (now_ms() if at_ms is None else at_ms) + FURTHEST_AHEAD_MS:
        raise RevocationRefused("The revocation is from the future; check the clocks.", code="revocation.not_yet")
    return said


def peek(signed: revocation_pb2.SignedRevocation) -> Revocation:
    """Read a revocation without believing it. Raises RevocationRefused."""
    try:
        if signed.ByteSize() > MAXIMUM_SIZE:
            raise RevocationRefused("The revocation is too large.")
        strict.refuse_unknown(signed, what="revocation")
        said = strict.parse(revocation_pb2.Revocation, signed.payload, what="revocation")
        center = identity_keys.center_id(said.center_id)
    except ConnexonError as error:
        raise RevocationRefused(error.public, code="revocation.unreadable") from error
    if not credential.SUBJECT.match(said.subject) or not 0 < said.issued_before_ms < END:
        raise RevocationRefused("The revocation names nobody, or no moment.", code="revocation.unreadable")
    return Revocation(said.federation, center, said.subject, said.issued_before_ms)


def batches(signed: Iterable[revocation_pb2.SignedRevocation]) -> Iterator[revocation_pb2.Revocations]:
    """Put together what goes into one frame each."""
    waiting = iter(signed)
    while some := list(islice(waiting, AT_ONCE)):
        yield revocation_pb2.Revocations(revocations=some)
