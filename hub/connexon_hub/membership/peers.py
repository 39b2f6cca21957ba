"""Who is at the other end of a link: the certificate says, and nothing else does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from connexon.errors import Unauthenticated
from connexon.identity import certificates
from connexon.identity.keys import SpiffeId


@dataclass(frozen=True)
class Peer:
    """A center as its link certificate names it. `key` is a SubjectPublicKeyInfo in DER."""

    identity: SpiffeId
    serial: str
    expires_ms: int
    key: bytes

    def require_current(self, at_ms: int) -> None:
        """Raise Unauthenticated where the certificate has expired: a connection that is kept open outlives it."""
        if at_ms >= self.expires_ms:
            raise Unauthenticated("The center's certificate has expired.", code="certificate.expired")


def from_context(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """The peer of a mutual TLS connection. Raises Unauthenticated where its certificate names no center."""
    chain = list(context.auth_context().get("x509_pem_cert", ()))
    if not chain:
        raise Unauthenticated("The link needs a center's certificate.", code="identity.no_certificate")
    certificate = certificates.parse(chain[0])
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Unauthenticated("The certificate's key is of another kind.", code="identity.bad_certificate")
    return Peer(
        identity=certificates.spiffe_id(certificate),
        serial=certificates.serial(certificate),
        expires_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
        key=certificates.public_bytes(key),
    )
