"""One serving process per folder."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from typing import IO

from connexon.errors import Conflict
from connexon_node.folder import NodeFolder

PATIENCE_SECONDS = 0.5
"""Longer than `is_served` takes to look."""


@contextlib.contextmanager
def only_one(folder: NodeFolder) -> Iterator[None]:
    """Hold the folder's lock. Raises Conflict where another process has it; a crash lets go of it."""
    with (folder.root / "serve.lock").open("a") as file:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _locked(file):
            if time.monotonic() > deadline:
                raise Conflict(
                    f"A node already serves {folder.root}; stop that one first.", code="node.already_serving"
                )
            time.sleep(0.02)
        yield


def is_served(folder: NodeFolder) -> bool:
    """Whether a process serves this folder now."""
    # A shared lock, so that looking never gets in the way of another that looks.
    with (folder.root / "serve.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
