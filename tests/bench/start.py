"""How long a researcher waits before anything happens: import and --help, in fresh processes."""

from __future__ import annotations

import subprocess
import sys

from deploy.local.processes import command
from tests.bench.figures import Report, timed


def measure(report: Report, *, quick: bool) -> None:
    """Fresh processes, beside Python's own start."""
    runs = 5 if quick else 15

    def run(*arguments: str) -> None:
        subprocess.run(arguments, check=True, capture_output=True)

    report.add("python -c pass", timed(lambda: run(sys.executable, "-c", "pass"), runs), note="for comparison")
    importing = "import connexon; connexon.connect"
    report.add(
        "import connexon",
        timed(lambda: run(sys.executable, "-c", importing), runs),
        budget="350 ms with Python's start",
    )
    for name in ("connexon", "connexon-node", "connexon-hub"):
        budget = "500 ms" if name == "connexon" else ""
        report.add(f"{name} --help", timed(lambda name=name: run(command(name), "--help"), runs), budget=budget)  # type: ignore[misc]
