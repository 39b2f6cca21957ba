"""The epigenome: methylation by probe."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Field, FieldType, Sensitivity

METHYLATION = Dataset(
    name="methylation",
    group="epigenome",
    title="Share of methylated DNA by probe and sample",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("sample_id",),
    sorted_by=("probe_id",),
    once=("sample_id", "probe_id"),
    fields=(
        common_fields.reference("sample_id", "samples", "Sample that was measured", required=True, coded=True),
        Field(
            name="probe_id",
            type=FieldType.TEXT,
            title="Probe of the array; probes of SNPs (rs...) identify people and cannot be asked about",
            form=patterns.PROBE,
            required=True,
            coded=True,
            identifying_values=r"rs\d+",
        ),
        common_fields.number("beta", "Share of methylated DNA", "1", low=0, high=1, required=True),
    ),
)

DATASETS = (METHYLATION,)
