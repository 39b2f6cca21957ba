"""Bringing back from the hub what an older copy of the database has forgotten: answers, charges and draws.

Each answer is this node's own word, proved by its own signature and receipt; nothing else is believed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from connexon.clock import now_ms
from connexon.errors import ConnexonError
from connexon.identity import credential, keys
from connexon.identity.credential import Researcher
from connexon.identity.keys import CenterId, PublicKey
from connexon.identity.roster import Roster
from connexon.query import wire_question
from connexon.query.question import Question
from connexon.query.signed import ANSWER_USE
from connexon.transparency import receipt
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.audit.recorder import STATUS_WORDS
from connexon_node.pipeline.delivery import claimed_expiry
from connexon_node.policy.request import Requester
from connexon_node.privacy import Share, draws
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.tables import PrivacyChargeRow
from connexon_node.recovery.hub_calls import Kept
from connexon_node.release.measures import read as read_numbers
from connexon_node.release.private import digest_of, drawn_order
from connexon_node.state.requests import AnswerRow, AuditRow, InboxRow

_INBOX = InboxRow.metadata.tables["inbox"]
_ANSWERS = AnswerRow.metadata.tables["answers"]
_AUDIT = AuditRow.metadata.tables["audit"]
_CHARGES = PrivacyChargeRow.metadata.tables[str(PrivacyChargeRow.__tablename__)]
_PRIVATE = query_pb2.NUMBER_KIND_PRIVATE


@dataclass(frozen=True)
class Own:
    """An answer of this node, proved: the number of its record, what it says, and who asked it, as far as is known."""

    kept: Kept
    sequence: int
    answer: answer_pb2.Answer
    question: Question | None
    researcher: Researcher | None


@dataclass(frozen=True)
class Brought:
    """What became of one: whether it was unknown here, whether a draw was kept, and the rho charged."""

    new: bool
    drawn: bool = False
    charged: float = 0.0


def prove(kept: Kept, center: CenterId, key: PublicKey, roster: Roster) -> Own | None:
    """The answer, where this node signed it and wrote it down; None for anything else."""
    signed = kept.answer
    if not keys.verify(key, ANSWER_USE, signed.payload, signed.signature):
        return None
    answer = answer_pb2.Answer.FromString(signed.payload)
    digests = {"query_sha256": answer.query_sha256, "result_sha256": hashlib.sha256(signed.payload).digest()}
    try:
        proved = receipt.verify_record(signed.receipt, **digests, center=center, keys=[key])
    except receipt.ReceiptRefused:
        return None
    if answer.query_id != kept.query_id or answer.center_id != center:
        return None
    question, researcher = _asked(kept, answer, roster)
    return Own(kept, proved.sequence, answer, question, researcher)


def _asked(kept: Kept, answer: answer_pb2.Answer, roster: Roster) -> tuple[Question | None, Researcher | None]:
    """The question, which the node proved when it answered it, and who asked; None where it cannot be told any more."""
    wire = query_pb2.SignedQuery.FromString(kept.query)
    if hashlib.sha256(wire.payload).digest() != answer.query_sha256:
        return None, None
    try:
        question = wire_question.from_bytes(wire.payload)
        # Whether they may still ask is of no consequence: what was spent was spent by them.
        there = credential.verify(wire.credential, roster, credential.NOTHING_REVOKED, at_ms=answer.answered_at_ms)
    except ConnexonError:
        return None, None
    return question, there


def bring_back(connection: Connection, own: Own, *, edition: int) -> Brought:
    """Write down what is not known here of an answer, in the caller's transaction. `edition` is the newest here."""
    answer, query_id = own.answer, own.kept.query_id
    if _is_known(connection, own):
        return Brought(new=False)
    _keep(connection, own)
    charged = answer.protection.noise.charged if answer.HasField("protection") else 0.0
    charges = select(_CHARGES.c.id).where(_CHARGES.c.query_id == query_id).limit(1)
    if not 0 < charged < 1e6 or connection.execute(charges).first() is not None:
        return Brought(new=True)
    _charge(connection, own, charged)
    drawn = _draw(own, connection, charged) if answer.protection.edition <= edition else None
    if drawn is not None:
        draws.keep(connection, drawn)
    return Brought(True, drawn is not None, charged)


