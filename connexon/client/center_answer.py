"""What became of a question at one center: the hub's word on how far it is, and the center's proved answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from connexon.analyses import noise as noises
from connexon.analyses.noise import Noise
from connexon.analyses.price import read_price
from connexon.analyses.registry import spec_of
from connexon.analyses.wire_kinds import known_kind
from connexon.client import answer_bounds
from connexon.clock import to_text
from connexon.errors import Refused
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.query import signed
from connexon.query.question import Question
from connexon.safe_text import plain
from connexon.transparency import receipt
from connexon.v1 import answer_pb2, link_pb2, research_pb2


class Status(Enum):
    """What became of a question at one center; `value` is its name in documents."""

    RELEASED = "released"
    SUPPRESSED = "suppressed"
    REFUSED = "refused"
    REFERRED = "referred"
    AWAITING_STEWARD = "awaiting_steward"
    NOT_OFFERED = "not_offered"
    BUDGET_SPENT = "budget_spent"
    TOO_OLD = "too_old"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WAITING = "waiting"
    EXPIRED = "expired"
    REMOVED = "removed"
    UNVERIFIED = "unverified"

    @property
    def words(self) -> str:
        """The status as people read it."""
        return "not offered here" if self is Status.NOT_OFFERED else self.value.replace("_", " ")

    @property
    def answered(self) -> bool:
        """Whether the center has decided; failing, waiting or being silenced is no decision."""
        return self in _ANSWERED

    @property
    def final(self) -> bool:
        """Whether nothing more will come of it: the steward's decision, once made, follows by itself."""
        return self not in (Status.WAITING, Status.AWAITING_STEWARD)


_ANSWERED = {
    Status.RELEASED,
    Status.SUPPRESSED,
    Status.REFUSED,
    Status.REFERRED,
    Status.NOT_OFFERED,
    Status.BUDGET_SPENT,
}
_SIGNED = {
    answer_pb2.ANSWER_STATUS_RELEASED: Status.RELEASED,
    answer_pb2.ANSWER_STATUS_SUPPRESSED: Status.SUPPRESSED,
    answer_pb2.ANSWER_STATUS_REFUSED: Status.REFUSED,
    answer_pb2.ANSWER_STATUS_REFERRED: Status.REFERRED,
    answer_pb2.ANSWER_STATUS_AWAITING_STEWARD: Status.AWAITING_STEWARD,
    answer_pb2.ANSWER_STATUS_NOT_OFFERED: Status.NOT_OFFERED,
    answer_pb2.ANSWER_STATUS_BUDGET_SPENT: Status.BUDGET_SPENT,
    answer_pb2.ANSWER_STATUS_TOO_OLD: Status.TOO_OLD,
    answer_pb2.ANSWER_STATUS_FAILED: Status.FAILED,
    answer_pb2.ANSWER_STATUS_CANCELLED: Status.CANCELLED,
}
_SENTENCES = {
    Status.RELEASED: "",
    Status.SUPPRESSED: "Too few donors: there may be none, there may be some.",
    Status.REFUSED: "The center's rules forbid this question.",
    Status.REFERRED: "The donors' consent asks for the steward's judgement; write to the center.",
    Status.AWAITING_STEWARD: "The center's steward has it and has not decided yet.",
    Status.NOT_OFFERED: "The center does not offer this.",
    Status.BUDGET_SPENT: "The privacy budget for this project is spent.",
    Status.TOO_OLD: "The question had expired when the center came to it; ask again.",
    Status.FAILED: "The center could not work it out; this is not a zero. Ask again later.",
    Status.CANCELLED: "The question was cancelled before the center answered.",
    Status.EXPIRED: "The question's time ended before the center answered; ask again.",
    Status.REMOVED: "The answer was kept for its time and then removed from the hub; ask again.",
    Status.UNVERIFIED: "What arrived is not provably this center's answer, so it is not shown.",
}


AWAY = "delivery.not_connected"
_ASK_AGAIN = "If it stays so when you ask again, tell the center's steward."
_ADVICE = {
    # Of what it could not prove, a center names the bytes, and with them the credential of that time.
    "answer.other_query": "If you have logged in with another credential since you asked, ask again: what the center "
    "said then cannot be told apart from a word on something else.",
    "answer.unknown_status": "",
}
"""What to do about an answer that is not believed, by its code."""


