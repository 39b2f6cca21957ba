from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow.parquet
import pytest

from connexon_node.data.synthetic import Scope
from connexon_node.importing import FileRefused, ImportOptions, ImportOutcome
from connexon_node.importing import distinct_values as recurring_module
from tests.support.center import SmallCenter

SAMPLES = 10
FEATURES = 30
OTHER_NAME = "is not the one that other rows give the same ensembl_id"
WRONG = (
    ({"sample_id": "nobody"}, {"is no id in samples"}),
    ({"sample_id": ""}, {"is missing"}),
    ({"ensembl_id": "POU5F1"}, {"is not an Ensembl gene such as ENSG00000111640, without version"}),
    ({"gene_symbol": "ZNF9"}, {OTHER_NAME}),
    ({"gene_symbol": "ZNF\x01"}, {OTHER_NAME, "is not a gene symbol such as BCL2L1"}),
    ({"value": "1,5"}, {"is not a number such as 1.5"}),
    ({"value": "51"}, {"is more than 50"}),
    ({"unit": "counts"}, {"is none of log2TPM, log2CPM"}),
)
"""What is made wrong in one row after another, and what is said of it."""


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("center") / "node")
    made.load_sample(SAMPLES * 4, scope=Scope.SCIENCE)
    yield made
    made.close()


@pytest.fixture(params=["each row", "each value"])
def looked_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(recurring_module, "_WORTH", 0 if request.param == "each value" else 10**9)
    return str(request.param)


def measured(center: SmallCenter) -> list[dict[str, object]]:
    samples = sorted(str(row["id"]) for row in center.rows("samples"))[:SAMPLES]
    assert len(samples) == SAMPLES
    return [
        {
            "sample_id": sample,
            "ensembl_id": f"ENSG{feature:011d}",
            "gene_symbol": f"GENE{feature}",
            "value": round(feature / 7 + place, 2),
            "unit": "log2TPM",
        }
        for feature in range(FEATURES)
        for place, sample in enumerate(samples)
    ]


def imported(center: SmallCenter, rows: list[dict[str, object]], *, skip_bad: bool = False) -> ImportOutcome:
    return center.importer.run(
        "expression", center.write("expression", rows), ImportOptions(by="steward", skip_bad=skip_bad)
    )


def with_wrong(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    wrong = list(rows)
    for number, (fields, _reasons) in enumerate(WRONG):
        wrong[7 * number] = {**rows[7 * number], **fields}
    return wrong


def test_what_is_wrong_is_found_whether_each_row_or_each_value_is_looked_at(
    center: SmallCenter, looked_at: str
) -> None:
    outcome = imported(center, with_wrong(measured(center)))
    assert outcome.refused
    assert outcome.report is not None
    found: dict[tuple[int, str], set[str]] = {}
    for entry in map(json.loads, outcome.report.read_text(encoding="utf-8").splitlines()):
        found.setdefault((entry["line"], entry["field"]), set()).add(entry["reason"])
    assert found == {(7 * number + 2, next(iter(fields))): reasons for number, (fields, reasons) in enumerate(WRONG)}, (
        looked_at
    )


def test_right_rows_are_loaded_whether_each_row_or_each_value_is_looked_at(center: SmallCenter, looked_at: str) -> None:
    rows = measured(center)
    for given, skipped in ((rows, 0), (with_wrong(rows), len(WRONG))):
        outcome = imported(center, given, skip_bad=True)
        assert outcome.generation is not None, looked_at
        assert (outcome.generation.rows, outcome.bad_rows) == (len(rows) - skipped, skipped)
        kept = [row for row, other in zip(rows, given, strict=True) if row == other]
        names = {
            name: pyarrow.parquet.read_table(outcome.generation.codes_of(name)).to_pylist()
            for name in ("sample_id", "ensembl_id")
        }
        symbols = dict(zip((row["ensembl_id"] for row in kept), (row["gene_symbol"] for row in kept), strict=True))
        assert {one["value"]: one["gene_symbol"] for one in names["ensembl_id"]} == symbols
        values = {name: {one["code"]: one["value"] for one in codes} for name, codes in names.items()}
        assert sorted(
            (values["sample_id"][row["sample_id"]], values["ensembl_id"][row["ensembl_id"]], row["value"], row["unit"])
            for row in center.rows("expression")
        ) == sorted((row["sample_id"], row["ensembl_id"], row["value"], row["unit"]) for row in kept)


def test_a_name_that_recurs_stops_the_import(center: SmallCenter, looked_at: str) -> None:
    rows = measured(center)
    for row in rows[20:30]:
        row["gene_symbol"] = "Mrs Anna Smith"
    with pytest.raises(FileRefused) as caught:
        imported(center, rows)
    assert "gene_symbol holds what looks like a person's name" in caught.value.public, looked_at
