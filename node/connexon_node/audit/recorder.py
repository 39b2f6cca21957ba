"""The recorder: audit record, stored answer and inbox in one transaction, and the center's signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from connexon.analyses.registry import spec_of
from connexon.clock import now_ms
from connexon.identity.keys import CenterId, SigningKey
from connexon.query import purpose, signed
from connexon.query.signed import Asked
from connexon.safe_text import plain
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.approvals import store as approvals
from connexon_node.audit import AuditLog, AuditRecord
from connexon_node.pipeline.values import ConsentMoved
from connexon_node.state.requests import AnswerRow, InboxRow

_INBOX = InboxRow.__table__  # type: ignore[attr-defined]  # SQLModel gives a table class its __table__ at run time
_ANSWERS = AnswerRow.__table__  # type: ignore[attr-defined]  # as above
# Built once: building a statement costs about as much as running it.
_KEPT = select(_ANSWERS.c.signed_answer, _ANSWERS.c.status, _ANSWERS.c.sealed_at_ms).where(
    _ANSWERS.c.query_id == bindparam("id")
)
_KEEP = insert(_ANSWERS)
_LET_GO = delete(_ANSWERS).where(_ANSWERS.c.query_id == bindparam("id"))
_ANSWERED = update(_INBOX).where(_INBOX.c.query_id == bindparam("id")).values(answered=True, attempts=0)

STATUS_WORDS: Mapping[int, str] = {
    number: name.removeprefix("ANSWER_STATUS_").lower() for name, number in answer_pb2.AnswerStatus.items()
}
"""What became of a query, as logs and lists write it, for example not_offered."""
AWAITING = STATUS_WORDS[answer_pb2.ANSWER_STATUS_AWAITING_STEWARD]


class SigningRecorder:
    """The recorder of a node (pipeline.Recorder).

    `epoch` reads the consent ledger's state within the sealing transaction. `mark` writes outside the database how many
    records there are, before what was sealed can leave.
    """

    def __init__(
        self,
        database: Database,
        log: AuditLog,
        key: SigningKey,
        *,
        epoch: Callable[[Connection], int],
        mark: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._log = log
        self._key = key
        self._epoch = epoch
        self._mark = mark

    def seal(
        self,
        asked: Asked | None,
        answer: answer_pb2.Answer,
        *,
        epoch: int | None,
        started_at_ms: int,
        commit: Callable[[Connection], None] | None = None,
    ) -> answer_pb2.SignedAnswer:
        """Record, keep and sign the answer; the one kept already, where there is one for its query.

        An answer that awaits the steward is followed by another, once; both stay recorded.

        Raises ConsentMoved where `epoch` is no longer the ledger's, ReleaseMoved where `commit` does, Unavailable
        where nothing can be written, recovery.StateOlder where the database was put back meanwhile.
        """
        sealed = self._sealed(asked, answer, epoch=epoch, started_at_ms=started_at_ms, commit=commit)
        self.mark(sealed)
        return sealed

    def _sealed(
        self,
        asked: Asked | None,
        answer: answer_pb2.Answer,
        *,
        epoch: int | None,
        started_at_ms: int,
        commit: Callable[[Connection], None] | None,
    ) -> answer_pb2.SignedAnswer:
        with self._database.writing() as connection:
            kept = connection.execute(_KEPT, {"id": answer.query_id}).one_or_none()
            if kept is not None and kept.status != AWAITING:
                return answer_pb2.SignedAnswer.FromString(bytes(kept.signed_answer))
            if epoch is not None and self._epoch(connection) != epoch:
                raise ConsentMoved("Donors' consent changed while the answer was computed.")
            if commit is not None:
                commit(connection)
            sealed = self.write_down(connection, asked, answer, started_at_ms=started_at_ms)
            row = {
                "query_id": answer.query_id,
                "signed_answer": sealed.SerializeToString(),
                "status": STATUS_WORDS[answer.status],
                "sealed_at_ms": now_ms(),
                "stored_at_ms": None,
            }
            if kept is not None:
                # The steward has decided: the answer follows the one that said so far only that it awaits them.
                earlier = {"query_id": answer.query_id, **kept._mapping}
                approvals.follow(connection, earlier, STATUS_WORDS[answer.status], final=row["status"] != AWAITING)
                connection.execute(_LET_GO, {"id": answer.query_id})
            connection.execute(_KEEP, row)
            connection.execute(_ANSWERED, {"id": answer.query_id})
        return sealed

    def seal_apart(self, answer: answer_pb2.Answer, *, started_at_ms: int) -> answer_pb2.SignedAnswer:
        """Record and sign an answer that does not become the answer of its query id.

        That one belongs to another question, or stays free for it: the record names no researcher and uses up no id.
        """
        with self._database.writing() as connection:
            sealed = self.write_down(connection, None, answer, started_at_ms=started_at_ms)
        self.mark(sealed)
        return sealed

    def mark(self, sealed: answer_pb2.SignedAnswer) -> None:
        """Have what was written down known outside the database. Who uses `write_down` does it after its transaction.

        Raises recovery.StateOlder, or Unavailable where nothing can be written: then nothing may leave.
        """
        self._mark(sealed.receipt.sequence)

    def write_down(
        self,
        connection: Connection,
        asked: Asked | None,
        answer: answer_pb2.Answer,
        *,
        started_at_ms: int,
        analysis: str = "",
    ) -> answer_pb2.SignedAnswer:
        """Append the audit record and sign, within the caller's transaction. `analysis`: what a task of a run does."""
        complete = answer_pb2.Answer()
        complete.CopyFrom(answer)
        complete.answered_at_ms = now_ms()
        sealed = signed.sign_answer(complete, self._key)
        proof = self._log.append(connection, _record_of(asked, complete, sealed.payload, started_at_ms, analysis))
        center = CenterId(complete.center_id)
        sealed.receipt.CopyFrom(proof.receipt(center, self._key, complete.answered_at_ms))
        return sealed


def _record_of(
    asked: Asked | None, answer: answer_pb2.Answer, payload: bytes, started_at_ms: int, analysis: str
) -> AuditRecord:
    question = asked.question if asked else None
    # Words from elsewhere are made plain: a zero byte, say, would end a field where the record is hashed.
    return AuditRecord(
        at_ms=answer.answered_at_ms,
        query_id=plain(answer.query_id),
        query_sha256=answer.query_sha256,
        researcher=plain(asked.researcher.id) if asked else "",
        purpose=plain(purpose.describe(question.purpose))[:1000] if question else "",
        dataset=plain(question.dataset) if question else "",
        analysis=analysis or (spec_of(question.analysis).traits.name if question else ""),
        status=STATUS_WORDS[answer.status],
        code=answer.reason.code[:100],
        rule=answer.reason.rule[:200],
        policy_version=answer.provenance.policy_version,
        duration_ms=max(0, answer.answered_at_ms - started_at_ms),
        result_sha256=hashlib.sha256(payload).digest(),
    )
