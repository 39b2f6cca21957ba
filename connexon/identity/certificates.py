"""X.509 for the connections: the hub's authority, server and link certificates, requests.

ECDSA P-256 throughout: the TLS library under gRPC does not accept Ed25519 certificates.
Certificates secure connections; whose answer it is says the roster (connexon.identity.roster).
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connexon.errors import Misconfigured, Unauthenticated
from connexon.identity import keys
from connexon.identity.keys import SpiffeId

CLOCK_SLACK = datetime.timedelta(minutes=10)
"""Certificates begin so long before they are issued, for clocks that are behind."""


@dataclass(frozen=True)
class TlsKey:
    """A P-256 private key for TLS."""

    private: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> TlsKey:
        """Make a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: bytes) -> TlsKey:
        """Parse PEM; raises Misconfigured on anything but a P-256 key."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Misconfigured("The TLS key cannot be read.", code="key.unreadable") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Misconfigured("The TLS key is not a P-256 key.", code="key.unreadable")
        return cls(key)

    def pem(self) -> bytes:
        """The key as PKCS#8 PEM."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def request(self) -> bytes:
        """A PKCS#10 request in DER that proves the key is held. It names nobody: the hub does."""
        builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
        return builder.sign(self.private, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True)
class Authority:
    """The hub's certificate authority."""

    key: TlsKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, federation: str, *, years: int = 10) -> Authority:
        """Make a self-signed authority for one federation."""
        key = TlsKey.generate()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Connexon {federation}")])
        certificate = (
            _builder(name, name, key.private.public_key(), datetime.timedelta(days=365 * years))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.private.public_key()), critical=False)
            .sign(key.private, hashes.SHA256())
        )
        return cls(key, certificate)

    @property
    def der(self) -> bytes:
        """The authority's certificate in DER, as rosters and invitations carry it."""
        return self.certificate.public_bytes(Encoding.DER)

    def issue_server(self, key: TlsKey, names: list[str], *, life: datetime.timedelta) -> x509.Certificate:
        """A server certificate for host names and IP addresses."""
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        return self._issue(key.private.public_key(), alternatives, ExtendedKeyUsageOID.SERVER_AUTH, life)

    def issue_link(self, request: bytes, identity: SpiffeId, *, life: datetime.timedelta) -> x509.Certificate:
        """A client certificate with `identity` as its one URI name, for the key in a PKCS#10 request.

        Whatever names the request asks for are ignored. Raises Unauthenticated where it does not prove its key.
        """
        key = request_key(request)
        alternatives = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
        return self._issue(key, alternatives, ExtendedKeyUsageOID.CLIENT_AUTH, life)

    def sign(self, use: str, payload: bytes) -> bytes:
        """ECDSA with SHA-256, in DER, over "connexon/v1/" use NUL payload."""
        return self.key.private.sign(keys.bound(use, payload), ec.ECDSA(hashes.SHA256()))

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        alternatives: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        life: datetime.timedelta,
    ) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.private.public_key())
        return (
            _builder(x509.Name([]), self.certificate.subject, key, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            # Python 3.13 and later refuse a chain without it (RFC 5280, 4.2.1.1).
            .add_extension(issuer, critical=False)
            # INVARIANT: with an empty subject the alternative name must be critical (RFC 5280, 4.2.1.6).
            .add_extension(alternatives, critical=True)
            .sign(self.key.private, hashes.SHA256())
        )


def verify(certificate: bytes, use: str, payload: bytes, signature: bytes) -> bool:
    """Whether the holder of a certificate (DER) signed these exact bytes for this `use`; see Authority.sign."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, keys.bound(use, payload), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def request_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key that a PKCS#10 request (DER) proves to hold; Unauthenticated otherwise."""
    try:
        parsed = x509.load_der_x509_csr(request)
        key = parsed.public_key()
        valid = parsed.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Unauthenticated("The certificate request cannot be read.", code="certificate.bad_request") from error
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Unauthenticated("The certificate request does not prove a P-256 key.", code="certificate.bad_request")
    return key


def spiffe_id(certificate: x509.Certificate) -> SpiffeId:
    """The one identity in a link certificate; Unauthenticated where there is none, or more than one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    except (ValueError, x509.DuplicateExtension) as error:
        raise Unauthenticated("The certificate cannot be read.", code="identity.bad_certificate") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or len(list(names)) != 1:
        raise Unauthenticated("The certificate does not name exactly one center.", code="identity.bad_certificate")
    return SpiffeId.parse(uris[0])


def require_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> None:
    """Raise Unauthenticated where this authority did not sign the certificate, valid now or not."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Unauthenticated(
            "The certificate is not of this federation's authority.", code="identity.bad_certificate"
        ) from error


def serial(certificate: x509.Certificate) -> str:
    """The serial number as rosters list it, lower-case hexadecimal."""
    return format(certificate.serial_number, "x")


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as DER, to compare with."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def to_pem(der: bytes) -> bytes:
    """A DER certificate as PEM, as gRPC wants it; Misconfigured where it is none."""
    return parse(der).public_bytes(Encoding.PEM)


def parse(data: bytes) -> x509.Certificate:
    """A certificate from DER or PEM; Misconfigured where it is neither."""
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion) as error:
        raise Misconfigured("A certificate cannot be read.", code="certificate.unreadable") from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + life)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise Misconfigured(
            f"{name!r} is neither an IP address nor a host name in ASCII.", code="certificate.bad_name"
        ) from error