@dataclass(frozen=True)
class Obligation:
    """A duty that comes with the answer; `term` is the DUO term it comes from."""

    term: str
    message: str


@dataclass(frozen=True)
class Protection:
    """What was done to a center's numbers. `kind` is private, granted or published; empty where there are none.

    No granted number rests on fewer than `minimum_donors`, and they are multiples of `rounded_to`; `grant` is the
    steward's decision. Private numbers have `noise` and describe an `edition` of the center's data.
    """

    kind: str
    minimum_donors: int = 0
    rounded_to: int = 0
    grant: str = ""
    edition: int = 0
    noise: Noise | None = None


@dataclass(frozen=True)
class Provenance:
    """The versions an answer rests on."""

    generations: Mapping[str, int] = field(default_factory=dict)
    dictionary: str = ""
    policy: str = ""
    ontologies: Mapping[str, str] = field(default_factory=dict)
    roster_serial: int = 0


@dataclass(frozen=True)
class Receipt:
    """Where the center wrote the answer down, as proved: number in its log, and the log's size and root with it."""

    sequence: int
    log_size: int
    root_sha256: str


@dataclass(frozen=True)
class CenterAnswer:
    """One center's part in an answer. Times are milliseconds; `latency_ms` is as seen from here, None if resumed."""

    id: CenterId
    name: str
    status: Status
    code: str
    message: str
    rule: str = ""
    answered_at_ms: int | None = None
    latency_ms: int | None = None
    provenance: Provenance | None = None
    obligations: tuple[Obligation, ...] = ()
    protection: Protection | None = None
    receipt: Receipt | None = None
    result: Any = None

    @property
    def away(self) -> bool:
        """Whether the center is not connected to the hub, and has not answered."""
        return self.code == AWAY


def waiting(center: CenterId, name: str) -> CenterAnswer:
    """Before the hub has said anything of a center."""
    return CenterAnswer(center, name, Status.WAITING, "delivery.waiting", "The hub has not said anything of it yet.")


def read(
    delivery: research_pb2.Delivery,
    *,
    question: Question,
    payload: bytes,
    roster: Roster,
    parcel: bytes | None = None,
    latency_ms: int | None = None,
) -> CenterAnswer:
    """What a delivery says, once checked: an answer that is not proved to be this center's to this question is not
    believed and becomes UNVERIFIED with the reason's code. `parcel` as for signed.verify_answer.
    """
    center = CenterId(delivery.center_id)
    name = name_of(center, roster)
    if not delivery.HasField("answer"):
        return _undelivered(delivery, center, name, question)
    try:
        answer = signed.verify_answer(delivery.answer, roster, center=center, query_payload=payload, parcel=parcel)
        logged = receipt.verify(delivery.answer, roster, center=center, query_sha256=answer.query_sha256)
        return _proved(answer, logged, center, name, question, latency_ms)
    except Refused as error:
        return unverified(center, name, error)


def unverified(center: CenterId, name: str, error: Refused) -> CenterAnswer:
    """A center's part where what it says is not believed; nothing of it is kept."""
    message = f"{plain(error.public)} It is not counted. {_ADVICE.get(error.code, _ASK_AGAIN)}".rstrip()
    return CenterAnswer(center, name, Status.UNVERIFIED, error.code, message)


def name_of(center: CenterId, roster: Roster) -> str:
    """The center's name in the roster, or its id."""
    member = roster.member(center)
    return plain(member.legal_name) if member is not None and member.legal_name else center


