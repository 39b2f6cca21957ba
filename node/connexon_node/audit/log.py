"""The log in the node's database: one row a record, and the hashes of the tree beside the records that complete them.

Row n holds the record's leaf hash and the roots of all complete parts of the tree that end with record n. So a record
is one row for ever, nothing is rewritten but the head, and any root or proof takes a few rows found by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, Select, bindparam, insert, select, update

from connexon.errors import Misconfigured, NotFound
from connexon.identity.keys import CenterId, SigningKey
from connexon.service.database import Database
from connexon.transparency import merkle
from connexon.transparency.merkle import SIZE, Complete, Frontier, Range
from connexon.transparency.receipt import TreeHead, sign_head
from connexon.v1 import log_pb2
from connexon_node.audit.record import FIELDS, AuditEntry, AuditRecord
from connexon_node.state.requests import AuditHeadRow, AuditRow

_AUDIT = AuditRow.__table__  # type: ignore[attr-defined]  # SQLModel gives a table class its __table__ at run time
_HEAD = AuditHeadRow.__table__  # type: ignore[attr-defined]  # as above
# Built once: building a statement costs about as much as running it.
_READ_HEAD = select(_HEAD.c.size, _HEAD.c.root_sha256, _HEAD.c.frontier)
_LOCK_HEAD = _READ_HEAD.with_for_update()
_MOVE_HEAD = update(_HEAD).values(
    size=bindparam("new_size"), root_sha256=bindparam("new_root"), frontier=bindparam("new_frontier")
)
_APPEND = insert(_AUDIT)
_HASHES = select(_AUDIT.c.sequence, _AUDIT.c.hashes).where(_AUDIT.c.sequence.in_(bindparam("ends", expanding=True)))
_BATCH = 1_000


@dataclass(frozen=True)
class RecordProof:
    """A record's place: number `sequence`, from 1, in the log of `size` records with this root, by this audit path."""

    sequence: int
    details_sha256: bytes
    path: tuple[bytes, ...]
    size: int
    root: bytes

    def receipt(self, center: CenterId, key: SigningKey, at_ms: int) -> log_pb2.AuditReceipt:
        """The proof as it travels, with the log's head signed by the center."""
        return log_pb2.AuditReceipt(
            sequence=self.sequence,
            details_sha256=self.details_sha256,
            path=self.path,
            head=sign_head(TreeHead(center, self.size, self.root, at_ms), key),
        )


