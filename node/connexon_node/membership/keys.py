"""The node's own keys and certificate. They are made where the node stands and never leave it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from connexon.errors import Misconfigured
from connexon.identity import certificates, keys
from connexon.identity.certificates import TlsKey
from connexon.identity.keys import SigningKey, SpiffeId
from connexon_node.folder import NodeFolder

LINK_KEY = "link.pem"
CERTIFICATE = "link.crt"
AUTHORITY = "hub-authority.crt"
ANSWERING_KEY = "answering.pem"
ACCREDITING_KEY = "accrediting.pem"


@dataclass(frozen=True)
class NodeKeys:
    """The three private keys: one for the link's TLS, one that signs answers, one that accredits researchers."""

    link: TlsKey
    answering: SigningKey
    accrediting: SigningKey

    @classmethod
    def load(cls, folder: NodeFolder) -> NodeKeys:
        """Read the keys. Raises Misconfigured that names the one which is missing."""
        return cls(
            TlsKey.from_pem(_read(folder.keys / LINK_KEY)),
            SigningKey.load(folder.keys / ANSWERING_KEY),
            SigningKey.load(folder.keys / ACCREDITING_KEY),
        )

    @classmethod
    def load_or_make(cls, folder: NodeFolder) -> NodeKeys:
        """Read the keys, making those that are not there yet, so that interrupted joining goes on with the same."""
        if not (folder.keys / LINK_KEY).exists():
            keys.replace_file(folder.keys / LINK_KEY, TlsKey.generate().pem(), private=True)
        for name in (ANSWERING_KEY, ACCREDITING_KEY):
            if not (folder.keys / name).exists():
                _make_signing_key(folder.keys / name)
        return cls.load(folder)


@dataclass(frozen=True)
class LinkCertificate:
    """The certificate the node shows to the hub."""

    certificate: x509.Certificate

    @classmethod
    def load(cls, folder: NodeFolder) -> LinkCertificate:
        """Read it. Raises Misconfigured where it is missing or unreadable."""
        return cls(certificates.parse(_read(folder.keys / CERTIFICATE)))

    @classmethod
    def checked(cls, der: bytes, key: TlsKey, identity_expected: SpiffeId) -> LinkCertificate:
        """A certificate that the hub issued; Misconfigured unless it is for this key and this center."""
        certificate = certificates.parse(der)
        if not is_for(certificate, key) or certificates.spiffe_id(certificate) != identity_expected:
            raise Misconfigured(
                "The hub issued a certificate for another key or center; tell its operator.",
                code="certificate.mismatch",
            )
        return cls(certificate)

    def save(self, folder: NodeFolder) -> None:
        """Write it in place of the one before."""
        pem = self.certificate.public_bytes(Encoding.PEM)
        keys.replace_file(folder.keys / CERTIFICATE, pem, private=True)

    @property
    def expires(self) -> datetime.datetime:
        """When it ends."""
        return self.certificate.not_valid_after_utc

    @property
    def renewal_due(self) -> datetime.datetime:
        """When two thirds of its life have passed, counted from when it was issued."""
        begins = self.certificate.not_valid_before_utc + certificates.CLOCK_SLACK
        return begins + (self.expires - begins) * 2 / 3


def is_for(certificate: x509.Certificate, key: TlsKey) -> bool:
    """Whether a certificate is for this key."""
    public = certificate.public_key()
    return isinstance(public, ec.EllipticCurvePublicKey) and certificates.public_bytes(
        public
    ) == certificates.public_bytes(key.private.public_key())


def save_authority(folder: NodeFolder, der: bytes) -> None:
    """Keep the hub's certificate authority, which pins every connection to it."""
    keys.replace_file(folder.keys / AUTHORITY, certificates.to_pem(der), private=True)


def channel_credentials(folder: NodeFolder) -> grpc.ChannelCredentials:
    """TLS to the hub, pinned to its authority, with the node's certificate."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(folder.keys / AUTHORITY),
        private_key=_read(folder.keys / LINK_KEY),
        certificate_chain=_read(folder.keys / CERTIFICATE),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"{path} cannot be read; restore it from a backup or join again with a new invitation.",
            code="key.unreadable",
        ) from error


def _make_signing_key(path: Path) -> None:
    # Written aside and renamed: a crash in between leaves no half key that would stop the next attempt.
    scratch = path.with_suffix(".new")
    scratch.unlink(missing_ok=True)
    SigningKey.generate().save(scratch)
    scratch.rename(path)
