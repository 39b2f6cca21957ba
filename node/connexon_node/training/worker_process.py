"""A process that does the local work of one run: it gets rows and tasks, calls the ClientApp, and writes records.

It has no database, no keys and no connection but the socket to the node; memory and threads are bounded.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp

from connexon.errors import ConnexonError
from connexon.learning import flower, records, wire_recipe
from connexon.link import parcel_files
from connexon_node.training import rows as rows_room
from connexon_node.training import worker_protocol
from connexon_node.training.client_app import client_app

LOG = logging.getLogger("connexon.training")
NICENESS = 10
CENTER_NODE = 2
"""Its number in Flower's eyes."""


def run(line: socket.socket, limits: dict[str, Any]) -> None:
    """Work until the node hangs up."""
    _bound(limits)
    flower.identify(node=CENTER_NODE)
    app: ClientApp | None = None
    while True:
        try:
            words, files = worker_protocol.hear(line)
        except (EOFError, OSError):
            return
        if files:
            with os.fdopen(files[0], "rb") as file:
                rows = rows_room.read(file)
            recipe = wire_recipe.from_bytes(bytes.fromhex(words["recipe"]))
            app = client_app(recipe, rows, minimum=int(words["minimum"]), split=words["share"] > 0)
        assert app is not None
        worker_protocol.say(line, _done(app, words))


def _done(app: ClientApp, words: dict[str, Any]) -> dict[str, Any]:
    """Do one task. What is wrong with it comes back as words; a fault of ours too, with its name only."""
    try:
        content = records.read(parcel_files.read(Path(words["parcel"])))
        message = flower.instruction(content, action=words["action"], node=CENTER_NODE)
        flower.number(message, words["task"])
        with flower.quiet():
            reply = app(message, flower.context())
        parcel_files.write(Path(words["out"]), b"", records.to_pieces(reply.content))
    except ConnexonError as error:
        return {"code": error.code, "message": error.public}
    except MemoryError:
        return {"code": "training.memory_limit", "message": "The task needs more memory than this center gives to one."}
    except Exception as error:  # the child's edge: whatever a model or library does, the node hears of it
        LOG.error("%s: failed", words["task"], exc_info=error)
        return {"code": "", "message": type(error).__name__}
    return {}


def _bound(limits: dict[str, Any]) -> None:
    os.nice(NICENESS)
    memory = int(limits["memory"])
    for kind, most in ((resource.RLIMIT_DATA, memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, hard if hard != resource.RLIM_INFINITY and hard < most else most))
