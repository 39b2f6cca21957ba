"""Rows that say the same twice are loaded and told; datasets with ids refuse them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from connexon_node.data.dictionary import DICTIONARY
from connexon_node.data.synthetic import Scope
from connexon_node.importing import ImportOptions, ImportOutcome, Mapping, duplicate_rows
from tests.support.center import SmallCenter

Row = dict[str, object]


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("center") / "node")
    made.load_sample(40, scope=Scope.SCIENCE)
    made.load_rows("subjects", [{"id": "T1", "person_id": "P1"}, {"id": "T2", "person_id": "P2"}])
    yield made
    made.close()


def imported(center: SmallCenter, dataset: str, rows: list[Row], *, dry_run: bool = False) -> ImportOutcome:
    options = ImportOptions(by="steward", dry_run=dry_run)
    return center.importer.run(dataset, center.write(dataset, rows), options)


def told(outcome: ImportOutcome) -> list[tuple[str, int]]:
    return [(warning.reason, warning.rows) for warning in outcome.warnings]


def outcomes() -> list[Row]:
    return [
        {"subject_id": f"T{number % 2 + 1}", "measure": "ADL", "day": number // 4, "value": number, "unit": "1"}
        for number in range(20)
    ]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_file_that_holds_itself_twice_is_told_with_its_lines(center: SmallCenter, dry_run: bool) -> None:
    assert told(imported(center, "outcomes", outcomes(), dry_run=dry_run)) == []
    outcome = imported(center, "outcomes", outcomes() * 2, dry_run=dry_run)
    assert told(outcome) == [
        (
            "rows are equal to an earlier one, such as lines 2 and 22, 3 and 23, 4 and 24: see that nothing is there "
            "twice",
            20,
        )
    ]
    if not dry_run:
        assert len(center.rows("outcomes")) == 40, "equal measurements may be right"


def test_only_rows_that_are_loaded_are_compared(center: SmallCenter) -> None:
    bad = {"subject_id": "T1", "measure": "ADL", "day": "soon", "value": 1, "unit": "1"}
    file = center.write("outcomes", [*outcomes(), bad, bad])
    outcome = center.importer.run("outcomes", file, ImportOptions(by="steward", skip_bad=True))
    assert (outcome.bad_rows, outcome.warnings) == (2, ())


@pytest.mark.parametrize(("unit", "twice"), [("log2TPM", 1), ("log2CPM", 0)])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_second_value_of_what_has_one_is_told_whatever_it_is(
    center: SmallCenter, unit: str, twice: int, dry_run: bool
) -> None:
    samples = sorted(str(row["id"]) for row in center.rows("samples"))[:5]
    rows: list[Row] = [
        {"sample_id": sample, "ensembl_id": f"ENSG{gene:011d}", "value": 1.5, "unit": "log2TPM"}
        for gene in range(10)
        for sample in samples
    ]
    other = {**rows[7], "value": 3.25, "unit": unit}
    outcome = imported(center, "expression", [*rows, other], dry_run=dry_run)
    assert [rows for _reason, rows in told(outcome)] == [1] * twice
    assert all(
        "have sample_id, ensembl_id, unit of an earlier one, such as lines 9 and 52:" in r for r, _ in told(outcome)
    )


def test_an_allele_may_come_from_both_parents_but_not_more_often(center: SmallCenter) -> None:
    lot = center.rows("lots")[0]["id"]
    center.load_rows("str_profiles", [{"id": "STR1", "lot_id": lot, "kit": "K", "measured_on": "2024-01-01"}])
    alleles: list[Row] = [{"profile_id": "STR1", "locus": "TH01", "allele": "9.3"} for _ in range(2)]
    assert told(imported(center, "str_alleles", alleles)) == []
    assert [rows for _reason, rows in told(imported(center, "str_alleles", alleles * 2))] == [2]


def test_an_id_that_is_the_number_of_a_row_tells_no_rows_apart(center: SmallCenter) -> None:
    lot = center.rows("lots")[0]["id"]
    finding = {"lot_id": lot, "method": "G-band", "change": "gain", "chrom": "20"}
    file = center.write("karyotype_findings", [finding, {**finding, "chrom": "1"}, finding])
    mapping = Mapping.model_validate({"columns": {"id": {"numbered": True, "prefix": "K"}}})
    for dry_run in (True, False):
        options = ImportOptions(by="steward", mapping=mapping, dry_run=dry_run)
        assert [rows for _reason, rows in told(center.importer.run("karyotype_findings", file, options))] == [1]


def test_neighbours_are_compared_across_pieces_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicate_rows, "_ROWS", 4)
    part = tmp_path / "part.parquet"

    def alike(features: Sequence[str | None], samples: list[int]) -> bool:
        pyarrow.parquet.write_table(pyarrow.table({"feature": features, "sample": samples}), part)
        return duplicate_rows.neighbours_alike(part, ["feature", "sample"])

    features = ["a", "a", "a", "a", "b", "b", "b", "b", "c"]
    assert not alike(features, [1, 2, 3, 4, 4, 5, 6, 7, 7])
    assert alike(features, [1, 2, 3, 3, 4, 5, 6, 7, 7])
    assert alike(["a"] * 9, [1, 2, 3, 4, 4, 5, 6, 7, 8])
    assert alike(["a", None], [1, 1]), "what is missing may be equal"
    assert not alike([], [])


def test_rows_that_may_be_the_same_lie_together_on_disk() -> None:
    once = [dataset for dataset in DICTIONARY.datasets if dataset.once]
    assert [dataset.name for dataset in once] == [
        "variants", "methylation", "protein_abundance", "expression", "survival"
    ]  # fmt: skip
    assert all(duplicate_rows.compared(dataset, Mapping(), dataset.names) == list(dataset.once) for dataset in once)
