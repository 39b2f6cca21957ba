"""The researcher's folder: key, login, the roster believed, defaults and own recent questions.

The folder is named by CONNEXON_HOME, else `connexon` in XDG_CONFIG_HOME, else ~/.config/connexon. Its owner alone
can read it: folders 0700, files 0600.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from connexon.errors import InvalidQuery, Misconfigured
from connexon.identity import keys
from connexon.identity import roster as rosters
from connexon.identity.keys import SigningKey
from connexon.identity.roster import Roster, RosterPin
from connexon.v1 import roster_pb2

REQUEST_USE = "accreditation-request"
REMEMBERED_QUERIES = 200
_ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):\d{1,5}\Z")


class LoginRefused(InvalidQuery):
    """A login file that cannot be used."""

    code = "login.refused"


@dataclass(frozen=True)
class Login:
    """What a steward hands out: which hub, whom to believe, and the researcher's credential (a JWT)."""

    federation: str
    hub_address: str
    hub_certificate_authority: bytes
    root_fingerprint: bytes
    credential: str
    roster: RosterPin | None
    """The roster to start from at least; None in a login that was kept before login files named one."""

    @classmethod
    def from_text(cls, text: str) -> Login:
        """Read a steward's login file. Raises LoginRefused where it is none or not whole."""
        try:
            value = json.loads(text)
            if value["connexon"] != "login" or not all(isinstance(text, str) for text in value.values()):
                raise ValueError
            login = cls(
                federation=keys.federation_name(value["federation"]),
                hub_address=value["hub_address"],
                hub_certificate_authority=keys.from_base64url(value["hub_certificate_authority"]),
                root_fingerprint=bytes.fromhex(value["root_fingerprint"]),
                credential=value["credential"],
                roster=_pinned(value),
            )
            if len(login.root_fingerprint) != 32 or not _ADDRESS.match(login.hub_address):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidQuery) as error:
            raise LoginRefused(
                "This is not a login file. Use the file that your center's steward made with "
                "'connexon-node accredit', whole and unchanged.",
                code="login.unreadable",
            ) from error
        return login

    def to_text(self) -> str:
        """The file again, as stewards write it."""
        value = {
            "connexon": "login",
            "federation": self.federation,
            "hub_address": self.hub_address,
            "hub_certificate_authority": keys.base64url(self.hub_certificate_authority),
            "root_fingerprint": self.root_fingerprint.hex(),
            "credential": self.credential,
        }
        if self.roster is not None:
            value |= {"roster_serial": str(self.roster.serial), "roster_sha256": self.roster.sha256.hex()}
        return json.dumps(value, indent=2) + "\n"


def believe_first(
    signed: roster_pb2.SignedRoster, login: Login, *, present: Roster | None, now_ms: int | None = None
) -> Roster:
    """Believe a roster that is at least as new as `present`, which is kept, and the one that the login names.

    Raises RosterRefused, and LoginRefused where there is neither.
    """
    if present is None and login.roster is None:
        raise LoginRefused(
            "The login names no roster, so an old one could not be told from the one in force. Ask your center's "
            "steward for a new login file, made with this version of connexon-node.",
            code="login.no_roster",
        )
    roster = rosters.believe(signed, root_fingerprint=login.root_fingerprint, present=present, now_ms=now_ms)
    if login.roster is not None:
        login.roster.require(roster, signed, named_in="login file")
    return roster


def _pinned(value: dict[str, str]) -> RosterPin | None:
    if "roster_serial" not in value and "roster_sha256" not in value:
        return None
    if not re.fullmatch("[0-9]{1,19}", value["roster_serial"]):
        raise ValueError
    return RosterPin(int(value["roster_serial"]), bytes.fromhex(value["roster_sha256"]))


def accreditation_request(key: SigningKey) -> dict[str, str]:
    """What a researcher sends to the steward: the public key, and the proof that its private half is held."""
    return {
        "connexon": "accreditation-request",
        "public_key": keys.base64url(key.public),
        "proof": keys.base64url(key.sign(REQUEST_USE, key.public)),
    }


@dataclass(frozen=True)
class Defaults:
    """What a researcher need not write each time; empty means not set."""

    purpose: str = ""
    project: str = ""


