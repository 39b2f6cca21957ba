"""The page of the mapping language: every key is on it, and its spreadsheets load as it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon_node.importing import ImportOptions, load_mapping
from connexon_node.importing.mapping import Column, Mapping
from tests.support.center import SmallCenter

PAGE = (Path(__file__).parents[4] / "docs" / "mapping.md").read_text(encoding="utf-8")


@pytest.fixture
def center(tmp_path: Path) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path / "node")
    for name, content in re.findall(r"```\w+ file=(\S+)\n(.*?)```", PAGE, flags=re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    yield made
    made.close()


def test_the_page_names_every_key() -> None:
    parts = {"columns", "vcf", "matrix", "h5ad", "sdtm"}
    keys = {one.alias or name for kind in (Mapping, Column) for name, one in kind.model_fields.items()} - parts
    assert not [key for key in keys if f"`{key}`" not in PAGE]


def test_the_pages_donors_load(center: SmallCenter, tmp_path: Path) -> None:
    mapping = load_mapping(tmp_path / "donneurs.toml")
    outcome = center.importer.run("donors", tmp_path / "donneurs.csv", ImportOptions(by="steward", mapping=mapping))
    assert outcome.generation is not None
    rows = sorted((row["id"], row["sex"], row["age_range_y"]) for row in center.rows("donors"))
    assert rows == [("D-1", "female", "40-44"), ("D-2", "unknown", "90+")]
    assert any(problem.rows == 1 and "Statut" in problem.reason for problem in outcome.warnings)


def test_the_pages_lots_are_checked_before_their_lines_are_loaded(center: SmallCenter, tmp_path: Path) -> None:
    options = ImportOptions(by="steward", mapping=load_mapping(tmp_path / "tubes.lots.toml"), dry_run=True)
    outcome = center.importer.run("lots", tmp_path / "tubes.csv", options)
    assert (outcome.rows, outcome.bad_rows) == (1, 0)
    assert outcome.preview[0]["id"] == "L-1/B-1"
    assert any("has not imported cell_lines" in problem.reason for problem in outcome.warnings)
