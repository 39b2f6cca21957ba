"""The genome: karyotype findings and variants; and the samples that all molecular data is of."""

from __future__ import annotations

from connexon_node.data.dictionary import common_fields, patterns
from connexon_node.data.dictionary.model import Dataset, Field, FieldType, Sensitivity

CHROMOSOMES = (*map(str, range(1, 23)), "X", "Y", "MT")
ASSEMBLIES = ("GRCh37", "GRCh38", "T2T-CHM13")

SAMPLES = Dataset(
    name="samples",
    group="molecular samples",
    title="Samples of lots, runs and time points, as they went into an assay",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("lot_id", "run_id", "timepoint_id"),
    sorted_by=("cell_type_term",),
    records_per_donor=10,
    fields=(
        common_fields.key("Identifier of the sample at the center"),
        common_fields.reference("lot_id", "lots", "Lot it was taken from"),
        common_fields.reference("run_id", "differentiation_runs", "Differentiation run it was taken from"),
        common_fields.reference("timepoint_id", "timepoints", "Time point it was taken at"),
        common_fields.line("biosample_id", "BioSamples id of the sample", identifying=True, form=patterns.BIOSAMPLE),
        common_fields.choice(
            "kind", "What was taken", "cells", "dna", "rna", "protein", "supernatant", "tissue", "other", required=True
        ),
        common_fields.number("day", "Day of the run", "d", low=-30, high=1_000),
        common_fields.term("cell_type_term", "Cell type", "CL"),
        common_fields.term("assay_term", "Assay", "EFO", "OBI"),
        common_fields.code("platform", "Instrument or array"),
        common_fields.choice("reference_build", "Assembly of the reference genome", *ASSEMBLIES),
        common_fields.line("file_uri", "Where the raw file is", identifying=True),
        common_fields.line("file_sha256", "Checksum of the raw file", identifying=True, form=patterns.SHA256),
        common_fields.flag("qc_pass", "Whether it passed the assay's quality control"),
    ),
)

KARYOTYPE_FINDINGS = Dataset(
    name="karyotype_findings",
    group="genome",
    title="Findings of chromosome analyses; a test without a finding has change 'none'",
    sensitivity=Sensitivity.CONTROLLED,
    donor_through=("lot_id",),
    sorted_by=("recurrent_region", "change"),
    no_more_than=(("cells_abnormal", "cells_counted"),),
    groups_per_donor=2,
    records_per_donor=5,
    fields=(
        common_fields.key("Identifier of the finding at the center"),
        common_fields.reference("lot_id", "lots", "Lot that was tested", required=True),
        common_fields.whole("passage_no", "Passage that was tested", "{passages}", high=500),
        common_fields.choice("method", "Method", "G-band", "SNP", "FISH", "qPCR", "ddPCR", "WGS", required=True),
        common_fields.line("iscn", "Karyotype in ISCN", form=patterns.ISCN),
        common_fields.choice("chrom", "Chromosome", *CHROMOSOMES),
        common_fields.line("band_start", "First band", form=patterns.BAND),
        common_fields.line("band_end", "Last band", form=patterns.BAND),
        common_fields.choice(
            "change", "Kind of change", "none", "gain", "loss", "trans", "cn-LOH", "other", required=True
        ),
        common_fields.whole("cells_abnormal", "Cells with the change", "{cells}", high=100_000, ungrouped=True),
        common_fields.whole("cells_counted", "Cells looked at", "{cells}", high=100_000, ungrouped=True),
        common_fields.percent("clone_pct", "Share of cells with the change"),
        common_fields.choice(
            "recurrent_region",
            "Region in which cultured pluripotent cells change again and again",
            "1q",
            "12p",
            "17q",
            "18q",
            "20q11.21",
            "X",
            "TP53",
            "none",
        ),
        common_fields.choice("significance", "Judgement", "normal", "benign", "uncertain", "abnormal"),
    ),
)

VARIANTS = Dataset(
    name="variants",
    group="genome",
    title="Sequence variants of samples",
    sensitivity=Sensitivity.RESTRICTED,
    donor_through=("sample_id",),
    sorted_by=("chrom", "pos"),
    once=("sample_id", "assembly", "chrom", "pos", "ref", "alt"),
    fields=(
        common_fields.reference("sample_id", "samples", "Sample that was sequenced", required=True, coded=True),
        common_fields.choice("assembly", "Assembly that positions refer to", *ASSEMBLIES, required=True),
        common_fields.choice("chrom", "Chromosome, without chr", *CHROMOSOMES, required=True),
        common_fields.whole("pos", "Position, from 1", "{bp}", low=1, high=250_000_000, required=True, ungrouped=True),
        common_fields.line("ref", "Bases of the reference", form=patterns.BASES, required=True),
        common_fields.line("alt", "Bases of the variant", form=patterns.BASES, required=True),
        common_fields.line("gene", "Gene symbol (HGNC)", form=patterns.GENE),
        common_fields.line("hgvs_c", "Change of coding DNA (HGVS)", form=patterns.HGVS_C),
        common_fields.line("hgvs_p", "Change of protein (HGVS, three letters)", form=patterns.HGVS_P),
        common_fields.choice("zygosity", "Zygosity", "heterozygous", "homozygous", "hemizygous", "mosaic", "unknown"),
        common_fields.number("vaf", "Share of reads with the variant", "1", low=0, high=1),
        common_fields.whole("depth", "Reads", "{reads}", high=1_000_000, ungrouped=True),
        Field(
            name="clinvar_id",
            type=FieldType.INTEGER,
            title="ClinVar variation id",
            minimum=1,
            ungrouped=True,
        ),
        common_fields.choice(
            "clinical_class",
            "Clinical class (ACMG)",
            "benign",
            "likely_benign",
            "uncertain",
            "likely_pathogenic",
            "pathogenic",
        ),
        common_fields.choice("origin", "Where it comes from", "germline", "acquired", "engineered", "unknown"),
    ),
)

DATASETS = (SAMPLES, KARYOTYPE_FINDINGS, VARIANTS)
