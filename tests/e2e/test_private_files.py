"""What hub, root and nodes write is for their own user alone, also what libraries write for them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import connexon
from deploy.local.federation import LocalFederation


def test_files_of_hub_root_and_nodes_are_for_their_owner_alone(tmp_path: Path) -> None:
    # Every command is a process of its own here: what a command does to its process is part of what is asked.
    umask = os.umask(0)
    try:
        with LocalFederation(tmp_path / "federation") as federation:
            federation.make_hub()
            center = federation.join_center("lyon")
            center.command("ontology", "add", "--demo")
            center.command("sample", "--donors", "40", "--seed", "1", "--only", "bank", "--import")
            federation.sign_roster()
            federation.start()
            federation.accredit("ada", home="lyon")
            network = connexon.connect(federation.researchers["ada"].home)
            network.study(purpose="health", wait=30).dataset("cell_lines").count()
            folders = (federation.hub_folder, federation.root_folder, center.folder)
            found = [path for folder in folders for path in (folder, *folder.rglob("*"))]
            modes = {str(path): stat.S_IMODE(path.lstat().st_mode) for path in found if not path.is_symlink()}
    finally:
        os.umask(umask)
    assert {"state.db-wal", "state.db-shm", "serve.json", "manifest.json"} <= {path.name for path in found}
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
