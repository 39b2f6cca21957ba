"""AnnData (.h5ad): expression by sample. Single cells are added up by sample and cell type; counts become log2CPM.

Read in slices with h5py; only one sum per group and gene is held, on disk.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy
import pyarrow

from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import batches, hdf5
from connexon_node.importing.mapping import Cells
from connexon_node.importing.relation import Reading, Relation

_SLICE = 2_000_000
"""Values read at a time."""
_MOST_SUMS = 2_000_000_000
"""Of groups and genes together; each takes eight bytes on disk."""
_EXPRESSION = pyarrow.schema(
    [
        ("sample_id", pyarrow.string()),
        ("ensembl_id", pyarrow.string()),
        ("gene_symbol", pyarrow.string()),
        ("value", pyarrow.float64()),
        ("unit", pyarrow.string()),
        ("_line", pyarrow.int64()),
    ]
)
_SAMPLES = ("id", "sample", "cell_type", "cells")
_CATEGORIES = "__categories"
"""Where AnnData 0.7 and earlier kept the categories of a table's columns."""


@dataclass(frozen=True)
class _Groups:
    """Which group each observation belongs to (-1: none), and of each group its sample, cell type and size."""

    of: Any
    keys: list[tuple[str, str]]
    sizes: list[int]
    ids: list[str]
    notes: list[tuple[str, int]]


def relation(reading: Reading) -> Relation:
    """Expression by group and gene, or the groups themselves where the dataset is `samples`."""
    file, options = reading.source.name, reading.mapping.h5ad
    try:
        book = h5py.File(reading.source.path, "r")
        hdf5.require_self_contained(book, file)
        groups = _groups(book, options, file)
        if reading.dataset.name == "samples":
            return _as_samples(reading, groups)
        genes, symbols = _genes(book, options, file)
        matrix = _matrix(book, options, file)
    except (OSError, KeyError, RuntimeError) as error:
        raise FileRefused(f"{file} is no whole AnnData file: {error}") from error

    def read() -> Iterator[Any]:
        try:
            values = _summed(reading, matrix, groups, len(genes), options, file)
            counted = _with_counts(values, groups) if options.kind == "counts" else range(len(groups.ids))
            unit = "log2CPM" if options.kind == "counts" else options.kind
            yield from _rows(values, groups, counted, genes, symbols, unit)
        except (OSError, KeyError, RuntimeError) as error:
            raise FileRefused(f"{file} is no whole AnnData file: {error}") from error

    table = batches.offer(reading, "cells", _EXPRESSION, read)
    texts = {"value": '"value"::VARCHAR'}
    return Relation(tuple(_EXPRESSION.names[:-1]), table, texts, line="_line", ready=True, notes=groups.notes)


def _as_samples(reading: Reading, groups: _Groups) -> Relation:
    schema = batches.texts(_SAMPLES)
    rows = (
        (one, sample, cell_type or None, str(size), number)
        for number, (one, (sample, cell_type), size) in enumerate(
            zip(groups.ids, groups.keys, groups.sizes, strict=True), start=1
        )
    )
    table = batches.offer(reading, "groups", schema, lambda: batches.batched(rows, schema))
    return Relation(_SAMPLES, table, line="_line", ready=True, notes=groups.notes)


def _groups(book: Any, options: Cells, file: str) -> _Groups:
    obs = _table(book, "obs", file)
    samples = column(obs, options.sample or str(obs.attrs["_index"]), file)
    types = column(obs, options.cell_type, file) if options.cell_type else [""] * len(samples)
    pairs = list(zip(samples, types, strict=True))
    keys = sorted({(sample, kind) for sample, kind in pairs if sample is not None and kind is not None})
    place: dict[tuple[str | None, str | None], int] = {key: number for number, key in enumerate(keys)}
    of = numpy.array([place.get(pair, -1) for pair in pairs], dtype=numpy.int64)
    sizes = numpy.bincount(of[of >= 0], minlength=len(keys))
    least = options.minimum_cells if options.cell_type else 1
    kept = [number for number in range(len(keys)) if sizes[number] >= least]
    renumbered = numpy.full(len(keys) + 1, -1, dtype=numpy.int64)
    renumbered[kept] = numpy.arange(len(kept))
    chosen = [keys[number] for number in kept]
    if not options.sample:
        _require_once([str(sample) for sample in samples], file, "observations are named")
    ids = [_name(key, options) for key in chosen]
    _require_once(ids, file, "groups of observations become the sample")
    notes = [
        ("cells without a sample were left out", samples.count(None)),
        ("cells without a cell type were left out", sum(sample is not None and kind is None for sample, kind in pairs)),
        (f"groups of fewer than {options.minimum_cells} cells were left out", len(keys) - len(kept)),
    ]
    return _Groups(
        renumbered[of], chosen, [int(sizes[number]) for number in kept], ids, [note for note in notes if note[1]]
    )


