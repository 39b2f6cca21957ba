"""The link of a node that answers nothing for now: attached, so that others see why, and otherwise silent."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable

import connexon
from connexon.clock import now_ms
from connexon.errors import ConnexonError
from connexon.link import frames
from connexon.safe_text import plain
from connexon.v1 import link_pb2
from connexon_node.folder import NodeFolder
from connexon_node.link.client import LinkState
from connexon_node.link.session import Session, Times
from connexon_node.membership import keys
from connexon_node.recovery.standing import Trouble

LOG = logging.getLogger("connexon.node")


class SilentLink:
    """Stays attached beside the steward's recovery, which goes over connections of its own."""

    def __init__(
        self,
        folder: NodeFolder,
        *,
        address: str,
        trouble: Trouble,
        on_state: Callable[[LinkState], None],
        times: Times | None = None,
    ) -> None:
        self._folder = folder
        self._address = address
        self._trouble = trouble
        self._on_state = on_state
        self._times = times or Times()
        self._process_id = uuid.uuid4().hex

    async def run(self) -> None:
        """Stay attached until cancelled."""
        while True:
            try:
                await self._one_session()
            except ConnexonError as error:
                problem = f"{error.public} ({error.code})"
                LOG.info("not attached: %s", problem)
                self._on_state(LinkState(problem=problem, restoring=self._trouble.sentence))
            await asyncio.sleep(random.uniform(1, 2) * self._times.first_wait * 10)  # noqa: S311  # spreads load

    async def _one_session(self) -> None:
        hello = link_pb2.Hello(
            software_version=connexon.__version__, process_id=self._process_id, restoring=self._trouble.code
        )
        hello.protocol.major, hello.protocol.minor = frames.PROTOCOL.major, frames.PROTOCOL.minor
        session = await Session.attach(self._address, keys.channel_credentials(self._folder), hello, self._times)
        self._on_state(
            LinkState(
                attached_since_ms=now_ms(),
                clock_offset_ms=session.clock_offset_ms,
                hub_version=plain(session.welcome.software_version[:100]),
                restoring=self._trouble.sentence,
            )
        )
        try:
            session.begin_silent()
            await session.ended()
        finally:
            await session.close()
