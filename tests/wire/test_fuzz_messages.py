"""Thousands of random and mutated messages: whatever arrives from outside, only a ConnexonError comes out.

Each kind is fuzzed from the outside (a stranger on the wire) and from the inside, with a true signature over the
spoiled content (a member or a researcher who means harm).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import jwt
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connexon import strict
from connexon.analyses.count import Count
from connexon.clock import HOUR, now_ms
from connexon.conditions.filters import All, Between, Compare, Not, OneOf, Operator, Under
from connexon.errors import ConnexonError, InvalidQuery
from connexon.identity import credential, invitation, keys, revocation
from connexon.identity import roster as rosters
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.keys import SigningKey, base64url, center_id
from connexon.link import frames
from connexon.query import signed, wire_question
from connexon.v1 import answer_pb2, link_pb2, membership_pb2, query_pb2, revocation_pb2, roster_pb2
from tests.support.federation import new_federation
from tests.support.mutations import nested, spoiled

EXAMPLES = 200
FEDERATION = new_federation()
ROSTER = FEDERATION.roster()
SIGNED_ROSTER = FEDERATION.signed_roster(ROSTER)
ADA = FEDERATION.researcher("lyon", "ada")
METHOD = "/connexon.v1.Research/Ask"
WHERE = All(
    (
        Not(Under("disease_term", "MONDO:0005180")),
        Compare("passage", Operator.LESS_OR_EQUAL, 30),
        OneOf("type", ("iPSC", "ESC")),
        Between("derived_on", "2020-01-01", 3.5),
    )
)
QUERY = ADA.sign(ADA.question(["kyoto", "lyon"], Count(("type",)), where=WHERE))
KYOTO = FEDERATION.centers["kyoto"]
ANSWER = KYOTO.answer(QUERY)
BEGUN = now_ms()
"""A proof is fresh for two minutes; with the whole suite around it this file may take longer."""
PROOF = dict(ADA.call(METHOD))[signed.PROOF_KEY]
INVITATION = invitation.to_code(
    membership_pb2.Invitation(
        federation="alliance",
        center_id="oslo",
        hub_address="hub:1",
        link_address="hub:2",
        hub_certificate_authority=FEDERATION.authority.der,
        root_fingerprint=FEDERATION.root_fingerprint,
        token=bytes(32),
        expires_at_ms=now_ms() + HOUR,
        roster_serial=7,
        roster_sha256=bytes(32),
    )
)
REVOCATION = revocation.sign(
    revocation.Revocation("alliance", center_id("lyon"), "ada", BEGUN), FEDERATION.centers["lyon"].accrediting
)
CHUNK = link_pb2.Chunk(query_id="q", kind=link_pb2.PARCEL_KIND_QUERY, total_size=2, data=b"ab", traceparent="t")
UPWARD = link_pb2.AttachRequest(chunk=CHUNK)
DOWNWARD = link_pb2.AttachResponse(chunk=CHUNK)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _token(key: SigningKey, header: bytes, claims: bytes) -> str:
    unsigned = f"{base64url(header)}.{base64url(claims)}"
    return f"{unsigned}.{base64url(key.private.sign(unsigned.encode()))}"


def _claims(token: str) -> bytes:
    return json.dumps(jwt.decode(token, options={"verify_signature": False})).encode()


def _header(kind: str) -> bytes:
    return json.dumps({"alg": "EdDSA", "typ": kind}).encode()


def _query(data: bytes) -> None:
    signed.verify_query(query_pb2.SignedQuery.FromString(data), ROSTER, NOTHING_REVOKED)


def _query_by_a_researcher(data: bytes) -> None:
    signature = ADA.key.sign(signed.QUERY_USE, signed._with_credential(data, ADA.token))
    signed.verify_query(
        query_pb2.SignedQuery(payload=data, signature=signature, credential=ADA.token), ROSTER, NOTHING_REVOKED
    )


def _roster(data: bytes) -> None:
    wire = roster_pb2.SignedRoster.FromString(data)
    with suppress(ConnexonError):
        rosters.peek(wire)
    rosters.believe(wire, root_fingerprint=FEDERATION.root_fingerprint, present=ROSTER, now_ms=now_ms())


def _roster_by_the_root(data: bytes) -> None:
    signature = FEDERATION.root.sign(rosters.USE, data)
    wire = roster_pb2.SignedRoster(payload=data, signature=signature, root_key=FEDERATION.root.public)
    rosters.believe(wire, root_fingerprint=FEDERATION.root_fingerprint, present=ROSTER, now_ms=now_ms())


def _answer(data: bytes) -> None:
    wire = answer_pb2.SignedAnswer.FromString(data)
    signed.verify_answer(wire, ROSTER, center=center_id("kyoto"), query_payload=QUERY.payload)


def _answer_by_a_center(data: bytes) -> None:
    wire = answer_pb2.SignedAnswer(payload=data, signature=KYOTO.answering.sign(signed.ANSWER_USE, data))
    signed.verify_answer(wire, ROSTER, center=center_id("kyoto"), query_payload=QUERY.payload)


def _upward(data: bytes) -> None:
    frame = link_pb2.AttachRequest.FromString(data)
    if frame.WhichOneof("frame") == "hello":
        protocol = frame.hello.protocol
        frames.agree(rosters.Protocol(protocol.major, protocol.minor))
    frames.Assembler().add(frame.chunk)


def _accredited(claims: bytes, header: bytes = _header(credential.TYPE)) -> None:
    credential.verify(_token(FEDERATION.centers["lyon"].accrediting, header, claims), ROSTER, NOTHING_REVOKED)


def _revocation_by_a_center(data: bytes) -> None:
    signature = FEDERATION.centers["lyon"].accrediting.sign(revocation.USE, data)
    revocation.verify(revocation_pb2.SignedRevocation(payload=data, signature=signature), ROSTER)


def _called(claims: bytes, header: bytes = _header(signed.CALL_TYPE)) -> None:
    signed.verify_call(ADA.token, _token(ADA.key, header, claims), ROSTER, NOTHING_REVOKED, method=METHOD, at_ms=BEGUN)


TARGETS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "signed query": (QUERY.SerializeToString(), _query),
    "query by a researcher": (QUERY.payload, _query_by_a_researcher),
    "query unsigned": (QUERY.payload, wire_question.from_bytes),
    "signed roster": (SIGNED_ROSTER.SerializeToString(), _roster),
    "roster by the root": (SIGNED_ROSTER.payload, _roster_by_the_root),
    "roster as text": (
        rosters.to_text_file(SIGNED_ROSTER).encode(),
        lambda data: rosters.from_text_file(_text(data)),
    ),
    "signed answer": (ANSWER.SerializeToString(), _answer),
    "answer by a center": (ANSWER.payload, _answer_by_a_center),
    "frame to the hub": (UPWARD.SerializeToString(), _upward),
    "frame to a node": (
        DOWNWARD.SerializeToString(),
        lambda data: frames.Assembler().add(link_pb2.AttachResponse.FromString(data).chunk),
    ),
    "invitation code": (INVITATION.encode(), lambda data: invitation.from_code(_text(data))),
    "invitation content": (
        keys.from_base64url(INVITATION.removeprefix("cnx1-"))[:-4],
        lambda data: strict.parse(membership_pb2.Invitation, data, what="invitation"),
    ),
    "credential": (ADA.token.encode(), lambda data: credential.verify(_text(data), ROSTER, NOTHING_REVOKED)),
    "credential claims by a center": (_claims(ADA.token), _accredited),
    "credential header by a center": (
        _header(credential.TYPE),
        lambda data: _accredited(_claims(ADA.token), data),
    ),
    "proof of a call": (
        PROOF.encode(),
        lambda data: signed.verify_call(ADA.token, _text(data), ROSTER, NOTHING_REVOKED, method=METHOD, at_ms=BEGUN),
    ),
    "proof claims by a researcher": (_claims(PROOF), _called),
    "proof header by a researcher": (_header(signed.CALL_TYPE), lambda data: _called(_claims(PROOF), data)),
    "revocation": (
        REVOCATION.SerializeToString(),
        lambda data: revocation.verify(revocation_pb2.SignedRevocation.FromString(data), ROSTER),
    ),
    "revocation by a center": (REVOCATION.payload, _revocation_by_a_center),
    "spiffe id": (b"spiffe://alliance/center/lyon", lambda data: keys.SpiffeId.parse(_text(data))),
}


def test_what_is_not_spoiled_is_accepted() -> None:
    for name, (whole, parse) in TARGETS.items():
        parse(whole)
        assert whole, name


def test_there_are_more_than_a_thousand_messages() -> None:
    assert len(TARGETS) * EXAMPLES > 1_000


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_a_refusal_comes_out(name: str) -> None:
    whole, parse = TARGETS[name]
    tried = 0

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(spoiled(whole))
    def attack(data: bytes) -> None:
        nonlocal tried
        tried += 1
        # gRPC itself refuses bytes that are no protobuf message, before any of our code sees them.
        with suppress(ConnexonError, DecodeError):
            parse(data)

    attack()
    assert tried >= EXAMPLES


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
@given(st.lists(st.sampled_from([0, 1, 2, 3, 262_144, 2**64 - 1]), min_size=5, max_size=5), st.data())
def test_no_sequence_of_pieces_breaks_the_assembler(numbers: list[int], data: st.DataObject) -> None:
    assembler = frames.Assembler(maximum_body=8)
    for _ in range(data.draw(st.integers(1, 12))):
        piece = link_pb2.Chunk(
            query_id=data.draw(st.sampled_from(["", "a", "b", "x" * 65])),
            kind=data.draw(st.sampled_from([-1, 0, 1, 2, 3])),  # type: ignore[arg-type]
            total_size=data.draw(st.sampled_from(numbers)),
            offset=data.draw(st.sampled_from(numbers)),
            data=bytes(data.draw(st.integers(0, 4))),
        )
        try:
            parcel = assembler.add(piece)
        except frames.ParcelRefused:
            continue
        assert parcel is None or len(parcel.body) == piece.total_size <= 8


@pytest.mark.parametrize("depth", [50, 99, 100, 101, 5_000, 20_000])
@pytest.mark.parametrize("number", range(1, 9))
def test_no_depth_of_nesting_exhausts_the_stack(number: int, depth: int) -> None:
    tower = nested(number, depth)
    for kind in (query_pb2.Filter, query_pb2.Query, roster_pb2.Roster, answer_pb2.Answer):
        with suppress(InvalidQuery):
            strict.parse(kind, tower, what="thing")
    with pytest.raises(ConnexonError):
        _query_by_a_researcher(QUERY.payload + tower)