class Home:
    """The researcher's folder. Nothing is read or written before it is asked for."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = _default_folder() if folder is None else Path(folder).expanduser()

    def key(self) -> SigningKey:
        """The researcher's key. Raises Misconfigured where there is none, or others could read it."""
        path = self.folder / "key.pem"
        if not path.exists():
            raise Misconfigured(
                f"There is no key in {self.folder} yet. Make one with:  connexon keygen", code="home.no_key"
            )
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise Misconfigured(
                f"Others can read the key {path}. Make it private with:  chmod 600 {path}", code="key.exposed"
            )
        return SigningKey.load(path)

    def make_key(self) -> tuple[SigningKey, bool]:
        """The key, made where there was none, and whether it was made now."""
        path = self.folder / "key.pem"
        if path.exists():
            return self.key(), False
        self._private_folder(self.folder)
        key = SigningKey.generate()
        key.save(path)
        return key, True

    def login(self) -> Login:
        """The login in force. Raises Misconfigured where there is none."""
        try:
            return Login.from_text((self.folder / "login.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise Misconfigured(
                "You are not logged in. Send the request that 'connexon keygen' prints to your center's steward, "
                "then run:  connexon login FILE",
                code="home.no_login",
            ) from error
        except OSError as error:
            raise Misconfigured(f"{self.folder / 'login.json'} cannot be read.", code="home.unreadable") from error

    def keep_login(self, login: Login) -> None:
        """Log in, or again. What was known of another federation is forgotten, the key is kept."""
        if (present := self.present_login()) and present.root_fingerprint != login.root_fingerprint:
            for name in ("roster.bin", "catalog.json", "defaults.json", "models.json"):
                (self.folder / name).unlink(missing_ok=True)
        self._write("login.json", login.to_text().encode())

    def present_login(self) -> Login | None:
        """The login in force, or None before the first."""
        return self.login() if (self.folder / "login.json").exists() else None

    def roster(self, login: Login) -> Roster | None:
        """The roster kept, checked against the login's root again; None where there is none yet."""
        try:
            data = (self.folder / "roster.bin").read_bytes()
        except FileNotFoundError:
            return None
        return rosters.believe(roster_pb2.SignedRoster.FromString(data), root_fingerprint=login.root_fingerprint)

    def keep_roster(self, signed: roster_pb2.SignedRoster, login: Login) -> Roster:
        """Believe and keep a roster.

        Raises RosterRefused on one that is older than what is kept or the login names, or not the root's, and
        LoginRefused where nothing is kept and the login names none: then any old one would do.
        """
        present = self.roster(login)
        roster = believe_first(signed, login, present=present)
        if present is None or roster.serial > present.serial:
            self._write("roster.bin", signed.SerializeToString())
        return roster

    def defaults(self) -> Defaults:
        """Purpose and project to use where none is given."""
        kept = self.read_json("defaults.json")
        return Defaults(purpose=str(kept.get("purpose", "")), project=str(kept.get("project", "")))

    def keep_defaults(self, *, purpose: str | None = None, project: str | None = None) -> Defaults:
        """Change defaults; None leaves one as it is, an empty text unsets it."""
        given = {name: text for name, text in (("purpose", purpose), ("project", project)) if text is not None}
        defaults = replace(self.defaults(), **given)
        self.write_json("defaults.json", asdict(defaults))
        return defaults

    def remember(self, query_id: str, issued_at_ms: int, payload: bytes) -> None:
        """Keep the exact bytes of a question, so that its answers can be checked against it later."""
        folder = self.folder / "queries"
        self._private_folder(folder)
        # Not synced to disk: losing one after a power cut costs a check, waiting would cost every question.
        descriptor = os.open(folder / f"{issued_at_ms:015d}-{query_id}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
        for name in self._query_files()[:-REMEMBERED_QUERIES]:
            (folder / name).unlink(missing_ok=True)

    def asked(self, query_id: str) -> bytes | None:
        """The bytes of a question asked from this folder, or None."""
        for name in self._query_files():
            if name.partition("-")[2] == query_id:
                return (self.folder / "queries" / name).read_bytes()
        return None

    def recent_query_ids(self) -> list[str]:
        """Ids of the questions asked from this folder, newest first."""
        return [name.partition("-")[2] for name in reversed(self._query_files())]

    def read_json(self, name: str) -> dict[str, Any]:
        """A small file of the folder; empty where it is absent or spoilt, since none of these is irreplaceable."""
        try:
            value = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a small file of the folder, whole or not at all."""
        self._write(name, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def age_seconds(self, name: str) -> float | None:
        """How long ago a file of the folder was written; None where it is absent."""
        try:
            return max(0.0, time.time() - (self.folder / name).stat().st_mtime)
        except FileNotFoundError:
            return None

    def _query_files(self) -> list[str]:
        try:
            return sorted(path.name for path in (self.folder / "queries").iterdir())
        except FileNotFoundError:
            return []

    def _write(self, name: str, content: bytes) -> None:
        self._private_folder(self.folder)
        keys.replace_file(self.folder / name, content, private=True)

    @staticmethod
    def _private_folder(folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _default_folder() -> Path:
    named = os.environ.get("CONNEXON_HOME")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "connexon"
