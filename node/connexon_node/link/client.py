"""The link: dials the hub, stays attached, comes back after every end, and renews the node's certificate."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

import connexon
from connexon.clock import now_ms, to_text
from connexon.clock_check import ClockCheck
from connexon.errors import ConnexonError, Misconfigured, Unavailable
from connexon.identity.keys import SpiffeId
from connexon.identity.roster import RosterRefused
from connexon.link import frames
from connexon.safe_text import plain
from connexon.v1 import link_pb2, revocation_pb2, roster_pb2
from connexon_node.audit.witness import Witness
from connexon_node.delivery.outbox import Outbox, Outlet
from connexon_node.delivery.question_worker import Workshop
from connexon_node.folder import NodeFolder
from connexon_node.link import renewal
from connexon_node.link.log_reports import LogReporter
from connexon_node.link.session import LinkEnded, Session, Times
from connexon_node.membership import keys
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from connexon_node.membership.revocations import RevocationStore
from connexon_node.membership.roster import RosterKeeper
from connexon_node.recovery import StateOlder

if TYPE_CHECKING:
    from connexon_node.training.task_worker import TaskWorkshop

LOG = logging.getLogger("connexon.node")
HUB = "hub"
SHOWN_MS = 2_000
"""A change of the clocks' difference that is told."""


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ConnexonError) and not isinstance(error, StateOlder)


@dataclass(frozen=True, kw_only=True)
class LinkState:
    """How the link is, for `status` and `doctor`. Milliseconds since 1970-01-01 UTC; the offset is our clock's lead.

    `log_problem` says that the audit log is not the one that the hub witnessed, `restoring` why the node is silent.
    """

    attached_since_ms: int | None = None
    problem: str = ""
    clock_offset_ms: int | None = None
    clock_problem: str = ""
    hub_version: str = ""
    log_problem: str = ""
    restoring: str = ""


