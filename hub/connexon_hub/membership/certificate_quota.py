"""How many link certificates a center is issued: one that had them renewed without end would fill the hub's disk."""

from __future__ import annotations

from sqlalchemy import Connection, select

from connexon.clock import now_ms, to_text
from connexon.errors import Refused
from connexon.identity.keys import CenterId
from connexon_hub.settings import Measure
from connexon_hub.state.tables import CERTIFICATES


def require_left(connection: Connection, center: CenterId, measure: Measure) -> None:
    """Raise Refused where a center has had as many certificates of late as it is issued; says when to come back."""
    # Not those of former keys, revoked by now: whoever stole these must not keep the center from joining anew.
    of_late = (
        select(CERTIFICATES.c.issued_ms)
        .where(
            CERTIFICATES.c.center_id == center,
            CERTIFICATES.c.revoked_ms.is_(None),
            CERTIFICATES.c.issued_ms > now_ms() - measure.within_ms,
        )
        .order_by(CERTIFICATES.c.issued_ms.desc())
        .offset(measure.most - 1)
        .limit(1)
    )
    oldest = connection.execute(of_late).scalar()
    if oldest is not None:
        raise Refused(
            f"{center} has had {measure.most} certificates of late, as many as this hub issues to one center; come "
            f"back after {to_text(oldest + measure.within_ms)}. If you need more, ask the hub's operator "
            "(certificates_per_day).",
            code="certificate.too_many",
        )
