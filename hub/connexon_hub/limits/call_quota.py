"""The calls under way: how many anybody may hold, and the end of those that count no more."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from connexon.errors import ConnexonError, Unavailable

STRANGERS = 32
"""Calls of callers who prove nothing; beyond, the oldest makes room. One that is read may hold 1 MiB."""
RESEARCHERS = 5_000
"""Calls of all researchers together; a call that waits costs about 30 KB. Strangers cannot take any of these."""
PER_RESEARCHER = 64
PER_CENTER = 8
"""Calls of one center. A node needs two: it renews while it is attached."""


@dataclass(eq=False)
class Place:
    """One call under way. `who` is a researcher's or center's id, empty for a stranger."""

    who: str
    credential: str
    """The researcher's; empty for everybody else."""
    task: asyncio.Task[object]
    ended: ConnexonError | None = field(default=None)
    working: bool = False
    """Whether its message has arrived: what is begun is finished, and makes no room."""

    def end(self, error: ConnexonError) -> None:
        """End the call with an error; the first one stands."""
        if self.ended is None:
            self.ended = error
            self.task.cancel()


class Places:
    """All calls of one server. Lives on the event loop's thread."""

    def __init__(
        self, *, strangers: int = STRANGERS, researchers: int = RESEARCHERS, per_researcher: int = PER_RESEARCHER
    ) -> None:
        self._most_strangers = strangers
        self._most_researchers = researchers
        self._per_researcher = per_researcher
        # Dicts, since they keep the order in which calls came.
        self._strangers: dict[Place, None] = {}
        self._known: dict[str, dict[Place, None]] = defaultdict(dict)
        self._researchers = 0

    @property
    def strangers(self) -> int:
        """Places that strangers hold."""
        return len(self._strangers)

    @contextmanager
    def stranger(self) -> Iterator[Place]:
        """A place for somebody who proves nothing; where all are taken, the oldest that still waits makes room.

        Raises Unavailable where none of them waits.
        """
        if len(self._strangers) >= self._most_strangers:
            oldest = next((place for place in self._strangers if not place.working), None)
            if oldest is None:
                raise busy()
            del self._strangers[oldest]
            oldest.end(busy())
        place = Place("", "", _task())
        self._strangers[place] = None
        try:
            yield place
        finally:
            self._strangers.pop(place, None)

    @contextmanager
    def researcher(self, researcher_id: str, credential: str) -> Iterator[Place]:
        """A place for a researcher who is proved. Raises Unavailable where they, or all together, have too many."""
        if self._researchers >= self._most_researchers:
            raise busy()
        self._researchers += 1
        try:
            with self._hold(Place(researcher_id, credential, _task()), self._per_researcher) as place:
                yield place
        finally:
            self._researchers -= 1

    @contextmanager
    def center(self, center: str) -> Iterator[Place]:
        """A place for a center. Raises Unavailable where it has too many."""
        with self._hold(Place(center, "", _task()), PER_CENTER) as place:
            yield place

    def reconsider(self, judge: Callable[[str], ConnexonError | None]) -> None:
        """End the calls whose credential `judge` gives a reason against."""
        for places in tuple(self._known.values()):
            for place in tuple(places):
                error = judge(place.credential) if place.credential else None
                if error is not None:
                    place.end(error)

    @contextmanager
    def _hold(self, place: Place, most: int) -> Iterator[Place]:
        theirs = self._known[place.who]
        if len(theirs) >= most:
            raise Unavailable(
                f"You have {most} calls under way at the hub; end some of them, or wait until they have ended.",
                code="hub.too_many_calls",
            )
        theirs[place] = None
        try:
            yield place
        finally:
            del theirs[place]
            if not theirs and self._known.get(place.who) is theirs:
                del self._known[place.who]


def _task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None, "a call is a task"
    return task


def busy() -> Unavailable:
    """How a call is refused for which there is no place."""
    return Unavailable("The hub has as many calls under way as it takes; try again in a while.", code="hub.busy")
