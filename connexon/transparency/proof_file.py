"""Proof files: one record of a center's audit log, whole and in clear, that anybody who holds the roster can check.

A steward makes one with `connexon-node audit prove`; `connexon receipt verify` checks it without network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from connexon.errors import ConnexonError
from connexon.identity import keys
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.transparency import receipt
from connexon.transparency.receipt import ReceiptRefused, TreeHead
from connexon.v1 import log_pb2

SCHEMA = "connexon.proof/1"
MAXIMUM_SIZE = 1024 * 1024
DETAILS = (
    *("at_ms", "query_id", "researcher", "purpose", "dataset", "analysis", "status", "code", "rule"),
    *("policy_version", "duration_ms"),
)
"""The fields of a record that are hashed into its receipt's details_sha256, in this order."""
DIGESTS = ("query_sha256", "result_sha256")


@dataclass(frozen=True)
class ProvedRecord:
    """A record that is proved to be number `sequence` of its center's log, as that log was at `head`."""

    sequence: int
    head: TreeHead
    record: Mapping[str, str | int]


def document(
    record: Mapping[str, Any], proved: log_pb2.AuditReceipt, *, center: CenterId, federation: str
) -> dict[str, Any]:
    """A proof file's content: the record as JSON has it, and its receipt."""
    return {
        "schema": SCHEMA,
        "federation": federation,
        "center": center,
        "record": dict(record),
        "receipt": json_format.MessageToDict(proved, preserving_proto_field_name=True),
    }


def verify(text: str, roster: Roster) -> ProvedRecord:
    """Check a proof file against the roster. Raises ReceiptRefused."""
    found = _read(text)
    try:
        center = keys.center_id(found["center"])
        record = {name: found["record"][name] for name in (*DETAILS, *DIGESTS)}
        digests = {name: bytes.fromhex(record[name]) for name in DIGESTS}
        carried = json_format.ParseDict(found["receipt"], log_pb2.AuditReceipt())
    except (ConnexonError, json_format.ParseError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable() from error
    _require_plain(record, found["record"])
    if found.get("federation") != roster.federation:
        raise ReceiptRefused("The proof is of another federation.", code="receipt.other_federation")
    if receipt.details_sha256(record[name] for name in DETAILS) != carried.details_sha256:
        raise ReceiptRefused("The record is not the one that the center wrote down.", code="receipt.altered")
    proved = receipt.verify_record(carried, **digests, center=center, keys=receipt.keys_of(roster, center))
    return ProvedRecord(proved.sequence, proved.head, record)


def _read(text: str) -> dict[str, Any]:
    if len(text) > MAXIMUM_SIZE:
        raise _unreadable()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable() from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("record"), dict):
        raise _unreadable()
    return found


def _require_plain(record: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Each value is of its one form, and nothing stands beside what is proved."""
    numbers = ("at_ms", "duration_ms")
    fits = all(type(value) is (int if name in numbers else str) for name, value in record.items())
    if not fits or set(given) != set(record) or any("\0" in value for value in record.values() if type(value) is str):
        raise _unreadable()


def _unreadable() -> ReceiptRefused:
    return ReceiptRefused("This is not a proof file, or it has been changed.", code="receipt.unreadable")
