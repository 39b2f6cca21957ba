"""VCF, BCF, AnnData, phenopackets, SDTM, Excel and other people's text, made small here and imported."""

from __future__ import annotations

import codecs
import datetime
import gzip
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cyvcf2
import h5py
import numpy
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from connexon.errors import Conflict
from connexon_node.importing import FileFormat, FileRefused, ImportOptions, ImportOutcome, Mapping, sources
from connexon_node.importing.formats import vcf as variants
from connexon_node.importing.formats import vcf_shares
from connexon_node.importing.formats.vcf import named
from tests.support.center import SmallCenter

DONORS = [{"id": "D1", "sex": "female"}, {"id": "D2", "sex": "male"}]
LINES = [{"id": f"L{n}", "donor_id": f"D{n}", "type": "iPSC", "grade": "research"} for n in (1, 2)]
LOTS = [
    {"id": f"B{n}", "cell_line_id": f"L{n}", "lot_no": "1", "bank_level": "MCB", "status": "released"} for n in (1, 2)
]
SAMPLES = [
    *({"id": f"S{n}", "lot_id": f"B{n}", "kind": "dna"} for n in (1, 2)),
    *({"id": f"S{n}:{kind}", "lot_id": f"B{n}", "kind": "rna"} for n in (1, 2) for kind in ("neuron", "glia")),
]
ANN = (
    "##INFO=<ID=ANN,Number=.,Type=String,Description=\"Functional annotations: 'Allele | Annotation | "
    "Annotation_Impact | Gene_Name | Gene_ID | Feature_Type | Feature_ID | Transcript_BioType | Rank | HGVS.c | "
    "HGVS.p | cDNA.pos'\">"
)
CSQ = (
    '##INFO=<ID=CSQ,Number=.,Type=String,Description="Consequence annotations from Ensembl VEP. '
    'Format: Allele|Consequence|SYMBOL|HGVSc|HGVSp">'
)
HEADER = [
    "##fileformat=VCFv4.2",
    "##contig=<ID=chr1,length=248956422>",
    "##contig=<ID=chr17,length=83257441>",
    "##contig=<ID=chrM,length=16569>",
    ANN,
    CSQ,
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Depths">',
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">',
    "#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT left right",
]
P53 = (
    "ANN=T|missense|MODERATE|TP53|ENSG|transcript|ENST|pc|7/11|c.742C>T|p.Arg248Trp|1,A|x|LOW|OTHER|E|t|T|p|1|c.1A>G||"
)
RECORDS = [
    f"chr17 7674221 rs1 G T,A 50 PASS {P53} GT:AD:DP 0/1:10,30,0:40 1/2:0,20,20:40",
    "chr1 1000 . CT C 50 PASS CSQ=-|frameshift|GENE1|ENST00000000001.2:c.5del|ENSP00000000001.1:p.Ala2fs GT:DP "
    "1|1:20 ./.:.",
    "chrM 100 . A G 50 PASS . GT 1 0",
    "chr1 2000 . A <NON_REF> 50 PASS . GT 0/0 0/1",
]


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("formats") / "node")
    for dataset, rows in (("donors", DONORS), ("cell_lines", LINES), ("lots", LOTS), ("samples", SAMPLES)):
        made.load_rows(dataset, rows)
    yield made
    made.close()


def load(center: SmallCenter, dataset: str, file: Path, mapping: object = None, **options: object) -> ImportOutcome:
    read = Mapping.model_validate(mapping or {})
    return center.importer.run(dataset, file, ImportOptions(by="steward", mapping=read, **options))  # type: ignore[arg-type]


def refused(center: SmallCenter, dataset: str, file: Path, mapping: object = None, **options: object) -> FileRefused:
    before = center.generations.current(dataset)
    with pytest.raises(FileRefused) as caught:
        load(center, dataset, file, mapping, **options)
    assert center.generations.current(dataset) == before
    return caught.value


def vcf(path: Path, header: list[str] = HEADER, records: list[str] = RECORDS) -> Path:
    lines = [line.replace(" ", "\t") if line.startswith("#CHROM") else line for line in header]
    path.write_text("\n".join([*lines, *(record.replace(" ", "\t") for record in records), ""]))
    return path


def bcf(source: Path, path: Path) -> Path:
    reader = cyvcf2.VCF(str(source))
    writer = cyvcf2.Writer(str(path), reader, "wb")
    for record in reader:
        writer.write_record(record)
    writer.close()
    return path