def _require_once(names: Sequence[str], file: str, what: str) -> None:
    """Raise FileRefused where a sample would have two values of each gene."""
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise FileRefused(
            f"{file}: {count} {what} {name!r}, which would have as many values of each gene. Give each a sample of its "
            "own under [h5ad.samples], or add them up before: name the column of obs with the sample.",
            code="import.samples",
        )


def _name(key: tuple[str, str], options: Cells) -> str:
    sample, kind = key
    whole = f"{sample}|{kind}" if options.cell_type else sample
    return options.samples.get(whole, f"{options.samples.get(sample, sample)}:{kind}" if options.cell_type else sample)


def _genes(book: Any, options: Cells, file: str) -> tuple[list[str], list[str | None]]:
    var = _table(book, "var", file)
    written = column(var, options.gene or str(var.attrs["_index"]), file)
    symbols: list[str | None] = column(var, options.symbol, file) if options.symbol else [None] * len(written)
    genes = [re.sub(r"\.\d+$", "", str(gene)) for gene in written]
    gene, count = Counter(genes).most_common(1)[0] if genes else ("", 0)
    if count > 1:
        same = ", ".join(str(one) for one, plain in zip(written, genes, strict=True) if plain == gene)
        raise FileRefused(
            f"{file} has the gene {gene} {count} times ({same[:120]}), so that a sample would have several values of "
            "it. Keep one of them, or add them up before.",
            code="import.columns",
        )
    return genes, symbols


def _table(book: Any, name: str, file: str) -> Any:
    """obs or var. Raises FileRefused where AnnData wrote it as one array, as it did before 0.7."""
    if isinstance(book[name], h5py.Dataset):
        raise FileRefused(
            f"{file} was written by AnnData before 0.7. Read it with a later AnnData, write it again, and import that."
        )
    return book[name]


def column(table: Any, name: str, file: str) -> list[str | None]:
    """A column of obs or var as texts; categories are resolved. Raises FileRefused where it is not there."""
    if name not in table:
        there = ", ".join(_columns(table)[:20])
        raise FileRefused(f"{file}: {table.name} has no column {name!r}; it has {there}.", code="import.columns")
    found = table[name]
    _require_readable(found, file)
    if isinstance(found, h5py.Group):
        return _resolved(found["codes"], found["categories"])
    if name in table.get(_CATEGORIES, {}):
        return _resolved(found, table[_CATEGORIES][name])
    if "categories" in found.attrs:
        return _resolved(found, found.file[found.attrs["categories"]])
    return [_text(value) for value in found[()]]


def _require_readable(found: Any, file: str) -> None:
    """Raise FileRefused where a column, or its codes, claim more rows than are read."""
    for one in found.values() if isinstance(found, h5py.Group) else (found,):
        if isinstance(one, h5py.Dataset):
            hdf5.require_rows(one, file)


def _resolved(codes: Any, categories: Any) -> list[str | None]:
    names = [_text(value) for value in categories[()]]
    return [names[code] if code >= 0 else None for code in codes[()]]


def _columns(table: Any) -> list[str]:
    return sorted(name for name in table if name != _CATEGORIES)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _matrix(book: Any, options: Cells, file: str) -> Any:
    if not options.layer:
        return book["X"]
    if options.layer not in book.get("layers", {}):
        raise FileRefused(f"{file} has no layer {options.layer!r}.", code="import.columns")
    return book["layers"][options.layer]


