"""Import: a file from the center becomes the next generation of a dataset, whole or not at all."""

from __future__ import annotations

from connexon_node.importing.loading import Importer, ImportOptions, ImportOutcome
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.mapping import load as load_mapping
from connexon_node.importing.report import Problem
from connexon_node.importing.sources import FileFormat, FileRefused

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
