"""A hub, centers and researchers as processes of this machine, made by the same commands that people type."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy.local.processes import LauncherError, Service, free_port, run, run_json, until

AMPLE = {
    **{"lifetime": 100, "year": 25, "tables": 0, "questions": 20, "researcher": 20, "models": 4},
    "delta_of_year": 1e-4,
}
"""Settings of [privacy] for tests and measurements: an account that their questions never exhaust, and no tables, so
that each question is worked out."""
TRAINING_TERMS = "AcceptedTermsAndPolicies=model-training"


@dataclass
class Center:
    """A member center and its node."""

    name: str
    folder: Path
    service: Service

    def command(self, *arguments: str, **options: Any) -> str:
        """Run connexon-node in this center's folder and return what it printed."""
        return run(["connexon-node", *arguments, "--dir", str(self.folder)], **options)

    def command_json(self, *arguments: str, **options: Any) -> Any:
        """The same with --json, parsed."""
        return run_json(["connexon-node", *arguments, "--dir", str(self.folder)], **options)

    def import_file(self, dataset: str, file: Path, *options: str) -> str:
        """Import a data file."""
        return run(["connexon-node", "import", str(self.folder), dataset, str(file), *options])

    @property
    def says_attached(self) -> bool:
        """Whether the running node has noted that it is attached to the hub."""
        try:
            state = json.loads((self.folder / "serve.json").read_text())
        except FileNotFoundError:
            return False
        return state["pid"] == self.service.pid and state["attached_since_ms"] is not None

    def set(self, section: str, **values: Any) -> None:
        """Change settings in node.toml; they count from the next start."""
        path = self.folder / "node.toml"
        path.write_text(_with_settings(path.read_text(), section, values))

    def add_policy(self, name: str, cedar: str) -> None:
        """Give the center a rule of its own."""
        (self.folder / "policies" / name).write_text(cedar)


