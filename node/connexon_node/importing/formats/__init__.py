"""Formats: each makes of a file a table with columns. To add one, write its module and name it here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import FileFormat

# Modules by name, since each loads a library of its own that other imports do not need.
_MODULES = {
    FileFormat.CSV: "delimited",
    FileFormat.TSV: "delimited",
    FileFormat.PARQUET: "parquet",
    FileFormat.JSON_LINES: "json_lines",
    FileFormat.EXCEL: "excel",
    FileFormat.VCF: "vcf",
    FileFormat.H5AD: "h5ad",
    FileFormat.PHENOPACKETS: "phenopackets",
    FileFormat.SDTM: "sdtm",
    FileFormat.MATRIX: "matrix",
}


def open_relation(reading: Reading) -> Relation:
    """The file as a table. Raises FileRefused where it is not what it should be."""
    made: Relation = load(reading.source.file_format).relation(reading)
    return made


def load(file_format: FileFormat) -> Any:
    """The module of a format, with its libraries."""
    return import_module(f"{__name__}.{_MODULES[file_format]}")
