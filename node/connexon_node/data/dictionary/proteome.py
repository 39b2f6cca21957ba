"""The proteome: abundance by protein."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Field, FieldType, Sensitivity

PROTEIN_ABUNDANCE = Dataset(
    name="protein_abundance",
    group="proteome",
    title="Abundance of proteins by sample",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("sample_id",),
    sorted_by=("uniprot",),
    once=("sample_id", "uniprot"),
    fields=(
        common_fields.reference("sample_id", "samples", "Sample that was measured", required=True, coded=True),
        Field(
            name="uniprot",
            type=FieldType.TEXT,
            title="Protein (UniProt accession)",
            form=patterns.UNIPROT,
            required=True,
            coded=True,
        ),
        Field(
            name="gene_symbol",
            type=FieldType.TEXT,
            title="Gene of the protein, another name for it",
            form=patterns.GENE,
            alias_of="uniprot",
        ),
        common_fields.number("intensity", "Intensity as normalised by the center", "{intensity}", low=0),
        common_fields.flag("detected", "Whether the protein was found", required=True),
    ),
)

DATASETS = (PROTEIN_ABUNDANCE,)
