"""The errors' codes, and their way across a real gRPC connection."""

from __future__ import annotations

import ast
import datetime
import importlib
import pkgutil
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import connexon
from connexon import errors
from connexon.errors import (
    CODE_KEY,
    ConnexonError,
    Incompatible,
    InvalidQuery,
    Misconfigured,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
    from_rpc,
)
from connexon.identity import certificates
from connexon.identity.certificates import Authority, TlsKey

CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
LIBRARY = Path(connexon.__file__).parent


def _kinds(kind: type[ConnexonError] = ConnexonError) -> Iterator[type[ConnexonError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


for module in pkgutil.walk_packages(connexon.__path__, "connexon."):
    if not module.ispkg:
        importlib.import_module(module.name)
OWN = [kind for kind in dict.fromkeys(_kinds()) if kind.__module__.startswith("connexon.") and kind.__name__[0] != "_"]


class TestCodes:
    @pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
    def test_every_error_has_a_code_a_status_and_a_sentence(self, kind: type[ConnexonError]) -> None:
        assert CODE.fullmatch(kind.code)
        assert isinstance(kind.status, grpc.StatusCode)
        assert kind.__doc__
        assert "code" in vars(kind), "a subclass that does not say its own code hides behind its parent's"

    def test_no_two_errors_share_a_code(self) -> None:
        codes = [kind.code for kind in OWN]
        assert len(set(codes)) == len(codes)

    def test_a_more_exact_code_stays_with_the_one_error_that_has_it(self) -> None:
        exact = Refused("No.", code="budget.spent", rule="limit")
        assert (exact.code, exact.public, exact.rule, str(exact)) == ("budget.spent", "No.", "limit", "No.")
        assert (Refused("No.").code, Refused.code) == ("refused", "refused")

    def test_every_code_written_in_the_library_is_well_formed(self) -> None:
        written = [
            (path.name, node.lineno, node.value.value)
            for path in LIBRARY.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.keyword)
            and node.arg == "code"
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ]
        assert len(written) > 50
        assert [entry for entry in written if not CODE.fullmatch(entry[2])] == []

    def test_the_tree_in_the_documentation_is_the_tree_in_the_code(self) -> None:
        drawn = re.findall(r"^\s+[│├└─ ]*(\w+) +([A-Z_]+) ", f"{errors.__doc__} ".replace("\n", " \n"), re.MULTILINE)
        real = [(kind.__name__, kind.status.name) for kind in OWN if kind.__module__ == "connexon.errors"]
        assert sorted(drawn) == sorted(real)


Behaviour = Callable[[grpc.ServicerContext], bytes]


class _Service(grpc.GenericRpcHandler):
    """Answers every call with what the test put here."""

    behaviour: Behaviour

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        if handler_call_details.method.endswith("/Stream"):
            return grpc.unary_stream_rpc_method_handler(lambda _, context: iter([self.behaviour(context)]))
        return grpc.unary_unary_rpc_method_handler(lambda _, context: self.behaviour(context))


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[_Service, str]]:
    handler = _Service()
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield handler, f"127.0.0.1:{port}"
    server.stop(None).wait()


