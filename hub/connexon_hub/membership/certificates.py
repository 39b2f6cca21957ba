"""Link certificates that the hub has issued: which of them are revoked, and when one is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from connexon.clock import DAY, now_ms
from connexon.identity.keys import CenterId
from connexon_hub.membership.standing import certificate_revoked
from connexon_hub.state.tables import CERTIFICATES

KEPT_MS = 30 * DAY
"""How long an expired certificate is remembered."""


@dataclass(frozen=True)
class IssuedCertificate:
    """A link certificate to remember. `key` is the one it is for, a SubjectPublicKeyInfo in DER."""

    serial: str
    center: CenterId
    expires_ms: int
    key: bytes
    renews: str = ""
    """Serial number of the certificate that was shown to get it; empty where the center has just joined."""


def remember(connection: Connection, issued: IssuedCertificate) -> None:
    """Write a certificate down. Raises Refused where the one that it renews has been revoked."""
    renewed = select(CERTIFICATES.c.revoked_ms).where(CERTIFICATES.c.serial == issued.renews)
    if issued.renews and connection.execute(renewed).scalar() is not None:
        raise certificate_revoked()
    connection.execute(
        insert(CERTIFICATES).values(
            serial=issued.serial, center_id=issued.center, issued_ms=now_ms(), expires_ms=issued.expires_ms
        )
    )


def revoke(connection: Connection, center: CenterId, at_ms: int) -> None:
    """Revoke every certificate of a center."""
    connection.execute(
        update(CERTIFICATES)
        .where(CERTIFICATES.c.center_id == center, CERTIFICATES.c.revoked_ms.is_(None))
        .values(revoked_ms=at_ms)
    )


def revoked(connection: Connection) -> frozenset[str]:
    """Serial numbers of revoked certificates that have not expired."""
    rows = connection.execute(
        select(CERTIFICATES.c.serial).where(
            CERTIFICATES.c.revoked_ms.is_not(None), CERTIFICATES.c.expires_ms > now_ms()
        )
    )
    return frozenset(row.serial for row in rows)


def forget(connection: Connection, moments: Sequence[int]) -> list[int]:
    """Step: forget the certificates that had run out long before a moment; returns how many went."""
    # Such a one opens no connection, whether it was revoked or not.
    return [
        connection.execute(delete(CERTIFICATES).where(CERTIFICATES.c.expires_ms < at_ms - KEPT_MS)).rowcount
        for at_ms in moments
    ]
