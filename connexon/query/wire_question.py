"""The question between its bytes and its values: strict, bounded, and the same both ways."""

from __future__ import annotations

import re
import uuid

from google.protobuf.message import DecodeError, EncodeError

from connexon import strict
from connexon.analyses.registry import spec_named, spec_of
from connexon.analyses.spec import MAXIMUM_WITHIN, Analysis, Traits
from connexon.clock import END
from connexon.conditions import cost
from connexon.conditions.cost import MAXIMUM_SIZE
from connexon.conditions.filters import Filter
from connexon.conditions.wire_filter import FilterReader, filter_to_wire
from connexon.errors import InvalidQuery
from connexon.identity import keys
from connexon.query import purpose
from connexon.query.question import Purpose, Question
from connexon.v1 import query_pb2

MAXIMUM_CENTERS = 5_000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def to_bytes(question: Question) -> bytes:
    """The exact bytes that a researcher signs. Raises InvalidQuery where a value cannot be sent."""
    try:
        return _to_wire(question).SerializeToString(deterministic=True)
    except (ValueError, TypeError) as error:
        raise InvalidQuery("The query holds a value that cannot be sent.", code="query.invalid_value") from error
    except (DecodeError, EncodeError, RecursionError) as error:
        raise InvalidQuery("The query's filter is nested too deeply.", code="query.too_large") from error


def _to_wire(question: Question) -> query_pb2.Query:
    wire = query_pb2.Query(
        query_id=question.query_id,
        federation=question.federation,
        centers=list(question.centers),
        issued_at_ms=question.issued_at_ms,
        expires_at_ms=question.expires_at_ms,
        purpose=query_pb2.Purpose(
            research=list(question.purpose.research),
            disease=question.purpose.disease,
            commercial_use=question.purpose.commercial_use,
            project=question.purpose.project,
            ethics_approval=question.purpose.ethics_approval,
        ),
        dataset=question.dataset,
        filter=None if question.filter is None else filter_to_wire(question.filter),
    )
    spec_of(question.analysis).to_wire(question.analysis, wire)
    if question.within is not None:
        wire.accuracy.within = question.within
        wire.accuracy.SetInParent()
    wire.price_only = question.price_only
    return wire


def from_bytes(payload: bytes) -> Question:
    """Parse and check a question. Raises InvalidQuery with the place that is wrong."""
    if len(payload) > MAXIMUM_SIZE:
        raise InvalidQuery(
            f"The query has {len(payload)} bytes; at most {MAXIMUM_SIZE} are allowed.", code="query.too_large"
        )
    wire = strict.parse(query_pb2.Query, payload, what="query")
    spec = spec_named(wire.WhichOneof("analysis"))
    traits, analysis = spec.traits, spec.from_wire(wire)
    if wire.dataset or not traits.covers_all:
        _name(wire.dataset, "dataset")
    if wire.HasField("filter") and not traits.takes_filter:
        raise InvalidQuery(f"A {traits.name} takes no filter.", code="query.invalid_filter")
    if not 0 < wire.issued_at_ms < wire.expires_at_ms < END:
        raise InvalidQuery("The query does not say from when until when it holds.", code="query.invalid_time")
    condition = FilterReader().read(wire.filter, 1) if wire.HasField("filter") else None
    _require_bounded(condition, analysis)
    return Question(
        query_id=query_id(wire.query_id),
        federation=keys.federation_name(wire.federation),
        centers=_centers(wire),
        issued_at_ms=wire.issued_at_ms,
        expires_at_ms=wire.expires_at_ms,
        purpose=_purpose(wire.purpose),
        dataset=wire.dataset,
        filter=condition,
        analysis=analysis,
        within=_within(wire.accuracy, traits) if wire.HasField("accuracy") else None,
        price_only=_price_only(wire, traits),
    )


def _require_bounded(condition: Filter | None, analysis: Analysis) -> None:
    spec = spec_of(analysis)
    cost.require_bounded(condition, spec.fields(analysis))
    for one in spec.lookups(analysis):
        # A query of its own at the center.
        cost.require_bounded(one.filter, one.fields)


def _within(wire: query_pb2.Accuracy, traits: Traits) -> int:
    if not traits.takes_accuracy:
        raise InvalidQuery(
            f"How close numbers must be cannot be said of a {traits.name} in this way.", code="query.invalid_accuracy"
        )
    if not 1 <= wire.within <= MAXIMUM_WITHIN:
        raise InvalidQuery(
            f"Numbers can be asked for within 1 to {MAXIMUM_WITHIN:,} of the exact ones.", code="query.invalid_accuracy"
        )
    return wire.within


def _price_only(wire: query_pb2.Query, traits: Traits) -> bool:
    if wire.price_only and not traits.has_price:
        raise InvalidQuery(f"A {traits.name} has no price that can be asked for.", code="query.invalid_accuracy")
    return wire.price_only


def _centers(wire: query_pb2.Query) -> tuple[keys.CenterId, ...]:
    centers = tuple(keys.center_id(center) for center in wire.centers)
    if not 1 <= len(centers) <= MAXIMUM_CENTERS or list(centers) != sorted(set(centers)):
        raise InvalidQuery("The query must name its centers once each, in order.", code="query.invalid_centers")
    return centers


def _purpose(wire: query_pb2.Purpose) -> Purpose:
    return purpose.checked(
        Purpose(
            research=tuple(wire.research),
            disease=wire.disease,
            commercial_use=wire.commercial_use,
            project=wire.project,
            ethics_approval=wire.ethics_approval,
        )
    )


def query_id(text: str) -> str:
    """The text, if it can be a query's id. Raises InvalidQuery."""
    try:
        if str(uuid.UUID(text)) == text:
            return text
    except ValueError:
        pass
    raise InvalidQuery("The query's id is not a lower-case UUID.", code="query.invalid_id")


def _name(text: str, what: str) -> str:
    if not _NAME.match(text):
        raise InvalidQuery(f"{text[:80]!r} is not the name of a {what}.", code=f"query.invalid_{what}")
    return text
