import pytest

from connexon import strict
from connexon.errors import InvalidQuery
from connexon.v1 import answer_pb2, query_pb2, roster_pb2

UNKNOWN = b"\x98\x06\x01"
"""Field 99, which no message has."""


def _code(data: bytes, kind: type = query_pb2.Query) -> str:
    with pytest.raises(InvalidQuery) as caught:
        strict.parse(kind, data, what="thing")
    return caught.value.code


def _wrapped(data: bytes, *fields: int) -> bytes:
    """`data` as the content of nested message fields, the innermost first."""
    for number in fields:
        size, head = len(data), bytearray()
        while size >= 0x80:
            head.append(size & 0x7F | 0x80)
            size >>= 7
        data = bytes([number << 3 | 2, *head, size]) + data
    return data


def test_what_is_known_is_read() -> None:
    query = query_pb2.Query(query_id="x", centers=["a", "b"])
    assert strict.parse(query_pb2.Query, query.SerializeToString(), what="thing") == query


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (UNKNOWN, query_pb2.Query),
        (_wrapped(UNKNOWN, 6), query_pb2.Query),
        (_wrapped(UNKNOWN, 9), query_pb2.Query),
        (_wrapped(UNKNOWN, 1, 1, 2, 1, 3, 8), query_pb2.Query),
        (_wrapped(UNKNOWN, 2, 5, 8), query_pb2.Query),
        (_wrapped(UNKNOWN, 6), roster_pb2.Roster),
        (_wrapped(UNKNOWN, 2, 6), answer_pb2.Answer),
        (b"\x9b\x06\x9c\x06", query_pb2.Query),
        # These hold no enum and nothing of their own kind: they are looked at as a whole.
        (UNKNOWN, answer_pb2.CountResult),
        (_wrapped(UNKNOWN, 2), answer_pb2.CountResult),
        (_wrapped(UNKNOWN, 1, 2), answer_pb2.CountResult),
        (_wrapped(UNKNOWN, 4, 3), answer_pb2.SignedAnswer),
    ],
    ids=[
        "top",
        "message",
        "oneof",
        "deep in groups",
        "value in a list",
        "repeated",
        "cell",
        "a group",
        "top of a count",
        "cell of a count",
        "key of a count",
        "head in a receipt",
    ],
)
def test_an_unknown_field_is_refused_wherever_it_stands(data: bytes, kind: type) -> None:
    assert _code(data, kind) == "thing.unknown_field"


@pytest.mark.parametrize("number", [7, 2**31 - 1, -1, -(2**31)])
def test_an_unknown_enum_value_is_refused(number: int) -> None:
    compare = query_pb2.Compare()
    compare.operator = number  # type: ignore[assignment]
    assert _code(compare.SerializeToString(), query_pb2.Compare) == "thing.unknown_field"


def test_an_unknown_enum_value_is_refused_where_it_stands_first_but_is_overruled_too() -> None:
    # The last one counts in protobuf; here the whole must make sense as it is read.
    assert strict.parse(query_pb2.Compare, b"\x10\x63\x10\x01", what="thing").operator == query_pb2.OPERATOR_EQUAL
    assert _code(b"\x10\x01\x10\x63", query_pb2.Compare) == "thing.unknown_field"


def test_a_known_field_of_another_type_is_refused() -> None:
    assert _code(b"\x08\x01") == "thing.unknown_field"


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xc3\x28", b"\x0a\xff\xff\xff\xff\x0f", b"\x00\x00"]
)
def test_bytes_that_do_not_parse_are_unreadable(data: bytes) -> None:
    assert _code(data) == "thing.unreadable"


def test_nesting_without_end_is_unreadable() -> None:
    assert _code(_wrapped(b"", *[3] * 3_000), query_pb2.Filter) == "thing.unreadable"


def test_what_may_hold_its_own_kind_or_an_enum_is_looked_at_part_by_part() -> None:
    # Protobuf itself would look for unknown fields 64 deep only.
    assert _code(_wrapped(UNKNOWN, *[3] * 90), query_pb2.Filter) == "thing.unknown_field"
    kinds = (answer_pb2.CountResult, answer_pb2.SignedAnswer, query_pb2.Filter, query_pb2.Query, answer_pb2.Answer)
    assert [strict._is_plain(kind.DESCRIPTOR) for kind in kinds] == [True, True, False, False, False]


def test_the_walk_stops_by_itself_at_a_depth() -> None:
    with pytest.raises(InvalidQuery) as caught:
        strict.refuse_unknown(query_pb2.Filter(), what="thing", depth=101)
    assert caught.value.code == "thing.too_deep"


def test_maps_are_walked_too() -> None:
    answer = answer_pb2.Answer()
    answer.provenance.generations["donors"] = 3
    answer.provenance.ontologies["MONDO"] = "2026-11-01"
    assert strict.parse(answer_pb2.Answer, answer.SerializeToString(), what="thing") == answer
