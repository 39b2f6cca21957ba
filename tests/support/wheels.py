"""Connexon installed from its wheel with some extras, and nothing else that a developer's environment has.

Nothing is downloaded: the site-packages of such an installation are links to exactly those distributions of this
environment that the wheel's own metadata asks for, directly or in turn. What an extra forgets is then absent, as it is
at a center; installing the half gigabyte of each extra anew would show the same and take minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

from deploy.distribution import closure

ROOT = Path(__file__).parents[2]


def build(folder: Path) -> Path:
    """Build the wheel of this source tree into `folder`."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=120)
    (wheel,) = folder.glob("connexon-*.whl")
    return wheel


@dataclass(frozen=True)
class Installation:
    """A virtual environment; `name` tells it from others in messages."""

    name: str
    folder: Path

    @property
    def site(self) -> Path:
        """Its site-packages."""
        return next(self.folder.glob("lib/python*/site-packages"))

    def command(self, name: str) -> str:
        """The path of one of its console commands, or of python."""
        return str(self.folder / "bin" / name)

    def run(
        self, *words: str, cwd: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its commands in `cwd` to the end, whatever that is."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.command(words[0]), *words[1:]],
            cwd=cwd,
            env={**inherited, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def install(wheel: Path, folder: Path, *extras: str, without: Iterable[str] = ()) -> Installation:
    """Install `wheel` with these extras into a new environment, lacking the distributions in `without`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    made = Installation(f"connexon[{','.join(extras)}]", folder)
    for name in sorted(closure(requirements(wheel), extras) - {canonicalize_name(name) for name in without}):
        _link(metadata.distribution(name), made.site)
    command = [sys.executable, "-m", "pip", "--python", made.command("python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--no-index", "--no-compile", str(wheel)], check=True, timeout=60)
    return made


def requirements(wheel: Path) -> list[str]:
    """What the wheel's metadata asks for, all extras together."""
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        head = opened.read(name).decode().partition("\n\n")[0]
    return [line.removeprefix("Requires-Dist: ") for line in head.splitlines() if line.startswith("Requires-Dist: ")]


def _link(distribution: metadata.Distribution, site: Path) -> None:
    """Link its files one by one, since several distributions share folders such as opentelemetry/."""
    for file in distribution.files or ():
        if file.parts[0] == ".." or file.suffix == ".pyc":
            continue
        source, link = Path(str(distribution.locate_file(file))), site / file
        link.parent.mkdir(parents=True, exist_ok=True)
        _link_to(link, source)
        if file.suffix == ".py":
            # Compiled once for all installations: Python knows what is compiled by the source's time and size.
            compiled = source.with_name("__pycache__")
            compiled.mkdir(exist_ok=True)
            _link_to(link.with_name("__pycache__"), compiled)


def _link_to(link: Path, target: Path) -> None:
    with suppress(FileExistsError):
        link.symlink_to(target)
