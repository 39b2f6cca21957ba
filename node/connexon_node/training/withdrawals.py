"""What is owed to a donor who withdraws after their rows were trained on: the model says so from then on.

Nothing can take a donor's part out of a model that has left. The hub is told, once for each run, and flags the model;
it is not told who it was or how many.
"""

from __future__ import annotations

import logging

import numpy

from connexon.clock import now_ms
from connexon.identity.keys import CenterId
from connexon.link.parcel_files import TaskId
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.audit.recorder import STATUS_WORDS, SigningRecorder
from connexon_node.consent.ledger import Ledger
from connexon_node.training import ledger
from connexon_node.training.ledger import Run, TrainingLedger
from connexon_node.training.task_store import Outcome, keep_reply

LOG = logging.getLogger("connexon.node")
CODE = "consent.withdrawn"
MESSAGE = "Consent of somebody whose data this model was trained on at this center is no longer in force."
NOTICE = 0
"""The number of the notice among a run's tasks, which begin at 1."""


class Withdrawals:
    """Finds withdrawals after the fact and writes notices."""

    def __init__(self, database: Database, consents: Ledger, recorder: SigningRecorder, center: CenterId) -> None:
        self._database = database
        self._consents = consents
        self._recorder = recorder
        self._center = center
        self._ledger = TrainingLedger(database)

    def look(self) -> list[TaskId]:
        """Notices for withdrawals since the last look, written down; the ids under which they are to be sent."""
        epoch = self._consents.epoch()
        since = self._ledger.watched()
        if since == epoch:
            return []
        # The first look of all takes everybody's present state: nobody was trained on before it.
        changed = self._consents.changes(since or 0)
        gone = changed.donors[changed.profiles == 0]
        runs = self._ledger.contributed(numpy.unique(gone).tolist()) if gone.size else []
        sealed: answer_pb2.SignedAnswer | None = None
        with self._database.writing() as connection:
            for run in runs:
                answer = self._notice(run)
                sealed = self._recorder.write_down(connection, None, answer, started_at_ms=now_ms(), analysis="notice")
                outcome = Outcome(TaskId(run.run_id, NOTICE), "notice", 0, STATUS_WORDS[answer.status], CODE)
                keep_reply(connection, outcome, sealed.SerializeToString())
                ledger.noticed(connection, run.run_id)
            ledger.set_watched(connection, changed.epoch)
        if sealed is not None:
            self._recorder.mark(sealed)
        for run in runs:
            LOG.info("%s: the hub is told that consent ended after training", run.run_id)
        return [TaskId(run.run_id, NOTICE) for run in runs]

    def _notice(self, run: Run) -> answer_pb2.Answer:
        return answer_pb2.Answer(
            query_id=run.run_id,
            center_id=self._center,
            query_sha256=run.query_sha256,
            status=answer_pb2.ANSWER_STATUS_RELEASED,
            notice=answer_pb2.ModelNotice(code=CODE, message=MESSAGE),
        )
