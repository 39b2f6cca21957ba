"""A node that finds itself older than what left it, or without its state, stays silent until its steward says how on.

What it is compared with lies outside the database: the marker and the journal beside the keys, and what the hub knows.
"""

from __future__ import annotations

from connexon.errors import Misconfigured
from connexon.v1 import log_pb2


class StateOlder(Misconfigured):
    """The database is an older copy than what this node has told others, or than its own marker."""

    code = "recovery.older"

    def __init__(self, public: str, *, lost: log_pb2.SignedTreeHead | None = None) -> None:
        super().__init__(public)
        self.lost = lost
        """The longest log that the hub was told, where that is how it was found."""


class StateGone(Misconfigured):
    """There are keys and a marker, and no state."""

    code = "recovery.state_gone"
