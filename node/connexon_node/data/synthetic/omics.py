"""Expression, proteins and methylation: one table per block of features, so that any size fits in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pyarrow
import pyarrow.compute

from connexon_node.data.synthetic.differentiation import PLURIPOTENT
from connexon_node.data.synthetic.tables import Center, lettered, numbered, picked

compute = pyarrow.compute

GENES = {
    "POU5F1": ("ENSG00000204531", "Q01860"),
    "NANOG": ("ENSG00000111704", "Q9H9S0"),
    "SOX2": ("ENSG00000181449", "P48431"),
    "LIN28A": ("ENSG00000131914", "Q9H9Z2"),
    "GAPDH": ("ENSG00000111640", "P04406"),
    "ACTB": ("ENSG00000075624", "P60709"),
    "TP53": ("ENSG00000141510", "P04637"),
    "BCL2L1": ("ENSG00000171552", "Q07817"),
    "TH": ("ENSG00000180176", "P07101"),
    "FOXA2": ("ENSG00000125798", "Q9Y261"),
    "MAP2": ("ENSG00000078018", "P11137"),
    "SNCA": ("ENSG00000145335", "P37840"),
    "SOD1": ("ENSG00000142168", "P00441"),
    "HTT": ("ENSG00000197386", "P42858"),
    "APP": ("ENSG00000142192", "P05067"),
    "TNNT2": ("ENSG00000118194", "P45379"),
    "MNX1": ("ENSG00000130675", "P50219"),
    "PMEL": ("ENSG00000185664", "P40967"),
}
"""Symbol to Ensembl gene and UniProt accession; further features are made up."""
PLURIPOTENCY = ("POU5F1", "NANOG", "LIN28A")
MARKERS = {"CL:0000700": ("TH", "FOXA2"), "CL:0000100": ("MNX1",), "CL:0000746": ("TNNT2",), "CL:0002586": ("PMEL",)}
DISEASE_GENES = {"MONDO:0005180": "SNCA", "MONDO:0008199": "SNCA", "MONDO:0004976": "SOD1", "MONDO:0004975": "APP"}
PROBES = ("cg23737055", "cg22247240")
_BLOCK = 2_000_000
"""Rows made at a time."""


def expression(
    center: Center, samples: pyarrow.Table, disease: list[str | None], features: int
) -> Iterator[pyarrow.Table]:
    """log2 TPM: markers follow the cell type, disease genes the disease."""
    yield from (
        table.drop_columns(["uniprot"]).append_column(
            "unit", pyarrow.array(["log2TPM"] * table.num_rows, pyarrow.string())
        )
        for table in _levels(center, samples, "rna", disease, features, "value")
    )


def protein_abundance(
    center: Center, samples: pyarrow.Table, disease: list[str | None], features: int
) -> Iterator[pyarrow.Table]:
    """Intensities that follow the same markers; what lies low is not detected."""
    for table in _levels(center, samples, "protein", disease, features, "level"):
        level = table["level"].to_numpy()
        found = level > 1.0
        yield (
            table.select(["sample_id", "uniprot", "gene_symbol"])
            .append_column("intensity", pyarrow.array(numpy.round(2.0**level * 1e4, 1), mask=~found))
            .append_column("detected", pyarrow.array(found))
        )


def methylation(center: Center, samples: pyarrow.Table, features: int) -> Iterator[pyarrow.Table]:
    """Beta values; the first two probes part pluripotent from other cells."""
    random, rows = center.random, _rows(samples, "dna")
    ids = samples["id"].combine_chunks().take(pyarrow.array(rows))
    pluripotent = compute.equal(samples["cell_type_term"], PLURIPOTENT).to_numpy(zero_copy_only=False)[rows]
    names = [*PROBES, *(f"cg99{number:06d}" for number in range(max(0, features - len(PROBES))))][:features]
    for start, block in _blocks(names, len(rows)):
        probe = numpy.repeat(numpy.arange(len(block)), len(rows))
        state = numpy.tile(pluripotent, len(block))
        mean = random.choice([0.1, 0.5, 0.9], size=len(block))[probe]
        first, second = probe + start == 0, probe + start == 1
        mean = numpy.where(
            first, numpy.where(state, 0.85, 0.3), numpy.where(second, numpy.where(state, 0.2, 0.7), mean)
        )
        yield pyarrow.table(
            {
                "sample_id": _tiled(ids, len(block)),
                "probe_id": picked(block, probe),
                "beta": pyarrow.array(numpy.clip(random.normal(mean, 0.06), 0, 1).round(4)),
            }
        )


def _levels(
    center: Center,
    samples: pyarrow.Table,
    kind: str,
    disease: list[str | None],
    features: int,
    name: str,
) -> Iterator[pyarrow.Table]:
    """Levels on a log2 scale, block by block of genes, with both ids and the symbol of each."""
    random, rows = center.random, _rows(samples, kind)
    ids = samples["id"].combine_chunks().take(pyarrow.array(rows))
    cells = samples["cell_type_term"].combine_chunks().take(pyarrow.array(rows)).to_pylist()
    ill = [disease[row] for row in rows.tolist()]
    numbers = numpy.arange(max(0, features - len(GENES)))
    symbols = [*GENES, *(f"SIMG{number:05d}" for number in numbers)][:features]
    genes = [*(one[0] for one in GENES.values()), *numbered("ENSG", 99_000_000_000 + numbers, 11).to_pylist()][
        :features
    ]
    letters = lettered(numbers, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 3).to_pylist()
    made_up = [f"S{number // 26**3 % 10}{middle}0" for number, middle in enumerate(letters)]
    proteins = [*(one[1] for one in GENES.values()), *made_up][:features]
    for start, block in _blocks(symbols, len(rows)):
        parts = []
        for symbol in block:
            base = 9.0 if symbol in ("GAPDH", "ACTB") else float(random.gamma(3, 1.2))
            parts.append(random.normal(base, 0.6, size=len(rows)) + _effect(symbol, cells, ill))
        gene = numpy.repeat(numpy.arange(start, start + len(block)), len(rows))
        yield pyarrow.table(
            {
                "sample_id": _tiled(ids, len(block)),
                "ensembl_id": picked(genes, gene),
                "uniprot": picked(proteins, gene),
                "gene_symbol": picked(symbols, gene),
                name: pyarrow.array(numpy.clip(numpy.concatenate(parts), 0, 20).round(3)),
            }
        )


def _effect(symbol: str, cells: list[str], ill: list[str | None]) -> numpy.ndarray:
    """What a cell type and a disease add to a gene's level, by sample."""
    effect = numpy.zeros(len(cells))
    if symbol in PLURIPOTENCY:
        effect += [4.0 if cell == PLURIPOTENT else -2.0 for cell in cells]
    effect += [3.5 if symbol in MARKERS.get(cell, ()) else 0.0 for cell in cells]
    effect += [1.0 if DISEASE_GENES.get(term or "") == symbol else 0.0 for term in ill]
    return effect


def _rows(samples: pyarrow.Table, kind: str) -> numpy.ndarray:
    return numpy.flatnonzero(compute.equal(samples["kind"], kind).to_numpy(zero_copy_only=False))


def _tiled(ids: pyarrow.Array, times: int) -> pyarrow.Array:
    return ids.take(pyarrow.array(numpy.tile(numpy.arange(len(ids)), times)))


def _blocks(names: list[str], rows: int) -> Iterator[tuple[int, list[str]]]:
    size = max(1, _BLOCK // max(1, rows))
    for start in range(0, len(names), size):
        yield start, names[start : start + size]
