"""Refusals of calls: counted by code, and logged as a sum, so that whoever knocks cannot fill the log."""

from __future__ import annotations

import logging
from collections import Counter

LOG = logging.getLogger("connexon.hub")
CODES = 100
"""Different codes in one sum; all come from the hub's own code, and are fewer."""


class Refusals:
    """Lives on the event loop's thread."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, code: str) -> None:
        """One more call was refused."""
        if code in self._counts or len(self._counts) < CODES:
            self._counts[code] += 1

    def sum_up(self) -> str:
        """What was refused since the last time, for example "call.unproved 12,031, hub.busy 3"; empty for nothing."""
        said = ", ".join(f"{code} {count:,}" for code, count in self._counts.most_common())
        self._counts.clear()
        return said
