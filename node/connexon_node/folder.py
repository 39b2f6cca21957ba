"""Where a node keeps what: one folder, known by its node.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from connexon.console import typed
from connexon.errors import Misconfigured

ENVIRONMENT = "CONNEXON_NODE_DIR"
DirOption = Annotated[
    Path,
    typer.Option("--dir", "-d", envvar=ENVIRONMENT, help="The node's folder.", show_default="the present folder"),
]
"""The option that every command of connexon-node has."""
HERE = Path()


def suggested(command: str, directory: Path) -> str:
    """A command of connexon-node to suggest, for the same folder."""
    return typed(f"connexon-node {command}", directory, environment=ENVIRONMENT)


@dataclass(frozen=True)
class NodeFolder:
    """The paths of one node."""

    root: Path

    @classmethod
    def find(cls, root: Path) -> NodeFolder:
        """The folder of a node that has been made. Raises Misconfigured where there is none."""
        folder = cls(root.resolve())
        if not folder.settings_file.is_file():
            raise Misconfigured(
                f"There is no node in {folder.root}: name its folder with --dir or {ENVIRONMENT}, "
                "or make one with connexon-node join.",
                code="node.not_here",
            )
        return folder

    @property
    def settings_file(self) -> Path:
        """Settings in TOML; see connexon_node.settings."""
        return self.root / "node.toml"

    @property
    def keys(self) -> Path:
        """Private keys and certificates, for the node's user only."""
        return self.root / "keys"

    @property
    def data(self) -> Path:
        """Parquet generations, one folder per dataset."""
        return self.root / "data"

    @property
    def policies(self) -> Path:
        """The center's own Cedar files and cases, which only narrow the federation's."""
        return self.root / "policies"

    @property
    def ontologies(self) -> Path:
        """Ontology files as the center supplied them, and their compiled index."""
        return self.root / "ontologies"

    @property
    def training(self) -> Path:
        """Parcels of training runs that are under way."""
        return self.root / "training"

    @property
    def serve_file(self) -> Path:
        """Written by the serving process: its pid and how the link is."""
        return self.root / "serve.json"

    @property
    def default_state_url(self) -> str:
        """SQLite beside the rest, unless the settings name another database."""
        return f"sqlite:///{self.root / 'state.db'}"

    def make(self) -> None:
        """Create the folders, closed to other users."""
        for path in (self.root, self.keys, self.data, self.policies, self.ontologies):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
