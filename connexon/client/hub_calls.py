"""The researcher's calls to the hub: one channel, pinned to the hub's authority; every call proved by the key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar, cast

import grpc

from connexon import telemetry
from connexon.client.home import Login
from connexon.errors import CODE_KEY, ConnexonError, Refused, Unavailable, from_rpc
from connexon.identity import certificates
from connexon.identity.keys import SigningKey
from connexon.link import frames
from connexon.query import signed
from connexon.v1 import (
    membership_pb2,
    membership_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    query_pb2,
    research_pb2,
    research_pb2_grpc,
    roster_pb2,
)

CALL_SECONDS = 20.0
"""For a call that waits for nobody, with the connection that it may have to make first."""
CLOSE_SECONDS = 2.0
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name gRPC gives each attempt to connect no longer than this. TCP, a proxy's CONNECT, TLS and HTTP/2
    # are a round trip each, one after the other: 12 s on a line of 1.5 s one way.
    ("grpc.min_reconnect_backoff_ms", 15_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", frames.MAXIMUM_BODY + frames.MAXIMUM_FRAME),
)
_BROKEN = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
"""How gRPC reports some connections that were cut, beside UNAVAILABLE."""
_Updates = Iterator[research_pb2.Update]
_R = TypeVar("_R")
_T = TypeVar("_T")


class HubNotProved(Refused):
    """Whoever is at the hub's address is not the hub."""

    code = "hub.not_proved"


