"""An HTTP proxy as sites have one: it opens tunnels with CONNECT and carries what it cannot read."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class ConnectProxy:
    """Tunnels to any place, or answers 403 to all while `refusing`. `tunnels` holds the places asked for."""

    def __init__(self) -> None:
        self.tunnels: list[str] = []
        self.refusing = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ConnectProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Shut down first: a thread that waits in accept does not notice that the socket was closed.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)
        for end in self._open:
            end.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a site sets for its machines. Nothing is exempt, loopback included."""
        return {"https_proxy": self.url, "no_proxy": "", "no_grpc_proxy": ""}

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(near,), daemon=True).start()

    def _tunnel(self, near: socket.socket) -> None:
        self._open.append(near)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = near.recv(1)
            if not piece:
                return
            head += piece
        method, place, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        self.tunnels.append(place)
        if method != "CONNECT" or self.refusing:
            near.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            near.close()
            return
        host, _, port = place.rpartition(":")
        far = socket.create_connection((host, int(port)))
        self._open.append(far)
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_pump, args=(far, near), daemon=True).start()
        _pump(near, far)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # Either end has hung up; so does the other.
        sink.close()
