"""The node's process: puts the rooms together, stays attached, and leaves in order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Coroutine
from dataclasses import asdict, dataclass

from connexon.clock import DAY, now_ms, to_datetime
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
from connexon_node.lock import only_one
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.revocations import RevocationStore
from connexon_node.membership.roster import open_keeper
from connexon_node.pipeline.question_pipeline import Story
from connexon_node.settings import NodeSettings
from connexon_node.state import open_state
from connexon_node.training.opening import open_training, open_withdrawals, warm
from connexon_node.training.task_worker import TaskWorkshop
from connexon_node.training.withdrawals import Withdrawals
from connexon_node.training.worker_pool import Crew

LOG = logging.getLogger("connexon.node")
GRACE_SECONDS = 5.0
PRUNE_SECONDS = 3600.0
LOOKING_SECONDS = 1.0
ENDING_SECONDS = 30.0


def serve(folder: NodeFolder) -> bool:
    """Serve until SIGTERM or SIGINT. False where work still ran at the end; the next start begins it again.

    Raises Misconfigured, Unavailable, or Conflict where this folder is being served already.
    """
    settings = node_settings.load(folder)
    with only_one(folder):
        return asyncio.run(_serve(folder, settings))


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


async def _serve(folder: NodeFolder, settings: NodeSettings) -> bool:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = open_state(settings.state_url)
    keeper = open_keeper(settings, database)
    crew = Crew(settings.training)
    steps = open_rooms(folder, settings, database, keeper, warm=lambda: warm(crew))
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
    )
    left_over = await workshop.resume() + await tasks.resume()
    if left_over:
        LOG.info("%d questions were left unanswered and are taken up", left_over)
    systemd.notify(READY=1, STATUS=f"serving {center}")
    await _until(
        stop,
        link.run(),
        systemd.keep_watchdog_quiet(),
        _prune(workshop, tasks, revocations, settings.keep_days),
        _look_after_requests(workshop),
        _look_after_revocations(revocations, outlet, center),
        _let_consents_end(Ledger(database)),
        _look_after_withdrawals(open_withdrawals(folder, settings, database), tasks),
    )
    LOG.info("stopping")
    systemd.notify(STOPPING=1)
    ended = await asyncio.gather(workshop.close(grace_seconds=GRACE_SECONDS), tasks.close(grace_seconds=GRACE_SECONDS))
    finished = all(ended)
    folder.serve_file.unlink(missing_ok=True)
    if finished:
        database.close()
    return finished


async def _until(stop: asyncio.Event, *work: Coroutine[None, None, None]) -> None:
    """Run until `stop`, or until one of the tasks fails, which raises."""
    stopped: asyncio.Task[object] = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    done, pending = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for finished in done:
        finished.result()


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


async def _let_consents_end(ledger: Ledger) -> None:
    """Write down the end of consents on their day also while nobody asks; a question would do it itself."""
    while True:
        try:
            ended = await asyncio.to_thread(ledger.expire, to_datetime(now_ms()).date())
            if ended:
                LOG.info("%d consents have come to their end", ended)
        except ConnexonError as error:
            LOG.warning("the end of consents could not be written: %s", error.public)
        await asyncio.sleep(ENDING_SECONDS)


async def _look_after_withdrawals(withdrawals: Withdrawals, tasks: TaskWorkshop) -> None:
    """A donor whose rows were trained on may withdraw afterwards: the hub is told of the model."""
    while True:
        try:
            for notice in await asyncio.to_thread(withdrawals.look):
                tasks.say(notice)
            await tasks.tidy()
        except ConnexonError as error:
            LOG.warning("withdrawals after training could not be looked for: %s", error.public)
        await asyncio.sleep(LOOKING_SECONDS)


async def _prune(workshop: Workshop, tasks: TaskWorkshop, revocations: RevocationStore, keep_days: int) -> None:
    while True:
        try:
            await asyncio.to_thread(revocations.prune)
            removed = await workshop.prune(keep_days * DAY) + await tasks.prune(keep_days * DAY)
            if removed:
                LOG.info("%d old questions removed from the inbox; the audit log keeps its record of them", removed)
        except ConnexonError as error:
            LOG.warning("old questions could not be removed: %s", error.public)
        await asyncio.sleep(PRUNE_SECONDS)