TO_SAMPLES = {"vcf": {"samples": {"left": "S1", "right": "S2"}}}


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf"])
def test_variants_are_split_by_allele_and_sample(center: SmallCenter, tmp_path: Path, kind: str) -> None:
    path = vcf(tmp_path / "calls.vcf")
    if kind == "bcf":
        path = bcf(path, tmp_path / "calls.bcf")
    elif kind == "vcf.gz":
        (tmp_path / "calls.vcf.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / "calls.vcf.gz"
    outcome = load(center, "variants", path, TO_SAMPLES, assembly="GRCh38")
    assert outcome.generation is not None, outcome.problems
    found = {
        (row["chrom"], row["pos"], row["ref"], row["alt"], row["zygosity"], row["vaf"], row["depth"], row["gene"])
        for row in center.rows("variants")
    }
    assert found == {
        ("17", 7674221, "G", "T", "heterozygous", 0.75, 40, "TP53"),
        ("17", 7674221, "G", "T", "heterozygous", 0.5, 40, "TP53"),
        ("17", 7674221, "G", "A", "heterozygous", 0.5, 40, "OTHER"),
        ("1", 1000, "CT", "C", "homozygous", None, 20, "GENE1"),
        ("MT", 100, "A", "G", "hemizygous", None, None, None),
    }
    told = {(row["hgvs_c"], row["hgvs_p"]) for row in center.rows("variants") if row["alt"] in ("T", "C")}
    assert ("c.742C>T", "p.Arg248Trp") in told
    assert ("ENST00000000001.2:c.5del", "ENSP00000000001.1:p.Ala2fs") in told
    assert {row["assembly"] for row in center.rows("variants")} == {"GRCh38"}


def told(outcome: ImportOutcome) -> list[tuple[str, int]]:
    """The warnings, beside those of shares of reads, which few of these calls have."""
    found = [(warning.reason, warning.rows) for warning in outcome.warnings]
    return [(reason, rows) for reason, rows in found if reason != vcf_shares.UNTOLD]


def test_a_file_of_another_assembly_than_declared_is_refused(center: SmallCenter, tmp_path: Path) -> None:
    error = refused(center, "variants", vcf(tmp_path / "a.vcf"), TO_SAMPLES, assembly="GRCh37")
    assert error.code == "import.assembly"
    assert "GRCh38, not of GRCh37" in error.public
    silent = [line for line in HEADER if "length" not in line]
    contigs = ["##contig=<ID=chr1>", "##contig=<ID=chr17>", "##contig=<ID=chrM>"]
    bare = vcf(tmp_path / "b.vcf", [silent[0], *contigs, *silent[1:]])
    assert "--assembly" in refused(center, "variants", bare, TO_SAMPLES).public
    assert load(center, "variants", bare, TO_SAMPLES, assembly="hg38").generation is not None
    both = vcf(tmp_path / "c.vcf", [HEADER[0], "##reference=file:///ref/hs37d5.fa.gz", *HEADER[1:]])
    assert "several" in refused(center, "variants", both, TO_SAMPLES).public


@pytest.mark.parametrize(
    ("written", "assembly"),
    [
        ("hg19", "GRCh37"),
        ("file:///data/Homo_sapiens_assembly38.GRCh38.fa", "GRCh38"),
        ("/ref/hs37d5.fa.gz", "GRCh37"),
        ("T2T-CHM13v2.0", "T2T-CHM13"),
        ("mm10", None),
    ],
)
def test_assemblies_are_known_by_many_names(written: str, assembly: str | None) -> None:
    assert named(written) == assembly


def test_cut_off_variant_files_are_refused(center: SmallCenter, tmp_path: Path) -> None:
    whole = vcf(tmp_path / "whole.vcf")
    text = tmp_path / "text.vcf"
    text.write_bytes(whole.read_bytes()[:-30])
    zipped = tmp_path / "zipped.vcf.gz"
    zipped.write_bytes(gzip.compress(whole.read_bytes())[:-10])
    binary = tmp_path / "binary.bcf"
    binary.write_bytes(bcf(whole, tmp_path / "whole.bcf").read_bytes()[:-28])
    for path in (text, zipped, binary):
        assert "cut off" in refused(center, "variants", path, TO_SAMPLES).public


def test_records_that_do_not_parse_are_refused_or_reported(center: SmallCenter, tmp_path: Path) -> None:
    broken = vcf(tmp_path / "broken.vcf", records=[*RECORDS, "chr1 notanumber . A G 50 PASS . GT 0/1 0/1"])
    refused(center, "variants", broken, TO_SAMPLES)
    garbage = tmp_path / "garbage.vcf"
    garbage.write_text("this is no variant file\n")
    refused(center, "variants", garbage, TO_SAMPLES)
    strange = vcf(tmp_path / "strange.vcf", records=[RECORDS[0].replace("c.742C>T", "742C>T"), *RECORDS[1:]])
    outcome = load(center, "variants", strange, TO_SAMPLES)
    assert outcome.generation is not None
    assert any("have no hgvs_c" in problem.reason and problem.rows for problem in outcome.warnings)


def test_a_sample_that_the_file_has_not_is_named(center: SmallCenter, tmp_path: Path) -> None:
    error = refused(center, "variants", vcf(tmp_path / "a.vcf"), {"vcf": {"samples": {"middle": "S1"}}})
    assert "'middle'" in error.public
    outcome = load(center, "variants", vcf(tmp_path / "b.vcf"), {"vcf": {"samples": {"left": "S9"}}})
    assert [(problem.field, problem.reason) for problem in outcome.problems] == [("sample_id", "is no id in samples")]


def test_failed_calls_are_left_out_and_counted(center: SmallCenter, tmp_path: Path) -> None:
    header = [HEADER[0], '##FILTER=<ID=LowQual,Description="Low quality">', *HEADER[1:]]
    failed = "chr1 3000 . A G 50 LowQual . GT 0/1 0/1"
    unfiltered = "chr1 4000 . A G 50 . . GT 0/1 0/0"
    outcome = load(center, "variants", vcf(tmp_path / "a.vcf", header, [*RECORDS, failed, unfiltered]), TO_SAMPLES)
    assert {row["pos"] for row in center.rows("variants")} == {7674221, 1000, 100, 4000}
    assert told(outcome) == [("records of failed calls were left out: their FILTER is neither PASS nor a dot", 1)]
    error = refused(center, "variants", vcf(tmp_path / "b.vcf", header, [failed]), TO_SAMPLES)
    assert (error.code, "1 are of failed calls" in error.public) == ("import.no_genotypes", True)


def test_failed_calls_are_loaded_where_the_mapping_keeps_them(center: SmallCenter, tmp_path: Path) -> None:
    header = [HEADER[0], '##FILTER=<ID=LowQual,Description="Low quality">', *HEADER[1:]]
    failed = "chr1 3000 . A G 50 LowQual . GT 0/1 0/1"
    silent = "chr1 5000 . A G 50 LowQual . DP 10 10"
    keep = {"vcf": {**TO_SAMPLES["vcf"], "keep_failed": True}}
    outcome = load(center, "variants", vcf(tmp_path / "a.vcf", header, [*RECORDS, failed, silent]), keep)
    assert [row["pos"] for row in center.rows("variants")].count(3000) == 2
    assert told(outcome) == [
        (
            "records of failed calls were loaded like those that passed, as the mapping says: their FILTER is neither "
            "PASS nor a dot",
            1,
        ),
        ("records were left out, since they hold no genotypes (GT)", 1),
    ]
    error = refused(center, "variants", vcf(tmp_path / "b.vcf", header, [silent]), keep)
    assert (error.code, "failed" in error.public) == ("import.no_genotypes", False)
    refusal = refused(center, "variants", vcf(tmp_path / "c.vcf", header, [failed]), TO_SAMPLES)
    assert "keep_failed = true under [vcf]" in refusal.public


def test_calls_that_failed_in_their_own_sample_are_left_out_and_counted(center: SmallCenter, tmp_path: Path) -> None:
    header = [*HEADER[:-1], '##FORMAT=<ID=FT,Number=1,Type=String,Description="Filter">', HEADER[-1]]
    records = [
        "chr1 3000 . A G 50 PASS . GT:FT 0/1:PASS 0/1:lowGQ",
        "chr1 4000 . A G 50 PASS . GT:FT 0/0:lowGQ 1/1:.",
        "chr1 5000 . A G 50 PASS . GT 0/1 0/0",
    ]
    for keep, left in ((False, 1), (True, 0)):
        mapping = {"vcf": {**TO_SAMPLES["vcf"], "keep_failed": keep}}
        outcome = load(center, "variants", vcf(tmp_path / "a.vcf", header, records), mapping)
        assert sorted(row["pos"] for row in center.rows("variants")) == sorted([3000, 4000, 5000, *[3000] * keep])
        assert [warning.rows for warning in outcome.warnings if "(FT)" in warning.reason] == [1] * left
    lone = vcf(tmp_path / "b.vcf", header, ["chr1 3000 . A G 50 PASS . GT:FT 0/1:lowGQ 0/0:PASS"])
    with pytest.raises(Conflict) as caught:
        load(center, "variants", lone, TO_SAMPLES)
    assert caught.value.code == "import.no_rows"


def test_a_share_of_reads_is_not_told_of_depths_that_are_not_whole(center: SmallCenter, tmp_path: Path) -> None:
    records = ["chr1 3000 . A G 50 PASS . GT:AD 0/1:.,12 0/1:4,12"]
    load(center, "variants", vcf(tmp_path / "a.vcf", records=records), TO_SAMPLES)
    assert {row["vaf"] for row in center.rows("variants")} == {None, 0.75}


def test_long_records_come_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "_BATCH", 200)
    records = [f"chr1 {number} . A G 50 PASS . GT 0/1 0/1" for number in range(1, 41)]
    path, tally = vcf(tmp_path / "a.vcf", records=records), variants._Tally(keeps_failed=False)
    made = list(variants._records(variants._opened(path, path.name), path.name, tally))
    assert len(made) > 4
    assert max(batch.num_rows for batch in made) < 10
    assert sum(batch.num_rows for batch in made) == 40


