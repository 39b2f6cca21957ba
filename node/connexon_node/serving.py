"""The node's process: puts the rooms together, stays attached, and leaves in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Coroutine
from dataclasses import asdict, dataclass

from connexon.clock import DAY, now_ms, to_datetime
from connexon.clock_check import ClockCheck
from connexon.errors import ConnexonError
from connexon.identity import keys
from connexon.identity.keys import CenterId, SpiffeId
from connexon.service import gc_tuning, systemd
from connexon_node import settings as node_settings
from connexon_node.approvals import ApprovalStore
from connexon_node.assembly import open_rooms
from connexon_node.audit import AuditLog
from connexon_node.audit.witness import Witness
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.delivery.inbox import Inbox
from connexon_node.delivery.outbox import Outlet
from connexon_node.delivery.question_worker import Workshop
from connexon_node.folder import NodeFolder
from connexon_node.link.client import Link, LinkState
from connexon_node.link.silent import SilentLink
from connexon_node.lock import only_one
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.revocations import RevocationStore
from connexon_node.membership.roster import open_keeper
from connexon_node.pipeline.question_pipeline import Story
from connexon_node.recovery import StateOlder, standing
from connexon_node.recovery.marker import Marker
from connexon_node.recovery.standing import Trouble
from connexon_node.settings import NodeSettings
from connexon_node.state import open_state
from connexon_node.training.opening import open_training, open_withdrawals, warm
from connexon_node.training.task_worker import TaskWorkshop
from connexon_node.training.withdrawals import Withdrawals
from connexon_node.training.worker_pool import Crew

LOG = logging.getLogger("connexon.node")
GRACE_SECONDS = 5.0
LONGEST_LEAVING_SECONDS = 2 * GRACE_SECONDS
"""After that the process ends with what still runs."""
PRUNE_SECONDS = 3600.0
LOOKING_SECONDS = 1.0
ENDING_SECONDS = 30.0


def serve(folder: NodeFolder) -> bool:
    """Serve until SIGTERM or SIGINT. False where work still ran at the end; the next start begins it again.

    Raises Misconfigured, Unavailable, or Conflict where this folder is being served already.
    """
    settings = node_settings.load(folder)
    with only_one(folder):
        while (finished := asyncio.run(_serve(folder, settings))) is None:
            settings = node_settings.load(folder)
        return finished


@dataclass
class ServeFile:
    """serve.json: what other commands learn about the serving process."""

    folder: NodeFolder
    started_at_ms: int

    def write(self, state: LinkState) -> None:
        """Replace the file. It only informs: where it cannot be written, the node goes on."""
        content = {"pid": os.getpid(), "started_at_ms": self.started_at_ms, **asdict(state)}
        try:
            keys.replace_file(self.folder.serve_file, json.dumps(content).encode() + b"\n", private=True)
        except OSError as error:
            LOG.warning("%s cannot be written: %s", self.folder.serve_file, error.strerror)


async def _serve(folder: NodeFolder, settings: NodeSettings) -> bool | None:
    """Answer, or be silent where the node is older than what left it; None where that has changed."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # A terminal that closes, or a habit from elsewhere: it must not end a node in the middle of its work.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, LOG.info, "SIGHUP: nothing is read anew; restart")
    systemd.notify(READY=1, STATUS=f"serving {settings.hub.center}")
    watchdog = asyncio.create_task(systemd.keep_watchdog_quiet())
    try:
        trouble = await asyncio.to_thread(standing.assess, folder, settings)
        if trouble is not None:
            return await _stay_silent(folder, settings, trouble, stop)
        return await _answer(folder, settings, stop)
    finally:
        watchdog.cancel()


async def _stay_silent(
    folder: NodeFolder, settings: NodeSettings, trouble: Trouble, stop: asyncio.Event
) -> bool | None:
    """Attached, and nothing more, until the steward has recovered the node: None; or until it is stopped: True."""
    LOG.error("%s Nothing is answered until connexon-node recover (%s)", trouble.sentence, trouble.code)
    file = ServeFile(folder, now_ms())
    file.write(LinkState(restoring=trouble.sentence))
    link = SilentLink(folder, address=settings.hub.link_address, trouble=trouble, on_state=file.write)
    recovered = asyncio.Event()
    await _until(stop, link.run(), _look_for_recovery(folder, recovered))
    folder.serve_file.unlink(missing_ok=True)
    return None if recovered.is_set() else True


async def _look_for_recovery(folder: NodeFolder, recovered: asyncio.Event) -> None:
    while standing.noted(folder) is not None:  # noqa: ASYNC110  # another process ends it, which sets no event here
        await asyncio.sleep(LOOKING_SECONDS)
    LOG.info("the steward has recovered this node: it answers again")
    recovered.set()


