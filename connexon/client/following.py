"""Staying with a question until its answers are there, across broken connections and restarts of the hub."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, stop_never, wait_random_exponential

from connexon.client.answer import Answer
from connexon.client.center_answer import Status
from connexon.client.hub_calls import CALL_SECONDS, HubCalls
from connexon.errors import Unavailable
from connexon.v1 import query_pb2, research_pb2

PATIENCE_SECONDS = 10.0
"""How long a hub that cannot be reached is tried again, whatever the wait."""
RETURN_SECONDS = 3.0
"""How long a center whose connection breaks while it is asked may take to come back."""
_SHORT = 1.0
"""Seconds; a wait below this leaves the hub too little time."""
Take = Callable[[research_pb2.Update], float | None]
"""Takes an update; gives the seconds for which more is wanted: 0 for nothing more, None for as long as `wait` says."""


class Patience:
    """How long whoever asks waits for whom: for centers that are connected, and, with `for_all`, for the others.

    One whose connection breaks meanwhile has RETURN_SECONDS to come back.
    """

    def __init__(self, for_all: bool) -> None:
        self._for_all = for_all
        self._met: set[str] = set()

    def left(self, answer: Answer) -> float | None:
        """Seconds for which more is wanted, as Take gives them."""
        waiting = [part for part in answer.centers if part.status is Status.WAITING]
        self._met.update(part.id for part in waiting if not part.away)
        if not waiting:
            return 0
        if self._for_all or any(not part.away for part in waiting):
            return None
        return RETURN_SECONDS if any(part.id in self._met for part in waiting) else 0


class _Ended(Unavailable):
    """The hub ended the stream though something is still to come."""


def following(
    calls: HubCalls, query_id: str, *, query: query_pb2.SignedQuery | None, wait: float | None, take: Take
) -> None:
    """Ask `query`, or resume `query_id` where it is None, and hand every update to `take` for up to `wait` seconds.

    None waits without limit. The hub has at least twenty seconds to write a question down, whatever `wait` says; if it
    does not, Unavailable is raised. After that, running out of time is no error. Refused is raised as it comes.
    """
    begun, accepted = time.monotonic(), False
    until: float | None = None

    def left(limit: float) -> float:
        return max(0.0, begun + limit - time.monotonic())

    def remaining() -> float | None:
        ends = [end for end in (None if wait is None else begun + wait, until) if end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def over() -> bool:
        return accepted and remaining() == 0

    def once() -> None:
        nonlocal accepted, until
        # A short wait must not cut off the hub before it has written the question down: then the first stream gets
        # the hub's time, and after the acceptance the rest of the wait has a stream of its own.
        patient = wait is not None and not accepted and left(wait) < _SHORT
        seconds = left(CALL_SECONDS) if patient else remaining()
        with _open(calls, query_id, query, wait=wait != 0, seconds=seconds) as updates:
            for update in updates:
                accepted = True
                wanted = take(update)
                if wanted == 0 or (wait == 0 and query is not None):
                    return
                before, until = until, None if wanted is None else min(until or math.inf, time.monotonic() + wanted)
                # A stream's time is set when it begins: one that has become shorter has a stream of its own.
                if (patient and wait != 0) or (before is None and until is not None):
                    break
        if wait != 0:
            raise _Ended("The hub ended the conversation early.", code="hub.ended")

    retrying = Retrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.1, max=2.0),
        stop=stop_never if wait is None else stop_before_delay(max(wait, PATIENCE_SECONDS)),
        reraise=True,
    )
    try:
        for attempt in retrying:
            with attempt:
                if not over():
                    once()
    except Unavailable as error:
        if not accepted:
            raise Unavailable(
                f"{error.public} Whether the question was taken is not known; see later with:  "
                f"connexon result {query_id}",
                code=error.code,
            ) from error


def _open(
    calls: HubCalls, query_id: str, query: query_pb2.SignedQuery | None, *, wait: bool, seconds: float | None
) -> AbstractContextManager[Iterator[research_pb2.Update]]:
    if query is not None:
        return calls.ask(query, seconds=seconds)
    return calls.follow(query_id, wait=wait, seconds=seconds)
