"""Who somebody is: center ids, SPIFFE ids, Ed25519 keys and signatures bound to their use."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NewType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from connexon.errors import InvalidQuery, Misconfigured, Unauthenticated

CenterId = NewType("CenterId", str)
"""Identifier of a center in its federation: lower-case letters, digits, hyphens."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
PublicKey = bytes
"""Raw Ed25519 public key, 32 bytes."""


def center_id(text: str) -> CenterId:
    """Check and return a center id. Raises InvalidQuery where it is not one."""
    return CenterId(_name(text, "a center id", code="identity.bad_center_id"))


def federation_name(text: str) -> str:
    """Check and return a federation's name, which follows the same rule as a center id."""
    return _name(text, "the name of a federation", code="identity.bad_federation_name")


def _name(text: str, what: str, *, code: str) -> str:
    if len(text) > 63 or not _NAME.match(text):
        raise InvalidQuery(
            f"{text[:80]!r} is not {what}: use lower-case letters, digits and single hyphens, "
            "at most 63 characters, beginning with a letter.",
            code=code,
        )
    return text


@dataclass(frozen=True)
class SpiffeId:
    """The identity in a link certificate, for example spiffe://alliance/center/lyon."""

    federation: str
    center: CenterId

    def __str__(self) -> str:
        return f"spiffe://{self.federation}/center/{self.center}"

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse the whole of `text`; anything beside the exact form is Unauthenticated."""
        match = re.fullmatch(r"spiffe://([^/]+)/center/([^/]+)", text)
        if not match:
            raise Unauthenticated(f"{text[:160]!r} is not the identity of a center.", code="identity.bad_spiffe_id")
        try:
            return cls(federation_name(match[1]), center_id(match[2]))
        except InvalidQuery as error:
            raise Unauthenticated(error.public, code="identity.bad_spiffe_id") from error


def fingerprint(key: PublicKey) -> bytes:
    """SHA-256 of the raw public key, 32 bytes."""
    return hashlib.sha256(key).digest()


def readable(digest: bytes) -> str:
    """A fingerprint as two people compare it on the telephone: eight groups of four hexadecimal digits.

    128 bits; finding another key with the same text costs about 2^128 tries.
    """
    text = digest.hex()[:32]
    return " ".join(text[start : start + 4] for start in range(0, 32, 4))


class SigningKey:
    """An Ed25519 private key. Its signatures name what they are for, so none can serve elsewhere."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self.private = private
        self.public: PublicKey = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a PEM file. Raises Misconfigured where it is absent or no Ed25519 key."""
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Misconfigured(f"No usable key at {path}.", code="key.unreadable") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Misconfigured(f"The key at {path} is not an Ed25519 key.", code="key.unreadable")
        return cls(key)

    def save(self, path: Path) -> None:
        """Write the key as PEM, readable by its owner only. Refuses to overwrite."""
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem)

    def sign(self, use: str, payload: bytes) -> bytes:
        """Return 64 bytes over "connexon/v1/" use NUL payload."""
        return self.private.sign(bound(use, payload))


def verify(key: PublicKey, use: str, payload: bytes, signature: bytes) -> bool:
    """Whether `signature` is by `key`, for this `use`, over these exact bytes."""
    try:
        _loaded(key).verify(signature, bound(use, payload))
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=4096)
def _loaded(key: PublicKey) -> Ed25519PublicKey:
    """A key ready for use; the latest are kept. Raises ValueError."""
    if len(key) == 32 and (int.from_bytes(key, "little") & _WITHOUT_SIGN) in _SMALL_ORDER:
        raise ValueError("a key of small order signs everything")
    return Ed25519PublicKey.from_public_bytes(key)


_P = 2**255 - 19
_WITHOUT_SIGN = 2**255 - 1
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _Y8, _P - _Y8})
"""The y coordinates of keys under which one signature fits every message: a holder could deny what they signed.

Points of order 1, 2, 4 and 8 and their non-canonical forms; Chalkias et al. 2020, doi 10.1007/978-3-030-64357-7_4.
"""


def bound(use: str, payload: bytes) -> bytes:
    """What is signed for a use: "connexon/v1/" use NUL payload."""
    if "\0" in use:
        # INVARIANT: the first NUL ends the use, so that no other use with another payload comes to the same bytes.
        raise ValueError("a use holds no NUL")
    return b"connexon/v1/" + use.encode() + b"\0" + payload


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read; raises Misconfigured where one is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_new(path, content, 0o600)
    except FileExistsError as error:
        raise Misconfigured(f"{path} is there already and is not overwritten.", code="key.exists") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `content` so that a reader, or a power cut, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write_new(scratch, content, 0o600 if private else 0o644)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        # Who reads of it knows the file, not the scratch beside it.
        error.filename, error.filename2 = str(path), None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def base64url(data: bytes) -> str:
    """Base64url without padding, as JSON Web Keys write it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The inverse of base64url; raises ValueError on anything else, other spellings of the same bytes included."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64url(data) != text:
        raise ValueError("not base64url as it is written here")
    return data
