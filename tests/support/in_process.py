"""Setting up by the steward's own commands, within the process of the test.

To start a process for each of many commands takes longer than what they do. What a test is about is asked of real
processes.
"""

from __future__ import annotations

import gc
from pathlib import Path

from typer.testing import CliRunner

from connexon_node.cli import app
from deploy.local.federation import Center


def import_file(center: Center, dataset: str, file: Path, *options: str) -> None:
    """As Center.import_file does it."""
    done = CliRunner().invoke(app, ["import", str(center.folder), dataset, str(file), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    # Databases that the command left open are closed now, not under the node that comes.
    gc.collect()
