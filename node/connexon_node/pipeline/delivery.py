"""A query as the hub delivers it, before anything of it is proved."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from connexon.clock import DAY, now_ms
from connexon.query.signed import MAXIMUM_QUERY_LIFE_MS
from connexon.v1 import query_pb2


@dataclass(frozen=True)
class Delivery:
    """One query as it was delivered. `body` is a serialised SignedQuery, verified anew whenever it is worked on."""

    query_id: str
    body: bytes
    traceparent: str
    received_at_ms: int
    expires_at_ms: int

    @classmethod
    def arrived(cls, query_id: str, body: bytes, traceparent: str = "") -> Delivery:
        """A delivery that has just come."""
        return cls(query_id, body, traceparent[:200], now_ms(), claimed_expiry(body))


def claimed_expiry(body: bytes) -> int:
    """When a query says it expires, believed only to lie within thirty days; a day for what cannot be read."""
    moment = now_ms()
    try:
        claimed = query_pb2.Query.FromString(query_pb2.SignedQuery.FromString(body).payload).expires_at_ms
    except DecodeError:
        return moment + DAY
    return min(max(claimed, 0), moment + MAXIMUM_QUERY_LIFE_MS + DAY)


def payload_sha256(body: bytes) -> bytes | None:
    """SHA-256 of the payload in a serialised SignedQuery; None for what is none."""
    try:
        return hashlib.sha256(query_pb2.SignedQuery.FromString(body).payload).digest()
    except DecodeError:
        return None