def _is_known(connection: Connection, own: Own) -> bool:
    digest = hashlib.sha256(own.kept.answer.payload).digest()
    known = select(_AUDIT.c.sequence).where(_AUDIT.c.query_id == own.kept.query_id, _AUDIT.c.result_sha256 == digest)
    present = select(_ANSWERS.c.signed_answer).where(_ANSWERS.c.query_id == own.kept.query_id)
    kept = connection.execute(present).scalar_one_or_none()
    same = kept is not None and answer_pb2.SignedAnswer.FromString(bytes(kept)).payload == own.kept.answer.payload
    return same or connection.execute(known.limit(1)).first() is not None


def _keep(connection: Connection, own: Own) -> None:
    """The very answer that left is the answer to its query for good: no other may be given under that id."""
    query_id, answer, moment = own.kept.query_id, own.answer, now_ms()
    connection.execute(delete(_ANSWERS).where(_ANSWERS.c.query_id == query_id))
    connection.execute(delete(_INBOX).where(_INBOX.c.query_id == query_id))
    body = own.kept.query
    inbox = {
        "query_id": query_id,
        "body": body,
        "body_sha256": hashlib.sha256(body).digest(),
        "traceparent": "",
        "received_at_ms": answer.answered_at_ms,
        "expires_at_ms": claimed_expiry(body),
        "cancelled": False,
        "answered": True,
        "researcher": own.researcher.id if own.researcher else "",
        "attempts": 0,
    }
    connection.execute(insert(_INBOX), inbox)
    kept = {
        "query_id": query_id,
        "signed_answer": own.kept.answer.SerializeToString(),
        "status": STATUS_WORDS.get(answer.status, "failed"),
        "sealed_at_ms": answer.answered_at_ms,
        "stored_at_ms": moment,
    }
    connection.execute(insert(_ANSWERS), kept)


def _charge(connection: Connection, own: Own, rho: float) -> None:
    noise, question = own.answer.protection.noise, own.question
    project = question.purpose.project if question else ""
    researcher = own.researcher.id if own.researcher else ""
    share = Share.MODELS if own.answer.WhichOneof("result") == "enrolment" else Share.QUESTIONS
    write_charge(connection, share, rho, noise.delta, own.kept.query_id, researcher, project)


def write_charge(
    connection: Connection,
    share: Share,
    rho: float,
    delta: float,
    query_id: str,
    researcher: str = "",
    project: str = "",
) -> None:
    """Charge what was spent already. Without a stratum: it concerns every donor, which is never less than it was."""
    last = connection.execute(select(func.max(_CHARGES.c.id))).scalar_one() or 0
    row = {
        "id": last + 1,
        "share": share.value,
        "researcher": researcher,
        "project": project,
        "stratum": "",
        "rho": rho,
        "delta": delta,
        "query_id": query_id,
        "task": "",
        "at_ms": now_ms(),
    }
    connection.execute(insert(_CHARGES), row)


def _draw(own: Own, connection: Connection, charged: float) -> Draw | None:
    """The numbers as they left, so that the same question gets the same ones. Names that did not show stay
    unknown: they show no more.
    """
    answer, question, researcher = own.answer, own.question, own.researcher
    if answer.protection.kind != _PRIVATE or question is None or researcher is None:
        return None
    if answer.WhichOneof("result") not in ("count", "mean", None):
        return None
    by, groups = read_numbers(answer)
    provenance = answer.provenance
    versions = {"policies": provenance.policy_version, "dictionary": provenance.dictionary_version}
    requester = Requester.of(researcher, at_ms=answer.answered_at_ms)
    digest = digest_of(question, requester, edition=answer.protection.edition, versions=versions)
    standing = draws.of(connection, digest)
    numbers = drawn_order(groups, by)
    paid, whole = draws.paid(standing), answer.protection.noise.rho
    if standing:
        before = draws.mean(standing)
        # What left is the mean of all draws: this one is what makes it so, to the nearest whole number.
        numbers = {
            key: round((whole * number - paid * before[key]) / charged)
            for key, number in numbers.items()
            if key in before
        }
    scale = answer.protection.noise.scale
    return Draw(digest, question.dataset, own.kept.query_id, charged, scale, numbers, draws.NOBODY)
