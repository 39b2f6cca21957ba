"""One process for each run, made from a warm one: Flower is loaded once, and never in the hub's own process."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from connexon_hub.training.worker_protocol import Order, Request

PROCESS = "connexon_hub.training.worker_training"
ENDING_SECONDS = 2.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([PROCESS])


class Worker:
    """A run's process as the hub sees it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._thread = ThreadPoolExecutor(1, "run")
        self._connection: Connection[Any, Request] | None = None
        self._process: multiprocessing.process.BaseProcess | None = None

    async def start(self) -> None:
        """Start it. The first of all waits until Flower is loaded."""
        await self._in_thread(self._start)

    async def hear(self) -> Request:
        """What it says next. Raises EOFError where it has ended without a word."""
        request: Request = await self._in_thread(self._hear)
        return request

    async def answer(self, answer: object) -> Request:
        """Answer it, and hear what it says next. Raises EOFError where it has ended without a word."""
        request: Request = await self._in_thread(self._answer, answer)
        return request

    async def say(self, last: object) -> None:
        """Answer the last that it has said."""
        await self._in_thread(self._say, last)

    async def end(self) -> None:
        """End it, whatever it does."""
        process, connection = self._process, self._connection
        if process is not None and connection is not None:
            process.terminate()
            await asyncio.to_thread(process.join, ENDING_SECONDS)
            if process.is_alive():
                process.kill()
                await asyncio.to_thread(process.join)
            connection.close()
        self._thread.shutdown(wait=False)

    @property
    def exit_code(self) -> int | None:
        """How it ended, after `end`."""
        return None if self._process is None else self._process.exitcode

    async def _in_thread(self, step: Any, *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *arguments)

    def _start(self) -> None:
        from connexon_hub.training import worker_process

        here, there = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=worker_process.main, args=(there, self._order), name="connexon-run", daemon=True
        )
        process.start()
        there.close()
        self._connection, self._process = here, process

    def _hear(self) -> Request:
        assert self._connection is not None
        try:
            request: Request = self._connection.recv()
        except OSError as error:
            raise EOFError from error
        return request

    def _answer(self, answer: object) -> Request:
        self._say(answer)
        return self._hear()

    def _say(self, answer: object) -> None:
        assert self._connection is not None
        try:
            self._connection.send(answer)
        except OSError as error:
            raise EOFError from error
