"""Who is next: work that waits, taken in turns from those who asked for it."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Waiting work by owner: one of each in turn, and never more than so many of one owner at once. Thread-safe."""

    def __init__(self, *, most_of_one: int) -> None:
        self._most = most_of_one
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def put(self, owner: str, item: T) -> None:
        """The last of its owner's."""
        with self._lock:
            self._waiting.setdefault(owner, deque()).append(item)

    def take(self) -> T | None:
        """What is next, to be `done` once; its owner has the last turn now. None where nothing may begin."""
        with self._lock:
            owner = next((one for one in self._waiting if self._running.get(one, 0) < self._most), None)
            if owner is None:
                return None
            items = self._waiting[owner]
            item = items.popleft()
            self._running[owner] = self._running.get(owner, 0) + 1
            self._waiting.move_to_end(owner)
            if not items:
                del self._waiting[owner]
            return item

    def done(self, owner: str) -> None:
        """An item of this owner is worked on no more."""
        with self._lock:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]

    def could_begin(self, owner: str, places: int) -> bool:
        """Whether an item put now would be worked on at once, where there are so many places."""
        with self._lock:
            free = sum(self._running.values()) < places
            return free and not self._waiting and self._running.get(owner, 0) < self._most
