"""Whether the packages that the node runs on are installed and load.

Its modules themselves are asked, by importing them: a list of packages would miss what a package needs in turn.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator

import connexon_node

OF_OTHER_EXTRAS = ("connexon_node.engine.spark", "connexon_node.release.updates", "connexon_node.training")
"""Loaded only where a center trains or runs on Spark, which have checks of their own."""


def faults(names: Iterable[str] | None = None) -> list[str]:
    """A sentence for each package that is missing or does not load, in alphabetical order; none where all is well.

    `names` are the modules to import, by default all of the node's that its extra alone must serve.
    """
    found = set()
    for name in _modules() if names is None else names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            found.add(f"{(error.name or name).partition('.')[0]} is not installed.")
        except (ImportError, OSError) as error:
            # A library of the system that is absent or too old is reported so.
            found.add(f"{name} does not load: {error}.")
    return sorted(found)


def _modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(connexon_node.__path__, "connexon_node.", onerror=lambda _: None):
        if not found.name.startswith(OF_OTHER_EXTRAS):
            yield found.name
