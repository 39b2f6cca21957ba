"""The transcriptome: expression by gene."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Field, FieldType, Sensitivity

EXPRESSION = Dataset(
    name="expression",
    group="transcriptome",
    title="Expression of genes by sample",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("sample_id",),
    sorted_by=("ensembl_id",),
    once=("sample_id", "ensembl_id", "unit"),
    fields=(
        common_fields.reference("sample_id", "samples", "Sample that was measured", required=True, coded=True),
        Field(
            name="ensembl_id",
            type=FieldType.TEXT,
            title="Gene (Ensembl, without version)",
            form=patterns.ENSEMBL,
            required=True,
            coded=True,
        ),
        Field(
            name="gene_symbol",
            type=FieldType.TEXT,
            title="Symbol of the gene, another name for it",
            form=patterns.GENE,
            alias_of="ensembl_id",
        ),
        common_fields.number("value", "Expression in the unit beside", "1", low=-50, high=50, required=True),
        common_fields.choice("unit", "Unit of the value", "log2TPM", "log2CPM", required=True),
    ),
)

DATASETS = (EXPRESSION,)