def _proved(
    answer: answer_pb2.Answer,
    logged: receipt.Proved,
    center: CenterId,
    name: str,
    question: Question,
    latency_ms: int | None,
) -> CenterAnswer:
    status = _SIGNED.get(answer.status)
    if status is None:
        raise signed.AnswerRefused(
            "The center's answer uses a status that this version does not know; upgrade connexon.",
            code="answer.unknown_status",
        )
    # What a center says of one task of a run, or of a model, is about the same question and yet no answer to it.
    if answer.query_id != question.query_id or answer.WhichOneof("result") in ("task", "notice"):
        raise signed.AnswerRefused("The center's answer does not fit the question.", code="answer.bad_result")
    answer_bounds.require_bounded(answer, question)
    result = _result(question, answer) if status is Status.RELEASED else None
    return CenterAnswer(
        id=center,
        name=name,
        status=status,
        code=plain(answer.reason.code) or status.value,
        message=plain(answer.reason.message) or _SENTENCES[status],
        rule=plain(answer.reason.rule),
        answered_at_ms=answer.answered_at_ms,
        latency_ms=latency_ms,
        provenance=provenance_from(answer.provenance),
        obligations=tuple(Obligation(plain(one.term), plain(one.message)) for one in answer.obligations),
        protection=_protection(answer),
        receipt=Receipt(logged.sequence, logged.head.size, logged.head.root.hex()),
        result=result,
    )


def _undelivered(delivery: research_pb2.Delivery, center: CenterId, name: str, question: Question) -> CenterAnswer:
    def part(status: Status, code: str, message: str = "") -> CenterAnswer:
        return CenterAnswer(center, name, status, code, message or _SENTENCES[status])

    match delivery.state:
        case research_pb2.DELIVERY_STATE_CANCELLED:
            return part(Status.CANCELLED, "delivery.cancelled")
        case research_pb2.DELIVERY_STATE_EXPIRED:
            return part(Status.EXPIRED, "delivery.expired")
        case research_pb2.DELIVERY_STATE_REMOVED:
            return part(Status.REMOVED, "delivery.removed")
        case research_pb2.DELIVERY_STATE_ANSWERED:
            return part(Status.UNVERIFIED, "answer.absent", "The hub says it answered but does not show the answer.")
        case _ if not delivery.connected:
            until = to_text(question.expires_at_ms)
            message = f"The center is not connected; it gets the question when it returns, until {until}."
            return part(Status.WAITING, AWAY, message)
        case _ if delivery.restoring:
            message = "The center's node was restored from an older copy; it answers when its steward has recovered it."
            return part(Status.WAITING, "delivery.restoring", message)
        case _ if delivery.stage == link_pb2.STAGE_COMPUTING:
            return part(Status.WAITING, "delivery.computing", "The center is working on it.")
        case research_pb2.DELIVERY_STATE_RECEIVED:
            return part(Status.WAITING, "delivery.received", "The center has the question.")
        case _:
            return part(Status.WAITING, "delivery.waiting", "The question is on its way to the center.")


def provenance_from(wire: answer_pb2.Provenance) -> Provenance:
    """Versions from their wire form, texts made safe to show; of a part in a model, the first thousand."""
    most = answer_bounds.MAXIMUM_VERSIONS
    return Provenance(
        generations={plain(name): number for name, number in sorted(wire.generations.items())[:most]},
        dictionary=plain(wire.dictionary_version),
        policy=plain(wire.policy_version),
        ontologies={plain(name): plain(version) for name, version in sorted(wire.ontologies.items())[:most]},
        roster_serial=wire.roster_serial,
    )


def provenance_json(provenance: Provenance) -> dict[str, Any]:
    """Versions in documents."""
    return {
        "generations": dict(provenance.generations),
        "dictionary": provenance.dictionary,
        "policy": provenance.policy,
        "ontologies": dict(provenance.ontologies),
        "roster_serial": provenance.roster_serial,
    }


def _protection(answer: answer_pb2.Answer) -> Protection | None:
    if not answer.HasField("protection"):
        return None
    wire = answer.protection
    return Protection(
        kind=kind.value if (kind := known_kind(wire.kind)) is not None else "",
        minimum_donors=wire.minimum_donors,
        rounded_to=wire.rounded_to,
        grant=plain(wire.grant),
        edition=wire.edition,
        noise=noises.read(wire.noise) if wire.HasField("noise") else None,
    )


def _result(question: Question, answer: answer_pb2.Answer) -> Any:
    """What a center released: a price where that was asked for, else its result."""
    if question.price_only:
        return read_price(answer.price)
    return spec_of(question.analysis).read(question.analysis, answer)
