"""Setting up by the commands that people type, within the process of the test.

To start a process for each of many commands takes longer than what they do. What a test is about is asked of real
processes, and so are all commands somewhere: tests/e2e/test_story.py types them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import typer.main
from click.testing import CliRunner

import connexon.cli
import connexon_hub.cli
import connexon_node.cli
from deploy.local import processes
from deploy.local.federation import LauncherError

_COMMANDS = {
    "connexon": typer.main.get_command(connexon.cli.app),
    "connexon-hub": typer.main.get_command(connexon_hub.cli.app),
    "connexon-node": typer.main.get_command(connexon_node.cli.app),
}


@contextmanager
def commands_in_process() -> Iterator[None]:
    """Within the block a federation's commands are run here; what serves is a process of its own as ever."""
    with patch.object(processes, "run", run_here), patch("deploy.local.federation.run", run_here):
        yield
    # Databases that commands left open are closed now, not when a test has moved their files.
    gc.collect()


def run_here(
    arguments: list[str], *, environment: Mapping[str, str] | None = None, accept: tuple[int, ...] = (0,)
) -> str:
    """As deploy.local.processes.run does it."""
    done = CliRunner().invoke(_COMMANDS[arguments[0]], arguments[1:], env=environment)
    if done.exit_code not in accept:
        raise LauncherError(f"{' '.join(arguments)}\nended with {done.exit_code}\n{done.output}\n{done.exception!r}")
    return done.stdout
