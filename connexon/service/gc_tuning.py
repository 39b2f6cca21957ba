"""How often Python looks for garbage: loading makes hundreds of thousands of objects that all stay."""

from __future__ import annotations

import gc

_AFTER = 50_000
"""New objects, less those that went by themselves, until the youngest are looked through."""


def look_less_often() -> None:
    """Make loading quicker: a fifth of it went into looking for garbage among what is loaded."""
    gc.set_threshold(_AFTER, *gc.get_threshold()[1:])


def keep_loaded() -> None:
    """Look no more through what a process that serves has loaded."""
    gc.collect()
    gc.freeze()
