import dataclasses
import json
import time
from functools import partial
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connexon.clock import DAY, HOUR, MINUTE, SECOND, now_ms
from connexon.conditions import cost
from connexon.errors import ConnexonError, InvalidQuery, NotFound, Refused, Unauthenticated
from connexon.identity.credential import NOTHING_REVOKED, CredentialRefused
from connexon.identity.keys import SigningKey, base64url, center_id
from connexon.identity.roster import MemberStatus, Roster, RosterRefused
from connexon.query import signed
from connexon.query.signed import AnswerRefused, QueryRefused, verify_answer
from connexon.v1 import answer_pb2, query_pb2
from tests.support.federation import Federation, new_federation

verify_query = partial(signed.verify_query, revocations=NOTHING_REVOKED)
verify_call = partial(signed.verify_call, revocations=NOTHING_REVOKED)
FEDERATION = new_federation()
ROSTER = FEDERATION.roster()
ADA = FEDERATION.researcher("lyon", "ada", issued_at_ms=now_ms() - HOUR)
QUESTION = ADA.question(["kyoto", "lyon"])
SIGNED = ADA.sign(QUESTION)
ANSWER = FEDERATION.centers["kyoto"].answer(SIGNED)
METHOD = "/connexon.v1.Research/Follow"


def _copy(query: query_pb2.SignedQuery = SIGNED, **fields: Any) -> query_pb2.SignedQuery:
    return query_pb2.SignedQuery(
        **{"payload": query.payload, "signature": query.signature, "credential": query.credential, **fields}
    )


def _code(query: query_pb2.SignedQuery, kind: type[ConnexonError] = QueryRefused, roster: Roster = ROSTER) -> str:
    with pytest.raises(kind) as caught:
        verify_query(query, roster)
    return caught.value.code


