"""The TCP connections to one port: those over which nobody has proved anything are few, and not for long.

gRPC accepts connections and shows none of them, so the hub looks at its own process's sockets and shuts down those that
have to go; gRPC sees a peer that hangs up. Nothing is copied, and a connection that is in order costs nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

UNPROVED_SECONDS = 10.0
"""A connection over which nobody has proved anything by then is cut, in the handshake or after it."""
UNPROVED = 256
"""Connections over which nobody has proved anything; beyond, those of the source with most of them go first."""
UNPROVED_PER_SOURCE = 64
"""Of one address. A hospital's researchers may all come from one, but prove themselves in the first second."""
PER_CALLER = 64
"""Connections of one researcher or center; beyond, the oldest goes."""
STRANGER_CALLS = 10
"""Calls without proof on one connection, answered or refused; with the next it is cut."""
SUSPECT_AFTER, SUSPECT_SECONDS = 3, 60.0
"""An address of which so many connections were cut for their calls gets one such call on each, for so long."""
_LOOK_AGAIN_SECONDS = 0.05
LOOK_SECONDS = 0.25

Address = tuple[str, int]


@dataclass
class _Connection:
    address: Address
    file: int
    since: float
    who: str = ""

    @property
    def source(self) -> str:
        """Who can be told apart by address."""
        return _source(self.address[0])


