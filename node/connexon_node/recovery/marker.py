"""The marker: how far the node's state had come when something last left, in a small file beside the keys.

It is written, and on disk, before an answer leaves. Two slots are written in turn, so that a power cut
spoils one at most.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, bindparam, select

from connexon.errors import Unavailable
from connexon.service.database import Database
from connexon_node.audit import AuditLog
from connexon_node.folder import NodeFolder
from connexon_node.privacy.tables import PrivacyChargeRow
from connexon_node.recovery import StateOlder

FILE = "marker"
_SLOT = 1024
_CHECK = 16
_SLACK = 1e-9
"""Floating-point sums in another order differ by less."""
_CHARGES = PrivacyChargeRow.metadata.tables[str(PrivacyChargeRow.__tablename__)]
_LATER = (
    select(_CHARGES.c.share, _CHARGES.c.rho, _CHARGES.c.delta, _CHARGES.c.id)
    .where(_CHARGES.c.id > bindparam("last"))
    .order_by(_CHARGES.c.id)
)


@dataclass(frozen=True)
class Mark:
    """Records of the audit log and their root, and what had been charged: rho by share, and delta in all."""

    size: int
    root: bytes
    spent: Mapping[str, float] = field(default_factory=dict)
    delta: float = 0.0
    number: int = 0

    def is_beyond(self, other: Mark) -> bool:
        """Whether this is of a later state than `other`."""
        more = any(rho > other.spent.get(share, 0.0) + _SLACK for share, rho in self.spent.items())
        return self.size > other.size or more or self.delta > other.delta + _SLACK


class Marker:
    """The marker of one node. Thread-safe, also beside other processes; those who wait are served by one write."""

    def __init__(self, folder: NodeFolder, database: Database) -> None:
        self._path = folder.keys / FILE
        self._database = database
        self._log = AuditLog(database)
        self._lock = threading.Lock()
        self._reached = -1
        self._charges = Charges()

    def reach(self, size: int) -> None:
        """Have at least `size` records of the log marked. Raises StateOlder, or Unavailable where it cannot be."""
        with self._lock:
            if size > self._reached:
                self._write()

    def touch(self) -> None:
        """Mark the state as it is. Raises as `reach`."""
        with self._lock:
            self._write()

    def reset(self) -> None:
        """Mark the state as it is, also where it is an older one: for the steward's recovery alone."""
        with self._lock:
            self._write(older=True)

    def _write(self, *, older: bool = False) -> None:
        with _opened(self._path) as file:
            kept = _newest(os.pread(file, 2 * _SLOT, 0))
            # Read with the file's lock held: whoever writes the marker writes the newest.
            now = self._present()
            if kept is not None and kept.is_beyond(now) and not older:
                raise StateOlder(
                    f"The node's marker has seen {kept.size} records of the audit log, and the database has {now.size} "
                    "or others: it was put back to an earlier state. Nothing is answered; run connexon-node recover."
                )
            number = (kept.number if kept else 0) + 1
            mark = {"size": now.size, "root": now.root.hex(), "spent": dict(now.spent), "delta": now.delta}
            _put(file, number, mark)
        self._reached = now.size

    def _present(self) -> Mark:
        with self._database.reading() as connection:
            size, root = self._log.head(connection)
            self._charges.catch_up(connection)
        return Mark(size, root, dict(self._charges.spent), self._charges.delta)


@dataclass
class Charges:
    """Sums over the account, of which only what is new is read. `spent` is rho by share."""

    spent: dict[str, float] = field(default_factory=dict)
    delta: float = 0.0
    last: int = 0

    def catch_up(self, connection: Connection) -> None:
        """Add what was charged since."""
        rows = connection.execute(_LATER, {"last": self.last}).all()
        for share, rho, delta, number in rows:
            self.spent[share] = self.spent.get(share, 0.0) + rho
            self.delta += delta
            self.last = number


def read(folder: NodeFolder) -> Mark | None:
    """The marker as it lies beside the keys; None where there is none that can be read."""
    try:
        return _newest((folder.keys / FILE).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot(error) from error


def present(database: Database) -> Mark:
    """The state as the database has it."""
    with database.reading() as connection:
        size, root = AuditLog(database).head(connection)
        charges = Charges()
        charges.catch_up(connection)
        return Mark(size, root, charges.spent, charges.delta)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _cannot(error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _put(file: int, number: int, mark: Mapping[str, object]) -> None:
    content = json.dumps({"number": number, **mark}).encode()
    slot = hashlib.sha256(content).digest()[:_CHECK] + content
    try:
        os.pwrite(file, slot.ljust(_SLOT, b"\0"), number % 2 * _SLOT)
        os.fdatasync(file)
    except OSError as error:
        raise _cannot(error) from error


def _newest(content: bytes) -> Mark | None:
    marks = [mark for mark in (_mark(content[start : start + _SLOT]) for start in (0, _SLOT)) if mark is not None]
    return max(marks, key=lambda mark: mark.number, default=None)


def _mark(slot: bytes) -> Mark | None:
    check, content = slot[:_CHECK], slot[_CHECK:].rstrip(b"\0")
    if not content or hashlib.sha256(content).digest()[:_CHECK] != check:
        return None
    kept = json.loads(content)
    return Mark(kept["size"], bytes.fromhex(kept["root"]), kept["spent"], kept["delta"], kept["number"])


def _cannot(error: OSError) -> Unavailable:
    # Not database.unavailable, but it passes like that: the question is tried again.
    return Unavailable(
        f"The marker beside the keys cannot be used ({error.strerror}), so nothing leaves.", code="recovery.no_marker"
    )
