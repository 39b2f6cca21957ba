"""The one door of every call: who calls -> a place -> the message, in its size and time -> the handler -> the answer.

Nothing is read of a call whose caller has not proved what its method asks for. Here the hub's errors become gRPC codes
and sentences, too.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from connexon.errors import CODE_KEY, ConnexonError, InvalidQuery, Unavailable
from connexon_hub.assembly import Hub
from connexon_hub.limits.call_quota import Place, Places, busy
from connexon_hub.limits.connections import Connections
from connexon_hub.membership import callers, peers
from connexon_hub.rpc.methods import RULES, Caller, Rule

LOG = logging.getLogger("connexon.hub")
Context = grpc.aio.ServicerContext[Any, Any]
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server; what no rule names is not served."""

    def __init__(self, hub: Hub, connections: Connections) -> None:
        self._hub = hub
        self._connections = connections

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Every handler becomes one that reads its requests itself: gRPC would read a message before it asks who calls.

        On the wire that is the same.
        """
        handler = await continuation(handler_call_details)
        rule = RULES.get(handler_call_details.method)
        if handler is None or rule is None:
            return grpc.stream_stream_rpc_method_handler(self._unknown)
        call = _GuardedCall(self._hub, self._connections, handler_call_details.method, rule, handler)
        return grpc.stream_stream_rpc_method_handler(
            call.serve,
            request_deserializer=handler.request_deserializer if handler.request_streaming else None,
            response_serializer=handler.response_serializer,
        )

    async def _unknown(self, requests: AsyncIterator[Any], context: Context) -> None:
        self._connections.stranger_called(context.peer())
        self._hub.refusals.count("call.unknown_method")
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "This hub has no such method.")


@dataclass(frozen=True)
class _GuardedCall:
    hub: Hub
    connections: Connections
    method: str
    rule: Rule
    handler: Any

    async def serve(self, requests: AsyncIterator[Any], context: Context) -> None:
        """One call from door to end."""
        try:
            with self._place(context) as place:
                await self._held(place, requests, context)
        except ConnexonError as error:
            await self._refuse(error, context)
        except grpc.aio.AbortError:
            raise
        except Exception:
            reference = uuid.uuid4().hex[:8]
            LOG.exception("unexpected, reference %s", reference)
            await context.abort(
                grpc.StatusCode.INTERNAL,
                f"Something went wrong at the hub; its operator finds it in the log under {reference}.",
                ((CODE_KEY, "internal"),),
            )

    async def _held(self, place: Place, requests: AsyncIterator[Any], context: Context) -> None:
        """Carry out a call that holds a place. Raises with what ended the place, where that is done from outside."""
        try:
            async with asyncio.timeout(self.rule.call_seconds):
                await self._carry_out(place, requests, context)
        except asyncio.CancelledError:
            if place.ended is None:
                raise
            place.task.uncancel()
            raise place.ended from None
        except TimeoutError as error:
            raise Unavailable("The call took too long; try again.", code="call.too_slow") from error

    @contextmanager
    def _place(self, context: Context) -> Iterator[Place]:
        places: Places = self.hub.places
        match self.rule.caller:
            case Caller.RESEARCHER:
                with self._proving(context):
                    caller = self.hub.callers.prove(
                        context.invocation_metadata(), self.hub.standing, method=self.method
                    )
                self.connections.proved(context.peer(), caller.id)
                with places.researcher(caller.id, caller.credential) as place, callers.present(caller):
                    yield place
            case Caller.CENTER:
                center = peers.from_context(context).identity.center
                self.connections.proved(context.peer(), center)
                with places.center(center) as place:
                    yield place
            case Caller.ANYBODY:
                known = self._perhaps(context)
                if known is None:
                    if not self.connections.stranger_called(context.peer()):
                        raise busy()
                    with places.stranger() as place:
                        yield place
                else:
                    self.connections.proved(context.peer(), known.id)
                    with places.researcher(known.id, known.credential) as place:
                        yield place

    def _perhaps(self, context: Context) -> callers.Caller | None:
        """The researcher who proves themselves where nobody need, and so is served when strangers crowd the hub."""
        try:
            return self.hub.callers.prove(context.invocation_metadata(), self.hub.standing, method=self.method)
        except ConnexonError:
            return None

    @contextmanager
    def _proving(self, context: Context) -> Iterator[None]:
        try:
            yield
        except ConnexonError:
            self.connections.stranger_called(context.peer())
            raise

    async def _carry_out(self, place: Place, requests: AsyncIterator[Any], context: Context) -> None:
        handler, request = self.handler, requests
        if not handler.request_streaming:
            request = await self._message(context)
        place.working = True
        behaviour = next(getattr(handler, kind) for kind in _KINDS if getattr(handler, kind) is not None)
        if self.rule.caller is Caller.RESEARCHER:
            # Written down before anything is told: a hub that dies right after knows the proof again.
            await self.hub.callers.kept()
        result = behaviour(request, context)
        if inspect.isasyncgen(result):
            async for response in result:
                await context.write(response)
        elif (response := await result) is not None:
            await context.write(response)

    async def _message(self, context: Context) -> Any:
        """The request, whole and within bounds. Raises InvalidQuery or Unavailable."""
        read, body = self.handler.request_deserializer, b""
        if self.rule.message_bytes:
            try:
                async with asyncio.timeout(self.rule.message_seconds):
                    received: object = await context.read()
            except TimeoutError as error:
                raise Unavailable("The message did not arrive in time.", code="call.too_slow") from error
            if not isinstance(received, bytes):
                raise InvalidQuery("The call carries no message.", code="call.unreadable")
            body = received
        if len(body) > self.rule.message_bytes:
            raise InvalidQuery(f"This call takes {self.rule.message_bytes} bytes at most.", code="call.too_large")
        try:
            return read(body)
        except DecodeError as error:
            raise InvalidQuery("The message cannot be read.", code="call.unreadable") from error

    async def _refuse(self, error: ConnexonError, context: Context) -> None:
        self.hub.refusals.count(error.code)
        LOG.debug("refused %s: %s", error.code, error.__cause__ or "-")
        await context.abort(error.status, error.public, ((CODE_KEY, error.code),))
