"""The journal of what a donor's consent lost: withdrawals and amendments, in a file beside the keys.

A database that is restored has forgotten them; this file, which is appended to and never rewritten, has not. It names
donors by a keyed hash of their pseudonym, so that a copy of it alone tells of nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from connexon.clock import now_ms
from connexon.errors import Unavailable
from connexon.identity.keys import SigningKey
from connexon_node.folder import NodeFolder

FILE = "withdrawals.log"
_USE = b"connexon/v1/withdrawals"
WITHDRAWN, AMENDED, RECOVERED = "withdrawn", "amended", "recovered"


@dataclass(frozen=True)
class Entry:
    """One line. `donor` is the keyed hash, hexadecimal; `on` is the day from which it counts; `epoch` the ledger's."""

    kind: str
    donor: str
    on: str
    epoch: int
    at_ms: int


class Journal:
    """The journal of one node."""

    def __init__(self, folder: NodeFolder, key: SigningKey) -> None:
        self._path: Path = folder.keys / FILE
        self._secret = hmac.digest(key.private.private_bytes_raw(), _USE, "sha256")

    def name(self, donor_id: str) -> str:
        """The keyed hash under which a donor stands here."""
        return hmac.new(self._secret, donor_id.encode(), hashlib.sha256).hexdigest()

    def note(self, kind: str, donors: Iterable[tuple[str, str]], *, epoch: int) -> None:
        """Write down, on disk when this returns, what became of donors: pseudonym and day each. Raises Unavailable."""
        moment = now_ms()
        self._append([Entry(kind, self.name(donor), on, epoch, moment) for donor, on in donors])

    def close(self, *, epoch: int) -> None:
        """The steward has recovered: what stands before this line is in the database again, up to that epoch."""
        self._append([Entry(RECOVERED, "", "", epoch, now_ms())])

    def entries(self) -> list[Entry]:
        """Every line, oldest first; one that a power cut left unfinished does not count."""
        return list(self._read())

    def epoch(self) -> int:
        """The ledger's epoch at the newest line, since the last recovery; 0 where there is none."""
        newest = 0
        for entry in self._read():
            newest = entry.epoch if entry.kind == RECOVERED else max(newest, entry.epoch)
        return newest

    def withdrawals(self) -> dict[str, str]:
        """The day of each donor's last withdrawal, by keyed hash."""
        days: dict[str, str] = {}
        for entry in self._read():
            if entry.kind == WITHDRAWN:
                days[entry.donor] = max(entry.on, days.get(entry.donor, ""))
        return days

    def _read(self) -> Iterator[Entry]:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise _cannot(error) from error
        for line in lines:
            found = _parsed(line)
            if found is not None:
                yield found

    def _append(self, entries: list[Entry]) -> None:
        if not entries:
            return
        # It begins on a line of its own, also where a power cut left half of one.
        content = "".join(f"\n{json.dumps(asdict(entry))}" for entry in entries) + "\n"
        try:
            new = not self._path.exists()
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, content.encode())
                os.fsync(file)
            finally:
                os.close(file)
            if new:
                _sync(self._path.parent)
        except OSError as error:
            raise _cannot(error) from error


def _parsed(line: bytes) -> Entry | None:
    try:
        found: dict[str, Any] = json.loads(line)
        return Entry(**found)
    except (ValueError, TypeError):
        return None


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _cannot(error: OSError) -> Unavailable:
    return Unavailable(
        f"The journal of withdrawals beside the keys cannot be used ({error.strerror}). The withdrawal counts; make "
        "room or mend the folder's rights, and enter it again, so that it outlives the database.",
        code="recovery.no_journal",
    )
