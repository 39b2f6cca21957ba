"""From the members table to a roster in force: drafted at the hub, signed with the root key elsewhere, published.

The hub cannot sign. `draft` and `publish` need the hub's folder, `RootFolder` only the root's: it remembers the last
roster it signed, so that it never signs two of one serial and can show what changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select

from connexon.clock import DAY, now_ms
from connexon.errors import Misconfigured
from connexon.identity import keys, roster, visible_text
from connexon.identity.keys import SigningKey
from connexon.identity.roster import Roster, RosterRefused
from connexon.link.frames import MAXIMUM_FRAME
from connexon.service.database import Database
from connexon.service.policy_files import files_below
from connexon.v1 import roster_pb2
from connexon_hub.membership import certificates
from connexon_hub.membership.members import MemberStore, for_roster
from connexon_hub.membership.policy_changes import FLOORS_FILE
from connexon_hub.membership.standing import Standing
from connexon_hub.state.tables import ROSTERS

MAXIMUM_SIZE = MAXIMUM_FRAME - 16 * 1024
"""Bytes of a signed roster: it travels in one frame."""


class RosterStore:
    """Published rosters in the hub's database."""

    def __init__(self, database: Database, members: MemberStore, *, root_fingerprint: bytes) -> None:
        self._database = database
        self._members = members
        self._root_fingerprint = root_fingerprint

    def in_force(self) -> tuple[Roster, roster_pb2.SignedRoster]:
        """The roster of the highest serial. Raises Misconfigured where none was ever published."""
        with self._database.reading() as connection:
            return self._in_force(connection)

    def standing(self) -> Standing:
        """Roster and members as one consistent view."""
        with self._database.reading() as connection:
            content, signed = self._in_force(connection)
            return Standing(
                roster=content,
                signed_roster=signed,
                statuses=self._members.statuses(connection),
                link_keys=self._members.link_keys(connection),
                revoked_certificates=certificates.revoked(connection),
                revision=self._revision(connection),
            )

    def revision(self) -> tuple[int, int]:
        """Changes whenever `standing` would."""
        with self._database.reading() as connection:
            return self._revision(connection)

    def publish(self, signed: roster_pb2.SignedRoster) -> Roster:
        """Bring a signed roster into force. Raises RosterRefused unless the root signed it and its serial is newer."""
        _require_sendable(signed)
        with self._database.writing() as connection:
            row = _latest(connection)
            present = None if row is None else roster.peek(row)
            content = roster.believe(signed, root_fingerprint=self._root_fingerprint, present=present, now_ms=now_ms())
            if present is not None and content.serial == present.serial:
                return content
            connection.execute(
                insert(ROSTERS).values(serial=content.serial, published_ms=now_ms(), signed=signed.SerializeToString())
            )
            self._members.follow_roster(connection, content)
        return content

    def draft(
        self, *, federation: str, authority: bytes, days: float, policy_files: Mapping[str, bytes], after: int = 0
    ) -> Roster:
        """The next roster: serial one up, the members as they stand, valid for `days` from now.

        `after` is a serial that is used, too: the root may have signed rosters that never came here. Raises
        RosterRefused where a member or a file has a name that nobody would take.
        """
        with self._database.reading() as connection:
            row = _latest(connection)
            members = self._members.listed(connection)
            revoked = certificates.revoked(connection)
        present = None if row is None else roster.peek(row)
        now = now_ms()
        made = Roster(
            federation=federation,
            serial=max(0 if present is None else present.serial, after) + 1,
            issued_at_ms=now,
            expires_at_ms=now + int(days * DAY),
            hub_certificate_authority=authority,
            members=for_roster(members, present),
            revoked_certificates=revoked,
            lowest_protocol=Roster.lowest_protocol if present is None else present.lowest_protocol,
            policy_files=policy_files,
        )
        # Read as every receiver will: what they would refuse is said before anybody signs it.
        return roster.peek(roster.unsigned(made))

    def _in_force(self, connection: Connection) -> tuple[Roster, roster_pb2.SignedRoster]:
        signed = _latest(connection)
        if signed is None:
            raise Misconfigured(
                "No roster was ever published; use connexon-hub roster update.", code="roster.none_published"
            )
        return roster.believe(signed, root_fingerprint=self._root_fingerprint), signed

    def _revision(self, connection: Connection) -> tuple[int, int]:
        serial = connection.execute(select(ROSTERS.c.serial).order_by(ROSTERS.c.serial.desc()).limit(1)).scalar()
        return serial or 0, self._members.revision(connection)