class HubCalls:
    """Calls to one hub. Thread-safe; every call raises ConnexonError and nothing of gRPC's."""

    def __init__(self, login: Login, key: SigningKey, *, authorities: Sequence[bytes]) -> None:
        roots = b"".join(certificates.to_pem(authority) for authority in dict.fromkeys(authorities))
        options = {**dict(frames.CHANNEL_OPTIONS), **dict(_RECONNECT)}
        self._channel = grpc.secure_channel(
            login.hub_address,
            grpc.ssl_channel_credentials(root_certificates=roots),
            options=list(options.items()),
        )
        self._membership = membership_pb2_grpc.MembershipStub(self._channel)
        self._research = research_pb2_grpc.ResearchStub(self._channel)
        self._models = models_pb2_grpc.ModelsStub(self._channel)
        self._login, self._key = login, key

    def close(self) -> None:
        """Hang up. Waited for briefly: gRPC waits for ever for a call whose beginning Ctrl-C has cut off."""
        hanging_up = threading.Thread(target=self._channel.close, name="hanging-up", daemon=True)
        hanging_up.start()
        hanging_up.join(CLOSE_SECONDS)

    def roster(self) -> roster_pb2.SignedRoster:
        """The roster as the hub hands it out; not yet believed."""
        with self._plainly():
            # Nobody need prove themselves for it, but who does is served when strangers crowd the hub.
            metadata = self._proof("GetRoster", service="Membership")
            request = membership_pb2.GetRosterRequest()
            return self._membership.GetRoster(request, timeout=CALL_SECONDS, metadata=metadata).roster

    def ask(self, query: query_pb2.SignedQuery, *, seconds: float | None) -> AbstractContextManager[_Updates]:
        """Ask, and receive what becomes of it until left; repeating it with the same bytes resumes."""
        call = self._research.Ask(research_pb2.AskRequest(query=query), timeout=seconds, metadata=self._proof("Ask"))
        return self._updates(call)

    def follow(self, query_id: str, *, wait: bool, seconds: float | None) -> AbstractContextManager[_Updates]:
        """Receive what became and becomes of an earlier question; without `wait` only what there is."""
        request = research_pb2.FollowRequest(query_id=query_id, wait=wait)
        return self._updates(self._research.Follow(request, timeout=seconds, metadata=self._proof("Follow")))

    def list_queries(self, limit: int) -> Sequence[research_pb2.QuerySummary]:
        """This researcher's questions, newest first."""
        with self._plainly():
            request = research_pb2.ListQueriesRequest(limit=limit)
            metadata = self._proof("ListQueries")
            return self._research.ListQueries(request, timeout=CALL_SECONDS, metadata=metadata).queries

    def cancel(self, query_id: str) -> int:
        """End a question; returns how many centers had not answered and will not."""
        with self._plainly():
            request = research_pb2.CancelRequest(query_id=query_id)
            return self._research.Cancel(request, timeout=CALL_SECONDS, metadata=self._proof("Cancel")).cancelled

    def follow_run(
        self, query_id: str, *, wait: bool, seconds: float | None
    ) -> AbstractContextManager[Iterator[models_pb2.RunStatus]]:
        """Receive how a training run stands, and with `wait` what is new of it until it ends or is left."""
        request = models_pb2.FollowRunRequest(query_id=query_id, wait=wait)
        metadata = self._proof("FollowRun", service="Models")
        call = cast("Iterator[models_pb2.FollowRunResponse]", self._models.FollowRun(request, seconds, metadata))
        return self._stream(call, lambda response: response.status)

    def list_models(self, limit: int) -> Sequence[models_pb2.ModelSummary]:
        """This researcher's models, newest first."""
        with self._plainly():
            request = models_pb2.ListModelsRequest(limit=limit)
            metadata = self._proof("ListModels", service="Models")
            return self._models.ListModels(request, timeout=CALL_SECONDS, metadata=metadata).models

    def model(self, model_id: str, *, arrays: bool) -> AbstractContextManager[Iterator[models_pb2.GetModelResponse]]:
        """Receive a model in pieces: the signed statement, then with `arrays` its values."""
        request = models_pb2.GetModelRequest(model_id=model_id, arrays=arrays)
        metadata = self._proof("GetModel", service="Models")
        call = cast("Iterator[models_pb2.GetModelResponse]", self._models.GetModel(request, None, metadata))
        return self._stream(call, lambda response: response)

    def _updates(self, call: object) -> AbstractContextManager[_Updates]:
        # gRPC's stream is an iterator and a call in one; its stubs know only the first.
        responses = cast("Iterator[research_pb2.AskResponse | research_pb2.FollowResponse]", call)
        return self._stream(responses, lambda response: response.update)

    @contextmanager
    def _stream(self, call: Iterator[_R], part: Callable[[_R], _T]) -> Iterator[Iterator[_T]]:
        try:
            with self._plainly():
                yield (part(response) for response in call)
        finally:
            cast("grpc.Call", call).cancel()

    def _proof(self, method: str, *, service: str = "Research") -> tuple[tuple[str, str], ...]:
        path = f"/connexon.v1.{service}/{method}"
        proof = signed.prove_call(self._key, self._login.credential, federation=self._login.federation, method=path)
        trace = telemetry.traceparent()
        return (*proof, (telemetry.HEADER, trace)) if trace else proof

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _explained(error, self._login.hub_address) from error


def _explained(error: grpc.RpcError, address: str) -> ConnexonError:
    known = from_rpc(error)
    # What gRPC raises here is the call itself; its stubs do not say so.
    call = cast("grpc.Call", error)
    if known.code == "hub.busy" or any(key == CODE_KEY for key, _ in call.trailing_metadata() or ()):
        return known
    details = call.details() or ""
    if known.code == "hub.certificate_expired":
        return HubNotProved(known.public, code=known.code)
    if known.code == "hub.other_certificate":
        return HubNotProved(
            f"The server at {address} does not prove to be the hub: its certificate is not from the hub's authority, "
            "or names another host. Ask the hub's operator; if the hub was set up anew, ask your steward "
            "for a new login file."
        )
    if "DNS resolution failed" in details:
        return Unavailable(f"The name in {address} cannot be resolved; check the network.", code="hub.unresolved")
    if known.code == "hub.no_tls":
        return Unavailable(
            f"Something answers at {address} but breaks off before it proves to be the hub: the hub may be starting or "
            "crowded, or a proxy in between does not reach it.",
            code=known.code,
        )
    if call.code() in _BROKEN:
        return Unavailable(f"The connection to the hub at {address} broke.", code="link.broken")
    if isinstance(known, Unavailable):
        return Unavailable(f"The hub at {address} cannot be reached. Is the network up?", code="hub.unreachable")
    return known
