"""What is handed out: the same bytes whoever builds them, with every version named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import distribution


def test_what_is_built_twice_is_the_same(tmp_path: Path) -> None:
    first, second = distribution.build(tmp_path / "one"), distribution.build(tmp_path / "two")
    assert [path.suffix for path in first] == [".whl", ".gz"]
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    distribution.write_sums(tmp_path / "one")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "one", check=True)


def test_every_version_that_a_center_installs_is_one_that_was_tested() -> None:
    names = [line.partition("==")[0] for line in distribution.versions()]
    assert {"grpcio", "duckdb", "opendp", "flwr", "cryptography"} <= set(names)
    assert not {"pytest", "mypy", "torch", "pyspark", "connexon"} & set(names)


def test_the_bill_of_materials_names_what_is_installed(tmp_path: Path) -> None:
    if not (Path(sys.executable).parent / "cyclonedx-py").exists():
        pytest.skip("cyclonedx-py is not installed; `make dist` brings it")
    bill = json.loads(distribution.write_bill(tmp_path).read_text())
    named = {f"{one['name']}=={one['version']}" for one in bill["components"]}
    assert named == set(distribution.versions())
    assert bill["metadata"]["component"]["name"] == "connexon"
    assert shutil.which("sha256sum")
