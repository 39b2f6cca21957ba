"""The witness: the hub keeps the heads of this center's log as they were signed, so that the log cannot be put back.

INVARIANT: only heads that this node itself signed count. A hub that invents heads proves nothing, and is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from sqlalchemy import delete, insert, select

from connexon import errors
from connexon.clock import now_ms
from connexon.errors import ConnexonError, Misconfigured
from connexon.identity import keys as identity_keys
from connexon.identity.keys import CenterId, SigningKey
from connexon.link import frames
from connexon.service.database import Database
from connexon.transparency import receipt
from connexon.transparency.receipt import TreeHead
from connexon.v1 import link_pb2, link_pb2_grpc, log_pb2
from connexon_node.audit.log import AuditLog
from connexon_node.folder import NodeFolder
from connexon_node.membership import keys
from connexon_node.membership.keys import NodeKeys
from connexon_node.recovery import StateOlder
from connexon_node.settings import NodeSettings
from connexon_node.state.requests import AuditWitnessRow

_WITNESS = AuditWitnessRow.__table__  # type: ignore[attr-defined]  # SQLModel gives a table class its __table__
SECONDS = 20.0


class LogContradicted(ConnexonError):
    """The hub witnessed another log, of `size` records, than the one in the database."""

    code = "audit.inconsistent"

    def __init__(self, public: str, *, size: int) -> None:
        super().__init__(public)
        self.size = size


@dataclass(frozen=True)
class Testimony:
    """What a witness says: sizes of the log and the roots it had then. `problem` says why the hub was not `asked`."""

    heads: Mapping[int, bytes] = field(default_factory=dict)
    asked: bool = False
    problem: str = ""


class Witness:
    """The serving node's part: tell how the log grew, and see at once when the hub knows another one."""

    def __init__(self, database: Database, log: AuditLog, *, center: CenterId, key: SigningKey) -> None:
        self._database = database
        self._log = log
        self._center = center
        self._key = key
        self._same = True

    def growth(self, since: int) -> log_pb2.LogGrowth | None:
        """What to tell the hub that witnessed the first `since` records. None where nothing was added, but for a log
        that is not the one witnessed: of that the hub learns at once.
        """
        present = self._log.size()
        if since == present and self._same:
            return None
        # A log that was put back continues nothing: the hub sees that it shrank.
        size, root, proof = self._log.growth(min(since, present))
        head = receipt.sign_head(TreeHead(self._center, size, root, now_ms()), self._key)
        return log_pb2.LogGrowth(head=head, since=min(since, present), proof=proof)

    def require_told(self, told: log_pb2.SignedTreeHead) -> None:
        """Raise recovery.StateOlder where the log does not begin with the longest that the hub was told.

        Raises ReceiptRefused for a head that this node did not sign.
        """
        head = receipt.read_head(told, center=self._center, keys=[self._key.public])
        size = self._log.size()
        if head.size > size or self._log.root_at(head.size) != head.root:
            raise StateOlder(
                f"The hub has answers of this node from a log of {head.size} records, and the database has {size} or "
                "others: it was put back to an earlier state.",
                lost=told,
            )

    def heard(self, witnessed: log_pb2.WitnessedHead) -> int:
        """Take the head that the hub witnessed last; returns its size. Raises LogContradicted, ReceiptRefused."""
        if not witnessed.HasField("head"):
            return 0
        head = receipt.read_head(witnessed.head, center=self._center, keys=[self._key.public])
        self._same = False
        require_same(self._log, head.size, head.root)
        self._same = True
        with self._database.writing() as connection:
            connection.execute(delete(_WITNESS))
            row = {"id": 1, "size": head.size, "root_sha256": head.root, "witnessed_at_ms": witnessed.received_at_ms}
            connection.execute(insert(_WITNESS), row)
        return head.size


def require_same(log: AuditLog, witnessed: int, root: bytes) -> None:
    """Raise LogContradicted where the log is not one that had this root over its first `witnessed` records."""
    size = log.size()
    if witnessed > size:
        raise LogContradicted(
            f"The hub witnessed {witnessed} records of this audit log, which has only {size} now: the database was put "
            "back to an earlier state, or records were removed. Find out what happened.",
            size=witnessed,
        )
    if log.root_at(witnessed) != root:
        raise LogContradicted(
            f"The first {witnessed} records of this audit log are not those that the hub witnessed: somebody has "
            "rewritten them. connexon-node audit verify says more.",
            size=witnessed,
        )


def kept(database: Database) -> dict[int, bytes]:
    """The head that the hub witnessed last, as this node keeps it; empty where there is none."""
    with database.reading() as connection:
        row = connection.execute(select(_WITNESS.c.size, _WITNESS.c.root_sha256)).one_or_none()
    return {row.size: bytes(row.root_sha256)} if row else {}


def ask(folder: NodeFolder, settings: NodeSettings, database: Database, *, offline: bool = False) -> Testimony:
    """All heads the hub has of this center's log, and the one that this node keeps. An unreachable hub is no error."""
    known = kept(database)
    if offline:
        return Testimony(known, problem="--offline was given.")
    try:
        heads = fetch(folder, settings.hub.link_address)
    except ConnexonError as error:
        return Testimony(known, problem=error.public)
    center, key = identity_keys.center_id(settings.hub.center), NodeKeys.load(folder).answering
    return Testimony({**known, **own(heads, center, key)}, asked=True)


def fetch(folder: NodeFolder, address: str, *, newest: int | None = None) -> list[log_pb2.WitnessedHead]:
    """The heads that the hub keeps of this center's log, newest first; all, or at most `newest`. Raises as the link."""
    found: list[log_pb2.WitnessedHead] = []
    with grpc.secure_channel(address, keys.channel_credentials(folder), options=frames.CHANNEL_OPTIONS) as channel:
        stub = link_pb2_grpc.LinkStub(channel)
        below = 0
        try:
            while True:
                page = stub.GetWitness(link_pb2.GetWitnessRequest(below=below), timeout=SECONDS).heads
                found += page
                if not page or (newest is not None and len(found) >= newest):
                    return found[:newest]
                below = log_pb2.TreeHead.FromString(page[-1].head.payload).size
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from error


def own(heads: Iterable[log_pb2.WitnessedHead], center: CenterId, key: SigningKey) -> dict[int, bytes]:
    """The heads' sizes and roots. Raises Misconfigured where this node did not sign one of them."""
    signed: dict[int, bytes] = {}
    for witnessed in heads:
        try:
            head = receipt.read_head(witnessed.head, center=center, keys=[key.public])
        except receipt.ReceiptRefused as error:
            raise Misconfigured(
                "The hub shows a head of this audit log that this node's key never signed; ask its operator.",
                code="audit.forged_witness",
            ) from error
        signed[head.size] = head.root
    return signed
