"""Signatures on questions, answers and calls.

A question is signed by the researcher over the exact bytes sent, an answer by the center. Neither can be made or
changed by whoever carries it.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connexon import strict
from connexon.clock import MINUTE, now_ms
from connexon.conditions.cost import MAXIMUM_SIZE
from connexon.errors import InvalidQuery, Refused, Unauthenticated
from connexon.identity import credential
from connexon.identity import keys as identity_keys
from connexon.identity.credential import Researcher, Revocations
from connexon.identity.keys import CenterId, SigningKey
from connexon.identity.roster import Roster
from connexon.query import wire_question
from connexon.query.question import Question
from connexon.safe_text import plain
from connexon.v1 import answer_pb2, query_pb2

QUERY_USE = "query"
ANSWER_USE = "answer"
CALL_TYPE = "connexon-call+jwt"
MAXIMUM_QUERY_LIFE_MS = 30 * 24 * 60 * MINUTE
"""A question may wait thirty days for a center that is down."""
CALL_LIFE_MS = 2 * MINUTE
PARCEL_PREFIX = b"connexon/v1/parcel\0"
CREDENTIAL_KEY = "connexon-credential"
PROOF_KEY = "connexon-proof"


class QueryRefused(Unauthenticated):
    """A signed question that does not hold."""

    code = "query.refused"


class AnswerRefused(Refused):
    """An answer that must not be believed."""

    code = "answer.refused"


@dataclass(frozen=True)
class Asked:
    """A question with the researcher proved to have asked it. Only `verify_query` makes one."""

    question: Question
    researcher: Researcher
    sha256: bytes


def sign_query(question: Question, key: SigningKey, token: str) -> query_pb2.SignedQuery:
    """Sign a question, and the credential it is asked with, with the key bound in that credential."""
    return sign_payload(wire_question.to_bytes(question), key, token)


def sign_payload(payload: bytes, key: SigningKey, token: str) -> query_pb2.SignedQuery:
    """As `sign_query` does; the same bytes each time, for Ed25519 draws nothing at random."""
    signature = key.sign(QUERY_USE, _with_credential(payload, token))
    return query_pb2.SignedQuery(payload=payload, signature=signature, credential=token)


def parcel_sha256(parcel: bytes) -> bytes:
    """What stands in an answer's query_sha256 where the center could not prove that a researcher asks this.

    It is over all that was delivered, a serialised SignedQuery or not, and never the digest of a payload. Otherwise
    whoever carries a question could bend its signature and get a refusal that counts for the question itself.
    """
    return hashlib.sha256(PARCEL_PREFIX + parcel).digest()


def _with_credential(payload: bytes, token: str) -> bytes:
    # Otherwise whoever carries the question could put another of the researcher's credentials beside it.
    return hashlib.sha256(token.encode()).digest() + payload


def verify_query(
    signed: query_pb2.SignedQuery, roster: Roster, revocations: Revocations, *, at_ms: int | None = None
) -> Asked:
    """Prove who asks, and that they asked exactly this, now, in this federation.

    Raises InvalidQuery, QueryRefused, credential.CredentialRefused, NotFound or Refused. Replay and address are the
    receiver's to check: it knows what it has seen and who it is.
    """
    moment = now_ms() if at_ms is None else at_ms
    strict.refuse_unknown(signed, what="query")
    if len(signed.payload) > MAXIMUM_SIZE:
        raise InvalidQuery(
            f"The query has {len(signed.payload)} bytes; at most {MAXIMUM_SIZE} are allowed.",
            code="query.too_large",
        )
    roster.require_fresh(moment)
    researcher = credential.verify(signed.credential, roster, revocations, at_ms=moment)
    signed_bytes = _with_credential(signed.payload, signed.credential)
    if not identity_keys.verify(researcher.key, QUERY_USE, signed_bytes, signed.signature):
        raise QueryRefused("The query's signature does not hold.", code="query.bad_signature")
    question = wire_question.from_bytes(signed.payload)
    if question.federation != roster.federation:
        raise QueryRefused("The query is meant for another federation.", code="query.other_federation")
    require_in_time(question, moment)
    return Asked(question, researcher, hashlib.sha256(signed.payload).digest())


def require_in_time(question: Question, moment: int) -> None:
    """Raise QueryRefused where the question is expired, from the future, or valid for too long."""
    if moment >= question.expires_at_ms:
        raise QueryRefused("The query has expired; ask again.", code="query.expired")
    if question.issued_at_ms > moment + credential.CLOCK_SLACK_MS:
        raise QueryRefused("The query is from the future; check the clocks.", code="query.not_yet")
    if question.expires_at_ms - question.issued_at_ms > MAXIMUM_QUERY_LIFE_MS:
        raise QueryRefused("A query may wait for thirty days at most.", code="query.life")


def sign_answer(answer: answer_pb2.Answer, key: SigningKey) -> answer_pb2.SignedAnswer:
    """Sign an answer with the center's answering key."""
    payload = answer.SerializeToString(deterministic=True)
    return answer_pb2.SignedAnswer(payload=payload, signature=key.sign(ANSWER_USE, payload))


