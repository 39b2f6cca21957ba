"""The bytes of queries on their way, shared by all links that deliver them, within bounds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from connexon import frames
from connexon.v1 import link_pb2, query_pb2
from connexon_hub.queries import QueryStore

MAXIMUM_BYTES = 32 * 1024 * 1024
"""Of query bodies held in memory; others are read again when their turn comes."""


@dataclass(frozen=True)
class Body:
    """One query: its payload, to check answers against, and the frames that carry it."""

    payload: bytes
    frames: tuple[link_pb2.AttachResponse, ...]
    size: int


class Bodies:
    """Query id to body: from memory where it was used lately, else from the database."""

    def __init__(self, store: QueryStore, *, maximum_bytes: int = MAXIMUM_BYTES) -> None:
        self._store = store
        self._maximum = maximum_bytes
        self._size = 0
        self._held: OrderedDict[str, Body] = OrderedDict()

    def put(self, query_id: str, signed: bytes, traceparent: str) -> Body:
        """Hold a body that is about to be delivered."""
        pieces = frames.pieces(query_id, link_pb2.PARCEL_KIND_QUERY, signed, traceparent=traceparent)
        body = Body(
            payload=query_pb2.SignedQuery.FromString(signed).payload,
            frames=tuple(link_pb2.AttachResponse(chunk=piece) for piece in pieces),
            size=2 * len(signed),
        )
        former = self._held.pop(query_id, None)
        self._size += body.size - (former.size if former else 0)
        self._held[query_id] = body
        while self._size > self._maximum and len(self._held) > 1:
            self._size -= self._held.popitem(last=False)[1].size
        return body

    async def get(self, query_id: str) -> Body | None:
        """The body, or None where there is no such query."""
        if query_id in self._held:
            self._held.move_to_end(query_id)
            return self._held[query_id]
        found = await asyncio.to_thread(self._store.body, query_id)
        return None if found is None else self.put(query_id, *found)