class AuditLog:
    """The records and their tree."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, connection: Connection, record: AuditRecord) -> RecordProof:
        """Write a record within the caller's transaction: two statements beside reading the head, whatever the size.

        Raises Misconfigured where the log has lost its head.
        """
        # INVARIANT: the row lock orders writers; SQLite's writing transaction holds the whole file already.
        frontier = _frontier(connection.execute(_LOCK_HEAD).one_or_none())
        # The audit path of the newest leaf is what the tree was made of before it.
        path = tuple(reversed(frontier.peaks))
        details = record.details_sha256
        hashes = b"".join(frontier.add(record.leaf))
        proof = RecordProof(frontier.size, details, path, frontier.size, frontier.root())
        connection.execute(_APPEND, {"sequence": proof.sequence, "hashes": hashes, **vars(record)})
        head = {"new_size": frontier.size, "new_root": proof.root, "new_frontier": frontier.to_bytes()}
        connection.execute(_MOVE_HEAD, head)
        return proof

    def head(self, connection: Connection) -> tuple[int, bytes]:
        """How many records there are and the root over them, in the caller's transaction. Raises Misconfigured."""
        frontier = _frontier(connection.execute(_READ_HEAD).one_or_none())
        return frontier.size, frontier.root()

    def size(self) -> int:
        """How many records there are, by the log's own head."""
        with self._database.reading() as connection:
            return _frontier(connection.execute(_READ_HEAD).one_or_none()).size

    def growth(self, since: int) -> tuple[int, bytes, list[bytes]]:
        """Size and root now, and the consistency proof from the log's first `since` records.

        Raises ValueError where it never had so many, Misconfigured where hashes are missing.
        """
        with self._database.reading() as connection:
            frontier = _frontier(connection.execute(_READ_HEAD).one_or_none())
            proof = _proof(connection, merkle.consistency_ranges(since, frontier.size))
            return frontier.size, frontier.root(), proof

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` records, from the hashes as they are stored. Raises as `growth` does."""
        with self._database.reading() as connection:
            present = _frontier(connection.execute(_READ_HEAD).one_or_none()).size
            if not 0 <= size <= present:
                raise ValueError(f"the log has {present} records, not {size}")
            return _proof(connection, [(0, size)])[0]

    def prove(self, sequence: int) -> tuple[AuditEntry, RecordProof]:
        """A record and the proof that it is in the log as it is now.

        Raises NotFound, or Misconfigured where the record or the hashes of its proof are not as they were written.
        """
        with self._database.reading() as connection:
            frontier = _frontier(connection.execute(_READ_HEAD).one_or_none())
            row = connection.execute(select(_AUDIT).where(_AUDIT.c.sequence == sequence)).one_or_none()
            if row is None or not 1 <= sequence <= frontier.size:
                raise NotFound(f"The log has no record {sequence}.", code="audit.no_record")
            path = _proof(connection, merkle.inclusion_ranges(sequence - 1, frontier.size))
        found = entry(row._mapping)
        proof = RecordProof(sequence, found.record.details_sha256, tuple(path), frontier.size, frontier.root())
        if not _holds(found.record, proof):
            raise Misconfigured(
                f"Record {sequence} cannot be proved, since it or the log's tree is not as it was written; "
                "connexon-node audit verify says more.",
                code="audit.damaged",
            )
        return found, proof

    def entries(self, *, since_ms: int = 0, limit: int | None = None) -> list[AuditEntry]:
        """The latest records, oldest first: at most `limit` of those written at `since_ms` or later."""
        statement = select(_AUDIT).where(_AUDIT.c.at_ms >= since_ms).order_by(_AUDIT.c.sequence.desc()).limit(limit)
        return self._entries(statement)[::-1]

    def of_query(self, query_id: str) -> list[AuditEntry]:
        """The records of one query id, oldest first: more than one where the id was used again."""
        return self._entries(select(_AUDIT).where(_AUDIT.c.query_id == query_id).order_by(_AUDIT.c.sequence))

    def beginning(self, start: str) -> list[str]:
        """Two at most of the query ids that begin so."""
        ids = select(_AUDIT.c.query_id).where(_AUDIT.c.query_id.startswith(start, autoescape=True)).distinct()
        with self._database.reading() as connection:
            return list(connection.execute(ids.limit(2)).scalars())

    def has_asked(self, researcher: str) -> bool:
        """Whether there is a record of this researcher."""
        theirs = select(_AUDIT.c.sequence).where(_AUDIT.c.researcher == researcher).limit(1)
        with self._database.reading() as connection:
            return connection.execute(theirs).first() is not None

    def at(self, sequence: int) -> list[AuditEntry]:
        """The record of that number, or none."""
        return self._entries(select(_AUDIT).where(_AUDIT.c.sequence == sequence))

    def all(self, *, since_ms: int = 0) -> Iterator[AuditEntry]:
        """Every record written at `since_ms` or later, oldest first, a batch at a time; new ones may come meanwhile."""
        last = -(2**62)
        while True:
            later = (_AUDIT.c.sequence > last) & (_AUDIT.c.at_ms >= since_ms)
            found = self._entries(select(_AUDIT).where(later).order_by(_AUDIT.c.sequence).limit(_BATCH))
            if not found:
                return
            yield from found
            last = found[-1].sequence

    def _entries(self, statement: Select[tuple[object, ...]]) -> list[AuditEntry]:
        with self._database.reading() as connection:
            return [entry(row._mapping) for row in connection.execute(statement)]


def entry(row: RowMapping) -> AuditEntry:
    """A record as its row has it."""
    return AuditEntry(row["sequence"], AuditRecord(**{name: row[name] for name in FIELDS}))


def _holds(record: AuditRecord, proof: RecordProof) -> bool:
    try:
        return merkle.included(record.leaf, proof.sequence - 1, proof.size, proof.path, proof.root)
    except ValueError:  # a digest that is none
        return False


def _frontier(row: object) -> Frontier:
    if row is None:
        raise Misconfigured("The audit log has lost its head; restore the database.", code="audit.no_head")
    try:
        return Frontier.from_bytes(row.size, bytes(row.frontier))  # type: ignore[attr-defined]  # a row's columns
    except ValueError as error:
        raise Misconfigured("The audit log's head is damaged; restore the database.", code="audit.no_head") from error


def _proof(connection: Connection, ranges: Sequence[Range]) -> list[bytes]:
    ends = {end for one in ranges for _, end in merkle.complete_parts(one)}
    hashes = {row.sequence: bytes(row.hashes) for row in connection.execute(_HASHES, {"ends": sorted(ends)})}

    def read(part: Complete) -> bytes:
        level, end = part
        found = hashes.get(end, b"")[level * SIZE : (level + 1) * SIZE]
        if len(found) != SIZE:
            raise Misconfigured(
                f"The audit log has lost hashes at record {end}; connexon-node audit verify says more.",
                code="audit.damaged",
            )
        return found

    return merkle.proof(ranges, read)