def verify_answer(
    signed: answer_pb2.SignedAnswer,
    roster: Roster,
    *,
    center: CenterId,
    query_payload: bytes,
    parcel: bytes | None = None,
) -> answer_pb2.Answer:
    """Return the answer if that center signed it, for exactly that question. Raises AnswerRefused.

    `parcel` is the serialised SignedQuery, where it is at hand as the researcher sent it: then a center's word that it
    could not prove these very bytes is believed, too.

    It may say more than this version knows: nodes are upgraded one by one, and their answers reach everybody. What is
    read out of it (status, result) is checked by whoever reads it.
    """
    member = roster.member(center)
    keys = member.answering_keys if member else ()
    if not any(identity_keys.verify(key, ANSWER_USE, signed.payload, signed.signature) for key in keys):
        raise AnswerRefused(f"The answer is not signed by {center}.", code="answer.bad_signature")
    try:
        answer = strict.read(answer_pb2.Answer, signed.payload, what="answer")
    except InvalidQuery as error:
        raise AnswerRefused(error.public, code=error.code) from error
    if answer.status == answer_pb2.ANSWER_STATUS_UNSPECIFIED:
        raise AnswerRefused(f"{center}'s answer does not say what became of the query.", code="answer.no_status")
    if answer.center_id != center:
        raise AnswerRefused(
            f"The answer is {plain(answer.center_id[:63])}'s, not {center}'s.", code="answer.other_center"
        )
    if not _is_to(answer, query_payload, parcel):
        raise AnswerRefused("The answer is to another question.", code="answer.other_query")
    return answer


def _is_to(answer: answer_pb2.Answer, query_payload: bytes, parcel: bytes | None) -> bool:
    if answer.query_sha256 == hashlib.sha256(query_payload).digest():
        return True
    # Nothing was worked out for bytes that were not proved.
    unproved = answer.status != answer_pb2.ANSWER_STATUS_RELEASED and answer.WhichOneof("result") is None
    return unproved and parcel is not None and answer.query_sha256 == parcel_sha256(parcel)


def prove_call(key: SigningKey, token: str, *, federation: str, method: str) -> tuple[tuple[str, str], ...]:
    """Metadata that proves, for two minutes and once, that the holder of `token` makes this very call.

    `method` is the full gRPC method, for example /connexon.v1.Research/Follow. After DPoP (RFC 9449).
    """
    now = now_ms() // 1000
    claims = {"aud": federation, "htm": method, "iat": now, "jti": str(uuid.uuid4())}
    proof = jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": CALL_TYPE})
    return ((CREDENTIAL_KEY, token), (PROOF_KEY, proof))


def verify_call(
    token: str, proof: str, roster: Roster, revocations: Revocations, *, method: str, at_ms: int | None = None
) -> tuple[Researcher, str]:
    """Return who calls, and the proof's id, which the receiver must accept only once within twice CALL_LIFE_MS.

    Raises credential.CredentialRefused or Unauthenticated.
    """
    moment = now_ms() if at_ms is None else at_ms
    roster.require_fresh(moment)
    researcher = credential.verify(token, roster, revocations, at_ms=moment)
    try:
        if len(proof) > credential.MAXIMUM_SIZE or jwt.get_unverified_header(proof).get("typ") != CALL_TYPE:
            raise jwt.InvalidTokenError
        claims = jwt.decode(
            proof,
            Ed25519PublicKey.from_public_bytes(researcher.key),
            algorithms=["EdDSA"],
            audience=roster.federation,
            options={"verify_iat": False, "strict_aud": True, "require": ["iat", "jti", "htm", "aud"]},
        )
        issued, proof_id = int(claims["iat"]) * 1000, str(claims["jti"])
    except credential.MALFORMED as error:
        raise Unauthenticated("The call is not proved by the researcher's key.", code="call.unproved") from error
    if claims["htm"] != method or abs(moment - issued) > CALL_LIFE_MS or len(proof_id) > 100:
        raise Unauthenticated(
            "The proof is for another call or time; check that the clock is right.", code="call.stale"
        )
    return researcher, proof_id
