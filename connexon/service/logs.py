"""Logs of hub and node: one line for one record, whatever its text comes from, and only so many that are alike.

What a stranger or a member sends may stand in a sentence, a cause or a traceback. Here, and nowhere else, it is cut and
loses what could steer a terminal or look like a line of its own.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from typing import TextIO

from connexon.clock import MINUTE, SECOND

LONGEST = 2_000
"""Characters of a message; the middle of a longer one is left out."""
TRACEBACK_LINES = 60
ALIKE = 120
"""Records of one template about one party in a minute; the rest are counted."""
WINDOW_SECONDS = MINUTE / SECOND
_PARTIES = 4_096


def begin(level: int, *, stream: TextIO | None = None) -> None:
    """Log this process to `stream`, standard error by default: our own words from `level`, others' warnings.

    gRPC's C library writes past every formatter; connexon.entry silences it before it is loaded.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(Bounded())
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("connexon").setLevel(level)


def one_line(text: str, longest: int = LONGEST) -> str:
    r"""The text without its middle where it is too long, control characters and line ends as escapes such as \n."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} [{len(text) - longest} characters left out] {text[-longest // 2 :]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class LineFormatter(logging.Formatter):
    """Time in UTC, level and message; a traceback follows on lines that are set in, and so cannot pass for records."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError) as error:  # a record that does not fit its template must not end what logs it
            message = f"{record.msg!r} ({type(error).__name__})"
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        head = f"{at} {record.levelname} {one_line(message)}"
        lines = [] if record.exc_info is None else self.formatException(record.exc_info).splitlines()
        if len(lines) > TRACEBACK_LINES:
            half = TRACEBACK_LINES // 2
            lines = [*lines[:half], f"[{len(lines) - 2 * half} lines left out]", *lines[-half:]]
        return "\n".join([head, *(f"    | {one_line(line, 500)}" for line in lines)])


class Allowance:
    """So many of a kind in a window of time; the rest are counted. Thread-safe."""

    def __init__(self, most: int, *, seconds: float = WINDOW_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._windows: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()

    def take(self, *kind: str, at: float | None = None) -> tuple[bool, int]:
        """Whether one more fits, and how many of this kind were left out in the window that it ends."""
        now = time.monotonic() if at is None else at
        with self._lock:
            began, seen = self._windows.pop(kind, (now, 0))
            left_out = 0
            if now - began >= self._seconds:
                left_out, began, seen = max(0, seen - self._most), now, 0
            self._windows[kind] = (began, seen + 1)
            while len(self._windows) > _PARTIES:
                self._windows.popitem(last=False)
            return seen < self._most, left_out


class Bounded(logging.Filter):
    """Lets so many records of one template pass in a minute, for each party that `extra={"party": ...}` names."""

    def __init__(self, most: int = ALIKE, *, seconds: float = WINDOW_SECONDS) -> None:
        super().__init__()
        self._allowance = Allowance(most, seconds=seconds)

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        passes, left_out = self._allowance.take(record.name, str(record.msg), str(getattr(record, "party", "")))
        if left_out:
            record.msg, record.args = f"{_message(record)} [{left_out} more like this were left out before]", ()
        return passes


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # the formatter says it better
        return str(record.msg)
