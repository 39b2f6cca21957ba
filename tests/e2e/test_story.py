"""The handbooks' story, typed as it stands: every block marked `run`, in one shell, against real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.processes import free_port
from tests.support.documents import DOCS, blocks, in_time

STORY = ("operator.md", "steward.md", "ontologies.md", "consent.md", "researcher.md")
"""The pages that tell it, in the order of what happens first. docs/training.md has a federation of its own."""


def _script(folder: Path) -> str:
    lines = ["set -euo pipefail", 'trap "kill \\$(jobs -p) 2>/dev/null; wait" EXIT']
    story = [block for page in STORY for block in blocks(DOCS / page) if block.run]
    for number, block in enumerate(in_time(story)):
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


@pytest.mark.timeout(600)
def test_everything_the_handbooks_tell_people_to_type_works(tmp_path: Path) -> None:
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
