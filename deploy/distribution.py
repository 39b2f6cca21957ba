"""What is handed out: python -m deploy.distribution FOLDER

Writes the wheel, the source, a bill of materials (CycloneDX) with the versions that were tested together, these also
as constraints for pip, and the SHA-256 of each file. The wheel of one commit is the same bytes wherever it is built.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("hub", "node", "learn")
"""What the bill of materials covers; Spark and PyTorch are apart and large."""
SUMS = "SHA256SUMS"


def build(folder: Path) -> list[Path]:
    """Build wheel and source into a folder; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "SOURCE_DATE_EPOCH": commit_time()}, timeout=300)
    return sorted([*folder.glob("connexon-*.whl"), *folder.glob("connexon-*.tar.gz")])


def commit_time() -> str:
    """When the commit was made, in seconds: the time of every file in what is built from it."""
    told = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    return told.stdout.strip() or "1767225600"  # 2026-01-01, where there is no repository


def versions() -> list[str]:
    """Every distribution that the extras bring, directly or in turn, with the version that was tested."""
    pinned = dict(line.split("==") for line in _constraints())
    tested = {canonicalize_name(name): version for name, version in pinned.items()}
    needed = closure(metadata.requires("connexon") or (), EXTRAS)
    return sorted(f"{name}=={tested[canonicalize_name(name)]}" for name in needed)


def closure(requires: Iterable[str], extras: Iterable[str]) -> set[str]:
    """The distributions that pip would install for these. Raises PackageNotFoundError where one is absent."""
    own = list(requires)
    seen: dict[str, set[str]] = {"connexon": set()}
    ahead: list[tuple[str, set[str]]] = [("connexon", {"", *extras})]
    while ahead:
        name, wanted = ahead.pop()
        wanted -= seen.setdefault(name, set())
        if not wanted:
            continue
        seen[name] |= wanted
        for text in own if name == "connexon" else metadata.requires(name) or ():
            asked = Requirement(text)
            if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in wanted):
                ahead.append((canonicalize_name(asked.name), {"", *asked.extras}))
    return set(seen) - {"connexon"}


def _constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def write_bill(folder: Path) -> Path:
    """The bill of materials, checked against CycloneDX's own schema. Needs cyclonedx-py."""
    needed = folder / "constraints.txt"
    needed.write_text("\n".join(versions()) + "\n")
    bill = folder / "connexon.cdx.json"
    command = [str(Path(sys.executable).parent / "cyclonedx-py"), "requirements", str(needed), "--validate"]
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application", "--output-reproducible"]
    subprocess.run([*command, *options, "--output-file", str(bill)], check=True, timeout=300)
    return bill


def write_sums(folder: Path) -> Path:
    """The SHA-256 of every file, as sha256sum --check reads it."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != SUMS)
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    (folder / SUMS).write_text(sums)
    return folder / SUMS


if __name__ == "__main__":
    target = Path(sys.argv[1])
    build(target)
    write_bill(target)
    sys.stdout.write(write_sums(target).read_text())
