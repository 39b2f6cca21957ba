"""The process that readers are forked from: it has loaded what they need, and holds nothing else.

Loading the libraries takes a second, a fork takes milliseconds. One reader at a time; it is ended when whoever started
this process goes away.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys

import pyarrow.compute
import pyarrow.parquet  # noqa: F401  # loaded here, since it starts a thread, which a fork leaves behind

from connexon_node.importing.reader import jobs

STATUS = struct.Struct("=i")
READY = b"r"


def main(line: socket.socket) -> None:
    """Serve until the other side hangs up: each byte comes with the socket of a reader, whose status goes back."""
    line.sendall(READY)
    while True:
        began, files, _, _ = socket.recv_fds(line, 1, 1)
        if not began or not files:
            return
        # The reader alone holds the end for writing, so that its end shows.
        ends, held = os.pipe()
        reader = os.fork()
        if reader == 0:
            _become_reader(files[0], line)
        os.close(held)
        os.close(files[0])
        ready, _, _ = select.select([line.fileno(), ends], [], [])
        if line.fileno() in ready:
            os.kill(reader, signal.SIGKILL)
        _, status = os.waitpid(reader, 0)
        os.close(ends)
        if line.fileno() in ready:
            return
        line.sendall(STATUS.pack(status))


def _become_reader(file: int, line: socket.socket) -> None:
    status = 1
    try:
        line.close()
        jobs.work(socket.socket(fileno=file))
        status = 0
    finally:
        # Not sys.exit: nothing of the parent's is to be tidied up here.
        os._exit(status)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
