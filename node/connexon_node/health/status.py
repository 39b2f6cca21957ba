"""How the node is doing, seen from its own folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from connexon.clock import now_ms
from connexon.clock_check import TOLERANCE_MS, ClockCheck, TrustedClock
from connexon_node import sandbox, settings
from connexon_node.approvals import ApprovalStore
from connexon_node.audit import AuditEntry, AuditLog, AuditRecord
from connexon_node.data.generations import Generations
from connexon_node.delivery.inbox import Inbox
from connexon_node.editions import Edition, Editions
from connexon_node.folder import NodeFolder
from connexon_node.lock import is_served
from connexon_node.recovery import standing
from connexon_node.state import open_present
from connexon_node.training.ledger import TrainingLedger
from connexon_node.training.task_verification import ACTIONS

LATEST = 10
"""Lines of answers; a training run, which has many replies, is one."""
_LOOKED_AT = 1_000
"""Records looked at for them."""
_TASKS = frozenset({*ACTIONS.values(), "task"})


@dataclass(frozen=True)
class Latest:
    """An answer, or the newest of the replies to one training run and how many there are of late."""

    record: AuditRecord
    replies: int = 1

    @property
    def trains(self) -> bool:
        """Whether it is of a training run."""
        return self.record.analysis in _TASKS

    def document(self) -> dict[str, Any]:
        """For --json."""
        names = ("at_ms", "query_id", "dataset", "analysis", "status", "code")
        return {**{name: getattr(self.record, name) for name in names}, "replies": self.replies}


@dataclass(frozen=True)
class NodeStatus:
    """Whether the node serves and is attached, what waits, and the latest answers, newest first.

    `restoring` is why the node is silent until it is recovered, `imports_reach` what the kernel lacks to keep a foreign
    file from reaching others; both are empty where all is well.
    """

    serving: bool
    attached_since_ms: int | None
    problem: str
    log_problem: str
    restoring: str
    clock_offset_ms: int | None
    clock_problem: str
    waiting: int
    unsent: int
    for_steward: int
    training: int
    imports_reach: str
    has_data: bool
    edition: Edition | None
    latest: tuple[Latest, ...]

    def document(self) -> dict[str, Any]:
        """For --json."""
        latest = [one.document() for one in self.latest]
        return {**asdict(self), "attached": self.attached_since_ms is not None, "latest": latest}


def look(folder: NodeFolder) -> NodeStatus:
    """Look. Raises Misconfigured or Unavailable where the folder or its database cannot be used."""
    state = served_state(folder)
    database = open_present(settings.load(folder).state_url)
    waiting, unsent = Inbox(database).counts()
    return NodeStatus(
        serving=state is not None,
        attached_since_ms=(state or {}).get("attached_since_ms"),
        problem=(state or {}).get("problem", ""),
        log_problem=(state or {}).get("log_problem", ""),
        restoring=trouble.sentence if (trouble := standing.noted(folder)) is not None else "",
        clock_offset_ms=(state or {}).get("clock_offset_ms"),
        clock_problem=(state or {}).get("clock_problem", ""),
        waiting=waiting,
        unsent=unsent,
        for_steward=len(ApprovalStore(database).requests()),
        training=len(TrainingLedger(database).running()),
        imports_reach=sandbox.support().lacking,
        has_data=bool(Generations(database, folder.data).all_current()),
        edition=Editions(database).latest(),
        latest=latest(reversed(AuditLog(database).entries(limit=_LOOKED_AT))),
    )


def latest(entries: Iterable[AuditEntry]) -> tuple[Latest, ...]:
    """The newest answers of a log that is given newest first, the replies to a training run taken together."""
    found: dict[int | str, Latest] = {}
    for entry in entries:
        one = Latest(entry.record)
        name = entry.record.query_id if one.trains else entry.sequence
        found[name] = replace(found[name], replies=found[name].replies + 1) if name in found else one
    return tuple(found.values())[:LATEST]


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


def served_clock(folder: NodeFolder) -> ClockCheck:
    """This machine's clock, in doubt where the serving process has seen that the hub's shows another time."""
    offset = (served_state(folder) or {}).get("clock_offset_ms")
    if not isinstance(offset, int) or abs(offset) <= TOLERANCE_MS:
        return TrustedClock()
    clock = ClockCheck()
    clock.compare("hub", now_ms() - offset)
    return clock
