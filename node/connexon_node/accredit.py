"""Accrediting researchers: the center's word for who somebody is and which key is theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert, select

from connexon import certificates, credential, identity
from connexon.clock import DAY, now_ms
from connexon.config import REQUEST_USE
from connexon.credential import Grant
from connexon.database import Database
from connexon.errors import InvalidQuery, Misconfigured
from connexon.identity import CenterId, PublicKey, SigningKey
from connexon.roster import Roster
from connexon_node.settings import HubSection
from connexon_node.state.requests import AccreditationRow

REQUEST_KIND = "accreditation-request"
LOGIN_KIND = "login"
_LARGEST_REQUEST = 16 * 1024
_ACCREDITATIONS = AccreditationRow.__table__  # type: ignore[attr-defined]  # SQLModel gives it at run time


class RequestRefused(InvalidQuery):
    """An accreditation request that does not hold."""

    code = "accreditation.refused"


@dataclass(frozen=True)
class Request:
    """A researcher's request: their public key, proved to be held by whoever wrote it."""

    public_key: PublicKey
    name: str = ""


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


def read_request(text: str) -> Request:
    """Read what `connexon keygen` printed: its JSON, or the file that holds it. Raises RequestRefused."""
    source = text if text.lstrip().startswith("{") else _file(Path(text))
    try:
        document = json.loads(source)
        if document["connexon"] != REQUEST_KIND:
            raise ValueError
        key = identity.from_base64url(document["public_key"])
        proof = identity.from_base64url(document["proof"])
        name = str(document.get("name") or "")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RequestRefused(
            "This is not an accreditation request. The researcher makes one with  connexon keygen  and sends it.",
            code="accreditation.unreadable",
        ) from error
    if len(key) != 32 or not identity.verify(key, REQUEST_USE, key, proof):
        raise RequestRefused(
            "The request does not prove that its sender holds the key; ask the researcher to send it again.",
            code="accreditation.bad_proof",
        )
    return Request(key, name)


def parse_grant(text: str, *, center: CenterId, asserted_ms: int, expires_ms: int) -> Grant:
    """A grant from TYPE=VALUE, for example ControlledAccessGrants=registry-7. Raises RequestRefused."""
    kind, separator, value = text.partition("=")
    if not separator or not kind.strip() or not value.strip():
        raise RequestRefused(f"{text!r} is not a grant; write TYPE=VALUE.", code="accreditation.bad_grant")
    return Grant(kind.strip(), value.strip(), source=center, by="dac", asserted_ms=asserted_ms, expires_ms=expires_ms)


def issue(
    request: Request,
    *,
    key: SigningKey,
    hub: HubSection,
    subject: str,
    name: str,
    role: str,
    days: int,
    grants: list[str],
) -> tuple[str, Accreditation]:
    """Return the credential and what is to be recorded of it. Raises InvalidQuery."""
    issued = now_ms()
    center = identity.center_id(hub.center)
    token = credential.issue(
        key,
        center=center,
        federation=hub.federation,
        subject=subject,
        name=name,
        role=role,
        researcher_key=request.public_key,
        life_ms=days * DAY,
        grants=tuple(
            parse_grant(grant, center=center, asserted_ms=issued, expires_ms=issued + days * DAY) for grant in grants
        ),
        issued_at_ms=issued,
    )
    claims = jwt.decode(token, options={"verify_signature": False})
    fingerprint = identity.fingerprint(request.public_key).hex()
    return token, Accreditation(
        claims["jti"], subject, name, role, fingerprint, claims["iat"] * 1000, claims["exp"] * 1000
    )


def login_document(hub: HubSection, authority: bytes, token: str) -> dict[str, Any]:
    """What the researcher gives to `connexon login`. `authority` is the hub's certificate authority, PEM or DER."""
    der = certificates.parse(authority).public_bytes(Encoding.DER)
    return {
        "connexon": LOGIN_KIND,
        "federation": hub.federation,
        "hub_address": hub.public_address,
        "hub_certificate_authority": identity.base64url(der),
        "root_fingerprint": hub.root_fingerprint,
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

    def record(self, accreditation: Accreditation) -> None:
        """Write one down, before it is handed out."""
        with self._database.writing() as connection:
            connection.execute(insert(_ACCREDITATIONS).values(**vars(accreditation)))

    def all(self) -> list[Accreditation]:
        """All of them, the newest first."""
        order = (_ACCREDITATIONS.c.issued_at_ms.desc(), _ACCREDITATIONS.c.credential_id)
        with self._database.reading() as connection:
            rows = connection.execute(select(_ACCREDITATIONS).order_by(*order)).mappings()
            return [Accreditation(**row) for row in rows]


def _file(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_REQUEST:
            raise RequestRefused(f"{path} is too large to be a request.", code="accreditation.unreadable")
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path} cannot be read; give the file that the researcher sent.", code="accreditation.unreadable"
        ) from error
