"""Whether this machine's clock may be relied on for what cannot be undone.

A clock that jumps forward and back again would end consents for good, and delete what is still needed. So it is
compared with the other side's, and with a counter that nobody sets; what cannot be undone is done by the earlier of the
two, and not at all while they differ.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from connexon.clock import now_ms

TOLERANCE_MS = 30_000


def steady_ms() -> int:
    """Milliseconds of a counter that only grows, also while the machine sleeps; from an unknown beginning."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@dataclass(frozen=True)
class _Compared:
    theirs_ms: int
    at_steady_ms: int


class ClockCheck:
    """This clock beside those of others, each by name. Thread-safe. `wall` and `steady` give ms, for tests."""

    def __init__(self, *, wall: Callable[[], int] = now_ms, steady: Callable[[], int] = steady_ms) -> None:
        self._wall, self._steady = wall, steady
        self._lock = threading.Lock()
        self._others: dict[str, _Compared] = {}
        self._began = _Compared(wall(), steady())

    def compare(self, name: str, theirs_ms: int) -> None:
        """The other side's clock shows this now; 0 says nothing."""
        if theirs_ms > 0:
            with self._lock:
                self._others[name] = _Compared(theirs_ms, self._steady())

    def forget(self, name: str) -> None:
        """Nobody of that name is there any more; the last that is known stays, so that something is."""
        with self._lock:
            if len(self._others) > 1:
                self._others.pop(name, None)

    def offset_ms(self, name: str) -> int | None:
        """How far this clock is ahead of the other's; None where they were never compared."""
        with self._lock:
            other = self._others.get(name)
        return None if other is None else self._ahead_of(other)

    @property
    def jumped_ms(self) -> int:
        """How far this clock has moved against the counter since this process began."""
        return self._ahead_of(self._began)

    @property
    def ahead_ms(self) -> int | None:
        """How far this clock is ahead of the middle of all others; None where there are none."""
        with self._lock:
            others = list(self._others.values())
        return None if not others else round(statistics.median(self._ahead_of(other) for other in others))

    @property
    def doubt(self) -> str:
        """Why nothing that cannot be undone is done by this clock: a sentence; empty where it may be."""
        ahead = self.ahead_ms
        if ahead is None:
            return "This clock was not compared with another one yet."
        if abs(ahead) <= TOLERANCE_MS:
            return ""
        way = "ahead of" if ahead > 0 else "behind"
        whose = f"and it has moved by {self.jumped_ms / 1000:.0f} s by itself, so it is this one that is wrong"
        if abs(self.jumped_ms) <= TOLERANCE_MS:
            whose = "and has not moved by itself since this process began"
        return f"This clock is {abs(ahead) / 1000:.0f} s {way} the other side's, {whose}."

    def sure_ms(self) -> int | None:
        """A time that has surely come; None while that is in doubt."""
        ahead = self.ahead_ms
        if ahead is None or abs(ahead) > TOLERANCE_MS:
            return None
        return self._wall() - max(ahead, 0)

    def probable_ms(self) -> int | None:
        """The present, where no other clock and no movement of this one speaks against it; for what can be repeated."""
        if self.ahead_ms is None and abs(self.jumped_ms) <= TOLERANCE_MS:
            return self._wall()
        return self.sure_ms()

    def latest_ms(self) -> int:
        """The later of this clock and the others': what has ended by it may have ended."""
        return self._wall() - min(self.ahead_ms or 0, 0)

    def _ahead_of(self, other: _Compared) -> int:
        return self._wall() - (other.theirs_ms + self._steady() - other.at_steady_ms)


class TrustedClock(ClockCheck):
    """The clock as it is: for commands that a steward runs, beside which nobody stands."""

    @property
    def doubt(self) -> str:
        """Never any."""
        return ""

    def sure_ms(self) -> int | None:
        """The present."""
        return self._wall()
