"""The bytes of queries and tasks on their way. Queries are shared in memory within bounds; tasks are read from disk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from connexon.errors import ConnexonError, Refused
from connexon.link import frames, parcel_files
from connexon.link.parcel_files import TaskId
from connexon.v1 import link_pb2, query_pb2
from connexon_hub.routing.store import QueryStore

MAXIMUM_BYTES = 32 * 1024 * 1024
"""Of query bodies held in memory; others are read again when their turn comes."""


class HeldBack(Refused):
    """A query or task that may not be handed out now."""

    code = "query.held_back"


@dataclass(frozen=True)
class Body:
    """One query: its payload, to check answers against, and the frames that carry it."""

    payload: bytes
    credential: str
    frames: tuple[link_pb2.AttachResponse, ...]
    size: int

    @property
    def signed(self) -> bytes:
        """The whole of it, a serialised SignedQuery."""
        return b"".join(frame.chunk.data for frame in self.frames)


class Bodies:
    """Query id to body: from memory where it was used lately, else from the database; task id to the task's file."""

    def __init__(
        self,
        store: QueryStore,
        task_file: Callable[[TaskId], Path],
        judge: Callable[[str], ConnexonError | None],
        *,
        maximum_bytes: int = MAXIMUM_BYTES,
    ) -> None:
        """`task_file` says where the parcel of a run's task lies; `judge` says why what was asked with a
        credential may go no further, or None.
        """
        self._store = store
        self._judge = judge
        self._task_file = task_file
        self._maximum = maximum_bytes
        self._size = 0
        self._held: OrderedDict[str, Body] = OrderedDict()

    def put(self, query_id: str, signed: bytes, traceparent: str) -> Body:
        """Hold a body that is about to be delivered."""
        pieces = frames.pieces(query_id, link_pb2.PARCEL_KIND_QUERY, signed, traceparent=traceparent)
        query = query_pb2.SignedQuery.FromString(signed)
        body = Body(
            payload=query.payload,
            credential=query.credential,
            frames=tuple(link_pb2.AttachResponse(chunk=piece) for piece in pieces),
            size=2 * len(signed),
        )
        former = self._held.pop(query_id, None)
        self._size += body.size - (former.size if former else 0)
        self._held[query_id] = body
        while self._size > self._maximum and len(self._held) > 1:
            self._size -= self._held.popitem(last=False)[1].size
        return body

    async def frames(self, parcel_id: str) -> Iterator[link_pb2.AttachResponse] | None:
        """What carries a query or task to a center, or None where there is none of that id.

        Raises HeldBack where it may go no further now: judged here, so that nothing is handed out unjudged.
        """
        is_task = "." in parcel_id
        body = await self.get(TaskId.parse(parcel_id).run if is_task else parcel_id)
        if body is None:
            return None
        reason = self._judge(body.credential)
        if reason is not None:
            raise HeldBack(reason.public, code=reason.code) from reason
        if not is_task:
            return iter(body.frames)
        path = self._task_file(TaskId.parse(parcel_id))
        if not await asyncio.to_thread(path.is_file):
            return None
        pieces = parcel_files.pieces(parcel_id, link_pb2.PARCEL_KIND_TASK, path)
        return (link_pb2.AttachResponse(chunk=piece) for piece in pieces)

    async def get(self, query_id: str) -> Body | None:
        """The body, or None where there is no such query."""
        if query_id in self._held:
            self._held.move_to_end(query_id)
            return self._held[query_id]
        found = await asyncio.to_thread(self._store.body, query_id)
        return None if found is None else self.put(query_id, *found)
