"""The one place that touches what Flower does not promise to keep; pinned to flwr 1.41 and watched by a test.

Public, and used elsewhere as it is: flwr.app, flwr.serverapp (Grid, strategies), flwr.clientapp.ClientApp.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

HUB_NODE = 1
"""The number of the hub in Flower's eyes; centers have others."""


def identify(*, node: int = HUB_NODE) -> None:
    """Say who this process is: Flower keeps that once per process, and makes no message without it."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = 1
    TaskIdentity.node_id = node


def instruction(content: RecordDict, *, action: str, node: int) -> Message:
    """A message to a node: `action` is train, evaluate, query or one of these with a name, as query.summary."""
    return Message(content, dst_node_id=node, message_type=action)


def number(message: Message, identifier: str) -> None:
    """Give a message the identifier that replies refer to."""
    message.metadata.__dict__["_message_id"] = identifier


def context() -> Context:
    """What a ClientApp is called with."""
    return Context(
        run_id=TaskIdentity.run_id,
        node_id=TaskIdentity.node_id,
        node_config={},
        state=RecordDict(),
        run_config={},
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Flower's own lines out of the log while the block runs."""
    import logging

    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