def test_records_without_genotypes_are_counted_and_never_replace_what_is_in_force(
    center: SmallCenter, tmp_path: Path
) -> None:
    silent = "chr1 3000 . A G 50 PASS . AD:DP 10,10:20 20,0:20"
    outcome = load(center, "variants", vcf(tmp_path / "a.vcf", records=[*RECORDS, silent]), TO_SAMPLES)
    assert told(outcome) == [("records were left out, since they hold no genotypes (GT)", 1)]
    error = refused(center, "variants", vcf(tmp_path / "b.vcf", records=[silent]), TO_SAMPLES)
    assert (error.code, "1 hold no genotypes" in error.public) == ("import.no_genotypes", True)
    assert len(center.rows("variants")) == 5


def test_records_of_which_no_sample_carries_anything_are_loaded_only_when_told(
    center: SmallCenter, tmp_path: Path
) -> None:
    path, before = vcf(tmp_path / "a.vcf", records=[RECORDS[3]]), center.generations.current("variants")
    with pytest.raises(Conflict) as caught:
        load(center, "variants", path, TO_SAMPLES)
    assert (caught.value.code, "--allow-empty" in caught.value.public) == ("import.no_rows", True)
    assert center.generations.current("variants") == before
    fresh = SmallCenter(tmp_path / "node")
    for dataset, rows in (("donors", DONORS), ("cell_lines", LINES), ("lots", LOTS), ("samples", SAMPLES)):
        fresh.load_rows(dataset, rows)
    with pytest.raises(Conflict) as caught:
        load(fresh, "variants", path, TO_SAMPLES)
    assert (caught.value.code, "none of them gives a row" in caught.value.public) == ("import.no_rows", True)
    assert load(fresh, "variants", path, TO_SAMPLES, allow_empty=True).generation is not None
    fresh.close()


GENES = ["ENSG00000000001.5", "ENSG00000000002.1", "ENSG00000000003"]
COUNTS = numpy.array([[4, 0, 6], [0, 0, 10], [1, 1, 0], [5, 5, 0], [0, 0, 3]], dtype=numpy.float32)
CELLS = [("S1", "neuron"), ("S1", "neuron"), ("S1", "glia"), ("S2", "glia"), ("S2", "neuron")]


def h5ad(path: Path, layout: str, matrix: numpy.ndarray = COUNTS) -> Path:
    with h5py.File(path, "w") as book:
        obs, var = book.create_group("obs"), book.create_group("var")
        obs.attrs["_index"] = var.attrs["_index"] = "_index"
        obs["_index"] = [f"cell{n}".encode() for n in range(len(CELLS))]
        for place, name in enumerate(("sample", "cell_type")):
            kinds = sorted({cell[place] for cell in CELLS})
            group = obs.create_group(name)
            group["categories"] = [kind.encode() for kind in kinds]
            group["codes"] = numpy.array([kinds.index(cell[place]) for cell in CELLS], dtype=numpy.int8)
        var["_index"] = [gene.encode() for gene in GENES]
        if layout == "dense":
            book["X"] = matrix
            return path
        outer = matrix if layout == "csr_matrix" else matrix.T
        group = book.create_group("X")
        group.attrs["encoding-type"] = layout
        group["data"] = outer[outer != 0]
        group["indices"] = numpy.nonzero(outer)[1].astype(numpy.int32)
        group["indptr"] = numpy.concatenate([[0], numpy.cumsum((outer != 0).sum(axis=1))])
    return path


SINGLE_CELLS = {"h5ad": {"sample": "sample", "cell_type": "cell_type", "minimum_cells": 1}}


@pytest.mark.parametrize("layout", ["dense", "csr_matrix", "csc_matrix"])
def test_single_cells_are_added_up_by_sample_and_cell_type(center: SmallCenter, tmp_path: Path, layout: str) -> None:
    outcome = load(center, "expression", h5ad(tmp_path / "cells.h5ad", layout), SINGLE_CELLS)
    assert outcome.generation is not None, outcome.problems
    dry = load(center, "expression", h5ad(tmp_path / "again.h5ad", layout), SINGLE_CELLS, dry_run=True)
    assert dry.rows == 4 * len(GENES)
    expected = []
    for group in sorted(set(CELLS)):
        sums = COUNTS[[cell == group for cell in CELLS]].sum(axis=0)
        expected += list(numpy.log2(sums / sums.sum() * 1e6 + 1))
    found = sorted(float(str(row["value"])) for row in center.rows("expression"))
    assert found == pytest.approx(sorted(expected), rel=1e-6)
    assert {row["unit"] for row in center.rows("expression")} == {"log2CPM"}


def test_small_groups_of_cells_are_left_out_and_said(center: SmallCenter, tmp_path: Path) -> None:
    two = {"h5ad": {**SINGLE_CELLS["h5ad"], "minimum_cells": 2}}
    outcome = load(center, "expression", h5ad(tmp_path / "cells.h5ad", "csr_matrix"), two)
    assert outcome.rows == len(GENES)
    assert told(outcome) == [("groups of fewer than 2 cells were left out", 3)]


def test_a_sample_without_any_count_is_left_out_and_said(center: SmallCenter, tmp_path: Path) -> None:
    path = tmp_path / "bulk.h5ad"
    with h5py.File(path, "w") as book:
        for name, values in (("obs", ["S1", "S2"]), ("var", ["ENSG00000000001", "ENSG00000000002"])):
            table = book.create_group(name)
            table.attrs["_index"] = "_index"
            table["_index"] = values
        book["X"] = numpy.array([[10.0, 0], [0, 0]])
    outcome = load(center, "expression", path)
    assert [warning.rows for warning in outcome.warnings if "no count at all" in warning.reason] == [1]
    assert len(center.rows("expression")) == 2, "a silent gene of a sample with counts is known to be silent"