async def _answer(folder: NodeFolder, settings: NodeSettings, stop: asyncio.Event) -> bool | None:
    database = open_state(settings.state_url)
    Marker(folder, database).touch()
    keeper = open_keeper(settings, database)
    crew, clock = Crew(settings.training), ClockCheck()
    steps = open_rooms(folder, settings, database, keeper, warm=lambda: warm(crew), clock=clock)
    center = keys.center_id(settings.hub.center)
    story = Story(center, steps, roster_serial=lambda: keeper.serial)
    outlet = Outlet()
    revocations = RevocationStore(database)
    workshop = Workshop(
        Inbox(database), story, outlet, requests=ApprovalStore(database), workers=settings.engine.concurrent_queries
    )
    tasks = open_training(folder, settings, database, keeper, steps, crew, outlet)
    file = ServeFile(folder, now_ms())
    gc_tuning.keep_loaded()
    file.write(LinkState())
    link = Link(
        folder,
        address=settings.hub.link_address,
        public_address=settings.hub.public_address,
        identity=SpiffeId(settings.hub.federation, center),
        node_keys=NodeKeys.load(folder),
        keeper=keeper,
        workshop=workshop,
        outlet=outlet,
        witness=Witness(database, AuditLog(database), center=center, key=NodeKeys.load(folder).answering),
        revocations=revocations,
        dictionary_version=DICTIONARY.version,
        on_state=file.write,
        training=tasks,
        clock=clock,
    )
    older = False
    try:
        await _until(
            stop,
            link.run(),
            _take_up(link, workshop, tasks),
            _prune(workshop, tasks, revocations, clock, settings.keep_days),
            _look_after_revocations(revocations, outlet, center),
            _let_consents_end(link, Ledger(database, clock=clock)),
            _look_after_withdrawals(link, open_withdrawals(folder, settings, database), tasks),
        )
    except StateOlder as error:
        standing.note(folder, error, error.lost)
        older = True
    LOG.info("stopping")
    systemd.notify(STOPPING=1)
    leaving = _leave_in(0 if older else LONGEST_LEAVING_SECONDS)
    ended = await asyncio.gather(workshop.close(grace_seconds=GRACE_SECONDS), tasks.close(grace_seconds=GRACE_SECONDS))
    finished = all(ended)
    if finished:
        leaving.cancel()
    if older:
        return None
    folder.serve_file.unlink(missing_ok=True)
    if finished:
        database.close()
    return finished


def _leave_in(seconds: float) -> threading.Timer:
    """End the process after so long, whatever still runs: threads that wait for a database cannot be ended. 0: never.

    What they were at is in the inbox, and begins again with the next start.
    """
    timer = threading.Timer(seconds or threading.TIMEOUT_MAX, os._exit, (0,))
    timer.daemon = True
    if seconds:
        timer.start()
    return timer


async def _until(stop: asyncio.Event, *work: Coroutine[None, None, None]) -> None:
    """Run until `stop`, or until one of the tasks ends; one that fails raises."""
    stopped: asyncio.Task[object] = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    done, pending = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for finished in done:
        finished.result()


async def _take_up(link: Link, workshop: Workshop, tasks: TaskWorkshop) -> None:
    """Work on what was left over and on what the steward decides, once it is known that the state is no older one."""
    await link.compared.wait()
    left_over = await workshop.resume() + await tasks.resume()
    if left_over:
        LOG.info("%d questions were left unanswered and are taken up", left_over)
    await _look_after_requests(workshop)


async def _look_after_requests(workshop: Workshop) -> None:
    """The steward decides from another process: what they decided is found here."""
    while True:
        try:
            await workshop.look_after_requests()
        except ConnexonError as error:
            LOG.warning("the steward's decisions could not be read: %s", error.public)
        await asyncio.sleep(LOOKING_SECONDS)


async def _look_after_revocations(revocations: RevocationStore, outlet: Outlet, home: CenterId) -> None:
    """The steward revokes from another process: it is said to the hub here, and again in every session."""
    while True:
        try:
            outlet.revoke(await asyncio.to_thread(revocations.to_say, home))
        except ConnexonError as error:
            LOG.warning("what was revoked could not be read: %s", error.public)
        await asyncio.sleep(LOOKING_SECONDS)


async def _let_consents_end(link: Link, ledger: Ledger) -> None:
    """Write down the end of consents on their day also while nobody asks; a question would do it itself."""
    await link.compared.wait()
    while True:
        try:
            ended = await asyncio.to_thread(ledger.expire, to_datetime(now_ms()).date())
            if ended:
                LOG.info("%d consents have come to their end", ended)
        except ConnexonError as error:
            LOG.warning("the end of consents could not be written: %s", error.public)
        await asyncio.sleep(ENDING_SECONDS)


async def _look_after_withdrawals(link: Link, withdrawals: Withdrawals, tasks: TaskWorkshop) -> None:
    """A donor whose rows were trained on may withdraw afterwards: the hub is told of the model."""
    await link.compared.wait()
    while True:
        try:
            for notice in await asyncio.to_thread(withdrawals.look):
                tasks.say(notice)
            await tasks.tidy()
        except ConnexonError as error:
            LOG.warning("withdrawals after training could not be looked for: %s", error.public)
        await asyncio.sleep(LOOKING_SECONDS)


async def _prune(
    workshop: Workshop, tasks: TaskWorkshop, revocations: RevocationStore, clock: ClockCheck, keep_days: int
) -> None:
    while True:
        sure = clock.sure_ms()
        if sure is None:
            await asyncio.sleep(LOOKING_SECONDS)
            continue
        try:
            await asyncio.to_thread(revocations.prune, sure)
            before = sure - keep_days * DAY
            removed = await workshop.prune(before) + await tasks.prune(before)
            if removed:
                LOG.info("%d old questions removed from the inbox; the audit log keeps its record of them", removed)
        except ConnexonError as error:
            LOG.warning("old questions could not be removed: %s", error.public)
        await asyncio.sleep(PRUNE_SECONDS)
