"""The researchers' side: who calls -> may this query enter -> write it down -> tell what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

import grpc

from connexon import strict, telemetry
from connexon.identity.keys import CenterId
from connexon.link.frames import MAXIMUM_FRAME
from connexon.query.signed import QueryRefused
from connexon.v1 import query_pb2, research_pb2, research_pb2_grpc
from connexon_hub.assembly import Hub
from connexon_hub.membership import callers
from connexon_hub.membership.callers import Caller
from connexon_hub.routing.admission import admit, same_query
from connexon_hub.routing.store import ANSWERED, RECEIVED, State
from connexon_hub.routing.stream_quota import Line, taken_in_time
from connexon_hub.routing.subscriptions import Watch

_ANSWERS_AT_ONCE = 16
"""Kept answers read into memory at a time, at most; large ones are fewer."""
_LIST_DEFAULT, _LIST_MOST = 50, 500
_MESSAGE_ROOM = MAXIMUM_FRAME - 16 * 1024

AskContext = grpc.aio.ServicerContext[research_pb2.AskRequest, research_pb2.AskResponse]
FollowContext = grpc.aio.ServicerContext[research_pb2.FollowRequest, research_pb2.FollowResponse]
ListContext = grpc.aio.ServicerContext[research_pb2.ListQueriesRequest, research_pb2.ListQueriesResponse]
CancelContext = grpc.aio.ServicerContext[research_pb2.CancelRequest, research_pb2.CancelResponse]
Write = Callable[[research_pb2.Update], Awaitable[None]]


class ResearchService(research_pb2_grpc.ResearchServicer):
    """Serves researchers; every call proves its caller."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def Ask(  # type: ignore[override]  # noqa: N802  # a coroutine with its context, as grpc.aio offers
        self, request: research_pb2.AskRequest, context: AskContext
    ) -> None:
        """Admit a query and follow it; the same bytes again follow what there is."""
        caller = callers.caller()
        strict.refuse_unknown(request, what="query")

        async def write(update: research_pb2.Update) -> None:
            self._hub.under_way.require_caller(caller.credential)
            async with taken_in_time():
                await context.write(research_pb2.AskResponse(update=update))

        header = str(dict(context.invocation_metadata() or ()).get(telemetry.HEADER, ""))
        with self._hub.lines.hold(caller.id) as line:
            await self._ask(request.query, caller, line, write, header)

    async def _ask(self, query: query_pb2.SignedQuery, caller: Caller, line: Line, write: Write, header: str) -> None:
        with telemetry.TRACER.start_as_current_span("hub.accept", context=telemetry.context(header)):
            try:
                traceparent = telemetry.traceparent()
                submission = admit(
                    query, caller.researcher, self._hub.standing, self._hub.revoked, traceparent=traceparent
                )
            except QueryRefused as error:
                if error.code != "query.expired":
                    raise
                stored = await asyncio.to_thread(same_query, self._hub.queries, query, caller.researcher, error)
                await self._follow(stored.query_id, caller, line, write, wait=True)
                return
        watch = self._hub.watches.open(submission.query_id, line)
        try:
            # The query goes its way even when the researcher leaves while it is written down.
            new = await asyncio.shield(self._hub.routing.submit(submission))
            if not new:
                await self._resume(watch, caller, write, wait=True)
                return
            states: dict[CenterId, State] = dict.fromkeys(submission.centers, research_pb2.DELIVERY_STATE_WAITING)
            watch.begin(states)
            await write(self._accepted(submission.query_id, query.payload, states))
            await self._stream(watch, write)
        finally:
            self._hub.watches.close(watch)

    async def Follow(  # type: ignore[override]  # noqa: N802  # a coroutine with its context, as grpc.aio offers
        self, request: research_pb2.FollowRequest, context: FollowContext
    ) -> None:
        """The same stream for a query asked earlier."""
        caller = callers.caller()

        async def write(update: research_pb2.Update) -> None:
            self._hub.under_way.require_caller(caller.credential)
            async with taken_in_time():
                await context.write(research_pb2.FollowResponse(update=update))

        with self._hub.lines.hold(caller.id) as line:
            await self._follow(request.query_id, caller, line, write, wait=request.wait)

    async def ListQueries(  # noqa: N802  # gRPC names it
        self, request: research_pb2.ListQueriesRequest, context: ListContext
    ) -> research_pb2.ListQueriesResponse:
        """The caller's queries, newest first, as many as fit one message."""
        caller = callers.caller()
        limit = min(request.limit or _LIST_DEFAULT, _LIST_MOST)
        response = research_pb2.ListQueriesResponse()
        for summary in await asyncio.to_thread(self._hub.queries.of_researcher, caller.id, limit):
            response.queries.add(
                query_id=summary.query_id,
                query_payload=summary.payload,
                accepted_at_ms=summary.accepted_ms,
                centers=summary.centers,
                answered=summary.answered,
                cancelled=summary.cancelled,
            )
        return response

    async def Cancel(  # noqa: N802  # gRPC names it
        self, request: research_pb2.CancelRequest, context: CancelContext
    ) -> research_pb2.CancelResponse:
        """End one of the caller's queries."""
        caller = callers.caller()
        return research_pb2.CancelResponse(cancelled=await self._hub.routing.cancel(request.query_id, caller.id))

    async def _follow(self, query_id: str, caller: Caller, line: Line, write: Write, *, wait: bool) -> None:
        watch = self._hub.watches.open(query_id, line)
        try:
            await self._resume(watch, caller, write, wait=wait)
        finally:
            self._hub.watches.close(watch)

    async def _resume(self, watch: Watch, caller: Caller, write: Write, *, wait: bool) -> None:
        stored = await asyncio.to_thread(self._hub.queries.find, watch.query_id, caller.id)
        watch.begin(stored.states)
        await write(self._accepted(stored.query_id, stored.signed.payload, stored.states))
        # One that was only received may have said that its steward has it.
        sizes = await asyncio.to_thread(self._hub.queries.answer_sizes, watch.query_id)
        answered = {center: size for center, size in sizes.items() if stored.states[center] in (ANSWERED, RECEIVED)}
        for page in _pages(answered):
            news = []
            for center, answer in (await asyncio.to_thread(self._hub.queries.answers, watch.query_id, page)).items():
                delivery = self._hub.routing.delivery(watch.query_id, center, stored.states[center])
                delivery.answer.CopyFrom(answer)
                news.append(delivery)
            await _write_news(write, news)
        if wait:
            await self._stream(watch, write)

    async def _stream(self, watch: Watch, write: Write) -> None:
        while True:
            await _write_news(write, watch.take())
            watch.left()
            if not watch.pending and not watch.has_news:
                return
            await watch.changed()

    def _accepted(self, query_id: str, payload: bytes, states: Mapping[CenterId, State]) -> research_pb2.Update:
        """The first message. Answers follow one by one, for a thousand would not fit: until then they are received."""
        return research_pb2.Update(
            accepted=research_pb2.Accepted(
                query_id=query_id,
                query_payload=payload,
                deliveries=[
                    self._hub.routing.delivery(query_id, center, RECEIVED if state == ANSWERED else state)
                    for center, state in states.items()
                ],
            )
        )


def _pages(sizes: Mapping[CenterId, int]) -> Iterator[list[CenterId]]:
    """Centers whose answers are read into memory together: what waits there is about one message."""
    page: list[CenterId] = []
    size = 0
    for center, its in sizes.items():
        if page and (size + its > _MESSAGE_ROOM or len(page) == _ANSWERS_AT_ONCE):
            yield page
            page, size = [], 0
        page.append(center)
        size += its
    if page:
        yield page


async def _write_news(write: Write, deliveries: Iterable[research_pb2.Delivery]) -> None:
    """Many in a message: a thousand centers that answer at once are not a thousand messages."""
    news, room = research_pb2.News(), _MESSAGE_ROOM
    for delivery in deliveries:
        size = delivery.ByteSize() + 8
        if size > room and news.deliveries:
            await write(research_pb2.Update(news=news))
            news, room = research_pb2.News(), _MESSAGE_ROOM
        news.deliveries.append(delivery)
        room -= size
    if news.deliveries:
        await write(research_pb2.Update(news=news))
