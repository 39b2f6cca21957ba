"""Folders of policies: where the federation's baseline lies, installed or in a checkout, and what is in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def shipped() -> Path:
    """The policies folder that came with this software."""
    installed = Path(__file__).parents[1] / "policies"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "policies"


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, which may be missing. Raises OSError."""
    try:
        folder.lstat()
    except FileNotFoundError:
        return
    waiting = [folder]
    while waiting:
        # INVARIANT: what cannot be listed raises. Path.rglob and os.walk pass it over, and with it what it forbids.
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path)
