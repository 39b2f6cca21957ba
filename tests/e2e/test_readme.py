"""The README's story, typed as it stands: every block marked `run`, in one shell, against real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.processes import free_port

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
_BLOCK = re.compile(r"^```(?P<language>sh|python) run(?P<options>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A piece of the README. `after` names the block that it follows in time, where that is not the one above."""

    language: str
    name: str
    after: str
    text: str


def _blocks() -> list[Block]:
    found = []
    for match in _BLOCK.finditer(README.read_text()):
        options = dict(option.split("=") for option in match["options"].split())
        found.append(Block(match["language"], options.get("name", ""), options.get("after", ""), match["text"]))
    return found


def _in_time(blocks: list[Block]) -> list[Block]:
    """As they happen: a block with `after` comes right behind the one it names."""
    ordered: list[Block] = []

    def add(block: Block) -> None:
        ordered.append(block)
        for follower in blocks:
            if block.name and follower.after == block.name:
                add(follower)

    for block in blocks:
        if not block.after:
            add(block)
    assert len(ordered) == len(blocks), "a block waits for one that does not exist"
    return ordered


def _script(folder: Path) -> str:
    lines = ["set -euo pipefail", 'trap "kill $(jobs -p) 2>/dev/null; wait" EXIT'.replace("$(", "\\$(")]
    for number, block in enumerate(_in_time(_blocks())):
        if block.language == "python":
            program = folder / f"example-{number}.py"
            program.write_text(block.text)
            lines.append(f"{sys.executable} {program}")
            continue
        for line in block.text.splitlines():
            lines.append(f"echo '$' {line!r}" if "'" not in line else "echo ...")
            lines.append(line)
            serving = re.fullmatch(r"connexon-(?:hub|node) serve --dir (\w+) &", line)
            if serving:
                lines.append(f"until test -e {serving[1]}/serve.json; do sleep 0.1; done")
    return "\n".join(lines) + "\n"


def test_everything_the_readme_tells_people_to_type_works(tmp_path: Path) -> None:
    script = _script(tmp_path)
    for port in ("7443", "7444"):
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONNEXON_HOME": str(tmp_path / "ada"),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=580
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    assert "✓ lyon released" in done.stdout
    assert "is whole and in order" in done.stdout or "records, whole and in order" in done.stdout


def test_every_file_the_readme_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (ROOT / target).is_file(), target
