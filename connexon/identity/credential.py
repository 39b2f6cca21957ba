"""A researcher's credential: the home center's word, in a JWT, for who they are and which key is theirs.

Shape: RFC 7519 with the key bound in `cnf` (RFC 7800), claims after GA4GH Passports v1. Signed with one of the
center's accrediting keys in the roster, valid for at most 90 days, unless that center revokes it before.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connexon.clock import DAY, now_ms
from connexon.errors import ConnexonError, InvalidQuery, Unauthenticated
from connexon.identity import keys as identity_keys
from connexon.identity.keys import CenterId, PublicKey, SigningKey
from connexon.identity.roster import Member, OrganisationKind, Roster

MAXIMUM_LIFE_MS = 90 * DAY
MAXIMUM_SIZE = 16 * 1024
CLOCK_SLACK_MS = 60_000
"""How far a clock may be ahead of ours."""
TYPE = "connexon-credential+jwt"
MALFORMED = (jwt.InvalidTokenError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a token that somebody else made up may raise."""
MAXIMUM_TEXT = 500
"""Characters of a name, a role or a part of a grant."""
_REMEMBERED = 256
"""Credentials whose signature need not be checked again: a researcher shows the same one with everything they ask."""
SUBJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
"""The short name of a researcher at their center."""


class CredentialRefused(Unauthenticated):
    """A credential that does not hold."""

    code = "credential.refused"


@dataclass(frozen=True)
class Grant:
    """One statement about the researcher, shaped like a GA4GH visa. Times: ms since 1970-01-01 UTC."""

    type: str
    value: str
    source: str = ""
    by: str = ""
    asserted_ms: int = 0
    expires_ms: int = 0


@dataclass(frozen=True)
class Researcher:
    """Who asks, as far as their home center and the roster vouch for it."""

    subject: str
    center: CenterId
    country: str
    organisation_kind: OrganisationKind
    name: str
    role: str
    key: PublicKey
    grants: tuple[Grant, ...]
    issued_at_ms: int
    expires_at_ms: int

    @property
    def id(self) -> str:
        """The researcher in the whole federation, for example lyon/ada."""
        return f"{self.center}/{self.subject}"


class Revocations(Protocol):
    """What centers have revoked, as far as it is known here."""

    def issued_before(self, center: CenterId, subject: str) -> int:
        """Credentials of this subject that were issued before this moment do not count; 0 where none was revoked."""
        ...


class _Nothing:
    def issued_before(self, center: CenterId, subject: str) -> int:
        return 0


NOTHING_REVOKED: Revocations = _Nothing()
"""For who judges what is past, and for the researcher's own side, which nobody tells.

INVARIANT: nobody is let in by this one; tests/unit/test_pipeline_seals.py holds who uses it.
"""


def require_counting(researcher: Researcher, revocations: Revocations) -> None:
    """Raise CredentialRefused where the center has revoked the credential that proved this researcher.

    INVARIANT: the one place where that is decided. A moment of revocation is a whole second, and the next credential is
    issued in that second or later (connexon_node.membership.accreditation), so that `iat` in seconds is exact enough.
    """
    if researcher.issued_at_ms < revocations.issued_before(researcher.center, researcher.subject):
        raise CredentialRefused(
            f"{researcher.center} has revoked this credential; ask the steward there to accredit you again.",
            code="credential.revoked",
        )


