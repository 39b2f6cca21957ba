"""Verifying the whole log: every leaf, every inner hash, the head, and what a witness saw of it.

Whoever can rewrite the database can also compute all hashes anew. What they cannot change is what left: heads that the
hub witnessed, and receipts. So a log is compared with witnessed heads, each of which fixes all records up to its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, select

from connexon.service.database import Database
from connexon.transparency import merkle
from connexon.transparency.merkle import SIZE
from connexon.transparency.proof_file import DETAILS, DIGESTS
from connexon.transparency.receipt import LEAF_PREFIX
from connexon_node.state.requests import AuditHeadRow, AuditRow

_AUDIT = AuditRow.__table__  # type: ignore[attr-defined]  # SQLModel gives a table class its __table__ at run time
_HEAD = AuditHeadRow.__table__  # type: ignore[attr-defined]  # as above
_COLUMNS = ("sequence", "hashes", *DIGESTS, *DETAILS)
_BATCH = 5_000
_BEFORE_DIGESTS = b"\0" + LEAF_PREFIX
SHOWN_FAULTS = 100
"""No more are listed; the rest are counted."""


@dataclass(frozen=True)
class AuditFault:
    """One place where the log does not hold.

    `code` is altered (a record), rehashed (an inner hash), missing, cut_off, bad_head, rolled_back (the witness saw
    more records) or rewritten (the witness saw others).
    """

    sequence: int
    code: str
    message: str


@dataclass(frozen=True)
class AuditReport:
    """What verifying found. The log is whole, and the one that was witnessed, where there are no faults.

    `root` is computed from the records; `witnessed` is the number of heads compared with.
    """

    records: int
    root: bytes
    witnessed: int
    fault_count: int
    faults: tuple[AuditFault, ...]


def verify(
    database: Database,
    *,
    witnessed: Mapping[int, bytes] | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> AuditReport:
    """Compute the whole tree again from the records and compare. `witnessed` maps sizes to roots that a witness saw.

    `on_progress` hears now and then how many records of how many are done.
    """
    check = _Check(dict(witnessed or {}))
    with database.reading() as connection:
        head = connection.execute(select(_HEAD.c.size, _HEAD.c.root_sha256, _HEAD.c.frontier)).one_or_none()
        for rows in _batches(connection):
            check.take(rows)
            on_progress(check.records, head.size if head else check.records)
    if head is None:
        check.note(0, "bad_head", "The log has lost its head.")
    else:
        check.end(head.size, bytes(head.root_sha256), bytes(head.frontier))
    root = merkle.folded([peak for peak in check.peaks if peak is not None])
    return AuditReport(check.records, root, len(witnessed or {}), check.fault_count, tuple(check.faults))


def _batches(connection: Connection) -> Iterator[list[Any]]:
    """The rows as plain tuples of _COLUMNS, in order, a batch at a time."""
    columns = ", ".join(_COLUMNS)
    last = -(2**62)
    while True:
        # Of our own names only. Rows of SQLAlchemy would cost as much again as all the hashing.
        text = f"select {columns} from audit where sequence > {last} order by sequence limit {_BATCH}"  # noqa: S608
        result = connection.exec_driver_sql(text)
        assert result.cursor is not None
        rows = list(result.cursor.fetchall())
        result.close()
        if not rows:
            return
        yield rows
        last = rows[-1][0]


@dataclass
class _Check:
    """The tree as it grows while the records pass. `peaks` holds None where a missing record left it unknown."""

    witnessed: dict[int, bytes]
    records: int = 0
    expected: int = 1
    peaks: list[bytes | None] = field(default_factory=list)
    faults: list[AuditFault] = field(default_factory=list)
    fault_count: int = 0

    def note(self, sequence: int, code: str, message: str) -> None:
        """Keep a fault, or only its number where there are many."""
        self.fault_count += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(AuditFault(sequence, code, message))

    def take(self, rows: list[Any]) -> None:
        """Check the next records. The stored hashes are built on, so that one fault is not reported as many."""
        for sequence, hashes, query, result, *values in rows:
            self.records += 1
            if sequence != self.expected and not self._skip_to(sequence):
                continue
            details = "".join([f"{value}\0" for value in values])
            digests = query + result + sha256(details.encode()).digest()
            leaf = sha256(_BEFORE_DIGESTS + digests).digest()
            # INVARIANT: each digest has its length, or bytes could move between the two with the same leaf.
            digested = len(query) == len(result) == SIZE
            if leaf != hashes[:SIZE] or not digested or details.count("\0") != len(DETAILS):
                self.note(sequence, "altered", f"Record {sequence} is not as it was written.")
            self._grow(sequence, hashes)
            self.expected = sequence + 1
            if sequence in self.witnessed:
                self._compare(sequence)

    def _skip_to(self, sequence: int) -> bool:
        """A record is not the one expected: note what is missing. False for a number that no record can have."""
        if sequence < self.expected:
            self.note(sequence, "altered", f"A record has the impossible number {sequence}.")
            return False
        first, last = self.expected, sequence - 1
        gone = f"Record {first} is" if first == last else f"Records {first} to {last} are"
        self.note(first, "missing", f"{gone} missing.")
        self.peaks = [None] * last.bit_count()
        return True

    def _grow(self, sequence: int, hashes: bytes) -> None:
        before, level, node = sequence - 1, 0, hashes[:SIZE]
        while before >> level & 1:
            left, right = self.peaks.pop(), node
            level += 1
            node = hashes[level * SIZE : (level + 1) * SIZE]
            if left is not None and merkle.node_hash(left, right) != node:
                self.note(sequence, "rehashed", f"The log's tree does not fit together at record {sequence}.")
        if len(hashes) != (level + 1) * SIZE:
            self.note(sequence, "rehashed", f"Record {sequence} does not have its hashes.")
        self.peaks.append(node)

    def _compare(self, size: int) -> None:
        root = self._root()
        if root is not None and root != self.witnessed[size]:
            self.note(size, "rewritten", f"The first {size} records are not those that the hub witnessed.")

    def _root(self) -> bytes | None:
        known = [peak for peak in self.peaks if peak is not None]
        return merkle.folded(known) if len(known) == len(self.peaks) else None

    def end(self, size: int, root: bytes, frontier: bytes) -> None:
        """Compare with the log's own head, and with heads of more records than there are."""
        last = self.expected - 1
        if size > last:
            self.note(last + 1, "cut_off", f"The log ends at record {last}, but {size} were written.")
        elif size < last or frontier != b"".join(peak or b"" for peak in self.peaks) or root != self._root():
            self.note(last, "bad_head", "The log's end is not the one that was written down apart from it.")
        beyond = max(self.witnessed, default=0)
        if beyond > last:
            self.note(last + 1, "rolled_back", f"The hub witnessed {beyond} records; this log has only {last}.")
