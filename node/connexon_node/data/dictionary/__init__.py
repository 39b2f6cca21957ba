"""The dictionary: what every dataset is, said once. Import validation, Parquet schema, catalog and release follow it.

To add a dataset, describe it in the module of its group and name it in that module's DATASETS.
"""

from __future__ import annotations

from connexon_node.data.dictionary import (
    bank,
    clinical,
    differentiation,
    donors,
    epigenome,
    genome,
    production,
    proteome,
    quality,
    transcriptome,
)
from connexon_node.data.dictionary.model import (
    DONORS,
    KEY,
    Dataset,
    Dictionary,
    Field,
    FieldType,
    Form,
    Sensitivity,
    nearest,
    not_offered,
)

DICTIONARY = Dictionary(
    version="2.0",
    datasets=(
        *donors.DATASETS,
        *bank.DATASETS,
        *differentiation.DATASETS,
        *genome.DATASETS,
        *epigenome.DATASETS,
        *proteome.DATASETS,
        *transcriptome.DATASETS,
        *clinical.DATASETS,
        *quality.DATASETS,
        *production.DATASETS,
    ),
)
"""The dictionary that this version of the node speaks."""

__all__ = [
    "DICTIONARY",
    "DONORS",
    "KEY",
    "Dataset",
    "Dictionary",
    "Field",
    "FieldType",
    "Form",
    "Sensitivity",
    "nearest",
    "not_offered",
]
