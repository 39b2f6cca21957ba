import dataclasses
import datetime
import math
from collections.abc import Callable

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.clock import END
from connexon.conditions import cost, wire_filter
from connexon.conditions.filters import All, Compare, Filter, IsMissing, Not, OneOf, Operator, Under
from connexon.conditions.wire_filter import value_from_wire, value_to_wire
from connexon.errors import InvalidQuery
from connexon.query import wire_question
from connexon.query.question import Question
from connexon.query.wire_question import from_bytes, to_bytes
from connexon.v1 import query_pb2
from tests.support.federation import new_federation
from tests.support.questions import SCALARS, questions

WHOLE = new_federation().researcher().question(["kyoto", "lyon"], Count(("type",)))


def _asked(where: Filter | None = None) -> Question:
    return dataclasses.replace(WHOLE, filter=where)


def _code(payload: bytes) -> str:
    with pytest.raises(InvalidQuery) as caught:
        from_bytes(payload)
    assert caught.value.public.endswith(".")
    assert len(caught.value.public) < 1_000
    return caught.value.code


@given(questions())
def test_every_question_comes_back_from_its_bytes(question: Question) -> None:
    payload = to_bytes(question)
    assert from_bytes(payload) == question
    assert to_bytes(from_bytes(payload)) == payload


@given(st.one_of(st.none(), SCALARS))
def test_every_value_comes_back_with_its_type(value: object) -> None:
    back = value_from_wire(value_to_wire(value))  # type: ignore[arg-type]
    assert back == value
    assert type(back) is type(value)


def test_true_is_not_one_and_one_is_not_a_text() -> None:
    wires = [value_to_wire(value).WhichOneof("value") for value in (True, 1, 1.0, "1", datetime.date(2026, 1, 1), None)]
    assert wires == ["boolean", "integer", "number", "text", "date", None]


def _nested(depth: int) -> Filter:
    node: Filter = IsMissing("sex")
    for _ in range(depth - 1):
        node = Not(node)
    return node


@pytest.mark.parametrize("within", [0, 1001, 2**32 - 1])
def test_accuracy_that_means_nothing_is_refused(within: int) -> None:
    assert _code(to_bytes(dataclasses.replace(WHOLE, within=within))) == "query.invalid_accuracy"


def test_accuracy_asked_for_without_its_number_is_refused_not_ignored() -> None:
    wire = query_pb2.Query.FromString(to_bytes(WHOLE))
    wire.accuracy.SetInParent()
    assert _code(wire.SerializeToString()) == "query.invalid_accuracy"


@pytest.mark.parametrize("number", [0, 99])
def test_a_count_of_something_unknown_is_refused(number: int) -> None:
    wire = query_pb2.Query.FromString(to_bytes(WHOLE))
    wire.count.unit = number  # type: ignore[assignment]  # what another version may send
    assert _code(wire.SerializeToString()).startswith("query.")
    wire = query_pb2.Query.FromString(to_bytes(WHOLE))
    wire.count.kind = number  # type: ignore[assignment]  # as above
    assert _code(wire.SerializeToString()).startswith("query.")


def test_only_a_count_has_a_price() -> None:
    describe = dataclasses.replace(WHOLE, analysis=Describe(), filter=None, price_only=True)
    assert _code(to_bytes(describe)) == "query.invalid_accuracy"