def test_what_is_no_count_is_not_added_up(center: SmallCenter, tmp_path: Path) -> None:
    path = h5ad(tmp_path / "cells.h5ad", "dense", COUNTS + 0.5)
    assert refused(center, "expression", path, SINGLE_CELLS).code == "import.values"
    logged = {"h5ad": {**SINGLE_CELLS["h5ad"], "kind": "log2CPM"}}
    assert refused(center, "expression", path, logged).code == "import.values"
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(path.read_bytes()[:600])
    refused(center, "expression", cut, SINGLE_CELLS)
    assert "no column 'batch'" in refused(center, "expression", path, {"h5ad": {"sample": "batch"}}).public


def rewritten(path: Path, table: str, name: str, values: list[str]) -> Path:
    """The file with another column of texts."""
    with h5py.File(path, "a") as book:
        if name in book[table]:
            del book[table][name]
        book[table][name] = [value.encode() for value in values]
    return path


@pytest.mark.parametrize("by", ["name", "reference"])
def test_categories_of_earlier_versions_of_anndata_are_resolved(center: SmallCenter, tmp_path: Path, by: str) -> None:
    path = h5ad(tmp_path / "cells.h5ad", "dense")
    with h5py.File(path, "a") as book:
        for name in ("sample", "cell_type"):
            modern = book["obs"][name]
            place = f"obs/__categories/{name}" if by == "name" else f"uns/{name}_categories"
            book[place] = modern["categories"][()]
            codes = modern["codes"][()]
            del book["obs"][name]
            book["obs"][name] = codes
            book["obs"][name].attrs["categories"] = book[place].ref
    assert load(center, "expression", path, SINGLE_CELLS).generation is not None
    assert len(center.rows("expression")) == 4 * len(GENES)
    assert "it has _index, cell_type, sample." in refused(center, "expression", path, {"h5ad": {"sample": "x"}}).public


def test_obs_in_one_array_is_refused(center: SmallCenter, tmp_path: Path) -> None:
    path = h5ad(tmp_path / "cells.h5ad", "dense")
    with h5py.File(path, "a") as book:
        del book["obs"]
        book["obs"] = numpy.array([(b"cell0", 1)], dtype=[("index", "S8"), ("sample", "i4")])
    assert "AnnData before 0.7" in refused(center, "expression", path, SINGLE_CELLS).public


def test_cells_without_a_cell_type_or_a_sample_are_left_out_and_counted(center: SmallCenter, tmp_path: Path) -> None:
    path = h5ad(tmp_path / "cells.h5ad", "dense")
    with h5py.File(path, "a") as book:
        book["obs"]["cell_type"]["codes"][0] = -1
        book["obs"]["sample"]["codes"][2] = -1
    outcome = load(center, "expression", path, SINGLE_CELLS)
    assert outcome.rows == 3 * len(GENES)
    assert told(outcome) == [
        ("cells without a sample were left out", 1),
        ("cells without a cell type were left out", 1),
    ]


def test_a_sample_never_gets_two_values_of_a_gene(center: SmallCenter, tmp_path: Path) -> None:
    path = h5ad(tmp_path / "cells.h5ad", "dense")
    one = {"h5ad": {**SINGLE_CELLS["h5ad"], "samples": {"S1|glia": "S1:glia", "S2|glia": "S1:glia"}}}
    error = refused(center, "expression", path, one)
    assert (error.code, "2 groups" in error.public, "'S1:glia'" in error.public) == ("import.samples", True, True)
    named_twice = rewritten(h5ad(tmp_path / "names.h5ad", "dense"), "obs", "_index", ["S1", "S1", "a", "b", "c"])
    assert "2 observations are named 'S1'" in refused(center, "expression", named_twice).public
    versions = rewritten(
        h5ad(tmp_path / "genes.h5ad", "dense"),
        "var",
        "_index",
        ["ENSG00000000001.1", "ENSG00000000001.2", "ENSG00000000003"],
    )
    error = refused(center, "expression", versions, SINGLE_CELLS)
    assert "ENSG00000000001 2 times (ENSG00000000001.1, ENSG00000000001.2)" in error.public


DM = [
    "STUDYID,DOMAIN,USUBJID,RFSTDTC,RFPENDTC,RFENDTC,AGE,AGEU,SEX",
    "S,DM,P1,2014-01-01,2014-12-31,2014-12-30,30,YEARS,F",
    "S,DM,P2,2014-01-01,2014-06-30,2014-06-30,45,years,M",
    "S,DM,P3,2014-01-01,2014-05,2014-05-20,72,,M",
]
DS = ["DOMAIN,USUBJID,DSDECOD,DSCAT,DSSTDTC,DSSTDY", "DS,P1,COMPLETED,DISPOSITION EVENT,2014-12-31,"]
AE = [
    "DOMAIN,USUBJID,AEDECOD,AESTDTC,AESTDY,AEENDTC,AESER",
    "AE,P1,Headache,2014-01,5,2014-02,Y",
    "AE,P2,Nausea,,,,N",
    "AE,P3,Rash,2014-01-03T22:10,3,,N",
]


def sdtm(folder: Path, dm: list[str] = DM, **domains: list[str]) -> None:
    for name, lines in {"dm": dm, **domains}.items():
        (folder / f"{name}.csv").write_text("\n".join([*lines, ""]))


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[SmallCenter]:
    """A center with three subjects, whose SDTM files lie in its folder."""
    made = SmallCenter(tmp_path / "trial")
    sdtm(made.folder)
    assert domain(made, "subjects", "dm").generation is not None
    yield made
    made.close()


def domain(center: SmallCenter, dataset: str, name: str, **options: object) -> ImportOutcome:
    return load(center, dataset, center.folder / f"{name}.csv", file_format=FileFormat.SDTM, **options)


def test_who_died_on_an_unknown_day_is_never_a_survivor(trial: SmallCenter) -> None:
    dead = "DS,P2,DEATH,DISPOSITION EVENT,2014-06,"
    sdtm(trial.folder, ds=[*DS, dead])
    outcome = domain(trial, "survival", "ds")
    assert outcome.refused
    assert [(problem.reason, problem.rows) for problem in outcome.problems] == [
        ("had the event on a day that is not known: complete DSSTDTC, or give DSSTDY", 1)
    ]
    assert outcome.report is not None
    assert json.loads(outcome.report.read_text())["line"] == 3
    domain(trial, "survival", "ds", skip_bad=True)
    assert {row["time_d"]: row["event"] for row in trial.rows("survival")} == {364: False, 139: False}
    sdtm(trial.folder, ds=[*DS, dead + "152"])
    domain(trial, "survival", "ds")
    assert {row["time_d"]: row["event"] for row in trial.rows("survival")} == {364: False, 151: True, 139: False}


