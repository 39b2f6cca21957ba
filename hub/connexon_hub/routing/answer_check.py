"""Is this an answer of that center to that very question: decided from the bytes and the roster."""

from __future__ import annotations

from connexon import strict
from connexon.errors import InvalidQuery
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.link.frames import Parcel
from connexon.query import signed
from connexon.query.signed import AnswerRefused
from connexon.telemetry import TRACER, context
from connexon.v1 import answer_pb2
from connexon_hub.routing.payload_cache import Body
from connexon_hub.routing.store import Arrival


def check(parcel: Parcel, *, center: CenterId, roster: Roster, query: Body, at_ms: int) -> Arrival:
    """Return what may be kept of a parcel that answers `query`. Raises AnswerRefused."""
    with TRACER.start_as_current_span("hub.store", context=context(parcel.traceparent)):
        try:
            wire = strict.read(answer_pb2.SignedAnswer, parcel.body, what="answer")
        except InvalidQuery as error:
            raise AnswerRefused(error.public, code=error.code) from error
        answer = signed.verify_answer(wire, roster, center=center, query_payload=query.payload, parcel=query.signed)
        if answer.query_id != parcel.query_id:
            raise AnswerRefused("The answer is to another question.", code="answer.other_query")
        return Arrival(parcel.query_id, center, parcel.body, answer.status, at_ms, wire.receipt.head)
