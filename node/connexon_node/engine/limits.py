"""What one query may use, and how it is stopped: places, time and cancellation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from connexon.errors import Refused
from connexon_node.pipeline.values import Work

_AGAIN_SECONDS = 0.05
_LOOK_SECONDS = 0.2
_IDLE_SECONDS = 3600.0


class TooLong(Refused):
    """The query needed more time than the center gives to one."""

    code = "query.time_limit"


class Places:
    """So many queries at once and no more; the others wait, as long as they are wanted."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextmanager
    def taken(self, work: Work) -> Iterator[None]:
        """Hold a place. Raises Interrupted where the work is cancelled or out of time before one is free."""
        work.require_wanted()
        while not self._free.acquire(timeout=max(0.001, min(_LOOK_SECONDS, work.seconds_left))):
            work.require_wanted()
        try:
            yield
        finally:
            self._free.release()


@dataclass(eq=False)
class _Watched:
    """Something that runs: how to interrupt it, and when (seconds of time.monotonic)."""

    interrupt: Callable[[], None]
    due: float
    interrupted: bool = False


class Watch:
    """One thread that interrupts whatever has run for too long, or is no longer wanted. Thread-safe.

    A thread for each query would cost more than most queries.
    """

    def __init__(self) -> None:
        self._watched: set[_Watched] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._next = 0.0

    @contextmanager
    def stopping(self, interrupt: Callable[[], None], work: Work, seconds: float) -> Iterator[Callable[[], None]]:
        """Interrupt what runs inside when the work is cancelled, or after `seconds`, or at the work's deadline.

        Yields a check that raises why it was interrupted: Interrupted or TooLong.
        """
        watched = _Watched(interrupt, time.monotonic() + min(seconds, work.seconds_left))

        def why() -> None:
            work.require_wanted()
            if watched.interrupted:
                raise TooLong(
                    f"The question needs more than the {seconds:g} seconds that this center gives to one; ask for less."
                )

        def now() -> None:
            with self._changed:
                watched.due = 0.0
                self._changed.notify()

        self._begin(watched)
        forget = work.on_cancel(now)
        try:
            yield why
        finally:
            forget()
            # INVARIANT: afterwards it is never interrupted again: under the lock, since the thread interrupts under it.
            with self._changed:
                self._watched.discard(watched)

    def _begin(self, watched: _Watched) -> None:
        with self._changed:
            self._watched.add(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="query-watch", daemon=True)
                self._thread.start()
            elif watched.due < self._next:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                moment = time.monotonic()
                for watched in self._watched:
                    if watched.due <= moment:
                        watched.interrupted = True
                        watched.interrupt()
                        # Again and again: an interrupt that comes just before the database begins is lost.
                        watched.due = moment + _AGAIN_SECONDS
                self._next = min((watched.due for watched in self._watched), default=moment + _IDLE_SECONDS)
                self._changed.wait(max(0.0, self._next - moment))
