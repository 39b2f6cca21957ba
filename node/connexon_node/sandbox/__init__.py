"""A process that reads what strangers wrote can reach the files it was given, and nothing else.

`confine` takes rights from the process that calls it, for good: Landlock leaves it the named files, a seccomp filter
leaves it no network, no other process and no new program, and resource limits bound memory, time and files. What the
kernel does not have is told by `support`, never passed over in silence.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from connexon_node.sandbox import landlock, seccomp

_OPEN_FILES = 256


THREADS_END_WITHIN = 3.0
"""Seconds that threads which have done their work may take to end."""


class NotConfined(Exception):  # a state of the process, as errors here are named
    """The kernel refused what `support` said it has; nothing may be read."""


@dataclass(frozen=True)
class Support:
    """What this kernel can do. `landlock` is the version of its interface; 0 where there is none."""

    landlock: int
    seccomp: bool

    @property
    def whole(self) -> bool:
        """Whether other files and the network are both out of reach."""
        return self.landlock > 0 and self.seccomp

    @property
    def lacking(self) -> str:
        """What is not there, in words; empty where nothing lacks."""
        told = ([] if self.landlock else ["Landlock (Linux 5.13)"]) + ([] if self.seccomp else ["seccomp filters"])
        return " and ".join(told)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Memory and the size of one file in bytes, processor time in seconds."""

    memory: int
    seconds: int
    file_size: int


def support() -> Support:
    """Ask the kernel."""
    return Support(landlock=landlock.version(), seccomp=seccomp.is_known())


def confine(*, readable: Sequence[Path], folder: Path, limits: Limits) -> Support:
    """Leave this process the files and folders `readable`, and `folder` to write into. There is no way back.

    Everything that is loaded later must lie in them. Raises NotConfined where the kernel refuses a step that it has, or
    the process has other threads, which would keep their rights.
    """
    found = support()
    _bound(limits)
    try:
        if found.landlock or found.seccomp:
            _require_one_thread()
            landlock.give_up_privileges()
        if found.landlock:
            landlock.restrict(found.landlock, readable=readable, writable=(folder,))
        if found.seccomp:
            seccomp.restrict()
    except OSError as error:
        raise NotConfined(f"the kernel refused to confine the reader: {error}") from error
    return found


def _require_one_thread() -> None:
    tasks, until = Path("/proc/self/task"), time.monotonic() + THREADS_END_WITHIN
    # INVARIANT: rights are taken from the calling thread and from those that it starts later, not from others.
    while tasks.exists() and len(os.listdir(tasks)) != 1:  # noqa: PTH208
        # A thread that has ended is still listed for a moment, on a busy machine for longer.
        if time.monotonic() > until:
            raise NotConfined("the reader has threads that would keep their rights")
        time.sleep(0.01)


def _bound(limits: Limits) -> None:
    # A write beyond the largest file is an error of that write, which says what happened, not the end of the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for kind, most in (
        (resource.RLIMIT_DATA, limits.memory),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