DIED = [
    DM[0] + ",DTHFL,DTHDTC",
    DM[1] + ",,",
    DM[2] + ",Y,2014-06-02",
    DM[3] + ",,",
]


def test_a_death_that_only_the_demographics_know_is_not_lost(trial: SmallCenter) -> None:
    sdtm(trial.folder, DIED, ds=DS)
    domain(trial, "subjects", "dm")
    assert [row["disposition"] for row in sorted(trial.rows("subjects"), key=lambda row: str(row["id"]))] == [
        "completed", "death", None
    ]  # fmt: skip
    domain(trial, "survival", "ds")
    assert {row["time_d"]: row["event"] for row in trial.rows("survival")} == {364: False, 152: True, 139: False}
    other = {"sdtm": {"endpoint": "relapse", "event_terms": ["RELAPSE"]}}
    load(trial, "survival", trial.folder / "ds.csv", other, file_format=FileFormat.SDTM)
    assert not any(row["event"] for row in trial.rows("survival")), "a death is no other event"


@pytest.mark.parametrize(
    ("told", "noted", "day"),
    [
        (",2014-06-02", "", 152),  # a day without the flag
        ("Y,2014-06-02", "2014-06-10,", 152),  # who noted it later knew less
        ("Y,2014-06-02", "2014,", 152),
        ("Y,2014-06", "2014-06-10,", 160),
        ("Y,", "2014,", None),
        ("Y,2014-06", "", None),
    ],
)
def test_the_day_of_a_death_is_that_of_the_demographics_where_they_have_it(
    trial: SmallCenter, told: str, noted: str, day: int | None
) -> None:
    dead = [f"DS,P2,DEATH,DISPOSITION EVENT,{noted}"] if noted else []
    sdtm(trial.folder, [DIED[0], DIED[1], f"{DM[2]},{told}", DIED[3]], ds=[*DS, *dead])
    outcome = domain(trial, "survival", "ds", skip_bad=True)
    assert [row["time_d"] for row in trial.rows("survival") if row["event"]] == ([day] if day else [])
    reasons = {"had the event on a day": bool(noted), "died on a day": not noted} if day is None else {}
    assert all(any(said in problem.reason for problem in outcome.problems) == hold for said, hold in reasons.items())
    assert outcome.bad_rows == (day is None)


def test_files_beside_are_found_in_capitals_too(trial: SmallCenter) -> None:
    sdtm(trial.folder, ds=DS)
    for name in ("dm", "ds"):
        (trial.folder / f"{name}.csv").rename(trial.folder / f"{name.upper()}.CSV")
    for dataset, name in (("subjects", "DM"), ("survival", "DS")):
        assert load(trial, dataset, trial.folder / f"{name}.CSV", file_format=FileFormat.SDTM).generation is not None
    assert {row["id"]: row["disposition"] for row in trial.rows("subjects")}["P1"] == "completed"


def test_the_event_of_an_unknown_subject_is_reported(trial: SmallCenter) -> None:
    sdtm(trial.folder, ds=[*DS, "DS,P9,DEATH,DISPOSITION EVENT,2014-06-01,"])
    reasons = {(problem.field, problem.reason) for problem in domain(trial, "survival", "ds").problems}
    assert ("subject_id", "is no id in subjects") in reasons


def test_events_with_numbers_of_their_own_are_not_the_same_twice(trial: SmallCenter) -> None:
    ae = ["DOMAIN,USUBJID,AESEQ,AEDECOD,AESTDTC,AESER", *(f"AE,P1,{n},Rash,2014-01-03,N" for n in (1, 2))]
    sdtm(trial.folder, ae=ae)
    assert domain(trial, "adverse_events", "ae").warnings == ()
    sdtm(trial.folder, ae=[*ae, ae[2]])
    assert [warning.rows for warning in domain(trial, "adverse_events", "ae").warnings] == [1]


def test_an_event_whose_day_is_unknown_has_none(trial: SmallCenter) -> None:
    sdtm(trial.folder, ae=AE, ex=["DOMAIN,USUBJID,EXTRT,EXSTDTC", "EX,P1,cells,2014-01", "EX,P2,cells,2014-01-02"])
    domain(trial, "adverse_events", "ae")
    found = {row["pt_text"]: (row["onset_day"], row["resolved_day"]) for row in trial.rows("adverse_events")}
    assert found == {"Headache": (4, None), "Nausea": (None, None), "Rash": (2, None)}
    problems = domain(trial, "treatments", "ex").problems
    assert [(problem.field, problem.reason, problem.rows) for problem in problems] == [("day", "is missing", 1)]


@pytest.mark.parametrize(
    ("age", "unit", "kept"),
    [
        ("18", "MONTHS", "0-4"),
        ("60", "months", "5-9"),
        ("600", "WEEKS", "10-14"),
        ("1000", "DAYS", "0-4"),
        ("100", "HOURS", "0-4"),
        ("4", "DECADES", "40-44"),
        ("44", "YEARS", "40-44"),
        ("44", "", "40-44"),
        ("", "MONTHS", None),
    ],
)
def test_ages_count_in_the_unit_beside_them(tmp_path: Path, age: str, unit: str, kept: str | None) -> None:
    center = SmallCenter(tmp_path / "node")
    sdtm(center.folder, [DM[0], f"S,DM,P1,2014-01-01,,,{age},{unit},F"])
    domain(center, "subjects", "dm")
    assert [row["age_range_y"] for row in center.rows("subjects")] == [kept]
    center.close()


def test_an_age_in_an_unknown_unit_refuses_its_row(tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / "node")
    sdtm(center.folder, [*DM, "S,DM,P4,2014-01-01,,,3,OLYMPIADS,F"])
    (problem,) = domain(center, "subjects", "dm").problems
    assert (problem.rows, "AGEU is none of YEARS, MONTHS" in problem.reason) == (1, True)
    center.close()


def test_dispositions_without_their_category_are_refused(trial: SmallCenter) -> None:
    sdtm(trial.folder, ds=["DOMAIN,USUBJID,DSDECOD,DSSTDTC", "DS,P1,COMPLETED,2014-12-31"])
    with pytest.raises(FileRefused) as caught:
        domain(trial, "subjects", "dm")
    assert (caught.value.code, "DSCAT and DSDECOD" in caught.value.public) == ("import.columns", True)


def test_who_died_after_completing_an_epoch_has_died(trial: SmallCenter) -> None:
    sdtm(trial.folder, ds=[*DS, "DS,P1,DEATH,DISPOSITION EVENT,2014-12,", *DS[1:]])
    domain(trial, "subjects", "dm")
    assert {row["id"]: row["disposition"] for row in trial.rows("subjects")} == {"P1": "death", "P2": None, "P3": None}


