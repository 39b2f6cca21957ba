"""Which researcher makes a call, proved for that very call and once, also over a restart of the hub."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from connexon.clock import SECOND, now_ms
from connexon.errors import Unauthenticated, Unavailable
from connexon.identity.credential import Researcher, Revocations
from connexon.query import signed
from connexon.service.database import Database
from connexon_hub.membership.standing import Standing
from connexon_hub.state.tables import PROOFS
from connexon_hub.state.writer import Writer

_REMEMBERED_MS = 2 * signed.CALL_LIFE_MS
"""A proof from a clock that is ahead holds for twice its life."""
PER_SECOND, AT_ONCE = 100.0, 1_000.0
"""Proved calls of one researcher, in the long run and in a burst: each is remembered for four minutes."""


@dataclass(frozen=True)
class Caller:
    """A researcher who makes a call, and the credential that they showed for it."""

    researcher: Researcher
    credential: str

    @property
    def id(self) -> str:
        """The researcher in the whole federation."""
        return self.researcher.id


_present: ContextVar[Caller] = ContextVar("connexon_hub_caller")
_kept: ContextVar[asyncio.Future[None]] = ContextVar("connexon_hub_proof_kept")


@contextmanager
def present(caller: Caller) -> Iterator[None]:
    """Within, `caller` is this one."""
    token = _present.set(caller)
    try:
        yield
    finally:
        _present.reset(token)


def caller() -> Caller:
    """The researcher who makes the present call. Raises Unauthenticated where the guard has proved none."""
    try:
        return _present.get()
    except LookupError as error:
        raise Unauthenticated("The call is not proved.", code="call.unproved") from error


@dataclass(frozen=True)
class Proof:
    """A proof that was used, and until when it would count."""

    researcher_id: str
    proof_id: str
    until_ms: int


class ProofStore:
    """The table of proofs that were used and would still count."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counting(self, at_ms: int) -> list[Proof]:
        """Those that would count at a moment, the one that ends first at the beginning."""
        with self._database.reading() as connection:
            rows = connection.execute(select(PROOFS).where(PROOFS.c.until_ms > at_ms).order_by(PROOFS.c.until_ms))
            return [Proof(row.researcher_id, row.proof_id, row.until_ms) for row in rows]

    def keep(self, connection: Connection, proofs: Sequence[Proof]) -> list[None]:
        """Step: write proofs down. Each comes once: whoever calls this has looked in memory."""
        connection.execute(insert(PROOFS), [vars(proof) for proof in proofs])
        return [None] * len(proofs)

    def forget(self, connection: Connection, moments: Sequence[int]) -> list[int]:
        """Step: forget those that count no more; returns how many went."""
        return [connection.execute(delete(PROOFS).where(PROOFS.c.until_ms <= at_ms)).rowcount for at_ms in moments]


class Once:
    """Proofs count only once. In memory; times are milliseconds of a clock that never goes back."""

    def __init__(self, span_ms: float) -> None:
        self._span = span_ms
        self._seen: OrderedDict[tuple[str, str], float] = OrderedDict()

    def first(self, researcher_id: str, proof_id: str, *, at: float) -> bool:
        """Whether this proof was not seen in the last while."""
        while self._seen and next(iter(self._seen.values())) <= at - self._span:
            self._seen.popitem(last=False)
        if (researcher_id, proof_id) in self._seen:
            return False
        self._seen[researcher_id, proof_id] = at
        return True


class Rates:
    """How fast each researcher calls: a bucket that fills with time and is emptied by calls."""

    def __init__(self, *, per_second: float = PER_SECOND, at_once: float = AT_ONCE) -> None:
        self._per_second, self._at_once = per_second, at_once
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, researcher_id: str, *, at: float) -> bool:
        """Whether one more call fits; `at` in seconds of a clock that never goes back."""
        filled = self._at_once / self._per_second
        while self._buckets and next(iter(self._buckets.values()))[1] <= at - filled:
            self._buckets.popitem(last=False)
        left, last = self._buckets.pop(researcher_id, (self._at_once, at))
        left = min(self._at_once, left + (at - last) * self._per_second)
        fits = left >= 1
        self._buckets[researcher_id] = (left - fits, at)
        return fits


class Callers:
    """Proves researchers by the metadata of their calls. Lives on the event loop's thread."""

    def __init__(self, revocations: Revocations, proofs: ProofStore, writer: Writer) -> None:
        self._revocations = revocations
        self._store = proofs
        self._writer = writer
        self._proofs = Once(_REMEMBERED_MS)
        self._rates = Rates()
        now = now_ms()
        for proof in proofs.counting(now):
            # Never longer than a new one: the wall clock may have gone back since it was written.
            age = max(0, _REMEMBERED_MS - (proof.until_ms - now))
            self._proofs.first(proof.researcher_id, proof.proof_id, at=_monotonic_ms() - age)

    def prove(self, metadata: Iterable[tuple[str, str | bytes]] | None, standing: Standing, *, method: str) -> Caller:
        """Who calls `method`; `kept` tells when the proof is written down.

        Raises Unauthenticated, Refused where their center takes no part, or Unavailable where they call too often.
        """
        values = dict(metadata or ())
        token, proof = values.get(signed.CREDENTIAL_KEY), values.get(signed.PROOF_KEY)
        if not isinstance(token, str) or not isinstance(proof, str):
            raise Unauthenticated("The call carries no credential; log in first.", code="call.unproved")
        researcher, name = signed.verify_call(token, proof, standing.roster, self._revocations, method=method)
        standing.require_open(researcher.center)
        if not self._rates.take(researcher.id, at=time.monotonic()):
            raise Unavailable("You call the hub too often; wait a moment.", code="hub.too_many_calls")
        # The caller chose the name; it goes into a database.
        proof_id = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
        if not self._proofs.first(researcher.id, proof_id, at=_monotonic_ms()):
            raise Unauthenticated("This very call was made before.", code="call.replayed")
        kept = self._writer.write(self._store.keep, Proof(researcher.id, proof_id, now_ms() + _REMEMBERED_MS))
        # Where nobody waits for it, its failure is in the log already.
        kept.add_done_callback(lambda future: future.cancelled() or future.exception())
        _kept.set(kept)
        return Caller(researcher, token)

    async def kept(self) -> None:
        """Wait until the present call's proof is written down. Raises Unavailable where it cannot be."""
        await asyncio.shield(_kept.get())

    def forget(self, at_ms: int) -> asyncio.Future[int]:
        """Forget the proofs that count no more."""
        return self._writer.write(self._store.forget, at_ms)


def _monotonic_ms() -> float:
    return time.monotonic() * SECOND
