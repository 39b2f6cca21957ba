"""The process that the children of training are forked from: it has loaded what they need, and holds nothing else.

Loading Flower takes more than a second; a fork takes milliseconds. It starts children and ends them, and it alone, so
that no other process is ever ended in a child's place. It goes with the node: at the end of its line, or killed by the
kernel where that can be asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import signal
import socket
import sys
from typing import Any

from connexon.service import logs
from connexon_node.training import worker_process, worker_protocol

_PR_SET_PDEATHSIG = 1


def main(line: socket.socket) -> None:
    """Serve until the node hangs up."""
    children: set[int] = set()
    worker_protocol.say(line, {"ready": os.getpid()})
    try:
        while True:
            words, files = worker_protocol.hear(line)
            _reap(children)
            if "end" in words:
                _end(int(words["end"]), children)
                continue
            with contextlib.suppress(ImportError):
                # Here, not in the child: loaded once for all that follow. What lacks is the child's to tell.
                for package in words["packages"]:
                    importlib.import_module(package)
            pid = _fork(line, files[0], words)
            os.close(files[0])
            children.add(pid)
            worker_protocol.say(line, {"pid": pid})
    except (EOFError, OSError):
        for pid in tuple(children):
            _end(pid, children)


def _fork(line: socket.socket, file: int, limits: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        line.close()
        go_with_parent()
        worker_process.run(socket.socket(fileno=file), limits)
        status = 0
    finally:
        # Not sys.exit: nothing of the parent's is to be tidied up here.
        os._exit(status)


def _end(pid: int, children: set[int]) -> None:
    # INVARIANT: only a child that was not yet waited for is ended: its number cannot be another's.
    if pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        children.discard(pid)


def _reap(children: set[int]) -> None:
    for pid in tuple(children):
        if os.waitpid(pid, os.WNOHANG)[0]:
            children.discard(pid)


def go_with_parent() -> None:
    """Ask the kernel to end this process with its parent; where it cannot be asked, the end of the line does it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    logs.begin(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main(socket.socket(fileno=int(sys.argv[1])))
