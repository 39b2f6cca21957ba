"""Files that were read wrongly, in silence or with an error of Python: each stands for its kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest

from connexon.errors import InvalidQuery
from connexon_node.consent.drafts import read_flags
from connexon_node.data.dictionary import patterns
from connexon_node.importing import FileRefused, ImportOptions, ImportOutcome, Mapping
from tests.support.center import SmallCenter

CSQ = "Allele|Consequence|IMPACT|SYMBOL|HGVSc|HGVSp"
NEIGHBOUR = "T|upstream_gene_variant|MODIFIER|WRAP53||"
OWN = "T|missense_variant|MODERATE|TP53|ENST00000269305.9:c.524G>A|ENSP00000269305.4:p.Arg175His"


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("bank") / "node")
    made.load_rows("donors", [{"id": "D1", "sex": "female"}])
    made.load_rows("cell_lines", [{"id": "L1", "donor_id": "D1", "type": "iPSC", "grade": "research"}])
    made.load_rows(
        "lots", [{"id": "B1", "cell_line_id": "L1", "lot_no": "1", "bank_level": "MCB", "status": "released"}]
    )
    made.load_rows("samples", [{"id": "S1", "lot_id": "B1", "kind": "dna"}])
    yield made
    made.close()


def load(center: SmallCenter, dataset: str, file: Path, **mapping: object) -> ImportOutcome:
    options = ImportOptions(
        by="steward", dry_run=True, retire_dependents=True, allow_empty=True, mapping=Mapping.model_validate(mapping)
    )
    return center.importer.run(dataset, file, options)


def vcf(path: Path, call: str, *, info: str = ".", header: tuple[str, ...] = (), alt: str = "T") -> Path:
    fmt, _, value = call.partition(" ")
    lines = ["##fileformat=VCFv4.2", "##reference=GRCh38", "##contig=<ID=chr17>", *header]
    lines += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="G">']
    lines += ["\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "S1"])]
    lines += ["\t".join(["chr17", "7675088", ".", "C", alt, "50", "PASS", info, fmt, value])]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("marks", "entries"),
    [("", [NEIGHBOUR, OWN]), ("|PICK", [f"{NEIGHBOUR}|", f"{OWN}|1"]), ("|CANONICAL", [f"{NEIGHBOUR}|YES", f"{OWN}|"])],
)
def test_a_variant_is_of_its_own_gene_and_not_of_a_neighbour(
    center: SmallCenter, tmp_path: Path, marks: str, entries: list[str]
) -> None:
    told = f'##INFO=<ID=CSQ,Number=.,Type=String,Description="VEP. Format: {CSQ}{marks}">'
    outcome = load(
        center, "variants", vcf(tmp_path / "a.vcf", "GT 0/1", info=f"CSQ={','.join(entries)}", header=(told,))
    )
    assert outcome.preview[0]["gene"] == "TP53"
    assert outcome.preview[0]["hgvs_p"] == "ENSP00000269305.4:p.Arg175His"
    assert any("marks none" in one.reason for one in outcome.warnings) == (not marks)


@pytest.mark.parametrize(
    ("numbers", "call", "share"),
    [
        ({"AD": "R", "DP": "1"}, "GT:AD:DP 0/1:20,10:40", "0.25"),
        ({"AD": "R"}, "GT:AD 0/1:30,10", "0.25"),
        ({"AD": "2", "AF": "A"}, "GT:AD:AF 0/1:5,3:0.04", "0.04"),
        ({"AD": "1", "RD": "1", "FREQ": "1"}, "GT:AD:RD:FREQ 0/1:20:30:40%", "0.4"),
        ({"AO": "A", "RO": "1"}, "GT:AO:RO 0/1:20:30", "0.4"),
        ({"AD": "1"}, "GT:AD 0/1:20", None),
    ],
)
def test_the_header_says_what_the_share_of_reads_is(
    center: SmallCenter, tmp_path: Path, numbers: dict[str, str], call: str, share: str | None
) -> None:
    header = tuple(f'##FORMAT=<ID={name},Number={n},Type=String,Description="d">' for name, n in numbers.items())
    outcome = load(center, "variants", vcf(tmp_path / "a.vcf", call, header=header))
    assert outcome.preview[0].get("vaf") == share
    assert any("have no vaf" in one.reason for one in outcome.warnings) == (share is None)


def test_breakends_are_left_out_and_counted(center: SmallCenter, tmp_path: Path) -> None:
    outcome = load(center, "variants", vcf(tmp_path / "a.vcf", "GT 0/1", alt="C]chr1:198982]"))
    assert outcome.rows == 0
    assert [(one.reason, one.rows) for one in outcome.warnings] == [
        ("alleles were left out: they are breakends (BND)", 1)
    ]


@pytest.mark.parametrize("karyotype", ["47,XX,+8[5]/48,sl,+12[3]/46,XX[12]", "46,XX,i(20)(q10)[cp20]", "69<3n>,XXX",
                                       "46,XX.arr(1-22,X)x2", "46,XX//46,XY[20]", "rsa(13,18,21,X)x2"])  # fmt: skip
def test_karyotypes_of_real_reports_have_the_form(karyotype: str) -> None:
    import re

    assert re.fullmatch(patterns.ISCN.pattern, karyotype)
    assert not any(re.fullmatch(patterns.ISCN.pattern, wrong) for wrong in ("46, XX", "46XX", "normal"))


def test_a_cell_with_an_error_is_no_value(center: SmallCenter, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["id", "cell_line_id", "lot_no", "bank_level", "status"])
    book.active.append(["B2", "L1", "#REF!", "MCB", "released"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(FileRefused) as caught:
        load(center, "lots", tmp_path / "a.xlsx")
    assert (caught.value.code, "C2 (#REF!)" in caught.value.public) == ("import.error_cells", True)


def test_an_object_is_no_value(center: SmallCenter, tmp_path: Path) -> None:
    row = {"id": "B2", "cell_line_id": "L1", "lot_no": {"a": 1}, "bank_level": "MCB", "status": "released"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    outcome = load(center, "lots", tmp_path / "a.jsonl")
    assert [(one.reason, one.rows) for one in outcome.problems] == [("holds an object and no value in 'lot_no'", 1)]


@pytest.mark.parametrize(
    "content",
    ["sep=;\nid;sex\nD1;male\n", "id,sex,\nD1,male,\n,,\n", ",id,sex\n1,D1,male\n", "Export\n\nid,sex\nD1,male\n"],
)
def test_what_stands_around_a_table_is_not_of_it(center: SmallCenter, tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    mapping: dict[str, object] = {"exclude": [""]} if content.startswith(",") else {}
    mapping |= {"header_row": 3} if content.startswith("Export") else {}
    outcome = load(center, "donors", tmp_path / "a.csv", **mapping)
    assert (outcome.rows, outcome.bad_rows, outcome.preview) == (1, 0, ({"id": "D1", "sex": "male"},))


def test_a_bad_row_below_a_title_is_told_by_its_line(center: SmallCenter, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Export\nid,sex\nD1,male\nD2,x\n")
    outcome = load(center, "donors", tmp_path / "a.csv", header_row=2)
    assert outcome.report is not None
    assert json.loads(outcome.report.read_text().splitlines()[0])["line"] == 4


@pytest.mark.parametrize(("encoding", "read"), [("utf-8", True), ("utf-16", True), ("cp1252", False)])
def test_consent_flags_are_read_as_tables_are(tmp_path: Path, encoding: str, read: bool) -> None:
    (tmp_path / "a.csv").write_bytes("donor_id;donor_consent;remark\nD1;yes;Décès\n".encode(encoding))
    if read:
        assert dict(next(iter(read_flags(tmp_path / "a.csv")))[1])["donor_id"] == "D1"
    else:
        with pytest.raises(InvalidQuery, match="not UTF-8"):
            list(read_flags(tmp_path / "a.csv"))