class TestQueries:
    def test_a_signed_question_proves_what_was_asked_and_by_whom(self) -> None:
        asked = verify_query(SIGNED, ROSTER)
        assert asked.question == QUESTION
        assert asked.researcher.id == "lyon/ada"
        assert asked.researcher.key == ADA.key.public

    @settings(max_examples=400)
    @given(st.data())
    def test_no_altered_byte_of_payload_signature_or_credential_goes_unnoticed(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(["payload", "signature", "credential"]))
        whole = SIGNED.credential.encode() if name == "credential" else getattr(SIGNED, name)
        raw = bytearray(whole)
        position = data.draw(st.integers(0, len(raw) - 1))
        raw[position] ^= data.draw(st.integers(1, 127 if name == "credential" else 255))
        with pytest.raises(Refused):
            verify_query(_copy(SIGNED, **{name: raw.decode() if name == "credential" else bytes(raw)}), ROSTER)

    def test_another_spelling_of_the_credential_is_refused(self) -> None:
        # The last character of its signature has four bits that decode to nothing; padding adds none either.
        last = SIGNED.credential[-1]
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        twin = SIGNED.credential[:-1] + alphabet[alphabet.index(last) ^ 1]
        for credential in (twin, SIGNED.credential + "=", SIGNED.credential + "\n"):
            with pytest.raises(Unauthenticated):
                verify_query(_copy(credential=credential), ROSTER)

    def test_a_carrier_cannot_put_another_credential_of_the_same_researcher_beside_it(self) -> None:
        other = FEDERATION.researcher("kyoto", "ada", key=ADA.key)
        assert verify_query(other.sign(QUESTION), ROSTER).researcher.id == "kyoto/ada"
        assert _code(_copy(credential=other.token)) == "query.bad_signature"

    def test_a_carrier_cannot_put_the_question_into_another_researchers_mouth(self) -> None:
        bob = FEDERATION.researcher("lyon", "bob")
        assert _code(_copy(credential=bob.token)) == "query.bad_signature"

    def test_a_signature_made_for_an_answer_does_not_serve(self) -> None:
        covered = signed._with_credential(SIGNED.payload, ADA.token)
        assert _code(_copy(signature=ADA.key.sign(signed.ANSWER_USE, covered))) == "query.bad_signature"

    def test_the_payload_of_one_question_with_the_signature_of_another_is_refused(self) -> None:
        other = ADA.ask("kyoto")
        assert _code(_copy(payload=other.payload)) == "query.bad_signature"

    def test_a_question_for_another_federation_is_refused(self) -> None:
        elsewhere = dataclasses.replace(QUESTION, federation="other")
        assert _code(ADA.sign(elsewhere)) == "query.other_federation"

    def test_an_expired_question_is_refused_from_the_first_millisecond(self) -> None:
        question = ADA.question(["lyon"], life_ms=HOUR)
        query = ADA.sign(question)
        assert verify_query(query, ROSTER, at_ms=question.expires_at_ms - 1).question == question
        with pytest.raises(QueryRefused) as caught:
            verify_query(query, ROSTER, at_ms=question.expires_at_ms)
        assert caught.value.code == "query.expired"

    def test_a_question_from_the_future_is_refused_beyond_a_minute(self) -> None:
        now = now_ms()
        query = ADA.sign(ADA.question(["lyon"], issued_at_ms=now + MINUTE))
        assert verify_query(query, ROSTER, at_ms=now)
        with pytest.raises(QueryRefused) as caught:
            verify_query(query, ROSTER, at_ms=now - 1)
        assert caught.value.code == "query.not_yet"

    def test_a_question_waits_for_thirty_days_at_most(self) -> None:
        assert verify_query(ADA.sign(ADA.question(["lyon"], life_ms=30 * DAY)), ROSTER)
        assert _code(ADA.sign(ADA.question(["lyon"], life_ms=30 * DAY + 1))) == "query.life"

    def test_an_expired_roster_answers_nothing(self) -> None:
        old = FEDERATION.roster(issued_at_ms=now_ms() - DAY, life_ms=DAY - SECOND)
        assert _code(SIGNED, RosterRefused, old) == "roster.expired"

    def test_a_question_of_a_suspended_center_is_refused(self) -> None:
        federation = new_federation()
        query = federation.researcher("lyon").ask("kyoto")
        federation.centers["lyon"] = federation.centers["lyon"].with_status(MemberStatus.SUSPENDED)
        assert _code(query, Refused, federation.roster()) == "membership.suspended"

    def test_a_question_of_another_federations_member_is_refused(self) -> None:
        federation = new_federation(centers=("oslo",))
        assert _code(federation.researcher("oslo").ask("oslo"), NotFound) == "membership.not_a_member"
        namesake = new_federation(centers=("lyon",))
        assert _code(namesake.researcher("lyon").ask("lyon"), CredentialRefused) == "credential.bad_signature"

    def test_an_oversized_question_is_refused_before_anything_else(self) -> None:
        query = query_pb2.SignedQuery(payload=bytes(cost.MAXIMUM_SIZE + 1))
        assert _code(query, InvalidQuery) == "query.too_large"

    def test_a_field_that_is_not_known_is_refused_inside_and_outside_the_signature(self) -> None:
        outside = query_pb2.SignedQuery.FromString(SIGNED.SerializeToString() + b"\x98\x06\x01")
        assert _code(outside, InvalidQuery) == "query.unknown_field"
        payload = SIGNED.payload + b"\x98\x06\x01"
        signature = ADA.key.sign(signed.QUERY_USE, signed._with_credential(payload, ADA.token))
        assert _code(_copy(payload=payload, signature=signature), InvalidQuery) == "query.unknown_field"

    def test_an_empty_query_is_refused(self) -> None:
        assert _code(query_pb2.SignedQuery(), CredentialRefused) == "credential.unreadable"


def _answer_code(
    answer: answer_pb2.SignedAnswer, *, center: str = "kyoto", payload: bytes = SIGNED.payload, roster: Roster = ROSTER
) -> str:
    with pytest.raises(AnswerRefused) as caught:
        verify_answer(answer, roster, center=center_id(center), query_payload=payload)
    return caught.value.code


def _sign_by_kyoto(change: Any) -> answer_pb2.SignedAnswer:
    answer = answer_pb2.Answer.FromString(ANSWER.payload)
    change(answer)
    return signed.sign_answer(answer, FEDERATION.centers["kyoto"].answering)


