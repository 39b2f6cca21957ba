"""What each researcher has open at the hub: so many streams, and so much that waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from connexon.errors import Unavailable

MAXIMUM_STREAMS = 50
"""Calls of one researcher that go on: what they ask, follow or fetch."""
MAXIMUM_UNTAKEN = 64 * 1024 * 1024
"""Bytes of answers that may wait for one researcher, on all their streams together."""
TAKING_SECONDS = 60.0
"""How long a message may wait to be taken."""


class Line:
    """One researcher's streams, counted together."""

    def __init__(self) -> None:
        self.streams = 0
        self.untaken = 0

    @property
    def overrun(self) -> bool:
        """Whether more waits than may."""
        return self.untaken > MAXIMUM_UNTAKEN


class Lines:
    """The lines of all researchers who have a stream open."""

    def __init__(self) -> None:
        self._open: dict[str, Line] = {}

    @contextmanager
    def hold(self, researcher_id: str) -> Iterator[Line]:
        """One more stream of a researcher. Raises Unavailable where they have too many already."""
        line = self._open.setdefault(researcher_id, Line())
        if line.streams >= MAXIMUM_STREAMS:
            # Not for ever: streams whose connection broke end within half a minute.
            raise Unavailable(
                f"You have {MAXIMUM_STREAMS} calls open that wait for queries, runs or models; end some of them, or "
                "wait until they have ended.",
                code="hub.too_many_streams",
            )
        line.streams += 1
        try:
            yield line
        finally:
            line.streams -= 1
            if not line.streams:
                del self._open[researcher_id]


@asynccontextmanager
async def taken_in_time(seconds: float = TAKING_SECONDS) -> AsyncIterator[None]:
    """Around the writing of a message, which waits until the other end reads. Raises Unavailable where it does not."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise slow_reader() from error


def slow_reader() -> Unavailable:
    """The error that ends a stream which is not read."""
    return Unavailable(
        "Answers arrive faster than this line takes them; follow the query again by its id.", code="hub.slow_reader"
    )
