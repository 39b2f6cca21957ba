"""Accrediting researchers: the center's word for who somebody is and which key is theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert, select

from connexon.client.home import REQUEST_USE
from connexon.clock import DAY, midnight, now_ms, to_text
from connexon.errors import Conflict, InvalidQuery, Misconfigured
from connexon.identity import certificates, credential, keys
from connexon.identity.credential import Grant
from connexon.identity.keys import CenterId, PublicKey, SigningKey
from connexon.identity.roster import Roster, RosterPin
from connexon.service.database import Database
from connexon_node.membership.revocations import issued_before
from connexon_node.settings import HubSection
from connexon_node.state.requests import AccreditationRow, AccreditedGrantRow

REQUEST_KIND = "accreditation-request"
LOGIN_KIND = "login"
_LARGEST_REQUEST = 16 * 1024
_ACCREDITATIONS = AccreditationRow.__table__  # type: ignore[attr-defined]  # SQLModel gives it at run time
_GRANTS = AccreditedGrantRow.__table__  # type: ignore[attr-defined]  # SQLModel gives it at run time
_DATED = re.compile(r"(?P<value>.*)@\s*(?P<day>\d+(?:[-/]\d+)+)\s*\Z", re.DOTALL)
"""A value with what is meant as a day. Addresses and versions may have an @ too."""


class RequestRefused(InvalidQuery):
    """An accreditation request that does not hold."""

    code = "accreditation.refused"


@dataclass(frozen=True)
class Request:
    """A researcher's request: their public key, proved to be held by whoever wrote it."""

    public_key: PublicKey
    name: str = ""


@dataclass(frozen=True)
class Given:
    """A grant, and the beginning of the day on which it was given: milliseconds since 1970-01-01 UTC."""

    type: str
    value: str
    given_at_ms: int


@dataclass(frozen=True)
class Accreditation:
    """A credential that was issued. Times: milliseconds since 1970-01-01 UTC."""

    credential_id: str
    subject: str
    name: str
    role: str
    key_fingerprint: str
    issued_at_ms: int
    expires_at_ms: int
    grants: tuple[Given, ...] = ()


def read_request(text: str) -> Request:
    """Read what `connexon keygen` printed: its JSON, or the file that holds it. Raises RequestRefused."""
    source = text if text.lstrip().startswith("{") else _file(Path(text))
    try:
        document = json.loads(source)
        if document["connexon"] != REQUEST_KIND:
            raise ValueError
        key = keys.from_base64url(document["public_key"])
        proof = keys.from_base64url(document["proof"])
        name = str(document.get("name") or "")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RequestRefused(
            "This is not an accreditation request. The researcher makes one with  connexon keygen  and sends it.",
            code="accreditation.unreadable",
        ) from error
    if len(key) != 32 or not keys.verify(key, REQUEST_USE, key, proof):
        raise RequestRefused(
            "The request does not prove that its sender holds the key; ask the researcher to send it again.",
            code="accreditation.bad_proof",
        )
    return Request(key, name)


