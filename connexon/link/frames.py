"""What hub and node share about the link: versions, pieces of a body, and how a connection is kept alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from connexon.errors import Incompatible, Refused
from connexon.identity.roster import Protocol
from connexon.v1 import link_pb2

PROTOCOL = Protocol(1, 1)
"""The version this software speaks."""
SINCE = {"revocations": Protocol(1, 1)}
"""From which version on a node says a frame; those not named, always. An older hub ends the session for one."""
LOWEST = Protocol(1, 0)
"""The lowest version it can still speak, where the roster does not say a higher one."""
CHUNK_SIZE = 256 * 1024
"""Bytes of a body in one frame."""
MAXIMUM_FRAME = 1024 * 1024
"""Bytes of one gRPC message on the link."""
MAXIMUM_BODY = 64 * 1024 * 1024
"""Bytes of one parcel."""
MAXIMUM_QUERY = MAXIMUM_FRAME
"""Bytes of a serialised SignedQuery: it comes from the researcher in one message."""
MAXIMUM_ANSWER = MAXIMUM_FRAME - 16 * 1024
"""Bytes of a serialised SignedAnswer: it reaches the researcher in one message."""
MAXIMUM_OPEN_PARCELS = 64
"""Parcels that may be under way from one peer at once."""
MAXIMUM_OPEN_BYTES = 128 * 1024 * 1024
"""Bytes that these parcels may have in all when they are whole."""
HEARTBEAT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
"""A peer that has been silent for so long is dead."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAXIMUM_FRAME),
    ("grpc.max_send_message_length", MAXIMUM_FRAME),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
"""For both ends of every connection."""


class ParcelRefused(Refused):
    """A parcel whose pieces do not fit together."""

    code = "link.bad_parcel"


def agree(theirs: Protocol, *, ours: Protocol = PROTOCOL, lowest: Protocol = LOWEST) -> Protocol:
    """Return the version both speak: same major number, minor numbers at most one apart, none below `lowest`.

    Raises Incompatible with the side that should upgrade.
    """
    older = "The node" if theirs < ours else "The hub"
    if theirs.major != ours.major or abs(theirs.minor - ours.minor) > 1:
        raise Incompatible(
            f"The node speaks version {theirs} and the hub {ours}; they must be of one major version and at most one "
            f"minor version apart. {older} must be upgraded."
        )
    agreed = min(theirs, ours)
    if agreed < lowest:
        raise Incompatible(f"The federation no longer speaks version {agreed}; upgrade to {lowest} or later.")
    return agreed


def pieces(
    query_id: str, kind: link_pb2.ParcelKind.ValueType, body: bytes, *, traceparent: str = ""
) -> Iterator[link_pb2.Chunk]:
    """Cut a body into frames, at least one."""
    for offset in range(0, max(len(body), 1), CHUNK_SIZE):
        yield link_pb2.Chunk(
            query_id=query_id,
            kind=kind,
            total_size=len(body),
            offset=offset,
            data=body[offset : offset + CHUNK_SIZE],
            traceparent=traceparent if offset == 0 else "",
        )


@dataclass(frozen=True)
class Parcel:
    """A whole body as it arrived."""

    query_id: str
    kind: link_pb2.ParcelKind.ValueType
    body: bytes
    traceparent: str


@dataclass
class _Open:
    total: int
    traceparent: str
    body: bytearray = field(default_factory=bytearray)


class Assembler:
    """Puts pieces together, within bounds. One per connection: a broken one is begun again from its first piece."""

    def __init__(self, *, maximum_body: int = MAXIMUM_BODY) -> None:
        self._maximum = maximum_body
        self._open: dict[tuple[str, int], _Open] = {}

    def add(self, chunk: link_pb2.Chunk) -> Parcel | None:
        """Return the parcel when this piece completes it. Raises ParcelRefused."""
        key = (chunk.query_id, chunk.kind)
        if chunk.offset == 0:
            self._begin(key, chunk)
        parcel = self._open.get(key)
        if parcel is None or chunk.offset != len(parcel.body) or chunk.total_size != parcel.total:
            raise ParcelRefused("A piece of a parcel is missing or out of order.")
        if len(chunk.data) > CHUNK_SIZE or len(parcel.body) + len(chunk.data) > parcel.total:
            raise ParcelRefused("A parcel is larger than it said.")
        if not chunk.data and parcel.total:
            raise ParcelRefused("A piece of a parcel is empty.")
        parcel.body += chunk.data
        if len(parcel.body) < parcel.total:
            return None
        del self._open[key]
        return Parcel(chunk.query_id, chunk.kind, bytes(parcel.body), parcel.traceparent)

    def _begin(self, key: tuple[str, int], chunk: link_pb2.Chunk) -> None:
        known = chunk.kind in (link_pb2.PARCEL_KIND_QUERY, link_pb2.PARCEL_KIND_ANSWER)
        if not known or not 0 < len(chunk.query_id) <= 64 or len(chunk.traceparent) > 128:
            raise ParcelRefused("A parcel does not say what it is.")
        if chunk.total_size > self._maximum:
            raise ParcelRefused(f"A parcel has {chunk.total_size} bytes; at most {self._maximum} are allowed.")
        others = [parcel.total for other, parcel in self._open.items() if other != key]
        if len(others) >= MAXIMUM_OPEN_PARCELS or sum(others) + chunk.total_size > MAXIMUM_OPEN_BYTES:
            raise ParcelRefused("Too many parcels are under way at once.")
        self._open[key] = _Open(chunk.total_size, chunk.traceparent)
