"""What loading Connexon loads, and what a missing part is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from connexon_node.health import installed

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    *("sqlalchemy", "sqlmodel", "alembic", "duckdb", "ibis", "pyarrow", "numpy", "pandas", "polars", "flwr"),
    *("fastapi", "starlette", "pydantic", "pydantic_settings", "cedarpy", "psycopg", "connexon_hub", "connexon_node"),
}


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def _loaded_by(statement: str) -> set[str]:
    names = f"print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}))"
    done = _run(f"import sys\n{statement}\n{names}")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


class TestLightness:
    @pytest.mark.parametrize(
        "statement",
        [
            "import connexon",
            "import connexon.query.signed, connexon.link.frames, connexon.identity.invitation, "
            "connexon.identity.certificates, connexon.query.purpose",
            "import connexon; connexon.connect",
            "import connexon.cli",
        ],
    )
    def test_the_library_loads_no_database_web_or_learning_package(self, statement: str) -> None:
        assert _loaded_by(statement) == set()

    @pytest.mark.parametrize(
        "statement",
        [
            "from connexon.cli import completing as shell; shell.datasets('l'), shell.purposes('h'), shell.queries('')",
            "from connexon_node.cli import completing as shell; assert shell.datasets('lot') == ['lots']",
        ],
    )
    def test_the_shell_completes_names_without_a_database(self, statement: str) -> None:
        assert _loaded_by(statement) <= {"connexon_node"}

    def test_a_steward_who_looks_loads_no_engine(self) -> None:
        loaded = _loaded_by(
            "import connexon_node.analyses.registry, connexon_node.approvals, connexon_node.health.status"
        )
        assert not loaded & {"ibis", "duckdb", "pandas", "polars", "flwr"}

    def test_the_check_sees_what_is_loaded(self) -> None:
        assert "sqlalchemy" in _loaded_by("import connexon.service.database")

    def test_importing_connexon_alone_does_not_load_grpc(self) -> None:
        done = _run("import sys, connexon; print('grpc' in sys.modules)")
        assert done.stdout.strip() == "False"

    def test_an_unknown_name_is_an_ordinary_attribute_error(self) -> None:
        done = _run("import connexon; connexon.nothing")
        assert "AttributeError: module 'connexon' has no attribute 'nothing'" in done.stderr


BLOCKING = """
import sys
ABSENT = sys.argv[1]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from connexon import entry
sys.argv = sys.argv[2:]
getattr(entry, sys.argv[0].removeprefix("connexon-"))()
"""


class TestMissingExtras:
    @pytest.mark.parametrize(
        ("command", "arguments", "package"),
        [
            ("connexon-hub", ["members"], "sqlalchemy"),
            ("connexon-hub", ["members"], "pydantic_settings"),
            ("connexon-node", ["audit", "list"], "sqlalchemy"),
            ("connexon-node", ["audit", "list"], "pydantic_settings"),
        ],
    )
    def test_a_missing_extra_is_explained_in_one_sentence(
        self, tmp_path: Path, command: str, arguments: list[str], package: str
    ) -> None:
        (tmp_path / f"{command.removeprefix('connexon-')}.toml").touch()
        done = _run(BLOCKING, package, command, *arguments, "--dir", str(tmp_path))
        assert done.returncode == 1, done.stderr
        assert done.stdout == ""
        extra = command.removeprefix("connexon-")
        assert done.stderr.splitlines() == [
            f"{command} needs {package}, which is not installed: install it with  pip install 'connexon[{extra}]'"
        ]

    @pytest.mark.parametrize("command", ["connexon-hub", "connexon-node"])
    def test_with_its_extra_the_command_shows_its_help(self, command: str) -> None:
        done = _run(BLOCKING, "no_such_package", command, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


class TestWhatTheNodeRunsOn:
    def test_each_package_that_is_missing_or_does_not_load_is_named_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "wants_absent.py").write_text("import no_such_package.part")
        (tmp_path / "wants_absent_too.py").write_text("import no_such_package")
        (tmp_path / "wants_system.py").write_text(
            "raise ImportError('libexample.so.1: cannot open shared object file')"
        )
        monkeypatch.syspath_prepend(tmp_path)
        assert installed.faults(["wants_absent", "wants_system", "wants_absent_too", "connexon_node.engine.duck"]) == [
            "no_such_package is not installed.",
            "wants_system does not load: libexample.so.1: cannot open shared object file.",
        ]