class TestLimits:
    def test_the_largest_allowed_question_is_read(self) -> None:
        values = tuple(range(wire_filter.MAXIMUM_VALUES))
        filters = (OneOf("passage", values), _nested(wire_filter.MAXIMUM_FILTER_DEPTH - 1))
        assert from_bytes(to_bytes(_asked(All(filters)))).filter == All(filters)

    @pytest.mark.parametrize(
        "where",
        [
            OneOf("passage", tuple(range(wire_filter.MAXIMUM_VALUES + 1))),
            OneOf("passage", ()),
            _nested(wire_filter.MAXIMUM_FILTER_DEPTH + 1),
            All((IsMissing("sex"),) * wire_filter.MAXIMUM_FILTERS),
            Compare("type", Operator.EQUAL, "x" * (wire_filter.MAXIMUM_TEXT + 1)),
        ],
        ids=["too many values", "no values", "too deep", "too many conditions", "too long a text"],
    )
    def test_one_more_is_refused(self, where: Filter) -> None:
        assert _code(to_bytes(_asked(where))) == "query.too_large"

    def test_a_payload_beyond_the_limit_is_not_even_parsed(self) -> None:
        assert _code(b"\xff" * (cost.MAXIMUM_SIZE + 1)) == "query.too_large"

    def test_a_filter_that_protobuf_cannot_carry_is_explained_to_its_author(self) -> None:
        with pytest.raises(InvalidQuery) as caught:
            to_bytes(_asked(_nested(2_000)))
        assert caught.value.code == "query.too_large"

    @pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800"])
    def test_a_value_that_cannot_be_carried_is_explained_to_its_author(self, value: int | str) -> None:
        with pytest.raises(InvalidQuery) as caught:
            to_bytes(_asked(Compare("passage", Operator.EQUAL, value)))
        assert caught.value.code == "query.invalid_value"

    def test_five_thousand_centers_may_be_asked_and_no_more(self) -> None:
        def asked(number: int) -> bytes:
            return _altered(lambda wire: _set_centers(wire, [f"c{index:05}" for index in range(number)]))

        assert len(from_bytes(asked(wire_question.MAXIMUM_CENTERS)).centers) == wire_question.MAXIMUM_CENTERS
        assert _code(asked(wire_question.MAXIMUM_CENTERS + 1)) == "query.invalid_centers"


def _altered(change: Callable[[query_pb2.Query], object]) -> bytes:
    wire = query_pb2.Query.FromString(to_bytes(WHOLE))
    change(wire)
    return wire.SerializeToString(deterministic=True)


def _set_centers(wire: query_pb2.Query, centers: list[str]) -> None:
    del wire.centers[:]
    wire.centers.extend(centers)


def _set_filter(wire: query_pb2.Query, text: str) -> None:
    text_format.Parse(text, wire.filter)


