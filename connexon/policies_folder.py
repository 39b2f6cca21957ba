"""Where the federation's policy baseline lies, installed or in a checkout."""

from __future__ import annotations

from pathlib import Path


def shipped() -> Path:
    """The policies folder that came with this software."""
    installed = Path(__file__).parent / "policies"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "policies"
