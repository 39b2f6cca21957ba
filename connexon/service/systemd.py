"""What a service tells systemd: that it is ready, that it is alive, that it is stopping. Elsewhere nothing is told.

The protocol of sd_notify(3): a datagram of KEY=value lines to the socket that NOTIFY_SOCKET names.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket

LOG = logging.getLogger("connexon")


def notify(**states: str | int) -> None:
    """Tell systemd, for example notify(READY=1, STATUS="attached"). Nothing happens without a socket to tell it to."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    told = "\n".join(f"{name}={value}" for name, value in states.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            sender.sendto(told.encode(), address)
    except OSError as error:
        # It only informs: the service goes on, and systemd notices by itself where it waits for this.
        LOG.warning("systemd could not be told: %s", error.strerror)


def watchdog_seconds() -> float | None:
    """How often to say that the service is alive, half of what systemd waits for; None where it does not watch."""
    watched = os.environ.get("WATCHDOG_USEC", "")
    if not watched.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return max(0.1, int(watched) / 2_000_000)


async def keep_watchdog_quiet() -> None:
    """Say again and again that the event loop turns: one that stands still is ended and started anew by systemd."""
    seconds = watchdog_seconds()
    while True:
        if seconds is not None:
            notify(WATCHDOG=1)
        await asyncio.sleep(seconds if seconds is not None else 3600.0)
