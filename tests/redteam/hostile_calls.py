"""A stranger at the hub's public port, who speaks HTTP/2 by hand: calls without proof that begin and never end.

Run by test_doors.py, each in a process of its own: `python hostile_calls.py ATTACK HOST PORT AUTHORITY CONNECTIONS`.
Reconnects where it is cut, as an attacker would, and goes on until it is killed. Prints a line when all has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import sys
from collections.abc import Callable

STREAMS = 100
AGAIN_SECONDS = 1.0
"""Before a connection that was cut is opened again. How many are opened in a second is a firewall's to bound."""
ANNOUNCED = 1024 * 1024
PIECE = 16 * 1024


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def literal(name: str, value: str) -> bytes:
    """A header that is not indexed, without Huffman coding (RFC 7541, 6.2.2); both texts below 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def headers(stream: int, method: str) -> bytes:
    """The beginning of a gRPC call that carries nothing."""
    named = {":method": "POST", ":scheme": "https", ":path": method, ":authority": "hub", "te": "trailers"}
    named["content-type"] = "application/grpc"
    return frame(1, 0x4, stream, b"".join(literal(name, value) for name, value in named.items()))


def endless(stream: int, method: str) -> bytes:
    """A call that announces 1 MiB and sends as much as one window takes, but not its end."""
    sent = struct.pack(">BI", 0, ANNOUNCED) + bytes(48 * 1024)
    pieces = (sent[start : start + PIECE] for start in range(0, len(sent), PIECE))
    return headers(stream, method) + b"".join(frame(0, 0, stream, piece) for piece in pieces)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
CALLS: dict[str, Callable[[int], bytes]] = {
    "endless-ask": lambda stream: endless(stream, "/connexon.v1.Research/Ask"),
    "endless-join": lambda stream: endless(stream, "/connexon.v1.Membership/Join"),
    "headers": lambda stream: headers(stream, "/connexon.v1.Membership/Join"),
    "roster": lambda stream: headers(stream, "/connexon.v1.Membership/GetRoster"),
    "nowhere": lambda stream: headers(stream, "/x\x1b[31m/forged"),
}


async def attack(name: str, host: str, port: int, context: ssl.SSLContext) -> None:
    """One connection, again and again."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            if name == "silent":
                reader, writer = await asyncio.open_connection(host, port)
                await reader.read()
            elif name == "idle":
                reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
                writer.write(PREFACE)
                await reader.read()
            else:
                await calls(CALLS[name], host, port, context)
        await asyncio.sleep(AGAIN_SECONDS)


async def calls(call: Callable[[int], bytes], host: str, port: int, context: ssl.SSLContext) -> None:
    """Begin as many calls as a connection takes, and hold them; those that are ended are begun anew."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost")
    try:
        writer.write(PREFACE)
        stream = 1
        for _ in range(STREAMS):
            writer.write(call(stream))
            stream += 2
        await writer.drain()
        while True:
            head = await reader.readexactly(9)
            size, kind = int.from_bytes(head[:3], "big"), head[3]
            body = await reader.readexactly(size)
            if kind == 4 and not head[4] & 1:
                writer.write(frame(4, 1, 0, b""))
            if kind == 6 and not head[4] & 1:
                writer.write(frame(6, 1, 0, body))
            if kind == 0 and size:
                writer.write(frame(8, 0, 0, struct.pack(">I", size)))
            if (kind == 1 and head[4] & 1) or kind == 3:
                writer.write(call(stream))
                stream += 2
            await writer.drain()
            if writer.is_closing():
                return
    finally:
        writer.close()


async def main() -> None:
    """See the module."""
    name, host, port, authority, connections = sys.argv[1:]
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    tasks = [asyncio.create_task(attack(name, host, int(port), context)) for _ in range(int(connections))]
    await asyncio.sleep(2)
    print("begun", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main())
