"""Link certificates that ran out: after a while nobody asks when one was issued, and nothing need be revoked."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete

from connexon.clock import DAY
from connexon_hub.state.tables import CERTIFICATES

KEPT_MS = 30 * DAY
"""How long an expired certificate is remembered."""


def remove(connection: Connection, moments: Sequence[int]) -> list[int]:
    """Step: forget the certificates that had run out long before a moment; returns how many went."""
    # Such a one opens no connection, whether it was revoked or not.
    return [
        connection.execute(delete(CERTIFICATES).where(CERTIFICATES.c.expires_ms < at_ms - KEPT_MS)).rowcount
        for at_ms in moments
    ]
