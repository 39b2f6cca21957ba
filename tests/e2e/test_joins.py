"""Questions across a center's datasets, signed, through the hub and back; the right answers come from its files."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pyarrow.parquet

import connexon
from connexon import col, has
from tests.e2e.conftest import Maker

Row = dict[str, object]


def _rows(folder: Path, dataset: str) -> list[Row]:
    rows: list[Row] = pyarrow.parquet.read_table(folder / f"{dataset}.parquet").to_pylist()
    return rows


def _consents_of_all(folder: Path) -> Path:
    """Everybody agrees to everything, later than any withdrawal: then what the files hold is what counts."""
    path = folder / "agreed.csv"
    people = [*(row["id"] for row in _rows(folder, "donors")), *(row["person_id"] for row in _rows(folder, "subjects"))]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "donor_id", "form_version", "obtained_on", "status", "scope", "duo_permission"))
        for person in people:
            writer.writerow((f"A-{person}", person, "9", "2026-01-01", "active", "both", "DUO:0000004"))
    return path


def test_a_question_across_datasets_has_the_answer_of_the_files(make_federation: Maker, tmp_path: Path) -> None:
    federation = make_federation("lyon", donors=20)
    lyon, files = federation.centers["lyon"], tmp_path / "files"
    lyon.command(
        *("sample", "--donors", "60", "--seed", "3", "--features", "5", "--center", "lyon"),
        *("--out", str(files), "--import", "--replace"),
    )
    lyon.import_file("consents", _consents_of_all(files))
    lines, lots = _rows(files, "cell_lines"), _rows(files, "lots")
    donor_of_line = {row["id"]: row["donor_id"] for row in lines}
    sex_of = {row["id"]: row["sex"] for row in _rows(files, "donors")}
    gained = {row["lot_id"] for row in _rows(files, "karyotype_findings") if row["change"] == "gain"}
    with connexon.connect(federation.researchers["ada"].home) as network:
        answer = (
            network.study(purpose="health", wait=60)
            .dataset("lots")
            .where(has("karyotype_findings", change="gain"))
            .count(by="donor.sex", unit="records", kind="granted")
        )
        expected = Counter(sex_of[donor_of_line[row["cell_line_id"]]] for row in lots if row["id"] in gained)
        assert {row["donor.sex"]: row["count"] for row in answer.rows} == expected

        answer = (
            network.study(purpose="health", wait=60)
            .dataset("lots")
            .where("has cell_line.karyotype_findings (change = 'gain')")
            .count(unit="records", kind="granted")
        )
        with_gain = {row["cell_line_id"] for row in lots if row["id"] in gained}
        assert answer.totals[0]["count"] == sum(row["cell_line_id"] in with_gain for row in lots)

        answer = (
            network.study(purpose="health", wait=60)
            .dataset("expression")
            .where(col("value") > 5, gene_symbol="POU5F1")
            .count(by="sample.cell_type_term", unit="records", kind="granted")
        )
        cell_of = {row["id"]: row["cell_type_term"] for row in _rows(files, "samples")}
        high = [
            row for row in _rows(files, "expression") if row["gene_symbol"] == "POU5F1" and float(str(row["value"])) > 5
        ]
        found = {row["sample.cell_type_term"]: row["count"] for row in answer.rows}
        assert found == Counter(cell_of[row["sample_id"]] for row in high)

        answer = network.study(purpose="health", wait=60).dataset("protocols").count(by="kind")
        assert {row["kind"]: row["count"] for row in answer.rows} == Counter(
            row["kind"] for row in _rows(files, "protocols")
        )
        assert answer.protection[answer.center("lyon").id].kind == "published"
