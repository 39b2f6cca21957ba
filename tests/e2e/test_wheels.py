"""Connexon as people install it: from its wheel, with one extra, without the sources, and used."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local import processes
from deploy.local.federation import LocalFederation
from tests.support import wheels
from tests.support.wheels import ROOT, Installation

Install = Callable[..., Installation]
Using = Callable[[Installation, Installation, Installation], LocalFederation]
SOURCES = {"connexon": "connexon", "hub/connexon_hub": "connexon_hub", "node/connexon_node": "connexon_node"}
SHIPPED = {**SOURCES, "policies": "connexon/policies"}
LEARNING = ("connexon.learning.", "connexon.client.training.prediction", "connexon_hub.training.")
SERVING = ("connexon.service.",)
"""What hub and node share and a researcher never loads."""
IMPORTING = """
import importlib, pkgutil, sys
for name in sys.argv[1].split():
    for found in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
        try:
            importlib.import_module(found.name)
        except ImportError as error:
            print(found.name, error.name)
"""
RECIPE = """\
name: early-success
dataset: differentiation_runs
target: {field: success, classes: {failed: [false], succeeded: [true]}}
features:
  - {field: target_cell_term, values: ["CL:0000100", "CL:0000700", "CL:0000746", "CL:0002586"]}
  - {field: seed_density_1e6_ml, range: [0.1, 1.0]}
model: {kind: logistic, learning_rate: 1.0, l2: 0.01}
rounds: 2
evaluate: {held_out: 0.2}
minimum_centers: 1
seed: 1
purpose: health
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Install the wheel with these extras, once."""
    made: dict[tuple[str, ...], Installation] = {}

    def install(*extras: str) -> Installation:
        if extras not in made:
            made[extras] = wheels.install(wheel, tmp_path_factory.mktemp("installed") / "venv", *extras)
        return made[extras]

    return install


@pytest.fixture
def using(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Using:
    """A federation to be made, whose hub, nodes and researchers run from these installations, in an empty folder."""

    def using(hub: Installation, node: Installation, researcher: Installation) -> LocalFederation:
        installations = {"connexon-hub": hub, "connexon-node": node, "connexon": researcher}
        monkeypatch.setattr(processes, "command", lambda name: installations[name].command(name))
        for name in [name for name in os.environ if name.startswith("PYTHON")]:
            monkeypatch.delenv(name)
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        return LocalFederation(tmp_path / "federation")

    return using


def test_the_wheel_holds_every_file_of_the_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
    for source, place in SHIPPED.items():
        folder = ROOT / source
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        wanted = {f"{place}/{file}" for file in files if "__pycache__" not in file and "/." not in f"/{file}"}
        assert wanted, source
        assert wanted <= held


@pytest.mark.parametrize(
    ("extras", "packages", "of_other_extras"),
    [
        ((), "connexon", (*LEARNING, *SERVING)),
        (("hub",), "connexon connexon_hub", LEARNING),
        (("learn",), "connexon", SERVING),
    ],
)
def test_every_module_of_an_extra_loads_with_it_alone(
    install: Install, tmp_path: Path, extras: tuple[str, ...], packages: str, of_other_extras: tuple[str, ...]
) -> None:
    done = install(*extras).run("python", "-c", IMPORTING, packages, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if not line.startswith(of_other_extras)] == []


def test_the_installations_hold_the_wheel_and_not_the_sources(install: Install, tmp_path: Path) -> None:
    base = install()
    done = base.run("python", "-c", "import sys, connexon; print(connexon.__file__, *sys.path)", cwd=tmp_path)
    assert done.stdout.split()[0] == str(base.site / "connexon" / "__init__.py")
    assert not [place for place in done.stdout.split()[1:] if Path(place).is_relative_to(ROOT)]
    assert not (base.site / "sqlalchemy").exists()


@pytest.mark.parametrize("command", ["connexon-hub", "connexon-node"])
def test_without_an_extra_its_command_says_what_to_install(install: Install, tmp_path: Path, command: str) -> None:
    done = install().run(command, "status", cwd=tmp_path)
    assert done.returncode == 1
    assert f"pip install 'connexon[{command.removeprefix('connexon-')}]'" in done.stderr


def test_hub_node_and_researcher_work_with_their_own_extra_alone(install: Install, using: Using) -> None:
    node = install("node")
    with using(install("hub"), node, install()) as federation:
        federation.make_hub()
        kyoto = federation.join_center("kyoto")
        kyoto.set("release", minimum_donors=1, round_to=1)
        kyoto.command("ontology", "add", "--demo")
        donors = Path("donors.csv")
        donors.write_text("id,sex\nD-1,female\nD-2,male\n")
        assert "2 rows" in kyoto.import_file("donors", donors, "--dry-run")
        kyoto.command("sample", "--donors", "40", "--seed", "1", "--only", "bank", "--import")
        federation.sign_roster()
        assert "All that the node needs is installed" in kyoto.command("doctor")
        federation.start()
        assert "Nothing is broken." in kyoto.command("doctor")
        assert "cases as they should be" in kyoto.command("policy", "check")
        ada = federation.accredit("ada", home="kyoto")
        question = ("count", "cell_lines", "--where", "type = 'iPSC'", "--by", "donor.sex", "--purpose", "health")
        (answer,) = ada.command_json(*question)["centers"]
        assert answer["status"] == "released", answer
        assert "health" in ada.command("catalog", "--purpose", "health")
        federation.hub_command("status")

        # What an extra forgot: the node would not start, and the doctor must not call it well.
        shutil.rmtree(node.site / "packaging")
        done = node.run("connexon-node", "doctor", "--dir", str(kyoto.folder), cwd=Path.cwd())
        assert done.returncode == 1
        said = " ".join(done.stdout.split())
        assert "packaging is not installed." in said
        assert "pip install 'connexon[node]'" in said


def test_a_model_is_trained_and_used_where_learn_is_installed_too(install: Install, using: Using) -> None:
    laptop = install("learn")
    with using(install("hub", "learn"), install("node", "learn"), laptop) as federation:
        federation.make_hub()
        kyoto = federation.join_center("kyoto")
        kyoto.set("training", minimum_donors=5)
        kyoto.command("ontology", "add", "--demo")
        kyoto.command("sample", "--donors", "120", "--seed", "1", "--only", "science", "--import")
        federation.sign_roster()
        federation.start()
        ada = federation.accredit("ada", home="kyoto")
        recipe = Path("recipe.yaml")
        recipe.write_text(RECIPE)
        run = ada.command_json("train", str(recipe), "--wait", "120")
        assert run["state"] == "finished", run
        rows = Path("rows.csv")
        rows.write_text("id,target_cell_term,seed_density_1e6_ml\n1,CL:0000100,0.2\n")
        assert "succeeded" in ada.command("model", "predict", "early-success/1", str(rows))
        ada.command("model", "export", "early-success/1", "--out", "model")
        assert (Path("model") / "card.md").exists()
