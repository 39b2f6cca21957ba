"""Whether what was admitted still counts: judged at each delivery, each answer and each round, not only on entry.

A question waits for up to thirty days. Meanwhile its researcher's home center may be suspended, its keys replaced, or
the credential revoked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from connexon.clock import SECOND, now_ms
from connexon.errors import ConnexonError
from connexon.identity import credential
from connexon.identity.keys import CenterId
from connexon_hub.membership.standing import Standing
from connexon_hub.routing.revocations import Revoked

HELD = "membership.suspended"
"""This may end again: what waits is held back meanwhile. For the other reasons it is over."""
STOPPING = frozenset({HELD, "membership.revoked", "membership.not_a_member", "credential.revoked"})
_REMEMBERED = 4_096


@dataclass(frozen=True)
class _Judgement:
    revision: tuple[object, ...]
    until_ms: int
    error: ConnexonError | None


class UnderWay:
    """Judges credentials by who takes part now. Lives on the event loop's thread."""

    def __init__(self, standing: Callable[[], Standing], revoked: Revoked) -> None:
        self._standing = standing
        self._revoked = revoked
        self._judged: OrderedDict[str, _Judgement] = OrderedDict()

    @property
    def revision(self) -> tuple[object, ...]:
        """Changes whenever a judgement may."""
        return (self._standing().revision, self._revoked.revision)

    def caller(self, token: str) -> ConnexonError | None:
        """Why a researcher who was let in with this credential may no longer be told anything; None where they may."""
        moment, revision = now_ms(), self.revision
        known = self._judged.get(token)
        if known is None or known.revision != revision or moment >= known.until_ms:
            known = self._judged[token] = self._judge(token, moment, revision)
            if len(self._judged) > _REMEMBERED:
                self._judged.popitem(last=False)
        return known.error

    def require_caller(self, token: str) -> None:
        """Raise what `caller` gives."""
        error = self.caller(token)
        if error is not None:
            raise error

    def query(self, token: str) -> ConnexonError | None:
        """Why a query that was asked with this credential may go no further; None where it may.

        One whose credential has run out, for example, goes on: each center refuses it, and tells the researcher why.
        """
        error = self.caller(token)
        return error if error is not None and error.code in STOPPING else None

    def doubtful(self, researcher_id: str) -> bool:
        """Whether anything of this researcher's may be stopped: judged in full only then, by each credential."""
        home, _, subject = researcher_id.partition("/")
        standing, center = self._standing(), CenterId(home)
        closed = standing.closed(center) is not None or standing.roster.member(center) is None
        return closed or self._revoked.issued_before(center, subject) > 0

    def _judge(self, token: str, moment: int, revision: tuple[object, ...]) -> _Judgement:
        standing = self._standing()
        try:
            researcher = credential.verify(token, standing.roster, self._revoked, at_ms=moment)
            standing.require_open(researcher.center)
        except ConnexonError as error:
            return _Judgement(revision, moment + SECOND, error)
        return _Judgement(revision, researcher.expires_at_ms, None)