def parse_grant(
    text: str, *, center: CenterId, issued_ms: int, expires_ms: int, given: Mapping[tuple[str, str], int]
) -> Grant:
    """A grant from TYPE=VALUE or TYPE=VALUE@YYYY-MM-DD, the day on which it was given. Raises RequestRefused.

    Where no day is said, it is the one on which the same was `given` before (by type and value), or that of issue.
    """
    kind, separator, value = (part.strip() for part in text.partition("="))
    dated = _DATED.match(value)
    value = dated["value"].strip() if dated else value
    if not separator or not kind or not value:
        raise RequestRefused(
            f"{text!r} is not a grant; write TYPE=VALUE or TYPE=VALUE@YYYY-MM-DD.", code="accreditation.bad_grant"
        )
    if not all(len(part) <= credential.MAXIMUM_TEXT and part.isprintable() for part in (kind, value)):
        raise RequestRefused(
            "The type and the value of a grant are one line of printable text each.", code="accreditation.bad_grant"
        )
    # INVARIANT: a renewal keeps the first day, or a consent that ends some months after the approval would never end.
    asserted = _day(dated["day"]) if dated else given.get((kind, value), issued_ms // DAY * DAY)
    if asserted > issued_ms:
        raise RequestRefused(
            f"{text!r} would be given in the future; days begin at midnight UTC.", code="accreditation.future_grant"
        )
    return Grant(kind, value, source=center, by="dac", asserted_ms=asserted, expires_ms=expires_ms)


def issue(
    request: Request,
    *,
    key: SigningKey,
    hub: HubSection,
    subject: str,
    name: str,
    role: str,
    days: int,
    grants: Sequence[str],
    given: Mapping[tuple[str, str], int] | None = None,
    revoked_before_ms: int = 0,
) -> tuple[str, Accreditation]:
    """Return the credential and what is to be recorded of it. Raises InvalidQuery.

    `given` tells when this researcher was given each grant before; see Accreditations.given. Of credentials issued
    before `revoked_before_ms` none counts: this one is issued then or later, which may be some seconds from now.
    """
    issued = max(now_ms(), revoked_before_ms)
    if issued > now_ms() + credential.CLOCK_SLACK_MS:
        raise RequestRefused(
            f"{subject} was revoked until {to_text(issued)} by a clock that was ahead, and a credential of today would "
            "not count. Accredit them under another --subject.",
            code="accreditation.revoked_ahead",
        )
    center = keys.center_id(hub.center)
    vouched = tuple(
        parse_grant(text, center=center, issued_ms=issued, expires_ms=issued + days * DAY, given=given or {})
        for text in grants
    )
    noted = tuple(Given(grant.type, grant.value, grant.asserted_ms) for grant in vouched)
    if len({(one.type, one.value) for one in noted}) < len(noted):
        raise RequestRefused("A grant is said twice; say each once.", code="accreditation.bad_grant")
    token = credential.issue(
        key,
        center=center,
        federation=hub.federation,
        subject=subject,
        name=name,
        role=role,
        researcher_key=request.public_key,
        life_ms=days * DAY,
        grants=vouched,
        issued_at_ms=issued,
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    fingerprint = keys.fingerprint(request.public_key).hex()
    return token, Accreditation(
        claims["jti"], subject, name, role, fingerprint, claims["iat"] * 1000, claims["exp"] * 1000, noted
    )


def login_document(hub: HubSection, authority: bytes, token: str, roster: RosterPin) -> dict[str, Any]:
    """What the researcher gives to `connexon login`. `authority` is the hub's certificate authority, PEM or DER.

    `roster` is the newest that this center knows: the researcher starts from none older.
    """
    der = certificates.parse(authority).public_bytes(Encoding.DER)
    return {
        "connexon": LOGIN_KIND,
        "federation": hub.federation,
        "hub_address": hub.public_address,
        "hub_certificate_authority": keys.base64url(der),
        "root_fingerprint": hub.root_fingerprint,
        "roster_serial": str(roster.serial),
        "roster_sha256": roster.sha256.hex(),
        "credential": token,
    }


def is_recognized(roster: Roster, center: CenterId, key: PublicKey) -> bool:
    """Whether other centers accept credentials of this key by now."""
    member = roster.member(center)
    return member is not None and member in roster.active_members and key in member.accrediting_keys


class Accreditations:
    """The list of credentials this center issued."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, accreditation: Accreditation, *, home: CenterId) -> None:
        """Write one down, before it is handed out. Raises Conflict where it was revoked since it was made."""
        row = {name: value for name, value in vars(accreditation).items() if name != "grants"}
        grants = [{"credential_id": accreditation.credential_id, **vars(one)} for one in accreditation.grants]
        with self._database.writing() as connection:
            if accreditation.issued_at_ms < issued_before(connection, home, accreditation.subject):
                raise Conflict(
                    f"{accreditation.subject} was revoked at this very moment. Accredit them again if that is meant.",
                    code="accreditation.revoked",
                )
            connection.execute(insert(_ACCREDITATIONS).values(**row))
            if grants:
                connection.execute(insert(_GRANTS), grants)

    def given(self, subject: str) -> dict[tuple[str, str], int]:
        """When a researcher was given each grant, by type and value, as their newest credential with it says."""
        same = _GRANTS.c.credential_id == _ACCREDITATIONS.c.credential_id
        found = (
            select(_GRANTS.c.type, _GRANTS.c.value, _GRANTS.c.given_at_ms)
            .join(_ACCREDITATIONS, same)
            .where(_ACCREDITATIONS.c.subject == subject)
            # Of two credentials of one second the earlier day counts.
            .order_by(_ACCREDITATIONS.c.issued_at_ms, _GRANTS.c.given_at_ms.desc())
        )
        with self._database.reading() as connection:
            return {(row.type, row.value): row.given_at_ms for row in connection.execute(found)}

    def had(self, subject: str, key_fingerprint: str, *, before_ms: int) -> bool:
        """Whether a researcher was given a credential for this key before a moment."""
        same = select(_ACCREDITATIONS.c.credential_id).where(
            _ACCREDITATIONS.c.subject == subject,
            _ACCREDITATIONS.c.key_fingerprint == key_fingerprint,
            _ACCREDITATIONS.c.issued_at_ms < before_ms,
        )
        with self._database.reading() as connection:
            return connection.execute(same.limit(1)).first() is not None

    def all(self) -> list[Accreditation]:
        """All of them, the newest first; those from before grants were written down have none."""
        order = (_ACCREDITATIONS.c.issued_at_ms.desc(), _ACCREDITATIONS.c.credential_id)
        granted: dict[str, list[Given]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(select(_GRANTS).order_by(_GRANTS.c.type, _GRANTS.c.value)):
                granted.setdefault(row.credential_id, []).append(Given(row.type, row.value, row.given_at_ms))
            rows = connection.execute(select(_ACCREDITATIONS).order_by(*order)).mappings()
            return [Accreditation(**row, grants=tuple(granted.get(row["credential_id"], ()))) for row in rows]


def _day(text: str) -> int:
    try:
        return midnight(text)
    except ValueError as error:
        raise RequestRefused(
            f"Write the day of a grant as 2026-01-15, not {text!r}.", code="accreditation.bad_grant"
        ) from error


def _file(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_REQUEST:
            raise RequestRefused(f"{path} is too large to be a request.", code="accreditation.unreadable")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path} cannot be read; give the file that the researcher sent.", code="accreditation.unreadable"
        ) from error
