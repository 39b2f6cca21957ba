"""The console commands whose parts may not be installed: they say so in one sentence."""

from __future__ import annotations

import importlib
import os
import sys


def hub() -> None:
    """Run connexon-hub."""
    _run("hub", "connexon_hub.cli")


def node() -> None:
    """Run connexon-node."""
    _run("node", "connexon_node.cli")


def _run(extra: str, module: str) -> None:
    # gRPC's C library writes past every formatter, in part what strangers send; it reads this when it is loaded. Not
    # only where nothing is set: other libraries set it for their own processes, and theirs are inherited.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    # A command may load its parts only when it runs, so that --help is quick: both are watched.
    try:
        importlib.import_module(module).main()
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0].startswith("connexon"):
            raise
        sys.exit(
            f"connexon-{extra} needs {error.name}, which is not installed: "
            f"install it with  pip install 'connexon[{extra}]'"
        )
