"""The hops between node and hub, each tried alone, so that the broken one can be named."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

import connexon
from connexon.errors import Misconfigured, Unavailable
from connexon.link import frames
from connexon.safe_text import plain
from connexon.v1 import link_pb2
from connexon_node.folder import NodeFolder
from connexon_node.link.session import Session, Times
from connexon_node.membership import keys

DER = Encoding.DER
SECONDS = 10.0
PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""In gRPC's own order."""
BYPASS_VARIABLES = ("no_grpc_proxy", "no_proxy")


class HopBroken(Unavailable):
    """A hop does not work; the sentence says what to do."""

    code = "hop.broken"


@dataclass(frozen=True)
class Attachment:
    """What a short attachment showed."""

    hub_version: str
    clock_offset_ms: int


@dataclass(frozen=True)
class _Place:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, address: str) -> _Place:
        parsed = urllib.parse.urlsplit(f"//{address}")
        try:
            port = parsed.port
        except ValueError:
            port = None
        if not parsed.hostname or port is None:
            raise Misconfigured(f"{address!r} in node.toml is not host:port.", code="settings.invalid")
        return cls(parsed.hostname, port)


def proxy_for(address: str) -> str:
    """The HTTP proxy, host:port, that gRPC goes through to `address`; empty where it goes straight."""
    host = _Place.parse(address).host
    # As gRPC reads them: the first that is set decides, also when it is empty.
    without = next((os.environ[name] for name in BYPASS_VARIABLES if name in os.environ), "")
    if any(host.endswith(entry.strip()) for entry in without.split(",") if entry.strip()):
        return ""
    value = next((os.environ[name] for name in PROXY_VARIABLES if name in os.environ), "")
    if not value:
        return ""
    parsed = urllib.parse.urlsplit(value if "//" in value else f"//{value}")
    return f"{parsed.hostname}:{parsed.port or 80}"


def resolve(address: str) -> str:
    """Resolve the hub's name, or the proxy's, which resolves for us. Raises HopBroken."""
    proxy = proxy_for(address)
    place = _Place.parse(proxy or address)
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except OSError as error:
        what = "the proxy in https_proxy" if proxy else "link_address in node.toml"
        raise HopBroken(f"{place.host} cannot be resolved; check {what} and this machine's DNS.") from error
    if not proxy and found[0][4][0] == place.host:
        return f"{place.host} is an address already."
    via = f" (the proxy; it resolves {_Place.parse(address).host})" if proxy else ""
    return f"{place.host} is {found[0][4][0]}{via}."


def reach(address: str) -> str:
    """Open a connection to the hub's port, through the proxy where there is one. Raises HopBroken."""
    with _connected(address):
        proxy = proxy_for(address)
        return f"{address} is reachable{f' through {proxy}' if proxy else ''}."


def handshake(folder: NodeFolder, address: str) -> str:
    """Do the TLS handshake with the pinned authority and the node's certificate. Raises HopBroken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(folder.keys / keys.AUTHORITY)
        context.load_cert_chain(folder.keys / keys.CERTIFICATE, folder.keys / keys.LINK_KEY)
    except OSError as error:
        raise HopBroken("The node's certificate files cannot be used; join again with a new invitation.") from error
    try:
        host = _Place.parse(address).host
        with _connected(address) as plain, context.wrap_socket(plain, server_hostname=host) as secure:
            return f"{secure.version()}, and the hub's certificate is of the pinned authority."
    except ssl.SSLCertVerificationError as error:
        raise HopBroken(
            f"The hub's certificate does not hold: {error.verify_message}. Something between here and the hub may be "
            "reading along (a TLS-inspecting proxy), or the hub has another authority; ask its operator."
        ) from error
    except OSError as error:
        raise HopBroken(f"The TLS handshake failed: {error.strerror or error}.") from error


def attach_once(folder: NodeFolder, address: str, roster_serial: int) -> Attachment:
    """Attach, be welcomed, leave. Raises what the hub says. Not while the node serves: two would look like twins."""
    return asyncio.run(_attach_once(folder, address, roster_serial))


async def _attach_once(folder: NodeFolder, address: str, roster_serial: int) -> Attachment:
    hello = link_pb2.Hello(
        software_version=connexon.__version__, process_id=uuid.uuid4().hex, roster_serial=roster_serial
    )
    hello.protocol.major, hello.protocol.minor = frames.PROTOCOL.major, frames.PROTOCOL.minor
    session = await Session.attach(address, keys.channel_credentials(folder), hello, Times())
    await session.close()
    return Attachment(plain(session.welcome.software_version), session.clock_offset_ms)


@contextmanager
def _connected(address: str) -> Iterator[socket.socket]:
    proxy = proxy_for(address)
    place = _Place.parse(proxy or address)
    try:
        plain = socket.create_connection((place.host, place.port), timeout=SECONDS)
    except OSError as error:
        who = "the proxy" if proxy else "the hub"
        raise HopBroken(
            f"{place} does not answer ({error.strerror or error}); check that {who} runs and that the firewall lets "
            "connections out."
        ) from error
    with plain:
        if proxy:
            _connect_through(plain, address)
        yield plain


def _connect_through(plain: socket.socket, address: str) -> None:
    plain.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    reply = b""
    while b"\r\n\r\n" not in reply and len(reply) < 65_536:
        part = plain.recv(4096)
        if not part:
            break
        reply += part
    status = reply.partition(b"\r\n")[0].split(b" ")
    if len(status) < 2 or status[1] != b"200":
        raise HopBroken(
            f"The proxy does not let connections through to {address}; ask the network's administrators to allow it."
        )
