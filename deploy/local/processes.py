"""Starting, watching and ending the processes of a local federation."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
_GIVEN_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class LauncherError(Exception):
    """A process did not do what was expected; the message holds the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on.

    It may be bound later, and again after a restart: it is none of those that the system gives to outgoing
    connections, which could take it in between.
    """
    first_given = int(_GIVEN_PORTS.read_text().split()[0]) if _GIVEN_PORTS.exists() else 32_768
    while True:
        port = random.randrange(10_000, first_given)  # noqa: S311  # guards nothing
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def command(name: str) -> str:
    """The console command of this very installation."""
    return str(Path(sys.executable).parent / name)


def run(arguments: list[str], *, environment: Mapping[str, str] | None = None, accept: tuple[int, ...] = (0,)) -> str:
    """Run a command to its end and return what it wrote to standard output. Raises LauncherError."""
    result = subprocess.run(
        [command(arguments[0]), *arguments[1:]],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if result.returncode not in accept:
        raise LauncherError(f"{' '.join(arguments)}\nended with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def run_json(arguments: list[str], **options: Any) -> Any:
    """Run a command with --json and return what it said."""
    return json.loads(run([*arguments, "--json"], **options))


def until(condition: Callable[[], Any], what: str, *, seconds: float = READY_SECONDS) -> Any:
    """Wait for `condition` to return something true, and return that. Raises LauncherError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LauncherError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.05)


@dataclass
class Service:
    """A process that goes on until it is ended."""

    arguments: list[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output goes to the end of the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [command(self.arguments[0]), *self.arguments[1:]],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The process id. Raises LauncherError where it is not running."""
        if self.process is None:
            raise LauncherError(f"{self.arguments} was not started")
        return self.process.pid

    def require_running(self) -> None:
        """Raise LauncherError with the end of the log when it has ended by itself."""
        if not self.running:
            raise LauncherError(f"{' '.join(self.arguments)} ended by itself:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The end of the log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, how: signal.Signals = signal.SIGTERM, *, seconds: float = 15.0) -> None:
        """End it and wait for its end; after `seconds` it is killed."""
        if self.process is None or not self.running:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """kill -9: no goodbye, nothing flushed."""
        self.stop(signal.SIGKILL)


@contextlib.contextmanager
def ended_afterwards(services: list[Service]) -> Iterator[None]:
    """End every service in the list when the block ends, the last started first."""
    try:
        yield
    finally:
        for service in reversed(services):
            service.stop()