class Connections:
    """Thread-safe: calls tell of connections on the event loop, and a thread looks them over."""

    def __init__(
        self,
        port: int = 0,
        *,
        unproved: int = UNPROVED,
        per_source: int = UNPROVED_PER_SOURCE,
        seconds: float = UNPROVED_SECONDS,
    ) -> None:
        """`port` may be set later, when it is known."""
        self.port = port
        self.cut_total = self._told = 0
        self._unproved, self._per_source, self._seconds = unproved, per_source, seconds
        self._lock = threading.Lock()
        self._open: dict[int, _Connection] = {}
        self._by_address: dict[Address, _Connection] = {}
        self._proved: OrderedDict[Address, tuple[str, float]] = OrderedDict()
        """Told by calls, of connections that were not looked at yet."""
        self._calls: Counter[Address] = Counter()
        self._suspects: dict[str, deque[float]] = {}
        """Of an address, when connections were cut for their calls."""
        self._looked = 0.0

    def proved(self, peer: str, who: str) -> None:
        """Somebody has proved over a connection who they are; `peer` as gRPC names it."""
        address = _address(peer)
        if address is None:
            return
        with self._lock:
            self._calls.pop(address, None)
            self._proved[address] = (who, time.monotonic())

    def stranger_called(self, peer: str) -> bool:
        """A call without proof came over a connection; False where it was one too many, and the connection is cut."""
        address = _address(peer)
        if address is None:
            return True
        with self._lock:
            if self._who(address):
                return True
            self._calls[address] += 1
            most = 1 if self._suspect(_source(address[0])) else STRANGER_CALLS
            if self._calls[address] <= most:
                return True
            stale = time.monotonic() - self._looked > _LOOK_AGAIN_SECONDS
        if address not in self._by_address and stale:
            self.look()
        with self._lock:
            connection = self._by_address.get(address)
            if connection is not None and not connection.who and self._cut(connection):
                self._suspects.setdefault(connection.source, deque(maxlen=SUSPECT_AFTER)).append(time.monotonic())
            return False

    def _who(self, address: Address) -> str:
        connection = self._by_address.get(address)
        return self._proved.get(address, (connection.who if connection is not None else "", 0.0))[0]

    def _suspect(self, source: str) -> bool:
        cuts = self._suspects.get(source)
        return cuts is not None and len(cuts) == SUSPECT_AFTER and time.monotonic() - cuts[0] < SUSPECT_SECONDS

    def look(self) -> int:
        """Look all connections over, and cut those that have to go; returns how many."""
        began = self._looked = time.monotonic()
        found = {inode: (file, address) for inode, file, address in _sockets(self.port, self._files())}
        with self._lock:
            before = self.cut_total
            for inode in self._open.keys() - found.keys():
                del self._open[inode]
            for inode, (file, address) in found.items():
                connection = self._open.setdefault(inode, _Connection(address, file, began))
                connection.file = file
                connection.who = self._proved.get(address, (connection.who, 0.0))[0]
            self._by_address = {connection.address: connection for connection in self._open.values()}
            self._forget(began)
            for connection in self._to_go(began):
                self._cut(connection)
            return self.cut_total - before

    def take_cut(self) -> int:
        """How many connections were cut since this was asked last."""
        with self._lock:
            told, self._told = self.cut_total - self._told, self.cut_total
            return told

    def count(self) -> tuple[int, int]:
        """How many connections there were at the last look, and over how many of them nobody had proved anything."""
        with self._lock:
            return len(self._open), sum(not connection.who for connection in self._open.values())

    def _files(self) -> dict[int, tuple[int, Address]]:
        with self._lock:
            return {inode: (one.file, one.address) for inode, one in self._open.items()}

    def _forget(self, began: float) -> None:
        """What was told before this look: it is noted now, or its connection has gone."""
        for address in [one for one, (_, at) in self._proved.items() if at < began]:
            del self._proved[address]
        for told in self._calls.keys() - self._by_address.keys():
            del self._calls[told]
        for source in [one for one, cuts in self._suspects.items() if cuts[-1] < began - SUSPECT_SECONDS]:
            del self._suspects[source]

    def _to_go(self, now: float) -> Iterator[_Connection]:
        unproved = [one for one in self._open.values() if not one.who]
        sources = Counter(one.source for one in unproved)
        excess = len(unproved) - self._unproved
        for one in sorted(unproved, key=lambda one: (-sources[one.source], one.since)):
            if now - one.since >= self._seconds or sources[one.source] > self._per_source or excess > 0:
                sources[one.source] -= 1
                excess -= 1
                yield one
        callers = Counter(one.who for one in self._open.values() if one.who)
        for one in sorted((one for one in self._open.values() if one.who), key=lambda one: one.since):
            if callers[one.who] > PER_CALLER:
                callers[one.who] -= 1
                yield one

    def _cut(self, connection: _Connection) -> bool:
        """Shut a connection down; False where it has gone."""
        # A copy of the file cannot become another connection between look and deed; its number can.
        with contextlib.suppress(OSError), _copy(connection.file) as copy:
            if _plain(*copy.getpeername()[:2]) == connection.address:
                copy.shutdown(socket.SHUT_RDWR)
                self.cut_total += 1
                return True
        return False


def _source(host: str) -> str:
    """Of IPv6, one host has 64 bits."""
    address = ipaddress.ip_address(host)
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def _sockets(port: int, known: dict[int, tuple[int, Address]]) -> Iterator[tuple[int, int, Address]]:
    """Inode, file number and peer of every connection of this process that came in on `port`."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  # numbers, often, and no paths
        file = int(name)
        with contextlib.suppress(OSError):
            status = os.fstat(file)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            if status.st_ino in known:
                yield status.st_ino, file, known[status.st_ino][1]
                continue
            with _copy(file) as copy:
                if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.getsockname()[1] == port:
                    # A listening socket has no peer, and raises.
                    yield status.st_ino, file, _plain(*copy.getpeername()[:2])


def _copy(file: int) -> socket.socket:
    return socket.socket(fileno=os.dup(file))


@lru_cache(4_096)
def _address(peer: str) -> Address | None:
    """Of ipv4:192.0.2.1:443 or ipv6:%5B2001:db8::1%5D:443; None for another kind of socket."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return _plain(host.strip("[]"), int(port))


def _plain(host: str, port: int) -> Address:
    """The same for one peer, however it is written: an IPv4 address may come in an IPv6 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port