MALFORMED: dict[str, tuple[Callable[[query_pb2.Query], object], str]] = {
    "no id": (lambda q: q.ClearField("query_id"), "query.invalid_id"),
    "upper-case id": (lambda q: setattr(q, "query_id", q.query_id.upper() + "A"), "query.invalid_id"),
    "id in braces": (lambda q: setattr(q, "query_id", "{" + q.query_id + "}"), "query.invalid_id"),
    "id as urn": (lambda q: setattr(q, "query_id", "urn:uuid:" + q.query_id), "query.invalid_id"),
    "no federation": (lambda q: q.ClearField("federation"), "identity.bad_federation_name"),
    "no centers": (lambda q: q.ClearField("centers"), "query.invalid_centers"),
    "unsorted centers": (lambda q: _set_centers(q, ["lyon", "kyoto"]), "query.invalid_centers"),
    "a center twice": (lambda q: _set_centers(q, ["lyon", "lyon"]), "query.invalid_centers"),
    "no center id": (lambda q: _set_centers(q, ["Lyon"]), "identity.bad_center_id"),
    "no issue time": (lambda q: q.ClearField("issued_at_ms"), "query.invalid_time"),
    "negative issue time": (lambda q: setattr(q, "issued_at_ms", -5), "query.invalid_time"),
    "expiry before issue": (lambda q: setattr(q, "expires_at_ms", q.issued_at_ms), "query.invalid_time"),
    "expiry beyond dates": (lambda q: setattr(q, "expires_at_ms", END), "query.invalid_time"),
    "no purpose": (lambda q: q.ClearField("purpose"), "purpose.missing"),
    "unknown purpose": (lambda q: q.purpose.research.append("DUO:0000004"), "purpose.unknown"),
    "a purpose twice": (lambda q: q.purpose.research.append("DUO:0000037"), "purpose.invalid"),
    "disease not named": (lambda q: q.purpose.research.append("DUO:0000040"), "purpose.disease_missing"),
    "disease no term": (lambda q: setattr(q.purpose, "disease", "Parkinson"), "purpose.disease_invalid"),
    "disease of another ontology": (lambda q: setattr(q.purpose, "disease", "CL:0000540"), "purpose.disease_invalid"),
    "project of two lines": (lambda q: setattr(q.purpose, "project", "a\nb"), "purpose.invalid"),
    "long ethics approval": (lambda q: setattr(q.purpose, "ethics_approval", "x" * 201), "purpose.invalid"),
    "no dataset": (lambda q: q.ClearField("dataset"), "query.invalid_dataset"),
    "dataset is a path": (lambda q: setattr(q, "dataset", "../donors"), "query.invalid_dataset"),
    "dataset with a line end": (lambda q: setattr(q, "dataset", "donors\n"), "query.invalid_dataset"),
    "dataset is SQL": (lambda q: setattr(q, "dataset", 'donors"; --'), "query.invalid_dataset"),
    "no analysis": (lambda q: q.ClearField("count"), "query.no_analysis"),
    "grouped twice by one field": (lambda q: q.count.by.append("type"), "query.invalid_group"),
    "five groups": (lambda q: q.count.by.extend(["a", "b", "c", "d"]), "query.invalid_group"),
    "group is no name": (lambda q: q.count.by.append("Type"), "query.invalid_field"),
    "filtered description": (
        lambda q: (q.describe.SetInParent(), _set_filter(q, 'is_missing { field: "sex" }')),
        "query.invalid_filter",
    ),
    "empty filter": (lambda q: q.filter.SetInParent(), "query.invalid_filter"),
    "empty all": (lambda q: _set_filter(q, "all {}"), "query.invalid_filter"),
    "empty any": (lambda q: _set_filter(q, "any {}"), "query.invalid_filter"),
    "empty not": (lambda q: _set_filter(q, "not {}"), "query.invalid_filter"),
    "empty inside": (lambda q: _set_filter(q, "all { filters {} }"), "query.invalid_filter"),
    "no operator": (
        lambda q: _set_filter(q, 'compare { field: "sex" value { text: "x" } }'),
        "query.invalid_filter",
    ),
    "unknown operator": (
        lambda q: (_set_filter(q, 'compare { field: "sex" }'), setattr(q.filter.compare, "operator", 99)),
        "query.unknown_field",
    ),
    "negative operator": (
        lambda q: (_set_filter(q, 'compare { field: "sex" }'), setattr(q.filter.compare, "operator", -1)),
        "query.unknown_field",
    ),
    "no value": (
        lambda q: _set_filter(q, 'compare { field: "sex" operator: OPERATOR_EQUAL }'),
        "query.invalid_value",
    ),
    "field is no name": (lambda q: _set_filter(q, 'is_missing { field: "1 = 1" }'), "query.invalid_field"),
    "no field": (lambda q: _set_filter(q, "is_missing {}"), "query.invalid_field"),
    "one bound": (lambda q: _set_filter(q, 'between { field: "a" low { integer: 1 } }'), "query.invalid_value"),
    "empty value in a list": (lambda q: _set_filter(q, 'one_of { field: "a" values {} }'), "query.invalid_value"),
    "term is no CURIE": (lambda q: _set_filter(q, 'under { field: "a" term: "%" }'), "query.invalid_term"),
    "number is infinite": (
        lambda q: _set_filter(q, 'between { field: "a" low { number: -inf } high { integer: 1 } }'),
        "query.invalid_value",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_each_malformed_question_has_its_code(name: str) -> None:
    change, code = MALFORMED[name]
    assert _code(_altered(change)) == code


@pytest.mark.parametrize(
    "date", ["", "20260131", "2026-W05-6", "2026-02-30", "2026-1-1", "2026-01-31T00:00", "٢٠٢٦-٠١-٠١"]
)
def test_a_date_is_written_in_one_way(date: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        value_from_wire(query_pb2.Value(date=date))
    assert caught.value.code == "query.invalid_value"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(InvalidQuery):
        value_from_wire(query_pb2.Value(number=number))


def test_a_field_of_a_later_version_is_refused_at_any_depth() -> None:
    deep = to_bytes(_asked(All((Not(Under("disease_term", "MONDO:0005180")),))))
    wire = query_pb2.Query.FromString(deep)
    getattr(wire.filter.all.filters[0], "not").under.MergeFromString(b"\x98\x06\x01")
    assert _code(wire.SerializeToString()) == "query.unknown_field"
    assert _code(to_bytes(WHOLE) + b"\x98\x06\x01") == "query.unknown_field"


def test_an_analysis_of_a_later_version_is_refused_and_not_ignored() -> None:
    wire = query_pb2.Query.FromString(to_bytes(WHOLE))
    wire.ClearField("count")
    assert _code(wire.SerializeToString() + b"\xaa\x06\x00") == "query.unknown_field"


def test_bytes_that_are_no_protobuf_are_unreadable() -> None:
    assert _code(b"\xff\xff\xff") == "query.unreadable"
    assert _code(b"\x0a\x02\xc3\x28") == "query.unreadable"
