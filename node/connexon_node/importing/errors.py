"""The file as a whole is refused."""

from __future__ import annotations

from connexon.errors import Refused


class FileRefused(Refused):
    """The file as a whole cannot be imported."""

    code = "import.unreadable"
