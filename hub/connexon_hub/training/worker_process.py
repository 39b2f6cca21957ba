"""Where a run's process begins. Light, because the hub names it; what it loads is in the warm process already."""

from __future__ import annotations

import logging
import signal
from multiprocessing.connection import Connection
from typing import Any

from connexon.service import logs
from connexon_hub.training.worker_protocol import Order


def main(connection: Connection[Any, Any], order: Order) -> None:
    """Work on one run until it is over."""
    # Ctrl-C at the terminal is meant for the hub, which ends its runs by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logs.begin(logging.INFO)
    from connexon_hub.training.worker_training import work

    work(connection, order)