def issue(
    key: SigningKey,
    *,
    center: CenterId,
    federation: str,
    subject: str,
    name: str,
    role: str,
    researcher_key: PublicKey,
    life_ms: int,
    grants: tuple[Grant, ...] = (),
    issued_at_ms: int | None = None,
) -> str:
    """Accredit a researcher. Raises InvalidQuery on a life above 90 days or a subject that is no identifier."""
    if not 0 < life_ms <= MAXIMUM_LIFE_MS:
        raise InvalidQuery("A credential lasts at least a moment and at most 90 days.", code="credential.life")
    if not SUBJECT.match(subject):
        raise InvalidQuery(
            f"{subject!r} cannot name a researcher: use lower-case letters, digits, dot, hyphen, underscore.",
            code="credential.subject",
        )
    for text in (name, role):
        if len(text) > MAXIMUM_TEXT or not text.isprintable():
            raise InvalidQuery("A name and a role are one line of printable text each.", code="credential.text")
    issued = (now_ms() if issued_at_ms is None else issued_at_ms) // 1000
    claims = {
        "iss": center,
        "sub": subject,
        "aud": federation,
        "iat": issued,
        "exp": issued + life_ms // 1000,
        "jti": str(uuid.uuid4()),
        "name": name,
        "role": role,
        "cnf": {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": identity_keys.base64url(researcher_key)}},
        "ga4gh_passport_v1": [
            {
                "type": grant.type,
                "value": grant.value,
                "source": grant.source,
                "by": grant.by,
                "asserted": grant.asserted_ms // 1000,
                "exp": grant.expires_ms // 1000,
            }
            for grant in grants
        ],
    }
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": TYPE})


def verify(token: str, roster: Roster, revocations: Revocations, *, at_ms: int | None = None) -> Researcher:
    """Return the researcher a credential vouches for. Raises CredentialRefused, NotFound or Refused.

    Checks, in order: shape, home center active in the roster, signature by one of its accrediting keys,
    federation, times, life of at most 90 days, bound key, and that it was not revoked.
    """
    moment = now_ms() if at_ms is None else at_ms
    if len(token) > MAXIMUM_SIZE:
        raise CredentialRefused("The credential is too large.", code="credential.unreadable")
    home = roster.active(_issuer(token))
    claims = _verified_claims(token, home.center, home.accrediting_keys, roster.federation)
    try:
        researcher = _researcher(claims, home, moment)
    except MALFORMED as error:
        raise CredentialRefused("The credential lacks something it must say.", code="credential.unreadable") from error
    require_counting(researcher, revocations)
    return researcher


@lru_cache(_REMEMBERED)
def _issuer(token: str) -> CenterId:
    try:
        unverified = jwt.decode(token, options={"verify_signature": False})
        return identity_keys.center_id(str(unverified["iss"]))
    except (*MALFORMED, ConnexonError) as error:
        raise CredentialRefused("The credential cannot be read.", code="credential.unreadable") from error


@lru_cache(_REMEMBERED)
def _verified_claims(token: str, home: CenterId, keys: tuple[PublicKey, ...], federation: str) -> Mapping[str, Any]:
    # INVARIANT: a function of what it is given and of nothing else, above all of no moment, since it is remembered.
    for key in keys:
        try:
            if jwt.get_unverified_header(token).get("typ") != TYPE:
                break
            return jwt.decode(
                token,
                Ed25519PublicKey.from_public_bytes(key),
                algorithms=["EdDSA"],
                audience=federation,
                # INVARIANT: times are checked in _researcher, against the caller's moment.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "strict_aud": True},
            )
        except jwt.InvalidAudienceError as error:
            raise CredentialRefused(
                "The credential is for another federation.", code="credential.other_federation"
            ) from error
        except MALFORMED:
            continue
    raise CredentialRefused(
        f"The credential is not signed by {home}'s accrediting key.", code="credential.bad_signature"
    )


def _line(text: object) -> str:
    # Another center's steward reads it in a terminal: nothing in it may steer one.
    if not isinstance(text, str) or len(text) > MAXIMUM_TEXT or not text.isprintable():
        raise ValueError("not one line of printable text")
    return text


def _researcher(claims: Mapping[str, Any], home: Member, moment: int) -> Researcher:
    issued, expires = int(claims["iat"]) * 1000, int(claims["exp"]) * 1000
    if moment >= expires:
        raise CredentialRefused(
            f"The credential has expired; ask the steward at {home.center} to accredit you again.",
            code="credential.expired",
        )
    if issued > moment + CLOCK_SLACK_MS:
        raise CredentialRefused("The credential is from the future; check the clocks.", code="credential.not_yet")
    if expires - issued > MAXIMUM_LIFE_MS:
        raise CredentialRefused("The credential lasts longer than 90 days.", code="credential.life")
    bound = claims["cnf"]["jwk"]
    key = identity_keys.from_base64url(bound["x"])
    if bound["kty"] != "OKP" or bound["crv"] != "Ed25519" or len(key) != 32 or not SUBJECT.match(claims["sub"]):
        raise ValueError
    return Researcher(
        subject=claims["sub"],
        center=home.center,
        country=home.country,
        organisation_kind=home.organisation_kind,
        name=_line(claims.get("name", "")),
        role=_line(claims.get("role", "")),
        key=key,
        grants=tuple(
            Grant(
                type=_line(grant["type"]),
                value=_line(grant["value"]),
                source=_line(grant.get("source", "")),
                by=_line(grant.get("by", "")),
                asserted_ms=int(grant.get("asserted", 0)) * 1000,
                expires_ms=int(grant["exp"]) * 1000,
            )
            for grant in claims.get("ga4gh_passport_v1", [])
            if int(grant["exp"]) * 1000 > moment
        ),
        issued_at_ms=issued,
        expires_at_ms=expires,
    )
