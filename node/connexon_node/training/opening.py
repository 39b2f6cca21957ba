"""Putting the rooms of training together for the process that serves."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from typing import TYPE_CHECKING

from connexon.identity import keys
from connexon.service.database import Database
from connexon_node.audit import AuditLog
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.delivery.inbox import Inbox
from connexon_node.delivery.outbox import Outlet
from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.pipeline.question_pipeline import Steps
from connexon_node.recovery.marker import Marker
from connexon_node.release import ReleaseControl
from connexon_node.settings import NodeSettings
from connexon_node.training.spool import Spool
from connexon_node.training.task_pipeline import TaskStory, TrainingSteps
from connexon_node.training.task_store import TaskBox
from connexon_node.training.task_verification import Orders
from connexon_node.training.task_worker import TaskWorkshop
from connexon_node.training.withdrawals import Withdrawals
from connexon_node.training.worker_pool import Crew

if TYPE_CHECKING:
    from connexon_node.release.updates import UpdateRelease


_UPDATES = "connexon_node.release.updates"


def warm(crew: Crew) -> None:
    """Load in the background what the first task needs."""
    crew.warm()
    if _UPDATES not in sys.modules:
        load = functools.partial(importlib.import_module, _UPDATES)
        threading.Thread(target=load, name="training-load", daemon=True).start()


def open_training(
    folder: NodeFolder,
    settings: NodeSettings,
    database: Database,
    keeper: RosterKeeper,
    steps: Steps,
    crew: Crew,
    outlet: Outlet,
) -> TaskWorkshop:
    """The rooms that a task of a training run passes through beside those of questions, and who works in them."""
    center = keys.center_id(settings.hub.center)
    release, recorder = steps.release, steps.recorder
    assert isinstance(release, ReleaseControl)
    assert isinstance(recorder, SigningRecorder)
    box = TaskBox(database, Spool(folder.training).make())

    @functools.cache
    def updates() -> UpdateRelease:
        # Loaded when it is needed: Flower takes a second, and counts do not wait for it.
        from connexon_node.release.updates import UpdateRelease

        return UpdateRelease(release, settings.training, DICTIONARY)

    training = TrainingSteps(
        orders=Orders(center, steps.verifier, Inbox(database), box),
        crew=crew,
        updates=updates,
        recorder=recorder,
    )
    story = TaskStory(
        center,
        steps,
        training,
        database=database,
        box=box,
        epoch=Ledger(database).epoch,
        roster_serial=lambda: keeper.serial,
    )
    return TaskWorkshop(box, story, crew, outlet, workers=settings.training.concurrent_tasks)


def open_withdrawals(folder: NodeFolder, settings: NodeSettings, database: Database) -> Withdrawals:
    """Who looks for withdrawals after training."""
    ledger = Ledger(database)
    key, marker = NodeKeys.load(folder).answering, Marker(folder, database)
    recorder = SigningRecorder(database, AuditLog(database), key, epoch=ledger.epoch, mark=marker.reach)
    return Withdrawals(database, ledger, recorder, keys.center_id(settings.hub.center))
