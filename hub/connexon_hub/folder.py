"""Where a hub keeps what: one folder, named by --dir or CONNEXON_HUB_DIR."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from connexon.console import typed
from connexon.errors import Misconfigured
from connexon.identity import keys as identity_keys

ENVIRONMENT = "CONNEXON_HUB_DIR"
DirOption = Annotated[
    Path,
    typer.Option("--dir", "-d", envvar=ENVIRONMENT, help="The hub's folder.", show_default="the present folder"),
]
"""The option that every command of connexon-hub has."""
HERE = Path()


def suggested(command: str, directory: Path) -> str:
    """A command of connexon-hub to suggest, for the same folder."""
    return typed(f"connexon-hub {command}", directory, environment=ENVIRONMENT)


@dataclass(frozen=True)
class HubFolder:
    """The paths of one hub."""

    root: Path

    @classmethod
    def find(cls, root: Path) -> HubFolder:
        """The folder of a hub that has been made. Raises Misconfigured where there is none."""
        folder = cls(root.resolve())
        if not folder.settings_file.is_file():
            raise Misconfigured(
                f"There is no hub in {folder.root}: name its folder with --dir or {ENVIRONMENT}, "
                "or make one with connexon-hub init.",
                code="hub.not_here",
            )
        return folder

    @property
    def settings_file(self) -> Path:
        """Settings in TOML; see connexon_hub.settings."""
        return self.root / "hub.toml"

    @property
    def keys(self) -> Path:
        """The authority's and the server's keys, for the hub's user only."""
        return self.root / "keys"

    @property
    def default_state_url(self) -> str:
        """SQLite beside the rest, unless the settings name another database."""
        return f"sqlite:///{self.root / 'state.db'}"

    @property
    def serving_file(self) -> Path:
        """JSON: pid, address, link_address (with the ports really taken), while `serve` runs."""
        return self.root / "serve.json"

    def make(self) -> None:
        """Create the folders, closed to other users."""
        for path in (self.root, self.keys):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Hold the folder for one serving process. Raises Misconfigured where another holds it."""
        descriptor = os.open(self.root / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise Misconfigured(
                f"A hub is serving {self.root} already (process {self.present_process().get('pid', 'unknown')}).",
                code="hub.already_serving",
            ) from error
        try:
            yield
        finally:
            self.serving_file.unlink(missing_ok=True)
            os.close(descriptor)

    def announce(self, *, address: str, link_address: str) -> None:
        """Write down which process serves, and where."""
        present = {"pid": os.getpid(), "address": address, "link_address": link_address}
        identity_keys.replace_file(self.serving_file, json.dumps(present, indent=1).encode() + b"\n")

    def present_process(self) -> dict[str, Any]:
        """What `announce` wrote, or nothing where no hub serves this folder now."""
        try:
            content = json.loads(self.serving_file.read_text())
        except (OSError, ValueError):
            return {}
        return content if self._held() and isinstance(content, dict) else {}

    def _held(self) -> bool:
        """Whether a process holds the lock: a file left by one that was killed says nothing."""
        try:
            descriptor = os.open(self.root / "serve.lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
