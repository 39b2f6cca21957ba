"""The data commands as the steward types them, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import NodeKeys
from connexon_node.membership.roster import RosterKeeper
from connexon_node.state import open_state
from tests.support.federation import new_federation
from tests.support.rules import baseline

NODE_TOML = """
[hub]
federation = "alliance"
center = "lyon"
link_address = "localhost:1"
public_address = "localhost:2"
root_fingerprint = "%s"
"""


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    folder.mkdir()
    federation = new_federation()
    federation.policy_files = baseline()
    (folder / "node.toml").write_text(NODE_TOML % federation.root_fingerprint.hex())
    NodeFolder(folder).make()
    NodeKeys.load_or_make(NodeFolder(folder))
    database = open_state(NodeFolder(folder).default_state_url)
    keeper = RosterKeeper(database, root_fingerprint=federation.root_fingerprint, federation=federation.name)
    keeper.receive(federation.signed_roster())
    database.close()
    return folder


def run(*arguments: str, code: int = 0) -> str:
    """Standard output, and standard error where it failed as expected."""
    done = subprocess.run(
        [sys.executable, "-c", "from connexon_node.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "60"},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + (done.stderr if code else "")


def test_a_center_is_sampled_imported_shown_and_verified(node: Path, tmp_path: Path) -> None:
    made = json.loads(
        run("sample", "-n", "60", "--seed", "2", "--center", "lyon", "--only", "bank", "--import", "-d", str(node),
            "--json", "--out", str(tmp_path / "out"))
    )  # fmt: skip
    assert made["simulated"]
    assert [(one["dataset"], one["loaded"]) for one in made["imports"]] == [
        (name, True) for name in ("donors", "consents", "cell_lines", "lots")
    ]
    run("import", str(node), "donors", made["files"]["donors"])
    shown = json.loads(run("data", "-d", str(node), "--json", "--verify", "--history"))
    donors = [one for one in shown["generations"] if one["dataset"] == "donors"]
    assert [(one["number"], one["rows"], one["in_force"]) for one in donors] == [(1, 60, False), (2, 60, True)]
    table = run("data", "-d", str(node))
    assert "cell_lines" in table
    assert max(len(line) for line in table.splitlines()) <= 60


def test_simulated_data_takes_no_place_of_data_in_force_unasked(node: Path, tmp_path: Path) -> None:
    path = tmp_path / "donors.csv"
    path.write_text("id,sex\nD1,male\n")
    run("import", str(node), "donors", str(path))
    ask = ("sample", "-n", "20", "--only", "bank", "--import", "-d", str(node), "--out", str(tmp_path / "out"))
    said = run(*ask, code=1).replace("\n", " ")
    assert "sample.data_in_force" in said
    assert "--replace" in said
    assert not (tmp_path / "out").exists()
    (donors,) = json.loads(run("data", "-d", str(node), "--json"))["generations"]
    assert (donors["dataset"], donors["rows"]) == ("donors", 1)
    assert all(one["loaded"] for one in json.loads(run(*ask, "--replace", "--json"))["imports"])
    # Of an ontology that knows no other term, a sample's diseases are none.
    small = tmp_path / "mondo.obo"
    small.write_text("format-version: 1.2\n\n[Term]\nid: MONDO:0000001\nname: disease\n")
    run("ontology", "add", str(small), "-d", str(node))
    assert '"loaded": false' in run(*ask, "--replace", "--json", code=1)


def test_bad_rows_are_explained_and_leave_with_status_one(node: Path, tmp_path: Path) -> None:
    path = tmp_path / "donors.csv"
    path.write_text("id,sex\nD1,male\nD2,?\n")
    said = run("import", str(node), "donors", str(path), code=1)
    assert "nothing was loaded" in said
    assert "--skip-bad" in said
    (report,) = node.glob("import-report-donors-*.jsonl")
    assert json.loads(report.read_text())["line"] == 3
    outcome = json.loads(run("import", str(node), "donors", str(path), "--skip-bad", "--json"))
    assert (outcome["loaded"], outcome["rows"], outcome["bad_rows"]) == (True, 2, 1)
    looked = run("import", str(node), "donors", str(path), "--dry-run", code=1)
    assert "1 bad" in looked
    assert "✓" not in looked


def test_a_refused_file_names_the_code(node: Path, tmp_path: Path) -> None:
    path = tmp_path / "donors.csv"
    path.write_text("id,sexx\nD1,male\n")
    said = run("import", str(node), "donors", str(path), code=1)
    assert "Is it sex?" in said.replace("\n", " ")
    assert "import.columns" in said


def test_a_file_without_rows_is_loaded_only_when_told(node: Path, tmp_path: Path) -> None:
    path = tmp_path / "donors.csv"
    path.write_text("id,sex\nD1,male\n")
    run("import", str(node), "donors", str(path))
    path.write_text("id,sex\n")
    assert "import.no_rows" in run("import", str(node), "donors", str(path), code=1)
    assert json.loads(run("import", str(node), "donors", str(path), "--allow-empty", "--json"))["rows"] == 0


def test_a_folder_without_a_node_says_what_to_do(tmp_path: Path) -> None:
    assert "connexon-node join" in run("data", "-d", str(tmp_path), code=1).replace("\n", " ")
    assert "connexon-node join" in run("sample", "--import", "-d", str(tmp_path), code=1).replace("\n", " ")


@pytest.mark.parametrize("command", ["import", "data", "sample"])
def test_help_teaches(command: str) -> None:
    said = run(command, "--help")
    assert "--json" in said
    assert len(said.splitlines()) > 10


def test_a_drafted_mapping_imports_the_file_it_was_drafted_from(node: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "people.csv", tmp_path / "people.toml"
    path.write_text("ID;Gender;Surname;Country\nD1;w;Meyer;DE\nD2;m;Weber;NA\n")
    assert "Surname" in run("import", str(node), "donors", str(path), code=1)
    run("map", str(path), "--dataset", "donors", "--out", str(out))
    assert "is there already" in run("map", str(path), "--out", str(out), code=1).replace("\n", " ")
    shown = json.loads(run("import", str(node), "donors", str(path), "-m", str(out), "--dry-run", "--json"))
    assert shown["first_rows"][0] == {"id": "D1", "sex": "female", "country_iso2": "DE"}
    assert "female" in run("import", str(node), "donors", str(path), "-m", str(out), "--dry-run")
    assert json.loads(run("import", str(node), "donors", str(path), "-m", str(out), "--json"))["loaded"]
