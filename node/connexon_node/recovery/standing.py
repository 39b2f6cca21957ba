"""Whether the node may answer: its state beside its marker, its journal and what the hub was told."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from sqlalchemy import select

from connexon.clock import now_ms
from connexon.errors import Misconfigured
from connexon.identity import keys as identity_keys
from connexon.service.database import Database
from connexon.v1 import log_pb2
from connexon_node.audit import AuditLog
from connexon_node.consent.tables import ConsentCounters
from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import NodeKeys
from connexon_node.recovery import StateGone, StateOlder, marker
from connexon_node.recovery.journal import Journal
from connexon_node.settings import NodeSettings
from connexon_node.state import MIGRATIONS

FILE = "recovery.json"
"""There from the moment in which the node found itself older, until its steward has recovered it."""
_EPOCH = select(ConsentCounters.metadata.tables["consent_counters"].c.epoch)


@dataclass(frozen=True)
class Trouble:
    """Why the node is silent. `lost` is the head of the longest log that the hub was told, where that was found."""

    code: str
    sentence: str
    found_at_ms: int
    lost: log_pb2.SignedTreeHead | None = None


def assess(folder: NodeFolder, settings: NodeSettings) -> Trouble | None:
    """Why this node must stay silent, from what lies here; None where it may serve. What is found is kept, until then.

    A node that never had a marker gets its first from its database. Raises Misconfigured or Unavailable.
    """
    kept = noted(folder)
    try:
        _require_own_state(folder, settings, None if kept is None else kept.lost)
    except (StateGone, StateOlder) as error:
        return kept or note(folder, error)
    if kept is not None:
        # The right database was put back since: nothing is lost.
        clear(folder)
    return None


def _require_own_state(folder: NodeFolder, settings: NodeSettings, lost: log_pb2.SignedTreeHead | None) -> None:
    mark = marker.read(folder)
    database = Database(settings.state_url)
    try:
        if database.version() is None:
            if mark is not None:
                raise StateGone(
                    f"The node's keys and its marker, which has seen {mark.size} records, are here, and its database "
                    "is not. Put the database back, or begin a new one: connexon-node recover says how."
                )
            return
        database.migrate(MIGRATIONS)
        _require_whole(folder, database, mark)
        _require_told(AuditLog(database), lost)
    finally:
        database.close()


def _require_whole(folder: NodeFolder, database: Database, mark: marker.Mark | None) -> None:
    now = marker.present(database)
    if mark is not None and (mark.is_beyond(now) or AuditLog(database).root_at(mark.size) != mark.root):
        raise StateOlder(
            f"The marker beside the keys has seen {mark.size} records of the audit log, and the database has "
            f"{now.size} or others: it was put back to an earlier state."
        )
    epoch = Journal(folder, NodeKeys.load(folder).answering).epoch()
    with database.reading() as connection:
        present = connection.execute(_EPOCH).scalar_one()
    if epoch > present:
        raise StateOlder(
            "The journal beside the keys has withdrawals or amendments of consents that the database has forgotten: "
            "it was put back to an earlier state."
        )


def _require_told(log: AuditLog, lost: log_pb2.SignedTreeHead | None) -> None:
    """Raise StateOlder where the log does not begin with the head by which the node was found to be older."""
    if lost is None:
        return
    head = log_pb2.TreeHead.FromString(lost.payload)
    if head.size > log.size() or log.root_at(head.size) != head.root_sha256:
        raise StateOlder("The hub has answers of this node that the database does not have.", lost=lost)


def note(folder: NodeFolder, error: Misconfigured, lost: log_pb2.SignedTreeHead | None = None) -> Trouble:
    """Keep that the node must stay silent, over restarts."""
    found = Trouble(error.code, error.public, now_ms(), lost)
    shown = base64.b64encode(b"" if lost is None else lost.SerializeToString()).decode()
    document = {"code": found.code, "sentence": found.sentence, "found_at_ms": found.found_at_ms, "lost": shown}
    identity_keys.replace_file(folder.keys / FILE, json.dumps(document).encode() + b"\n", private=True)
    return found


def noted(folder: NodeFolder) -> Trouble | None:
    """What was kept. A file that cannot be read keeps the node silent, too."""
    path = folder.keys / FILE
    try:
        found = json.loads(path.read_bytes())
        lost = base64.b64decode(found["lost"])
        head = log_pb2.SignedTreeHead.FromString(lost) if lost else None
        return Trouble(str(found["code"]), str(found["sentence"]), int(found["found_at_ms"]), head)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Trouble(StateOlder.code, f"{path} is there and cannot be read.", now_ms())


def clear(folder: NodeFolder) -> None:
    """The steward has recovered the node."""
    (folder.keys / FILE).unlink(missing_ok=True)