def _summed(reading: Reading, matrix: Any, groups: _Groups, genes: int, options: Cells, file: str) -> Any:
    """Groups x genes: the sums of counts as log2CPM, or the values as they are where they are not counts."""
    cells = max(len(groups.keys), 1) * genes
    if cells > _MOST_SUMS:
        raise FileRefused(
            f"{file} makes {len(groups.keys):,} groups of {genes:,} genes, more than the {_MOST_SUMS:,} values that "
            "are added up at once. Import it in parts.",
            code="import.too_large",
        )
    sums = numpy.memmap(
        reading.scratch / "sums", dtype=numpy.float64, mode="w+", shape=(max(len(groups.keys), 1), genes)
    )
    for rows, columns, values in _slices(matrix):
        group = groups.of[rows]
        kept = group >= 0
        counts = numpy.asarray(values[kept], dtype=numpy.float64)
        if options.kind == "counts" and (not numpy.isfinite(counts).all() or (counts < 0).any() or (counts % 1).any()):
            raise FileRefused(
                f"{file}: the matrix does not hold counts; name the layer that does, or set kind to log2CPM, log2TPM.",
                code="import.values",
            )
        numpy.add.at(sums, (group[kept], columns[kept]), counts)
    if options.kind != "counts":
        if any(size > 1 for size in groups.sizes):
            raise FileRefused(
                f"{file}: only counts can be added up over cells; name a layer of counts.", code="import.values"
            )
        return sums
    for number in range(len(groups.keys)):
        total = sums[number].sum()
        sums[number] = numpy.log2(sums[number] / total * 1e6 + 1) if total else 0.0
    return sums


def _slices(matrix: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Row numbers, column numbers and values of a dense or sparse matrix, some at a time."""
    if isinstance(matrix, h5py.Dataset):
        height = max(1, _SLICE // max(matrix.shape[1], 1))
        for start in range(0, matrix.shape[0], height):
            block = matrix[start : start + height]
            rows, columns = numpy.nonzero(block)
            yield rows + start, columns, block[rows, columns]
        return
    by_row = _text(matrix.attrs["encoding-type"]) == "csr_matrix"
    starts = matrix["indptr"][()]
    for begin in range(0, int(starts[-1]), _SLICE):
        end = min(begin + _SLICE, int(starts[-1]))
        outer = numpy.searchsorted(starts, numpy.arange(begin, end), side="right") - 1
        inner = matrix["indices"][begin:end].astype(numpy.int64)
        rows, columns = (outer, inner) if by_row else (inner, outer)
        yield rows, columns, matrix["data"][begin:end]


def _with_counts(values: Any, groups: _Groups) -> list[int]:
    """The groups in which anything was counted: where nothing was, no gene is known to be silent."""
    counted = [number for number in range(len(groups.ids)) if values[number].any()]
    if len(counted) < len(groups.ids):
        groups.notes.append(("samples were left out, since they hold no count at all", len(groups.ids) - len(counted)))
    return counted


def _rows(
    values: Any, groups: _Groups, wanted: Sequence[int], genes: list[str], symbols: list[str | None], unit: str
) -> Iterator[Any]:
    ids, names = pyarrow.array(genes, pyarrow.string()), pyarrow.array(symbols, pyarrow.string())
    for number in wanted:
        columns = [
            pyarrow.array([groups.ids[number]] * len(genes), pyarrow.string()),
            *(ids, names),
            pyarrow.array(numpy.array(values[number])),
            pyarrow.array([unit] * len(genes), pyarrow.string()),
            pyarrow.array(numpy.full(len(genes), number + 1)),
        ]
        yield pyarrow.record_batch(columns, schema=_EXPRESSION)


def contents(path: Path, file: str) -> tuple[list[str], list[str]]:
    """The columns of obs and the layers of a file. Raises FileRefused."""
    try:
        with h5py.File(path, "r") as book:
            hdf5.require_self_contained(book, file)
            return _columns(_table(book, "obs", file)), sorted(book.get("layers", {}))
    except (OSError, KeyError) as error:
        raise FileRefused(f"{file} is no whole AnnData file: {error}") from error