def test_a_subject_who_stands_twice_in_the_demographics_doubles_nothing(trial: SmallCenter) -> None:
    sdtm(trial.folder, [*DM, DM[1]], ae=AE)
    domain(trial, "adverse_events", "ae")
    assert len(trial.rows("adverse_events")) == 3
    sdtm(trial.folder, [*DM, DM[1].replace("2014-01-01", "2014-01-02")])
    with pytest.raises(FileRefused) as caught:
        domain(trial, "adverse_events", "ae")
    assert (caught.value.code, "rows 2 and 5" in caught.value.public) == ("import.subject_twice", True)


@pytest.mark.parametrize(
    ("lost", "says"), [("RFSTDTC", "dm.csv has no column RFSTDTC"), ("DSDECOD", "ds.csv has no column DSDECOD")]
)
def test_a_column_that_survival_needs_is_named(trial: SmallCenter, lost: str, says: str) -> None:
    without = {"dm": [DM[0].replace(lost, "OTHER"), *DM[1:]], "ds": [DS[0].replace(lost, "OTHER"), *DS[1:]]}
    sdtm(trial.folder, **without)
    with pytest.raises(FileRefused) as caught:
        domain(trial, "survival", "ds")
    assert says in caught.value.public


PACKET = {
    "id": "packet-1",
    "subject": {"id": "P1", "sex": "FEMALE", "timeAtLastEncounter": {"age": {"iso8601duration": "P43Y2M"}}},
    "phenotypicFeatures": [
        {"type": {"id": "HP:0001300", "label": "Parkinsonism"}},
        {"type": {"id": "HP:0001337", "label": "Tremor"}, "excluded": True},
    ],
    "diseases": [{"term": {"id": "OMIM:168600", "label": "PARKINSON DISEASE"}}],
}


@pytest.mark.parametrize("shape", ["one", "list", "lines"])
def test_phenopackets_become_donors(tmp_path: Path, shape: str) -> None:
    other = {"id": "packet-2", "subject": {"id": "P2", "sex": "MALE"}, "diseases": []}
    packets = [PACKET] if shape == "one" else [PACKET, other]
    path = tmp_path / "packets.json"
    path.write_text(json.dumps(packets if shape == "list" else packets[0], indent=1))
    if shape == "lines":
        path.write_text("\n".join(json.dumps(packet) for packet in packets))
    center = SmallCenter(tmp_path / "node")
    codes = {
        "columns": {
            "primary_disease_term": {"from": "primary_disease_term", "values": {"OMIM:168600": "MONDO:0005180"}}
        }
    }
    outcome = load(center, "donors", path, codes)
    assert outcome.generation is not None, outcome.problems
    row = next(row for row in center.rows("donors") if row["id"] == "P1")
    assert (row["sex"], row["age_range_y"], row["primary_disease_term"]) == ("female", "40-44", "MONDO:0005180")
    assert row["phenotype_terms"] == ["HP:0001300"]
    assert len(center.rows("donors")) == len(packets)
    center.close()


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"age": {"iso8601duration": "P43Y2M"}}, "40-44"),
        ({"age": {"iso8601duration": "P540M"}}, "45-49"),
        ({"age": {"iso8601duration": "P30M"}}, "0-4"),
        ({"age": {"iso8601duration": "P4Y11M30DT12H"}}, "0-4"),
        ({"age": {"iso8601duration": "P600W"}}, "10-14"),
        ({"age": {"iso8601duration": "P0D"}}, "0-4"),
        ({"age": {"iso8601duration": "about 40"}}, "bad"),
        ({"age_range": {"start": {"iso8601duration": "P40Y"}, "end": {"iso8601duration": "P44Y"}}}, "40-44"),
        ({"ageRange": {"start": {"iso8601duration": "P40Y"}, "end": {"iso8601duration": "P60Y"}}}, "bad"),
        ({"timestamp": "2024-01-01T00:00:00Z"}, None),
    ],
)
def test_an_age_of_a_phenopacket_counts_whole(
    center: SmallCenter, tmp_path: Path, told: dict[str, object], kept: str | None
) -> None:
    path = tmp_path / "packet.json"
    path.write_text(json.dumps({"id": "p", "subject": {"id": "P1", "sex": "MALE", "timeAtLastEncounter": told}}))
    outcome = load(center, "donors", path, dry_run=True, retire_dependents=True)
    if kept == "bad":
        assert [problem.field for problem in outcome.problems] == ["age_range_y"]
    else:
        assert [row.get("age_range_y") for row in outcome.preview] == [kept]


def test_a_phenopacket_may_have_the_names_of_the_schema(center: SmallCenter, tmp_path: Path) -> None:
    path, snake = tmp_path / "packet.json", json.dumps(PACKET)
    for name in ("timeAtLastEncounter", "phenotypicFeatures"):
        snake = snake.replace(name, re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name))
    mapping = {"exclude": ["primary_disease_term"]}
    rows = []
    for written in (json.dumps(PACKET), snake):
        path.write_text(written)
        rows.append(load(center, "donors", path, mapping, dry_run=True, retire_dependents=True).preview)
    assert rows[0] == rows[1]
    assert (rows[0][0]["age_range_y"], rows[0][0]["phenotype_terms"]) == ("40-44", "HP:0001300")
    path.write_text(snake.replace('"sex"', '"date_of_birth": "1970-01-31T00:00:00Z", "sex"'))
    assert refused(center, "donors", path, mapping).code == "import.identifying"


def test_a_phenopacket_with_a_date_of_birth_is_refused(center: SmallCenter, tmp_path: Path) -> None:
    path = tmp_path / "packet.json"
    path.write_text(json.dumps({**PACKET, "subject": {**PACKET["subject"], "dateOfBirth": "1970-01-31T00:00:00Z"}}))
    assert refused(center, "donors", path).code == "import.identifying"
    path.write_text(json.dumps(PACKET)[:-20])
    assert "cut off" in refused(center, "donors", path).public
    path.write_text('{"id": "no subject"}')
    assert "no subject" in refused(center, "donors", path).public