def _require_sendable(signed: roster_pb2.SignedRoster) -> None:
    if signed.ByteSize() > MAXIMUM_SIZE:
        raise RosterRefused(
            f"The roster has {signed.ByteSize()} bytes; at most {MAXIMUM_SIZE} can be sent to a node.",
            code="roster.too_large",
        )


def _latest(connection: Connection) -> roster_pb2.SignedRoster | None:
    row = connection.execute(select(ROSTERS.c.signed).order_by(ROSTERS.c.serial.desc()).limit(1)).scalar()
    return None if row is None else roster_pb2.SignedRoster.FromString(row)


def policy_files(folder: Path) -> dict[str, bytes]:
    """The policy baseline below `folder`: Cedar policies and schemas, and release.toml with the floors of release.

    The cases that test policies stay behind.

    Raises Misconfigured where there is none, for a federation without rules answers nothing, or a name is no text.
    """
    try:
        found = sorted(
            path
            for path in files_below(folder)
            if (path.suffix in (".cedar", ".cedarschema") or path.name == FLOORS_FILE)
            and path.relative_to(folder).parts[0] != "cases"
        )
    except OSError as error:
        raise Misconfigured(
            f"{error.filename or folder} cannot be read ({error.strerror}), so what it forbids would be left out.",
            code="policies.unreadable",
        ) from error
    if not found:
        raise Misconfigured(
            f"There is no policy (*.cedar, *.cedarschema) below {folder}; name the folder with --policies.",
            code="policies.none",
        )
    names = {path: path.relative_to(folder).as_posix() for path in found}
    for name in names.values():
        if wrong := visible_text.wrong_with(name):
            raise Misconfigured(f"The name of the policy file {name!r} {wrong}.", code="policies.bad_name")
    return {name: path.read_bytes() for path, name in names.items()}


@dataclass(frozen=True)
class RootFolder:
    """The folder of the root key, best kept off the hub's machine."""

    root: Path

    @property
    def key_file(self) -> Path:
        """The root's private key, PEM."""
        return self.root / "root.key"

    @property
    def last_file(self) -> Path:
        """The roster signed last."""
        return self.root / "last-roster.json"

    def create(self) -> SigningKey:
        """Make the root key. Raises Misconfigured where there is one already."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        key = SigningKey.generate()
        key.save(self.key_file)
        return key

    def last(self) -> Roster | None:
        """The roster signed last here, or None. Raises Misconfigured where there is no root key."""
        key = SigningKey.load(self.key_file)
        if not self.last_file.is_file():
            return None
        signed = roster.from_text_file(self.last_file.read_text())
        return roster.believe(signed, root_fingerprint=keys.fingerprint(key.public))

    def require_signable(self, draft: Roster) -> Roster | None:
        """The roster signed last here. Raises RosterRefused for a used serial, another federation, an expired draft."""
        last = self.last()
        if last is not None and draft.federation != last.federation:
            raise RosterRefused(
                f"This root key is {last.federation}'s; the draft is of {draft.federation}.",
                code="roster.other_federation",
            )
        if last is not None and draft.serial <= last.serial and draft != last:
            raise RosterRefused(
                f"Serial {last.serial} was signed here already, and not this draft. Publish what was signed, "
                f"{self.last_file}, or draft anew with --after {last.serial}.",
                code="roster.older",
            )
        draft.require_fresh(now_ms())
        return last

    def sign(self, draft: Roster) -> roster_pb2.SignedRoster:
        """Sign a draft. Raises RosterRefused as `require_signable` does, and for one that is too large."""
        self.require_signable(draft)
        signed = roster.sign(draft, SigningKey.load(self.key_file))
        # Before it is remembered as signed: its serial would be used up for what no hub can publish.
        _require_sendable(signed)
        keys.replace_file(self.last_file, roster.to_text_file(signed).encode())
        return signed