class Link:
    """The node's one connection. `on_state` hears every change."""

    def __init__(
        self,
        folder: NodeFolder,
        *,
        address: str,
        public_address: str,
        identity: SpiffeId,
        node_keys: NodeKeys,
        keeper: RosterKeeper,
        workshop: Workshop,
        outlet: Outlet,
        witness: Witness,
        revocations: RevocationStore,
        dictionary_version: str,
        on_state: Callable[[LinkState], None] = lambda _: None,
        times: Times | None = None,
        training: TaskWorkshop | None = None,
        clock: ClockCheck | None = None,
    ) -> None:
        self._folder = folder
        self._address = address
        self._public_address = public_address
        self._identity = identity
        self._keys = node_keys
        self._keeper = keeper
        self._workshop = workshop
        self._outlet = outlet
        self._training = training
        self._clock = clock or ClockCheck()
        self._witness = witness
        self._revocations = revocations
        self._dictionary_version = dictionary_version
        self._on_state = on_state
        self._times = times or Times()
        self._process_id = uuid.uuid4().hex
        self.compared = asyncio.Event()
        """Set when the hub has said once how far this node's log had come, and it was so far."""
        self._state = LinkState()
        self._calm = wait_random_exponential(multiplier=self._times.first_wait, max=self._times.longest_wait)

    async def run(self) -> None:
        """Stay attached until cancelled. Raises recovery.StateOlder where the hub was told of a later state."""
        while True:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_may_pass), wait=self._wait, sleep=asyncio.sleep
            ):
                with attempt:
                    await self._one_session()
            # A little apart, so that a hub that restarts is not met by every node at once.
            await asyncio.sleep(random.uniform(0, 2 * self._times.first_wait))  # noqa: S311  # spreads load

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, LinkEnded) and not error.retry:
            return self._times.refused_wait * random.uniform(0.9, 1.1)  # noqa: S311  # spreads load
        return self._calm(state)

    async def _one_session(self) -> None:
        """Attach and stay. Returns after a session that lasted, raises the reason otherwise."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        session: Session | None = None
        try:
            session = await self._attach()
            while True:
                session = await self._stay(session)
        except ConnexonError as error:
            self._detached(error)
            if loop.time() - began < self._times.settled or not _may_pass(error):
                raise
        finally:
            self._outlet.outbox = None
            if session is not None:
                await session.close()

    async def _attach(self) -> Session:
        await self._require_certificate()
        hello = link_pb2.Hello(
            software_version=connexon.__version__,
            process_id=self._process_id,
            roster_serial=self._keeper.serial,
            now_ms=now_ms(),
            dictionary_version=self._dictionary_version,
        )
        hello.protocol.major, hello.protocol.minor = frames.PROTOCOL.major, frames.PROTOCOL.minor
        credentials = keys.channel_credentials(self._folder)
        session = await Session.attach(self._address, credentials, hello, self._times)
        self._compare(session.welcome.now_ms)
        session.on_time = self._compare
        await self._require_own_log(session)
        load_reply = self._training.load if self._training is not None else None
        outbox = Outbox(self._workshop.load_answer, load_reply, protocol=session.protocol)
        reporter = LogReporter(self._witness, seconds=self._times.heartbeat, on_problem=self._log_problem)
        # First: what the hub says of our log, as soon as it is heard, is added to this.
        self._attached(session)
        session.begin(outbox, self._workshop, self._believe, self._hear, reporter, self._training)
        self._outlet.outbox = outbox
        try:
            outbox.answers(await self._workshop.unsent())
            for task in await self._training.unsent() if self._training is not None else ():
                outbox.reply(task)
        except BaseException:
            await session.close()
            raise
        return session

    def _compare(self, hub_ms: int) -> None:
        """The hub's clock shows this now: tell of the difference where it has changed."""
        self._clock.compare(HUB, hub_ms)
        offset, known = self._clock.offset_ms(HUB), self._state.clock_offset_ms
        if self._state.attached_since_ms is None or offset is None or known is None:
            return
        if abs(offset - known) > SHOWN_MS or self._state.clock_problem != self._clock.doubt:
            self._tell(replace(self._state, clock_offset_ms=offset, clock_problem=self._clock.doubt))

    async def _require_own_log(self, session: Session) -> None:
        """Before a word more is said or heard: raise StateOlder where this node is older than what left it."""
        try:
            if session.welcome.HasField("told"):
                await asyncio.to_thread(self._witness.require_told, session.welcome.told)
        except BaseException:
            await session.close()
            raise
        self.compared.set()

    async def _stay(self, session: Session) -> Session:
        """Stay until the session ends, which raises, or until it is replaced by one with a newer certificate."""
        ended = asyncio.create_task(session.ended())
        # At least a moment: a certificate of a very short life must not make the node do nothing but renew.
        due = renewal.seconds_until_due(LinkCertificate.load(self._folder))
        pause = max(due, renewal.SHORTEST_PAUSE_SECONDS)
        try:
            while True:
                await asyncio.wait({ended}, timeout=pause)
                if ended.done():
                    ended.result()
                successor = await self._renewed(session)
                if successor is not None:
                    break
                pause = renewal.pause_after_failure(LinkCertificate.load(self._folder))
        finally:
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnexonError):
                await ended
        await session.close()
        return successor

    async def _renewed(self, session: Session) -> Session | None:
        """Renew the certificate and attach with it, before the present session is closed; None where it failed."""
        try:
            certificate = await renewal.renew(session.channel, self._folder, self._keys.link, self._identity)
            successor = await self._attach()
        except ConnexonError as error:
            LOG.warning("the certificate could not be renewed yet: %s (%s)", error.public, error.code)
            return None
        LOG.info("certificate renewed, valid until %s", certificate.expires.strftime("%Y-%m-%d %H:%M UTC"))
        return successor

    async def _require_certificate(self) -> None:
        held = LinkCertificate.load(self._folder)
        if held.expires > datetime.datetime.now(datetime.UTC):
            return
        over = f"The node's certificate expired on {held.expires:%Y-%m-%d}"
        try:
            renewed = await renewal.renew_expired(
                self._folder, self._public_address, self._keys.link, self._identity, held
            )
        except Unavailable as error:
            raise Unavailable(f"{over}, and could not be renewed yet: {error.public}", code=error.code) from error
        except ConnexonError as error:
            raise Misconfigured(
                f"{over}, and the hub does not renew it: {error.public} If this center is to take part, ask the hub's "
                "operator for a new invitation and run connexon-node join again.",
                code="certificate.expired",
            ) from error
        LOG.info("the expired certificate was renewed, valid until %s", f"{renewed.expires:%Y-%m-%d %H:%M} UTC")

    async def _believe(self, signed: roster_pb2.SignedRoster) -> None:
        try:
            newer = await asyncio.to_thread(self._keeper.receive, signed)
        except RosterRefused as refusal:
            if refusal.code != "roster.older":
                raise
            LOG.warning("roster ignored: %s", refusal.public)
            return
        if newer:
            LOG.info("roster %d believed, until %s", self._keeper.serial, to_text(self._keeper.present.expires_at_ms))
            self._follow_authority()

    async def _hear(self, said: revocation_pb2.Revocations) -> None:
        """Write down what centers have revoked. Where that fails the session ends, and the next brings it again."""
        home, roster = self._identity.center, self._keeper.present
        for one in await asyncio.to_thread(self._revocations.receive, said, roster, home=home):
            LOG.warning("%s has revoked what it said of %s/%s", one.center, one.center, one.subject)

    def _follow_authority(self) -> None:
        # The roster, which the root signed, says which authority the hub has from now on.
        authority = self._keeper.present.hub_certificate_authority
        if authority:
            keys.save_authority(self._folder, authority)

    def _attached(self, session: Session) -> None:
        version = plain(session.welcome.software_version[:100])
        LOG.info("attached to the hub at %s (version %s)", self._address, version)
        offset, doubt = session.clock_offset_ms, self._clock.doubt
        if doubt:
            LOG.warning("%s Nothing is ended or removed until they agree.", doubt)
        self._tell(
            LinkState(attached_since_ms=now_ms(), clock_offset_ms=offset, clock_problem=doubt, hub_version=version)
        )

    def _detached(self, error: ConnexonError) -> None:
        problem = f"{error.public} ({error.code})"
        if problem != self._state.problem:
            LOG.warning("not attached: %s", problem)
        self._tell(replace(self._state, attached_since_ms=None, problem=problem))

    def _log_problem(self, sentence: str) -> None:
        self._tell(replace(self._state, log_problem=sentence))

    def _tell(self, state: LinkState) -> None:
        if state != self._state:
            self._state = state
            self._on_state(state)