def book(path: Path, sheets: dict[str, list[list[object]]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets.items():
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    made.save(path)
    return path


def test_a_workbook_is_read_sheet_by_sheet(tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / "node")
    for dataset, rows in (("donors", DONORS), ("cell_lines", LINES)):
        center.load_rows(dataset, rows)
    head = [*LOTS[0], "passage_no", "frozen_on"]
    cells: list[list[object]] = [[*lot.values(), 12.0, datetime.date(2025, 1, 31)] for lot in LOTS]
    path = book(tmp_path / "lots.xlsx", {"Lots": [head, cells[0], [], cells[1]], "Notes": [["a"]]})
    assert "--sheet" in refused(center, "lots", path).public
    assert "no sheet 'Lot'" in refused(center, "lots", path, sheet="Lot").public
    assert load(center, "lots", path, sheet="Lots").rows == 2
    assert {(row["passage_no"], str(row["frozen_on"])) for row in center.rows("lots")} == {(12, "2025-01-31")}
    cells[1][-2] = -4
    outcome = load(center, "lots", book(tmp_path / "bad.xlsx", {"Lots": [head, cells[0], [], cells[1]]}))
    assert outcome.report is not None
    assert [json.loads(line)["line"] for line in outcome.report.read_text().splitlines()] == [4]
    cut = tmp_path / "cut.xlsx"
    cut.write_bytes(path.read_bytes()[:-500])
    assert "no whole .xlsx" in refused(center, "lots", cut).public
    center.close()


@pytest.mark.parametrize("kind", ["xlsx", "parquet", "jsonl"])
def test_cells_that_are_numbers_have_no_decimal_comma(center: SmallCenter, tmp_path: Path, kind: str) -> None:
    cells: list[object] = [1.5, 1.234, 2.5e-07]
    texts = [] if kind == "parquet" else ["1,5", "1.234", "1.5"]
    cells += texts
    rows = [{**LOTS[0], "id": f"B{number}", "cells_per_vial_1e6": cell} for number, cell in enumerate(cells)]
    path = tmp_path / f"lots.{kind}"
    if kind == "xlsx":
        book(path, {"Lots": [list(rows[0]), *(list(row.values()) for row in rows)]})
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = {"columns": {"cells_per_vial_1e6": {"from": "cells_per_vial_1e6", "decimal": ","}}}
    outcome = load(center, "lots", path, mapping, dry_run=True, skip_bad=True, retire_dependents=True)
    assert [float(row["cells_per_vial_1e6"]) for row in outcome.preview] == [1.5, 1.234, 2.5e-07, 1.5, 1234][
        : len(cells)
    ]
    assert (outcome.rows, outcome.bad_rows) == (len(cells), len(texts) // 3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    """A center that has no runs yet."""
    made = SmallCenter(tmp_path_factory.mktemp("bank") / "node")
    for dataset, rows in (("donors", DONORS), ("cell_lines", LINES), ("lots", LOTS)):
        made.load_rows(dataset, rows)
    yield made
    made.close()


def runs(path: Path, shares: list[object], formats: list[str]) -> Path:
    """A workbook of runs with the share of wanted cells, each in a format of its own."""
    made = openpyxl.Workbook()
    made.active.append(["id", "lot_id", "note", "target_pct"])
    for number, (share, look) in enumerate(zip(shares, formats, strict=True), start=2):
        made.active.append([f"R{number}", "B1", "-", share])
        made.active.cell(number, 4).number_format = look
    made.save(path)
    return path


SHARES = {"exclude": ["note"]}


def test_a_cell_in_per_cent_is_read_as_it_is_shown(bank: SmallCenter, tmp_path: Path) -> None:
    looks = ["0%", "0.0%", "General", '0.0"%"', "0.0\\%", "0.00%"]
    path = runs(tmp_path / "runs.xlsx", [0.88, 0.07, 87.5, 12.5, 13.5, 1], looks)
    outcome = load(bank, "differentiation_runs", path, SHARES)
    found = {row["id"]: row["target_pct"] for row in bank.rows("differentiation_runs")}
    assert found == {"R2": 88.0, "R3": 7.0, "R4": 87.5, "R5": 12.5, "R6": 13.5, "R7": 100.0}
    assert told(outcome) == [("cells in per cent were read as they are shown, such as 88% as 88", 3)]


@pytest.mark.parametrize(
    ("unit", "kept", "note"),
    [("", "0.5", "as they are shown"), ("%", "0.5", "as they are shown"), ("fraction", "0.5", "as shares of one")],
)
def test_half_a_per_cent_is_that_whatever_a_column_counts_in(
    bank: SmallCenter, tmp_path: Path, unit: str, kept: str, note: str
) -> None:
    path = runs(tmp_path / "runs.xlsx", [0.005], ["0.0%"])
    columns = {"target_pct": {"from": "target_pct", "unit": unit}} if unit else {}
    outcome = load(bank, "differentiation_runs", path, {"columns": columns, "exclude": ["note"]}, dry_run=True)
    assert [row["target_pct"] for row in outcome.preview] == [kept]
    assert [warning.rows for warning in outcome.warnings if note in warning.reason] == [1]


def test_a_formula_that_was_never_computed_is_no_missing_value(bank: SmallCenter, tmp_path: Path) -> None:
    path = runs(tmp_path / "runs.xlsx", [50, "=2*25"], ["General", "0%"])
    error = refused(bank, "differentiation_runs", path, SHARES)
    assert (error.code, "cell D3" in error.public, "save it" in error.public) == ("import.not_computed", True, True)
    assert load(bank, "differentiation_runs", path, {"exclude": ["note", "target_pct"]}).generation is not None


def test_the_result_of_a_formula_counts_even_where_it_is_empty(bank: SmallCenter, tmp_path: Path) -> None:
    path = runs(tmp_path / "runs.xlsx", ["=2*25", '=IF(1=1,"","x")'], ["General", "General"])
    computed = tmp_path / "computed.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(computed, "w") as new:
        for name in old.namelist():
            content = old.read(name).decode()
            if name == "xl/worksheets/sheet1.xml":
                content = content.replace("<f>2*25</f><v></v>", "<f>2*25</f><v>50</v>")
                content = content.replace("<f>2*25</f><v />", "<f>2*25</f><v>50</v>")
                content = content.replace('<c r="D3"', '<c r="D3" t="str"')
            new.writestr(name, content)
    load(bank, "differentiation_runs", computed, SHARES)
    assert {row["target_pct"] for row in bank.rows("differentiation_runs")} == {50.0, None}


def test_merged_cells_are_refused_where_they_are_read(bank: SmallCenter, tmp_path: Path) -> None:
    path = runs(tmp_path / "runs.xlsx", [50, None], ["General", "General"])
    made = openpyxl.load_workbook(path)
    made.active.merge_cells("C2:C3")
    made.save(path)
    assert load(bank, "differentiation_runs", path, SHARES).generation is not None
    made.active.merge_cells("D2:D3")
    made.save(path)
    error = refused(bank, "differentiation_runs", path, SHARES)
    assert (error.code, "cells D2:D3 are merged" in error.public) == ("import.merged_cells", True)


def test_compressed_text_is_read_and_a_cut_off_archive_refused(tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / "node")
    path = tmp_path / "donors.csv.gz"
    path.write_bytes(gzip.compress(b"id,sex\r\nD1,male\nD2,female\r\n"))
    assert load(center, "donors", path).rows == 2
    path.write_bytes(path.read_bytes()[:-6])
    assert "cut off" in refused(center, "donors", path).public
    center.close()


def test_latin_1_is_read_only_when_it_is_named(tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / "node")
    path = tmp_path / "donors.csv"
    path.write_bytes("id;sex;Größe\nD1;männlich;1\n".encode("latin-1"))
    mapping = {"exclude": ["Größe"], "columns": {"sex": {"from": "sex", "values": {"männlich": "male"}}}}
    error = refused(center, "donors", path, mapping)
    assert (error.code, "--encoding latin-1" in error.public) == ("import.encoding", True)
    assert load(center, "donors", path, mapping, encoding="latin-1").generation is not None
    assert refused(center, "donors", path, mapping, encoding="latin-99").code == "import.unreadable"
    assert center.rows("donors")[0]["sex"] == "male"
    center.close()


@pytest.mark.parametrize(("written", "mark"), [("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)])
@pytest.mark.parametrize("named", ["utf-16", "its own, marked", "its own, not marked"])
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl"])
def test_utf_16_is_read_when_it_is_named(tmp_path: Path, written: str, mark: bytes, named: str, kind: str) -> None:
    center = SmallCenter(tmp_path / "node")
    rows = 3000
    lines = ["id;sex;Größe", *(f"D{number};männlich;Ā\u0a0d\u0d0a😀" for number in range(rows))]
    if kind == "jsonl":
        lines = [f'{{"id": "D{number}", "sex": "männlich", "Größe": "\u0a0d😀"}}' for number in range(rows)]
    data = "".join(line + ("\n" if number % 2 else "\r\n") for number, line in enumerate(lines)).encode(written)
    data = data if "not" in named else mark + data
    path = tmp_path / f"donors.{kind}"
    path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    mapping = {"exclude": ["Größe"], "columns": {"sex": {"from": "sex", "values": {"männlich": "male"}}}}
    error = refused(center, "donors", path, mapping)
    assert (error.code, "--encoding utf-16" in error.public) == ("import.encoding", True)
    outcome = load(center, "donors", path, mapping, encoding="utf-16" if named == "utf-16" else written)
    assert outcome.generation is not None, outcome.problems
    assert {row["id"] for row in center.rows("donors")} == {f"D{number}" for number in range(rows)}
    center.close()


def test_utf_16_is_read_chunk_by_chunk_and_its_bad_rows_are_at_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    center = SmallCenter(tmp_path / "node")
    path = tmp_path / "donors.csv"
    path.write_bytes("id,sex\r\nD1,male\r\n😀,male\r\nD3,mâle".encode("utf-16"))
    monkeypatch.setattr(sources, "_CHUNK", 7)
    source = sources.inspect(path, FileFormat.CSV, "utf-16")
    assert sources.plain_text(source, tmp_path).read_text() == "id,sex\nD1,male\n😀,male\nD3,mâle"
    monkeypatch.undo()
    outcome = load(center, "donors", path, encoding="utf-16")
    assert outcome.report is not None
    found = [json.loads(line) for line in outcome.report.read_text(encoding="utf-8").splitlines()]
    assert [(one["line"], one["field"], one["value"]) for one in found] == [(3, "id", "😀"), (4, "sex", "mâle")]
    assert "no end" in outcome.warnings[0].reason
    center.close()


@pytest.mark.parametrize(
    ("data", "encoding", "says"),
    [
        ("id,sex\nD1,male\n".encode("utf-16"), "latin-1", "NUL bytes"),
        ("id,sex\nD1,male\n".encode("utf-16-le"), "utf-16", "does not start with BOM"),
        ("id,sex\nD1,male\n".encode("utf-16-le"), "utf-16-be", "has a column"),
        ("id,sex\nD1,male\n".encode("utf-16")[:-1], "utf-16", "cut off"),
        ("id,sex\nD1,male\n".encode("utf-16-le") + b"\x00\xd8a\x00", "utf-16-le", "not utf-16-le text"),
        (b"PK\x03\x04rest", "utf-16", "Excel"),
    ],
)
def test_a_file_of_another_encoding_than_is_named_is_refused(
    center: SmallCenter, tmp_path: Path, data: bytes, encoding: str, says: str
) -> None:
    path = tmp_path / "donors.csv"
    path.write_bytes(data)
    assert says in refused(center, "donors", path, encoding=encoding).public


def test_an_encoding_says_nothing_of_a_file_that_is_no_text(center: SmallCenter, tmp_path: Path) -> None:
    path = tmp_path / "donors.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(DONORS), path)
    assert load(center, "donors", path, encoding="utf-16", dry_run=True).rows == 2


def test_a_matrix_of_an_unfit_dataset_is_refused(center: SmallCenter, tmp_path: Path) -> None:
    path = tmp_path / "matrix.tsv"
    path.write_text("UniProt\tS1\nP04637\t1\n")
    assert refused(center, "donors", path, file_format=FileFormat.MATRIX).code == "import.unfit"


@pytest.mark.parametrize(
    ("mapping", "cells", "kept"),
    [
        ({}, ["0", "0.0", "12.5", "", " ", "NA", "NaN"], [None, None, 12.5]),
        ({"columns": {"intensity": {"from": "intensity", "decimal": ","}}}, ["0,0", "12,5", "NA"], [None, 12.5]),
        ({"missing": ["ND"]}, ["ND", " ", "", "3"], [3]),
        ({"columns": {"intensity": {"from": "intensity", "missing": ["ND", "0"]}}}, ["ND", "0", "NA", "3"], [3]),
        (
            {"columns": {"intensity": {"from": "intensity", "values": {"<LOD": "0", "?": ""}}}},
            ["<LOD", "?", "3"],
            [None, 3],
        ),
        ({"matrix": {"zero_is_not_detected": False}}, ["0", "3"], [0, 3]),
    ],
)
def test_a_matrix_sees_what_is_zero_and_what_is_missing_as_its_mapping_reads_it(
    center: SmallCenter, tmp_path: Path, mapping: dict[str, object], cells: list[str], kept: list[float | None]
) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text("UniProt;S1\n" + "".join(f"P{number:05d};{cell}\n" for number, cell in enumerate(cells)))
    outcome = load(center, "protein_abundance", path, mapping, file_format=FileFormat.MATRIX)
    assert outcome.generation is not None, outcome.problems
    found = [(row["intensity"], row["detected"]) for row in center.rows("protein_abundance")]
    assert sorted(found, key=str) == sorted(((value, value is not None) for value in kept), key=str)


def test_a_cell_of_a_matrix_that_is_no_number_is_a_bad_row(center: SmallCenter, tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    path.write_text("UniProt;S1\nP00001;0_0\nP00002;none\nP00003;1\n")
    outcome = load(center, "protein_abundance", path, file_format=FileFormat.MATRIX)
    assert [(problem.field, problem.rows) for problem in outcome.problems] == [("intensity", 2)]
