"""A simulated center of any size: the same seed gives the same bytes. Every identifier begins with SIM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any as Writer

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from connexon_node.data.synthetic.center import BANK, ORDER, SCIENCE, Scope, pieces

__all__ = ["BANK", "FEATURES", "NOTICE", "ORDER", "SCIENCE", "FileFormat", "Scope", "sample", "write_sample"]

NOTICE = "SIMULATED.txt"
FEATURES = 100
"""Genes, proteins and probes of each sample, unless asked otherwise."""
_NOTICE_TEXT = (
    "Everything in this folder is simulated by connexon-node sample ({donors} donors, seed {seed}, center {center}).\n"
    "No row is about a person or a line that exists; the frequencies are plausible and nothing more.\n"
)


class FileFormat(Enum):
    """How sample files are written."""

    PARQUET = "parquet"
    CSV = "csv"


def sample(
    center: str, donors: int, seed: int, *, features: int = FEATURES, scope: Scope = Scope.WHOLE
) -> dict[str, pyarrow.Table]:
    """The tables of a simulated center, by dataset, in the order of import."""
    made = pieces(center, donors, seed, features=features, scope=scope)
    return {name: pyarrow.concat_tables(parts) for name, parts in made}


def write_sample(
    folder: Path,
    *,
    center: str,
    donors: int,
    seed: int,
    features: int = FEATURES,
    scope: Scope = Scope.WHOLE,
    file_format: FileFormat = FileFormat.PARQUET,
    done: Callable[[str], None] = lambda dataset: None,
) -> dict[str, Path]:
    """Write the tables into a folder and return the file of each dataset. `done` hears of each as it is written.

    Memory does not grow with the number of features.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTICE).write_text(_NOTICE_TEXT.format(donors=donors, seed=seed, center=center))
    files = {}
    for dataset, parts in pieces(center, donors, seed, features=features, scope=scope):
        files[dataset] = folder / f"{dataset}.{file_format.value}"
        _write(files[dataset], parts, file_format)
        done(dataset)
    return files


def _write(path: Path, parts: Iterator[pyarrow.Table], file_format: FileFormat) -> None:
    writer: Writer = None
    for part in parts:
        if writer is None and file_format is FileFormat.CSV:
            options = pyarrow.csv.WriteOptions(quoting_style="needed")
            writer = pyarrow.csv.CSVWriter(path, part.schema, write_options=options)
        elif writer is None:
            writer = pyarrow.parquet.ParquetWriter(path, part.schema, compression="zstd")
        writer.write_table(part)
    writer.close()