class TestAnswers:
    def test_an_answer_is_believed_from_the_center_that_signed_it(self) -> None:
        answer = verify_answer(ANSWER, ROSTER, center=center_id("kyoto"), query_payload=SIGNED.payload)
        assert answer.count.cells[0].number == 40

    def test_it_is_not_another_centers_answer(self) -> None:
        assert _answer_code(ANSWER, center="lyon") == "answer.bad_signature"
        assert _answer_code(ANSWER, center="oslo") == "answer.bad_signature"

    def test_a_center_cannot_answer_in_another_ones_name(self) -> None:
        assert _answer_code(_sign_by_kyoto(lambda a: setattr(a, "center_id", "lyon"))) == "answer.other_center"

    def test_it_is_no_answer_to_another_question(self) -> None:
        assert _answer_code(ANSWER, payload=ADA.ask("kyoto").payload) == "answer.other_query"
        assert _answer_code(ANSWER, payload=SIGNED.payload + b"\0") == "answer.other_query"

    def test_a_word_on_unproved_bytes_counts_for_these_bytes_only_and_never_as_a_number(self) -> None:
        def unproved(answer: answer_pb2.Answer) -> None:
            answer.query_sha256 = signed.parcel_sha256(SIGNED.SerializeToString())

        def refuse(answer: answer_pb2.Answer) -> None:
            unproved(answer)
            answer.ClearField("count")
            answer.status = answer_pb2.ANSWER_STATUS_REFUSED

        def believed(answer: answer_pb2.SignedAnswer, parcel: bytes | None) -> bool:
            try:
                verify_answer(answer, ROSTER, center=center_id("kyoto"), query_payload=SIGNED.payload, parcel=parcel)
            except AnswerRefused:
                return False
            return True

        refusal = _sign_by_kyoto(refuse)
        assert believed(refusal, SIGNED.SerializeToString())
        assert not believed(refusal, _copy(signature=bytes(64)).SerializeToString())
        assert not believed(refusal, None)
        assert not believed(_sign_by_kyoto(unproved), SIGNED.SerializeToString())
        assert believed(ANSWER, None)

    @settings(max_examples=150)
    @given(st.data())
    def test_no_altered_byte_goes_unnoticed(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(["payload", "signature"]))
        raw = bytearray(getattr(ANSWER, name))
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        altered = answer_pb2.SignedAnswer(payload=ANSWER.payload, signature=ANSWER.signature)
        setattr(altered, name, bytes(raw))
        assert _answer_code(altered) == "answer.bad_signature"

    def test_the_accrediting_key_does_not_sign_answers(self) -> None:
        answer = answer_pb2.Answer.FromString(ANSWER.payload)
        by_accrediting = signed.sign_answer(answer, FEDERATION.centers["kyoto"].accrediting)
        assert _answer_code(by_accrediting) == "answer.bad_signature"

    def test_an_answer_without_a_status_is_refused(self) -> None:
        assert _answer_code(_sign_by_kyoto(lambda a: a.ClearField("status"))) == "answer.no_status"

    def test_an_answer_may_say_more_than_this_version_knows(self) -> None:
        newer = _sign_by_kyoto(lambda a: a.MergeFromString(b"\x98\x06\x01"))
        answer = verify_answer(newer, ROSTER, center=center_id("kyoto"), query_payload=SIGNED.payload)
        assert answer.count.cells[0].number == 40

    def test_bytes_that_are_no_answer_are_refused_though_the_center_signed_them(self) -> None:
        key = FEDERATION.centers["kyoto"].answering
        nonsense = answer_pb2.SignedAnswer(payload=b"\xff", signature=key.sign(signed.ANSWER_USE, b"\xff"))
        assert _answer_code(nonsense) == "answer.unreadable"


def _call_code(token: str, proof: str, roster: Roster = ROSTER, **options: Any) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verify_call(token, proof, roster, **{"method": METHOD, **options})
    return caught.value.code


def _proof(key: SigningKey = ADA.key, header: dict[str, Any] | None = None, **claims: Any) -> str:
    said = {"aud": "alliance", "htm": METHOD, "iat": int(time.time()), "jti": "one", **claims}
    said = {name: value for name, value in said.items() if value is not ...}
    head = {"alg": "EdDSA", "typ": signed.CALL_TYPE} if header is None else header
    unsigned = ".".join(base64url(json.dumps(part).encode()) for part in (head, said))
    return f"{unsigned}.{base64url(key.private.sign(unsigned.encode()))}"


