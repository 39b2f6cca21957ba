"""What the pages say of the tree is true: paths are there, packages are drawn in their order, versions agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import connexon

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/security.md")
PLACES = ("connexon", "hub", "node", "proto", "policies", "deploy", "tests", "docs")
_NAMED = re.compile(r"`([\w./-]+)`")
_LINKED = re.compile(r"\]\(([\w./-]+)\)")
_RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for name in _NAMED.findall(text) if name.partition("/")[0] in PLACES and "/" in name}
    linked = {((ROOT / page).parent / name).resolve() for name in _LINKED.findall(text)}
    assert named or linked
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert [path for path in sorted(linked) if not path.exists()] == []


def test_every_contract_of_layers_is_drawn() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    drawn = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    packages = {name for one in layers for layer in one["layers"] for name in layer.split(" | ")}
    assert len(layers) == 3
    assert [name for name in sorted(packages) if not re.search(rf"\b{name}\b", drawn)] == []


def test_the_version_is_the_newest_release_of_the_changelog_and_written_once() -> None:
    releases = _RELEASE.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert releases[0][0] == connexon.__version__
    assert [day for _, day in releases] == sorted((day for _, day in releases), reverse=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
