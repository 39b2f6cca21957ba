"""What one record says, and how it becomes a leaf of the log's tree."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from connexon.transparency import receipt
from connexon.transparency.proof_file import DETAILS, DIGESTS


@dataclass(frozen=True)
class AuditRecord:
    """What is written down of one request: ids, words and durations, never a row or a body.

    `purpose` is in the words of connexon.query.purpose; `result_sha256` is of the signed answer's payload.
    """

    at_ms: int
    query_id: str
    query_sha256: bytes
    researcher: str
    purpose: str
    dataset: str
    analysis: str
    status: str
    code: str
    rule: str
    policy_version: str
    duration_ms: int
    result_sha256: bytes

    @property
    def details_sha256(self) -> bytes:
        """The digest of all that is not a digest itself; what a receipt carries in its place."""
        return receipt.details_sha256(getattr(self, name) for name in DETAILS)

    @property
    def leaf(self) -> bytes:
        """The hash of the record's leaf (connexon.transparency.receipt)."""
        return receipt.record_leaf(self.query_sha256, self.result_sha256, self.details_sha256)

    def document(self) -> dict[str, Any]:
        """The record for JSON: digests in hexadecimal."""
        return {name: value.hex() if isinstance(value, bytes) else value for name, value in vars(self).items()}


FIELDS = tuple(field.name for field in fields(AuditRecord))
assert {*DETAILS, *DIGESTS} == set(FIELDS)


@dataclass(frozen=True)
class AuditEntry:
    """A record and its number, counted from 1."""

    sequence: int
    record: AuditRecord