@dataclass
class Researcher:
    """Somebody with a laptop; `id` as centers know them: lyon/ada."""

    name: str
    home: Path
    id: str

    @property
    def environment(self) -> dict[str, str]:
        """What makes the connexon command act as this researcher."""
        return {"CONNEXON_HOME": str(self.home)}

    def command(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> str:
        """Run connexon as this researcher and return what it printed."""
        return run(["connexon", *arguments], environment=self.environment, accept=accept)

    def command_json(self, *arguments: str, accept: tuple[int, ...] = (0, 3)) -> Any:
        """The same with --json, parsed."""
        return run_json(["connexon", *arguments], environment=self.environment, accept=accept)


@dataclass
class LocalFederation:
    """A federation below one folder. Use it as a context manager: its processes end with the block."""

    folder: Path
    name: str = "alliance"
    centers: dict[str, Center] = field(default_factory=dict)
    researchers: dict[str, Researcher] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hub_folder = self.folder / "hub"
        self.root_folder = self.folder / "root"
        self.address = f"127.0.0.1:{free_port()}"
        self.link_address = f"127.0.0.1:{free_port()}"
        self.hub = Service(["connexon-hub", "serve", "--dir", str(self.hub_folder)], self.folder / "logs" / "hub.log")

    def __enter__(self) -> LocalFederation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every process, the nodes first."""
        services = [center.service for center in self.centers.values()]
        if services:
            with ThreadPoolExecutor(len(services)) as pool:
                list(pool.map(Service.stop, services))
        self.hub.stop()

    def hub_command(self, *arguments: str) -> str:
        """Run connexon-hub in the hub's folder and return what it printed."""
        return run(["connexon-hub", *arguments, "--dir", str(self.hub_folder)])

    def hub_json(self, *arguments: str) -> Any:
        """The same with --json, parsed."""
        return run_json(["connexon-hub", *arguments, "--dir", str(self.hub_folder)])

    def make_hub(self, *, state_url: str = "", **settings: Any) -> None:
        """Make the hub and its root key, in folders of their own, and start it. `settings` go into hub.toml."""
        self.hub_command(
            *("init", "--federation", self.name, "--root-dir", str(self.root_folder)),
            *("--address", self.address, "--link-address", self.link_address, "--state-url", state_url),
        )
        self.set_hub(**settings)
        self.start_hub()

    def set_hub(self, **settings: Any) -> None:
        """Change settings in hub.toml; they count from the hub's next start."""
        path = self.hub_folder / "hub.toml"
        path.write_text(_with_settings(path.read_text(), "", settings))

    def start_hub(self) -> None:
        """Start the hub and wait until it serves."""
        ready = self.hub_folder / "serve.json"
        ready.unlink(missing_ok=True)
        self.hub.start()

        def serving() -> bool:
            self.hub.require_running()
            return ready.exists()

        until(serving, "the hub to serve")

    def join_center(
        self,
        name: str,
        *,
        legal_name: str = "",
        country: str = "DE",
        kind: str = "academic",
        link_address: str | None = None,
        state_url: str = "",
    ) -> Center:
        """Invite a center and let it join; it becomes active with the next signed roster.

        `link_address`, where given, is where its node dials instead of the hub itself: a slow line, say.
        """
        code = self.hub_command(
            *("invite", name, "--legal-name", legal_name or f"Center {name}"), *("--country", country, "--kind", kind)
        ).strip()
        folder = self.folder / name
        service = Service(["connexon-node", "serve", "--dir", str(folder)], self.folder / "logs" / f"{name}.log")
        center = Center(name, folder, service)
        center.command("join", code, "--yes", "--state-url", state_url)
        if link_address is not None:
            center.set("hub", link_address=link_address)
        self.centers[name] = center
        return center

    def sign_roster(self) -> None:
        """Draft the next roster, sign it with the root key, publish it."""
        self.hub_command("roster", "update", "--root-dir", str(self.root_folder), "--yes")

    def start(self, *names: str, wait: bool = True) -> None:
        """Start these centers' nodes, all by default, and wait until the hub sees them attached."""
        chosen = names or tuple(self.centers)
        for name in chosen:
            if not self.centers[name].service.running:
                self.centers[name].service.start()
        if wait:
            self.wait_attached(*chosen)

    def wait_attached(self, *names: str) -> None:
        """Wait until the hub says that these centers are connected."""

        def attached() -> bool:
            for name in names:
                self.centers[name].service.require_running()
            return all(self.centers[name].says_attached for name in names) and set(names) <= self.attached()

        until(attached, f"{', '.join(names)} to attach")

    def attached(self) -> set[str]:
        """The centers that the hub sees now, as connexon-hub status says; without starting it again and again."""
        from connexon_hub.cli.context import opened
        from connexon_hub.cli.status import document

        with opened(self.hub_folder) as hub:
            return {entry["center"] for entry in document(hub)["centers"] if entry["connected"]}

    def accredit(
        self,
        subject: str,
        *,
        home: str,
        name: str = "",
        role: str = "researcher",
        days: int = 30,
        grants: Sequence[str] = (TRAINING_TERMS,),
    ) -> Researcher:
        """Make a researcher's key, let the home center accredit it, log in. They have accepted the training terms."""
        researcher = Researcher(subject, self.folder / "researchers" / subject, f"{home}/{subject}")
        request = self.folder / "researchers" / f"{subject}-request.json"
        login = self.folder / "researchers" / f"{subject}-login.json"
        request.parent.mkdir(parents=True, exist_ok=True)
        researcher.command("keygen", "--out", str(request))
        self.centers[home].command(
            *("accredit", str(request), "--subject", subject, "--name", name or subject.title()),
            *("--role", role, "--days", str(days), "--out", str(login)),
            *(part for grant in grants for part in ("--grant", grant)),
        )
        researcher.command("login", str(login))
        self.researchers[subject] = researcher
        return researcher

    def grant_exact(self, researcher: Researcher, *centers: str, project: str = "", training: bool = False) -> None:
        """Let the stewards of these centers, all by default, grant a researcher exact numbers, or exact training."""
        scope = ("--project", project) if project else ("--any-project",)
        what = ("--training",) if training else ()
        for name in centers or tuple(self.centers):
            self.centers[name].command("grant", "give", researcher.id, *scope, *what, "--because", "agreed", "--yes")


def _with_settings(text: str, section: str, values: dict[str, Any]) -> str:
    """TOML text with these settings in `section` ("" is the top), replacing commented or present ones."""
    for key, value in values.items():
        head, body, rest = _section(text, section)
        line = f"{key} = {json.dumps(value)}"
        present = re.search(rf"(?m)^#?\s*{re.escape(key)}\s*=.*$", body)
        text = head + (body.replace(present[0], line, 1) if present else f"{line}\n{body}") + rest
    return text


def _section(text: str, section: str) -> tuple[str, str, str]:
    """Text before, inside and after a section."""
    tables = list(re.finditer(r"(?m)^\[([^\]]+)\]\s*$", text))
    if not section:
        end = tables[0].start() if tables else len(text)
        return "", text[:end], text[end:]
    for index, table in enumerate(tables):
        if table[1] == section:
            end = tables[index + 1].start() if index + 1 < len(tables) else len(text)
            return text[: table.end()] + "\n", text[table.end() :][1 : end - table.end()], text[end:]
    return f"{text.rstrip()}\n\n[{section}]\n", "", ""


__all__ = ["AMPLE", "Center", "LauncherError", "LocalFederation", "Researcher"]
