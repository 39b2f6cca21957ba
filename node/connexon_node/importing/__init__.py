"""Import: a file from the center becomes the next generation of a dataset, whole or not at all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connexon_node.importing.errors import FileRefused
    from connexon_node.importing.loading import Importer, ImportOptions, ImportOutcome
    from connexon_node.importing.mapping import Mapping
    from connexon_node.importing.mapping import load as load_mapping
    from connexon_node.importing.report import Problem
    from connexon_node.importing.sources import FileFormat

__all__ = [
    "FileFormat",
    "FileRefused",
    "ImportOptions",
    "ImportOutcome",
    "Importer",
    "Mapping",
    "Problem",
    "load_mapping",
]
_LATER = {
    "FileFormat": "sources",
    "FileRefused": "errors",
    "ImportOptions": "loading",
    "ImportOutcome": "loading",
    "Importer": "loading",
    "Mapping": "mapping",
    "Problem": "report",
}


def __getattr__(name: str) -> object:
    # Loaded when first used: the process that reads foreign files is in this package, and loads no database.
    if name == "load_mapping":
        return import_module(f"{__name__}.mapping").load
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
