"""The one place where the hub's errors become gRPC codes and sentences."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from connexon.errors import CODE_KEY, ConnexonError

LOG = logging.getLogger("connexon.hub")
Behaviour = Callable[[Any, Any], Awaitable[Any]]
_KINDS: dict[str, Callable[..., Any]] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what a handler raises into status, sentence and code; what nobody expected says nothing but a reference."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap our own services' handlers, all of which are coroutines."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/connexon."):
            return handler
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        return _KINDS[kind](
            _guarded(getattr(handler, kind)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guarded(behaviour: Behaviour) -> Behaviour:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except ConnexonError as error:
            LOG.info("refused %s: %s", error.code, error.__cause__ or "-")
            await context.abort(error.status, error.public, ((CODE_KEY, error.code),))
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

    return guarded
