"""A network line between two parties on one machine that can be slow, cut and mended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

_PIECE = 64 * 1024


class Line:
    """Carries TCP from a port of its own to `target`, each byte `delay` seconds late.

    `cut()` breaks every connection and refuses new ones; `freeze()` keeps them open and silent, as a dead firewall
    does; `mend()` ends both.
    """

    def __init__(self, target: str, *, delay: float = 0.0) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.delay = delay
        self._is_cut = False
        self._flowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)
        self.address = ""

    def __enter__(self) -> Line:
        self._thread.start()
        self.address = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self) -> None:
        """Break all connections; new ones are refused."""
        self._call(self._cut)

    def freeze(self) -> None:
        """Let nothing pass, without breaking anything."""
        self._call(self._flowing.clear)

    def mend(self) -> None:
        """Let everything pass again."""

        def mend() -> None:
            self._is_cut = False
            self._flowing.set()

        self._call(mend)

    def _call(self, action: object) -> None:
        async def inside() -> None:
            action()  # type: ignore[operator]

        asyncio.run_coroutine_threadsafe(inside(), self._loop).result(10)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def _open(self) -> str:
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            # Cancelled only when the line is taken down, and then nobody waits for this task.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def send() -> None:
            while True:
                due, data = await late.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._flowing.wait()
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        sender = asyncio.create_task(send())
        with contextlib.suppress(ConnectionError, OSError):
            while True:
                data = await reader.read(_PIECE)
                await late.put((self._loop.time() + self.delay, data))
                if not data:
                    break
            await sender
        sender.cancel()
