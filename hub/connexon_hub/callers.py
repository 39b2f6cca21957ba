"""Which researcher makes a call, proved for that very call and once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable

from connexon import signed
from connexon.credential import Researcher, Revocations
from connexon.errors import Unauthenticated
from connexon_hub.standing import Standing

_REMEMBERED_SECONDS = 2 * signed.CALL_LIFE_MS / 1000
"""A proof from a clock that is ahead holds for twice its life."""


class Once:
    """Ids that count only once within some time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: OrderedDict[str, float] = OrderedDict()

    def first(self, name: str, *, at: float) -> bool:
        """Whether `name` was not seen in the last while; `at` in seconds of a clock that never goes back."""
        while self._seen and next(iter(self._seen.values())) <= at - self._seconds:
            self._seen.popitem(last=False)
        if name in self._seen:
            return False
        self._seen[name] = at
        return True


class Callers:
    """Proves researchers by the metadata of their calls."""

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._proofs = Once(_REMEMBERED_SECONDS)

    def prove(
        self, metadata: Iterable[tuple[str, str | bytes]] | None, standing: Standing, *, method: str
    ) -> Researcher:
        """Who calls `method`. Raises Unauthenticated, or Refused where their center takes no part."""
        values = dict(metadata or ())
        token, proof = values.get(signed.CREDENTIAL_KEY), values.get(signed.PROOF_KEY)
        if not isinstance(token, str) or not isinstance(proof, str):
            raise Unauthenticated("The call carries no credential; log in first.", code="call.unproved")
        researcher, proof_id = signed.verify_call(token, proof, standing.roster, self._revocations, method=method)
        standing.require_open(researcher.center)
        if not self._proofs.first(f"{researcher.id} {proof_id}", at=time.monotonic()):
            raise Unauthenticated("This very call was made before.", code="call.replayed")
        return researcher
