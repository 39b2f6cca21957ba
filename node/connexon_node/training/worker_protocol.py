"""How the node and the processes that do its local work talk: short documents over a socket, files beside them."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct(">I")
MAXIMUM_WORDS = 4 * 1024 * 1024


def say(line: socket.socket, words: dict[str, Any], files: Sequence[int] = ()) -> None:
    """Send a document and open files. Raises OSError where nobody listens any more."""
    body = json.dumps(words, allow_nan=False).encode()
    # With the first byte, so that whoever reads it has the files.
    socket.send_fds(line, [_LENGTH.pack(len(body))[:1]], list(files))
    line.sendall(_LENGTH.pack(len(body))[1:] + body)


def hear(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Receive the next document and the files that came with it. Raises EOFError at the end, OSError, TimeoutError."""
    first, files, _, _ = socket.recv_fds(line, 1, 4)
    if not first:
        raise EOFError
    (length,) = _LENGTH.unpack(first + _exactly(line, _LENGTH.size - 1))
    if length > MAXIMUM_WORDS:
        raise EOFError
    words = json.loads(_exactly(line, length))
    return words, list(files)


def _exactly(line: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        piece = line.recv(size - len(parts))
        if not piece:
            raise EOFError
        parts += piece
    return bytes(parts)
