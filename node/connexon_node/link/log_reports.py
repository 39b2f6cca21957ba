"""One session's talk with the hub about the audit log: what it witnessed last, and how the log has grown since."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from connexon.errors import ConnexonError, Unavailable
from connexon.v1 import link_pb2, log_pb2
from connexon_node.audit.witness import LogContradicted, Witness
from connexon_node.delivery.outbox import Outbox

LOG = logging.getLogger("connexon.node")


class LogReporter:
    """Tells the hub of the log's growth, once at the beginning and then every `seconds` in which there was any.

    It says nothing before the hub has said what it witnessed: an older hub, which does not, would not understand.
    `on_problem` hears a sentence when the log is not the one that the hub witnessed, and "" when it is.
    """

    def __init__(self, witness: Witness, *, seconds: float, on_problem: Callable[[str], None]) -> None:
        self._witness = witness
        self._seconds = seconds
        self._on_problem = on_problem
        self._heard: asyncio.Queue[log_pb2.WitnessedHead] = asyncio.Queue()
        self._witnessed: int | None = None
        self._told: tuple[int, bytes] | None = None

    def hear(self, witnessed: log_pb2.WitnessedHead) -> None:
        """Take what the hub says, to be looked at by `run`."""
        self._heard.put_nowait(witnessed)

    async def run(self, outbox: Outbox) -> None:
        """Listen and tell until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(due if self._witnessed is not None else None):
                    witnessed = await self._heard.get()
            except TimeoutError:
                due = loop.time() + self._seconds
                await self._tell(outbox)
            else:
                # Not within the time limit: what was heard would be lost where looking at it takes longer.
                await self._take(witnessed)

    async def _take(self, witnessed: log_pb2.WitnessedHead) -> None:
        try:
            self._witnessed = await asyncio.to_thread(self._witness.heard, witnessed)
            self._on_problem("")
        except Unavailable as error:
            LOG.warning("what the hub witnessed could not be looked at: %s", error.public)
        except ConnexonError as error:
            LOG.error("%s (%s)", error.public, error.code)
            self._on_problem(error.public)
            self._witnessed = error.size if isinstance(error, LogContradicted) else None

    async def _tell(self, outbox: Outbox) -> None:
        assert self._witnessed is not None
        try:
            growth = await asyncio.to_thread(self._witness.growth, self._witnessed)
        except Unavailable as error:
            LOG.warning("the audit log's growth could not be told: %s", error.public)
            return
        except ConnexonError as error:
            LOG.error("%s (%s)", error.public, error.code)
            self._on_problem(error.public)
            return
        if growth is None:
            return
        told = (growth.since, log_pb2.TreeHead.FromString(growth.head.payload).root_sha256)
        if told != self._told:
            self._told = told
            outbox.say(link_pb2.AttachRequest(log=growth))
