"""Staying with a question until its answers are there, across broken connections and restarts of the hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, stop_never, wait_random_exponential

from connexon.client.hub_calls import CALL_SECONDS, HubCalls
from connexon.errors import Unavailable
from connexon.v1 import query_pb2, research_pb2

PATIENCE_SECONDS = 10.0
"""How long a hub that cannot be reached is tried again, whatever the wait."""
_SHORT = 1.0
"""Seconds; a wait below this leaves the hub too little time."""
Take = Callable[[research_pb2.Update], bool]
"""Takes an update; true when nothing more is wanted."""


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

    def left(limit: float) -> float:
        return max(0.0, begun + limit - time.monotonic())

    def over() -> bool:
        return accepted and wait is not None and left(wait) == 0

    def once() -> None:
        nonlocal accepted
        # A short wait must not cut off the hub before it has written the question down: then the first stream gets
        # the hub's time, and after the acceptance the rest of the wait has a stream of its own.
        patient = wait is not None and not accepted and left(wait) < _SHORT
        seconds = left(CALL_SECONDS) if patient else None if wait is None else left(wait)
        with _open(calls, query_id, query, wait=wait != 0, seconds=seconds) as updates:
            for update in updates:
                accepted = True
                if take(update) or (wait == 0 and query is not None):
                    return
                if patient and wait != 0:
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
