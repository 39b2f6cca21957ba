"""Receipts: the proof in every answer that its center wrote it down, in a log that it cannot rewrite unseen.

A center's audit log is a Merkle tree (connexon.transparency.merkle). A record's leaf binds three digests: of the
question as it was signed, of the answer as it was signed, and of what else the record says. So whoever holds question
and answer checks that these very ones are in the log, without seeing anybody else's record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from connexon import strict
from connexon.errors import InvalidQuery, Refused
from connexon.identity import keys as identity_keys
from connexon.identity.keys import CenterId, PublicKey, SigningKey
from connexon.identity.roster import Roster
from connexon.safe_text import plain
from connexon.transparency import merkle
from connexon.v1 import answer_pb2, log_pb2

HEAD_USE = "tree-head"
LEAF_PREFIX = b"connexon/v1/record\0"


class ReceiptRefused(Refused):
    """A receipt or a tree head that proves nothing."""

    code = "receipt.refused"


@dataclass(frozen=True)
class TreeHead:
    """The state of a center's log: how many records it has, and the root over them. `at_ms` is when it was signed."""

    center: CenterId
    size: int
    root: bytes
    at_ms: int


@dataclass(frozen=True)
class Proved:
    """An answer's record is number `sequence`, from 1, of the log with this head."""

    sequence: int
    head: TreeHead


def details_sha256(values: Iterable[str | int]) -> bytes:
    """Digest of a record's other values, in their order: as text, each closed by a zero byte, which none contains."""
    return hashlib.sha256("".join(f"{value}\0" for value in values).encode()).digest()


def record_leaf(query_sha256: bytes, result_sha256: bytes, details: bytes) -> bytes:
    """The hash of a record's leaf. Raises ValueError where a digest is not 32 bytes long."""
    if not len(query_sha256) == len(result_sha256) == len(details) == merkle.SIZE:
        raise ValueError("a digest has 32 bytes")
    return merkle.leaf_hash(LEAF_PREFIX + query_sha256 + result_sha256 + details)


def sign_head(head: TreeHead, key: SigningKey) -> log_pb2.SignedTreeHead:
    """Sign a tree head with the center's answering key."""
    wire = log_pb2.TreeHead(center_id=head.center, size=head.size, root_sha256=head.root, at_ms=head.at_ms)
    payload = wire.SerializeToString(deterministic=True)
    return log_pb2.SignedTreeHead(payload=payload, signature=key.sign(HEAD_USE, payload))


def read_head(signed: log_pb2.SignedTreeHead, *, center: CenterId, keys: Sequence[PublicKey]) -> TreeHead:
    """A tree head, if one of these keys of that center signed it. Raises ReceiptRefused."""
    if not any(identity_keys.verify(key, HEAD_USE, signed.payload, signed.signature) for key in keys):
        raise ReceiptRefused(f"The log's head is not signed by {center}.", code="receipt.bad_signature")
    try:
        wire = strict.parse(log_pb2.TreeHead, signed.payload, what="receipt")
    except InvalidQuery as error:
        raise ReceiptRefused(error.public, code=error.code) from error
    if wire.center_id != center:
        raise ReceiptRefused(
            f"The log's head is {plain(wire.center_id[:63])}'s, not {center}'s.", code="receipt.other_center"
        )
    if len(wire.root_sha256) != merkle.SIZE or wire.size >= 2**63 or not 0 <= wire.at_ms < 2**53:
        raise ReceiptRefused("The log's head cannot be read.", code="receipt.unreadable")
    return TreeHead(center, wire.size, wire.root_sha256, wire.at_ms)


def verify(answer: answer_pb2.SignedAnswer, roster: Roster, *, center: CenterId, query_sha256: bytes) -> Proved:
    """Prove that `center` wrote this answer to this question down. Raises ReceiptRefused.

    Whether the answer itself is to be believed, and that `query_sha256` in it names the question,
    connexon.query.signed.verify_answer says.
    """
    if not answer.HasField("receipt"):
        raise ReceiptRefused(f"{center}'s answer does not say where the center wrote it down.", code="receipt.absent")
    return verify_record(
        answer.receipt,
        query_sha256=query_sha256,
        result_sha256=hashlib.sha256(answer.payload).digest(),
        center=center,
        keys=keys_of(roster, center),
    )


def verify_record(
    receipt: log_pb2.AuditReceipt,
    *,
    query_sha256: bytes,
    result_sha256: bytes,
    center: CenterId,
    keys: Sequence[PublicKey],
) -> Proved:
    """Prove that a record with these digests is in the center's log. Raises ReceiptRefused."""
    head = read_head(receipt.head, center=center, keys=keys)
    try:
        leaf = record_leaf(query_sha256, result_sha256, receipt.details_sha256)
    except ValueError as error:
        raise ReceiptRefused("The receipt cannot be read.", code="receipt.unreadable") from error
    if not merkle.included(leaf, receipt.sequence - 1, head.size, receipt.path, head.root):
        raise ReceiptRefused(
            f"The receipt does not prove that this answer is in {center}'s audit log.", code="receipt.bad_path"
        )
    return Proved(receipt.sequence, head)


def keys_of(roster: Roster, center: CenterId) -> tuple[PublicKey, ...]:
    """The keys with which a center signs answers and tree heads; none where it is no member."""
    member = roster.member(center)
    return member.answering_keys if member else ()
