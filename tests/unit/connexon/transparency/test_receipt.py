"""Receipts: an answer counts only with the proof that its center wrote it down, and no other proof will do."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.clock import now_ms
from connexon.errors import Refused
from connexon.query import signed
from connexon.transparency import proof_file, receipt
from connexon.transparency.receipt import ReceiptRefused, TreeHead
from connexon.v1 import answer_pb2, log_pb2
from connexon_node.audit import AuditLog, verify
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.state import open_state
from tests.support.federation import new_federation
from tests.support.receipts import SmallLog

FEDERATION = new_federation()
ROSTER = FEDERATION.roster()
KYOTO, LYON = FEDERATION.centers["kyoto"], FEDERATION.centers["lyon"]
QUERY = FEDERATION.researcher().ask("kyoto")


def answered() -> tuple[answer_pb2.SignedAnswer, SmallLog]:
    """An answer that is record 5 of a log of 5, which has 9 by now."""
    answer = KYOTO.answer(QUERY)
    log = SmallLog(KYOTO.id, KYOTO.answering)
    log.grow(4)
    answer.receipt.CopyFrom(log.add(hashlib.sha256(QUERY.payload).digest(), answer.payload))
    log.grow(4)
    return answer, log


def prove(answer: answer_pb2.SignedAnswer) -> receipt.Proved:
    return receipt.verify(answer, ROSTER, center=KYOTO.id, query_sha256=hashlib.sha256(QUERY.payload).digest())


def test_a_receipt_proves_the_answers_place_in_the_log() -> None:
    answer, log = answered()
    proved = prove(answer)
    assert (proved.sequence, proved.head.size, proved.head.center) == (5, 5, KYOTO.id)
    assert proved.head.root == receipt.read_head(log.head(5), center=KYOTO.id, keys=[KYOTO.answering.public]).root


def _absent(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    answer.ClearField("receipt")


def _later_head(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    answer.receipt.head.CopyFrom(log.head())


def _other_answer(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    other = KYOTO.answer(QUERY, count=41)
    answer.payload, answer.signature = other.payload, other.signature


def _other_number(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    answer.receipt.sequence = 4


def _no_number(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    answer.receipt.sequence = 0


def _other_details(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    answer.receipt.details_sha256 = bytes(32)


def _short_details(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    answer.receipt.details_sha256 = b"short"


def _short_path(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    del answer.receipt.path[-1]


def _forged_head(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    head = TreeHead(KYOTO.id, 1, bytes(32), now_ms())
    answer.receipt.head.CopyFrom(receipt.sign_head(head, LYON.answering))


def _accredited_head(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    head = log_pb2.SignedTreeHead(payload=answer.receipt.head.payload)
    head.signature = KYOTO.accrediting.sign(receipt.HEAD_USE, head.payload)
    answer.receipt.head.CopyFrom(head)


def _head_signed_as_answer(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    head = answer.receipt.head
    head.signature = KYOTO.answering.sign(signed.ANSWER_USE, head.payload)


def _head_of_another(answer: answer_pb2.SignedAnswer, log: SmallLog) -> None:
    head = TreeHead(LYON.id, 5, bytes(32), now_ms())
    answer.receipt.head.CopyFrom(receipt.sign_head(head, KYOTO.answering))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_absent, "receipt.absent"),
        (_later_head, "receipt.bad_path"),
        (_other_answer, "receipt.bad_path"),
        (_other_number, "receipt.bad_path"),
        (_no_number, "receipt.bad_path"),
        (_other_details, "receipt.bad_path"),
        (_short_details, "receipt.unreadable"),
        (_short_path, "receipt.bad_path"),
        (_forged_head, "receipt.bad_signature"),
        (_accredited_head, "receipt.bad_signature"),
        (_head_signed_as_answer, "receipt.bad_signature"),
        (_head_of_another, "receipt.other_center"),
    ],
)
def test_a_receipt_that_proves_nothing_is_refused_with_its_code(
    spoil: Callable[[answer_pb2.SignedAnswer, SmallLog], None], code: str
) -> None:
    answer, log = answered()
    spoil(answer, log)
    with pytest.raises(ReceiptRefused) as refusal:
        prove(answer)
    assert refusal.value.code == code


WHOLE = answered()[0].SerializeToString()


@settings(max_examples=300)
@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_no_bit_of_an_answer_with_its_receipt_can_be_changed(place: int, bit: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] ^= 1 << bit
    try:
        answer = answer_pb2.SignedAnswer.FromString(bytes(changed))
    except DecodeError:
        return
    with pytest.raises(Refused):
        signed.verify_answer(answer, ROSTER, center=KYOTO.id, query_payload=QUERY.payload)
        prove(answer)


def test_a_query_id_with_control_characters_is_recorded_plainly_and_the_log_stays_whole(tmp_path: Path) -> None:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    recorder = SigningRecorder(database, AuditLog(database), KYOTO.answering, epoch=lambda _: 1)
    answer = answer_pb2.Answer(query_id="a\0b\x1b[2J", center_id="kyoto", query_sha256=bytes(32))
    answer.status = answer_pb2.ANSWER_STATUS_REFUSED
    recorder.seal_apart(answer, started_at_ms=now_ms())
    (entry,) = AuditLog(database).entries()
    assert entry.record.query_id == "a�b�[2J"
    assert verify(database).faults == ()
    database.close()


def test_an_answer_whose_query_could_not_be_read_has_a_receipt_too(tmp_path: Path) -> None:
    database = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    recorder = SigningRecorder(database, AuditLog(database), KYOTO.answering, epoch=lambda _: 1)
    digest = signed.parcel_sha256(b"no query at all")
    answer = answer_pb2.Answer(query_id=str(uuid.uuid4()), center_id="kyoto", query_sha256=digest)
    answer.status = answer_pb2.ANSWER_STATUS_REFUSED
    sealed = recorder.seal_apart(answer, started_at_ms=now_ms())
    assert receipt.verify(sealed, ROSTER, center=KYOTO.id, query_sha256=digest).sequence == 1
    database.close()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "{}", '{"schema": "connexon.proof/1"}', "9" * 2_000_000, "[" * 100_000]
)
def test_what_is_no_proof_file_is_refused(text: str) -> None:
    with pytest.raises(ReceiptRefused) as refusal:
        proof_file.verify(text, ROSTER)
    assert refusal.value.code == "receipt.unreadable"