def _raise(error: ConnexonError) -> Behaviour:
    def behave(context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(((CODE_KEY, error.code),))
        context.abort(error.status, error.public)

    return behave


def _abort(status: grpc.StatusCode, text: str) -> Behaviour:
    return lambda context: context.abort(status, text)


def _unary(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary("/test/Unary")


def _call(address: str, method: str = "Unary", timeout: float = 20) -> ConnexonError:
    with grpc.insecure_channel(address) as channel:
        try:
            if method == "Stream":
                stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/test/Stream")
                list(stream(b"", timeout=timeout))
            else:
                _unary(channel)(b"", timeout=timeout)
        except grpc.RpcError as error:
            return from_rpc(error)
    raise AssertionError("the call went through")


class TestAcrossTheWire:
    @pytest.mark.parametrize("method", ["Unary", "Stream"])
    @pytest.mark.parametrize("kind", [kind for kind in OWN if kind.__module__ == "connexon.errors"])
    def test_the_caller_reads_the_code_and_the_sentence(
        self, service: tuple[_Service, str], kind: type[ConnexonError], method: str
    ) -> None:
        handler, address = service
        sent = kind("Zürich says no — 説明.", code="policy.denied")
        handler.behaviour = _raise(sent)
        got = _call(address, method)
        assert (got.code, got.public) == (sent.code, sent.public)
        assert got.status == sent.status

    @pytest.mark.parametrize(
        "kind", [Refused, Unauthenticated, InvalidQuery, NotFound, Unavailable, Incompatible, ConnexonError]
    )
    def test_the_branch_survives_so_that_a_caller_can_act_on_it(
        self, service: tuple[_Service, str], kind: type[ConnexonError]
    ) -> None:
        handler, address = service
        handler.behaviour = _raise(kind("No."))
        assert type(_call(address)) is kind

    def test_misconfigured_comes_as_a_failed_precondition_with_its_own_code(
        self, service: tuple[_Service, str]
    ) -> None:
        handler, address = service
        handler.behaviour = _raise(Misconfigured("The hub's disk is missing."))
        got = _call(address)
        assert (got.status, got.code) == (grpc.StatusCode.FAILED_PRECONDITION, "misconfigured")

    def test_a_status_without_a_code_keeps_its_branch(self, service: tuple[_Service, str]) -> None:
        handler, address = service
        handler.behaviour = _abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        got = _call(address)
        assert (type(got), got.code, got.public) == (Unauthenticated, Unauthenticated.code, "who are you")

    def test_a_crash_at_the_other_side_is_no_refusal(self, service: tuple[_Service, str]) -> None:
        def crash(_: grpc.ServicerContext) -> bytes:
            raise ZeroDivisionError

        handler, address = service
        handler.behaviour = crash
        assert type(_call(address)) is ConnexonError

    def test_a_status_without_a_sentence_still_says_something(self, service: tuple[_Service, str]) -> None:
        handler, address = service
        handler.behaviour = _abort(grpc.StatusCode.PERMISSION_DENIED, "")
        assert _call(address).public

    def test_nobody_there_is_unavailable(self) -> None:
        got = _call("127.0.0.1:1")
        assert (type(got), got.code) == (Unavailable, "hub.unreachable")

    def test_no_answer_in_time_is_unavailable(self, service: tuple[_Service, str]) -> None:
        handler, address = service
        release = threading.Event()

        def hang(_: grpc.ServicerContext) -> bytes:
            release.wait(20)
            return b""

        handler.behaviour = hang
        try:
            assert _call(address, timeout=0.2).code == "hub.unreachable"
        finally:
            release.set()

    def test_a_hub_with_as_many_calls_as_it_takes_is_busy(self) -> None:
        held, release = threading.Event(), threading.Event()
        handler = _Service()

        def hold(_: grpc.ServicerContext) -> bytes:
            held.set()
            release.wait(20)
            return b""

        handler.behaviour = hold
        server = grpc.server(ThreadPoolExecutor(2), handlers=[handler], maximum_concurrent_rpcs=1)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        with grpc.insecure_channel(address) as channel:
            first = _unary(channel).future(b"", timeout=20)
            assert held.wait(20)
            got = _call(address)
            release.set()
            first.result()
        server.stop(None).wait()
        assert (type(got), got.code) == (Unavailable, "hub.busy")

    def test_an_error_that_is_no_call_is_a_broken_link(self) -> None:
        assert from_rpc(grpc.RpcError()).code == "link.broken"


class TestServersThatDoNotProveThemselves:
    @pytest.mark.parametrize(
        ("name", "life", "ours", "code"),
        [
            ("127.0.0.1", -1, True, "hub.certificate_expired"),
            ("127.0.0.1", 60, False, "hub.other_certificate"),
            ("hub.example.org", 60, True, "hub.other_certificate"),
        ],
    )
    def test_a_wrong_certificate_is_not_called_trouble_with_the_network(
        self, name: str, life: int, ours: bool, code: str
    ) -> None:
        pinned, key = Authority.create("alliance"), TlsKey.generate()
        issuer = pinned if ours else Authority.create("alliance")
        certificate = issuer.issue_server(key, [name], life=datetime.timedelta(minutes=life))
        server = grpc.server(ThreadPoolExecutor(1))
        chain = [(key.pem(), certificate.public_bytes(Encoding.PEM))]
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(chain))
        server.start()
        credentials = grpc.ssl_channel_credentials(certificates.to_pem(pinned.der))
        try:
            with (
                grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel,
                pytest.raises(grpc.RpcError) as refusal,
            ):
                _unary(channel)(b"", timeout=20)
        finally:
            server.stop(None).wait()
        assert from_rpc(refusal.value).code == code