class TestCalls:
    def test_a_call_is_proved_by_the_bound_key_and_named_once(self) -> None:
        metadata = dict(ADA.call(METHOD))
        token, proof = metadata[signed.CREDENTIAL_KEY], metadata[signed.PROOF_KEY]
        researcher, proof_id = verify_call(token, proof, ROSTER, method=METHOD)
        assert researcher.id == "lyon/ada"
        assert proof_id == jwt.decode(proof, options={"verify_signature": False})["jti"]
        again = dict(ADA.call(METHOD))[signed.PROOF_KEY]
        assert verify_call(token, again, ROSTER, method=METHOD)[1] != proof_id

    def test_a_proof_made_by_hand_holds(self) -> None:
        assert verify_call(ADA.token, _proof(), ROSTER, method=METHOD)[1] == "one"

    def test_a_proof_of_one_call_does_not_prove_another(self) -> None:
        assert _call_code(ADA.token, _proof(), method="/connexon.v1.Research/Cancel") == "call.stale"

    def test_a_proof_holds_for_two_minutes_either_way(self) -> None:
        issued = int(time.time())
        for offset in (-2 * MINUTE, 2 * MINUTE):
            assert verify_call(ADA.token, _proof(iat=issued), ROSTER, method=METHOD, at_ms=issued * 1000 + offset)
            beyond = issued * 1000 + offset + (1 if offset > 0 else -1)
            assert _call_code(ADA.token, _proof(iat=issued), at_ms=beyond) == "call.stale"

    def test_another_key_does_not_prove_the_call(self) -> None:
        assert _call_code(ADA.token, _proof(SigningKey.generate())) == "call.unproved"
        assert _call_code(ADA.token, _proof(FEDERATION.centers["lyon"].accrediting)) == "call.unproved"
        bob = FEDERATION.researcher("lyon", "bob")
        assert _call_code(bob.token, _proof()) == "call.unproved"

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": "other"},
            {"aud": ["alliance", "other"]},
            {"aud": ...},
            {"htm": ...},
            {"iat": ...},
            {"jti": ...},
            {"iat": "now"},
            {"iat": float("inf")},
            {"iat": float("nan")},
            {"iat": None},
        ],
        ids=repr,
    )
    def test_a_claim_that_is_missing_or_wrong_proves_nothing(self, claims: dict[str, Any]) -> None:
        assert _call_code(ADA.token, _proof(**claims)) == "call.unproved"

    def test_an_endless_id_is_refused(self) -> None:
        assert _call_code(ADA.token, _proof(jti="x" * 101)) == "call.stale"

    @pytest.mark.parametrize("kind", ["JWT", "connexon-credential+jwt", None])
    def test_a_token_of_another_type_proves_nothing(self, kind: str | None) -> None:
        assert _call_code(ADA.token, _proof(header={"alg": "EdDSA", "typ": kind})) == "call.unproved"

    def test_the_credential_itself_is_no_proof(self) -> None:
        assert _call_code(ADA.token, ADA.token) == "call.unproved"

    @pytest.mark.parametrize("proof", ["", "a.b.c", "\ud800", "x" * 50_000, base64url(b"[" * 6_000) + ".e30.AA"])
    def test_what_is_no_token_proves_nothing(self, proof: str) -> None:
        assert _call_code(ADA.token, proof) == "call.unproved"

    def test_an_unsigned_proof_proves_nothing(self) -> None:
        unsigned = _proof(header={"alg": "none", "typ": signed.CALL_TYPE}).rpartition(".")[0] + "."
        assert _call_code(ADA.token, unsigned) == "call.unproved"

    def test_an_expired_roster_or_a_suspended_center_ends_it(self) -> None:
        with pytest.raises(RosterRefused):
            verify_call(ADA.token, _proof(), ROSTER, method=METHOD, at_ms=ROSTER.expires_at_ms)
        federation: Federation = new_federation()
        metadata = dict(federation.researcher("lyon").call(METHOD))
        federation.centers["lyon"] = federation.centers["lyon"].with_status(MemberStatus.SUSPENDED)
        with pytest.raises(Refused) as caught:
            verify_call(metadata[signed.CREDENTIAL_KEY], metadata[signed.PROOF_KEY], federation.roster(), method=METHOD)
        assert caught.value.code == "membership.suspended"
