"""Is this a reply of that center to that very task: decided from the bytes and the roster.

What the records hold is checked by the run's process before a strategy sees them (connexon_hub.training.grid).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from connexon import strict
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.link import parcel_files
from connexon.link.frames import ParcelRefused
from connexon.link.parcel_files import Arrived, ParcelFile
from connexon.query import signed
from connexon.query.signed import AnswerRefused
from connexon.v1 import answer_pb2

_ROOM = 64 * 1024 * 1024
"""Bytes that every reply may have; one to a large task may be larger."""

NOTICES = frozenset({"consent.withdrawn"})
"""What a center may say of a model afterwards, each once: one that made codes up could say anything, and for ever."""


@dataclass(frozen=True)
class Said:
    """A reply that holds. `head` is the serialised SignedAnswer."""

    head: bytes
    answer: answer_pb2.Answer


def largest(task_size: int) -> int:
    """The most bytes that a reply to a task of this size may have."""
    return max(_ROOM, 3 * task_size)


def check(arrived: Arrived, *, center: CenterId, roster: Roster, query_payload: bytes, task: Path) -> Said:
    """Return what may be kept of a reply. Raises AnswerRefused."""
    parcel, said = _read(arrived, center=center, roster=roster, query_payload=query_payload)
    result = said.answer.task
    same = said.answer.WhichOneof("result") == "task" and result.task_id == str(arrived.id)
    if not same or result.task_sha256 != _sha256(task):
        raise AnswerRefused("The reply is to another task.", code="answer.other_task")
    if result.records_size != parcel.records_size or (
        parcel.records_size and result.records_sha256 != parcel.records_sha256()
    ):
        raise AnswerRefused("The reply's records are not those that were signed.", code="answer.other_records")
    return said


def check_notice(arrived: Arrived, *, center: CenterId, roster: Roster, query_payload: bytes) -> Said:
    """Return a notice about a model. Raises AnswerRefused."""
    _, said = _read(arrived, center=center, roster=roster, query_payload=query_payload)
    notice = said.answer.notice
    known = said.answer.WhichOneof("result") == "notice" and notice.code in NOTICES
    if not known or len(notice.message) > 1000 or not notice.message.isprintable():
        raise AnswerRefused("The notice does not say what has happened.", code="answer.no_notice")
    return said


@lru_cache(maxsize=64)
def _sha256(task: Path) -> bytes:
    # INVARIANT: a task's file never changes. All centers reply to the same one: it is read once.
    with task.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _read(arrived: Arrived, *, center: CenterId, roster: Roster, query_payload: bytes) -> tuple[ParcelFile, Said]:
    try:
        parcel = parcel_files.read(arrived.path)
        wire = strict.read(answer_pb2.SignedAnswer, parcel.head, what="answer")
    except (InvalidQuery, ParcelRefused) as error:
        raise AnswerRefused(error.public, code=error.code) from error
    answer = signed.verify_answer(wire, roster, center=center, query_payload=query_payload)
    if answer.query_id != arrived.id.run:
        raise AnswerRefused("The answer is to another question.", code="answer.other_query")
    return parcel, Said(parcel.head, answer)
