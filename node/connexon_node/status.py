"""How the node is doing, seen from its own folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from connexon_node import settings
from connexon_node.approvals import ApprovalStore
from connexon_node.audit import AuditLog, AuditRecord
from connexon_node.folder import NodeFolder
from connexon_node.inbox import Inbox
from connexon_node.lock import is_served
from connexon_node.state import open_state
from connexon_node.training.ledger import TrainingLedger

LATEST = 10


@dataclass(frozen=True)
class NodeStatus:
    """Whether the node serves and is attached, what waits, and the latest answers, newest first."""

    serving: bool
    attached_since_ms: int | None
    problem: str
    log_problem: str
    clock_offset_ms: int | None
    waiting: int
    unsent: int
    for_steward: int
    training: int
    latest: tuple[AuditRecord, ...]

    def document(self) -> dict[str, Any]:
        """For --json."""
        latest = [
            {name: getattr(record, name) for name in ("at_ms", "query_id", "dataset", "analysis", "status", "code")}
            for record in self.latest
        ]
        return {**asdict(self), "attached": self.attached_since_ms is not None, "latest": latest}


def look(folder: NodeFolder) -> NodeStatus:
    """Look. Raises Misconfigured or Unavailable where the folder or its database cannot be used."""
    state = served_state(folder)
    database = open_state(settings.load(folder).state_url)
    waiting, unsent = Inbox(database).counts()
    return NodeStatus(
        serving=state is not None,
        attached_since_ms=(state or {}).get("attached_since_ms"),
        problem=(state or {}).get("problem", ""),
        log_problem=(state or {}).get("log_problem", ""),
        clock_offset_ms=(state or {}).get("clock_offset_ms"),
        waiting=waiting,
        unsent=unsent,
        for_steward=len(ApprovalStore(database).requests()),
        training=len(TrainingLedger(database).running()),
        latest=tuple(entry.record for entry in reversed(AuditLog(database).entries(limit=LATEST))),
    )


def served_state(folder: NodeFolder) -> dict[str, Any] | None:
    """What the serving process last wrote about itself; None where none serves this folder."""
    if not is_served(folder):
        return None
    try:
        found = json.loads(folder.serve_file.read_text())
    except (OSError, ValueError):
        # It is only just starting.
        return {}
    return found if isinstance(found, dict) else {}
