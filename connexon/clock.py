"""Time as Connexon writes it: whole milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
END = 253_402_300_800_000
"""The year 10000, beyond which times cannot be written as dates."""


def now_ms() -> int:
    """Return the present, milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def to_datetime(ms: int) -> datetime:
    """Return an aware UTC datetime."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def writable(ms: int) -> int:
    """The time, or the nearest that can be written as a date: what others say may be any number."""
    return min(max(ms, 0), END - 1)


def midnight(day: str) -> int:
    """The beginning, UTC, of a day such as 2026-02-01. Raises ValueError."""
    read = date.fromisoformat(day)
    return int(datetime(read.year, read.month, read.day, tzinfo=UTC).timestamp() * 1000)


def to_text(ms: int) -> str:
    """Return the time as people and logs read it, for example 2026-11-23 07:06 UTC."""
    if not 0 <= ms < END:
        return f"{ms} ms"
    return to_datetime(ms).strftime("%Y-%m-%d %H:%M UTC")


def ago(ms: int) -> str:
    """How long ago a time is, in its largest whole unit: 17 s, 4 min, 3 h, 2 d."""
    passed = max(0, now_ms() - ms)
    for unit, size in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if passed >= size:
            return f"{passed // size} {unit}"
    return f"{passed // SECOND} s"
