"""Researchers who follow their queries: each gets the latest of every center, as fast as they take it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from connexon.identity.keys import CenterId
from connexon.v1 import research_pb2
from connexon_hub.routing.store import OPEN, State
from connexon_hub.routing.stream_quota import Line, slow_reader

PASSING_SECONDS = 0.1
"""How long news that a center is at work may wait."""


class Watch:
    """One stream that follows one query. Of each center only the newest untaken news is held.

    What a center says is there at once; what is on its way is collected for a moment, since it is mostly overtaken.
    """

    def __init__(self, query_id: str, line: Line) -> None:
        self.query_id = query_id
        self.pending: dict[CenterId, State] = {}
        """Centers that are not final, as far as is known."""
        self._told: set[CenterId] = set()
        self._final: dict[CenterId, research_pb2.Delivery] = {}
        self._passing: dict[CenterId, research_pb2.Delivery] = {}
        self._due: asyncio.TimerHandle | None = None
        self._line = line
        self._held = 0
        self._leaving = 0
        self._dropped = False
        self._changed = asyncio.Event()

    @property
    def has_news(self) -> bool:
        """Whether something that a center said is to be taken."""
        return bool(self._final)

    def begin(self, states: Mapping[CenterId, State]) -> None:
        """What the database knows; news that has come in meanwhile is newer."""
        for center, state in states.items():
            if center not in self._told:
                self._set(center, state)

    def tell(self, delivery: research_pb2.Delivery) -> None:
        """News of one center; where too much has piled up on the researcher's line, what waits here is dropped."""
        if self._dropped:
            return
        center = CenterId(delivery.center_id)
        self._told.add(center)
        self._set(center, delivery.state)
        if delivery.state in OPEN and not delivery.HasField("answer"):
            self._passing[center] = delivery
            if self._due is None:
                self._due = asyncio.get_running_loop().call_later(PASSING_SECONDS, self._changed.set)
            return
        self._passing.pop(center, None)
        former = self._final.pop(center, None)
        self._count(delivery.ByteSize() - (former.ByteSize() if former else 0))
        self._final[center] = delivery
        self._changed.set()
        if self._line.overrun:
            self._drop()

    def take(self) -> list[research_pb2.Delivery]:
        """The news since the last time; say when it has `left`. Raises Unavailable where too much had piled up."""
        self._changed.clear()
        if self._dropped:
            raise slow_reader()
        news = list(self._final.values())
        self._final.clear()
        self._leaving = self._held
        if self._due is not None and self._due.when() <= asyncio.get_running_loop().time():
            self._due = None
            news += self._passing.values()
            self._passing.clear()
        return news

    def left(self) -> None:
        """What was taken has been written, and is held no longer."""
        self._count(-self._leaving)
        self._leaving = 0

    def close(self) -> None:
        """Hold nothing any more."""
        self._drop()
        self.left()

    async def changed(self) -> None:
        """Wait until there is something to take."""
        await self._changed.wait()

    def _drop(self) -> None:
        self._dropped = True
        self._final.clear()
        self._passing.clear()
        self._count(self._leaving - self._held)

    def _count(self, size: int) -> None:
        self._held += size
        self._line.untaken += size

    def _set(self, center: CenterId, state: State) -> None:
        if state in OPEN:
            self.pending[center] = state
        else:
            self.pending.pop(center, None)


class Watches:
    """All streams that follow queries now."""

    def __init__(self) -> None:
        self._by_query: dict[str, set[Watch]] = {}

    def open(self, query_id: str, line: Line) -> Watch:
        """Begin to collect news of a query for a researcher's line; `close` it in the end."""
        watch = Watch(query_id, line)
        self._by_query.setdefault(query_id, set()).add(watch)
        return watch

    def close(self, watch: Watch) -> None:
        """Collect no more."""
        watch.close()
        watches = self._by_query.get(watch.query_id, set())
        watches.discard(watch)
        if not watches:
            self._by_query.pop(watch.query_id, None)

    def of(self, query_id: str) -> Iterable[Watch]:
        """The streams that follow a query."""
        return tuple(self._by_query.get(query_id, ()))

    def waiting_for(self, center: CenterId) -> list[Watch]:
        """The streams that wait for a center."""
        return [watch for watches in self._by_query.values() for watch in watches if center in watch.pending]
