"""Receipts for answers that tests make by themselves: a log of one center, kept in memory."""

from __future__ import annotations

import hashlib

from connexon.clock import now_ms
from connexon.identity.keys import CenterId, SigningKey
from connexon.transparency import merkle, receipt
from connexon.v1 import answer_pb2, log_pb2


class SmallLog:
    """A center's audit log: real leaves, tree and signatures; the records' details are only a number."""

    def __init__(self, center: CenterId, key: SigningKey) -> None:
        self.center = center
        self.key = key
        self.leaves: list[bytes] = []

    def add(self, query_sha256: bytes, payload: bytes) -> log_pb2.AuditReceipt:
        """Write an answer's payload down; its receipt."""
        details = receipt.details_sha256([len(self.leaves)])
        self.leaves.append(receipt.record_leaf(query_sha256, hashlib.sha256(payload).digest(), details))
        size = len(self.leaves)
        return log_pb2.AuditReceipt(
            sequence=size,
            details_sha256=details,
            path=self._proof(merkle.inclusion_ranges(size - 1, size)),
            head=self.head(),
        )

    def grow(self, records: int) -> None:
        """Add records of nobody's."""
        for _ in range(records):
            self.add(bytes(32), b"%d" % len(self.leaves))

    def head(self, size: int | None = None) -> log_pb2.SignedTreeHead:
        """The signed head, now or when the log had `size` records."""
        size = len(self.leaves) if size is None else size
        root = self._proof([(0, size)])[0]
        return receipt.sign_head(receipt.TreeHead(self.center, size, root, now_ms()), self.key)

    def growth(self, since: int, size: int | None = None) -> log_pb2.LogGrowth:
        """What a node tells the hub of its log."""
        size = len(self.leaves) if size is None else size
        proof = self._proof(merkle.consistency_ranges(since, size))
        return log_pb2.LogGrowth(head=self.head(size), since=since, proof=proof)

    def _proof(self, ranges: list[merkle.Range]) -> list[bytes]:
        parts: dict[merkle.Complete, bytes] = {}
        frontier = merkle.Frontier()
        for end, leaf in enumerate(self.leaves, 1):
            parts |= {(level, end): part for level, part in enumerate(frontier.add(leaf))}
        return merkle.proof(ranges, parts.__getitem__)


def with_receipt(answer: answer_pb2.SignedAnswer, key: SigningKey, *, before: int = 0) -> answer_pb2.SignedAnswer:
    """The answer with its receipt from a log that had `before` records."""
    content = answer_pb2.Answer.FromString(answer.payload)
    log = SmallLog(CenterId(content.center_id), key)
    log.grow(before)
    answer.receipt.CopyFrom(log.add(content.query_sha256, answer.payload))
    return answer
