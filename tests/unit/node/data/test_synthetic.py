from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute
import pyarrow.parquet
import pytest

from connexon.conditions import where
from connexon_node.data.dictionary import DICTIONARY, KEY, patterns
from connexon_node.data.generations import sha256_of
from connexon_node.data.synthetic import BANK, NOTICE, ORDER, SCIENCE, FileFormat, Scope, sample, write_sample
from tests.support.center import SmallCenter


@pytest.mark.parametrize("file_format", list(FileFormat))
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, file_format: FileFormat) -> None:
    digests = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        files = write_sample(tmp_path / name, center="lyon", donors=120, seed=seed, features=4, file_format=file_format)
        digests.append([sha256_of(path) for path in files.values()])
    assert digests[0] == digests[1]
    alike = [name for name, one, other in zip(files, digests[0], digests[2], strict=True) if one == other]
    assert alike == ["specifications", "specification_items", "proficiency_rounds", "trials"]


def test_two_centers_of_one_seed_are_two_centers() -> None:
    lyon, kyoto = (sample(name, 200, 1)["cell_lines"] for name in ("lyon", "kyoto"))
    for name in ("id", "hpscreg_name", "rrid"):
        shared = set(lyon[name].to_pylist()) & set(kyoto[name].to_pylist()) - {None}
        assert not shared


def test_every_identifier_says_that_it_is_simulated(tmp_path: Path) -> None:
    for name, table in sample("lyon", 300, 1, features=3).items():
        dataset = DICTIONARY.dataset(name)
        assert set(table.column_names) <= set(dataset.names)
        for field in dataset.fields:
            if field.name in table.column_names and (field.name == KEY or field.references):
                kept = table[field.name].drop_null().unique().to_pylist()
                assert all(key.startswith("SIM-") for key in kept), field
    write_sample(tmp_path, center="lyon", donors=10, seed=1)
    assert "simulated" in (tmp_path / NOTICE).read_text()


def test_a_sampled_center_imports_without_one_bad_row_or_warning(tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / "node")
    files = write_sample(
        tmp_path / "sample", center="lyon", donors=3_000, seed=5, scope=Scope.BANK, file_format=FileFormat.CSV
    )
    assert tuple(files) == BANK
    for dataset, path in files.items():
        outcome = center.load(dataset, path)
        assert (outcome.bad_rows, outcome.warnings, outcome.generation is not None) == (0, (), True)
    assert 60 <= len(center.ledger.profiles()) <= 200
    assert 0.9 < center.count("donors") / 3_000 < 0.97
    center.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    folder = tmp_path_factory.mktemp("whole")
    center = SmallCenter(folder / "node")
    files = write_sample(folder / "sample", center="lyon", donors=150, seed=5, features=20)
    assert tuple(files) == ORDER
    assert set(files) == {dataset.name for dataset in DICTIONARY.datasets}
    for dataset, path in files.items():
        outcome = center.load(dataset, path)
        assert (outcome.bad_rows, outcome.warnings, outcome.generation is not None) == (0, (), True), dataset
    yield center
    center.close()


def test_every_dataset_imports_its_sample_and_is_counted(whole: SmallCenter) -> None:
    for dataset in DICTIONARY.datasets:
        generation = whole.generations.current(dataset.name)
        assert generation is not None
        assert 0 < whole.count(dataset.name) <= generation.rows
        assert (generation.donors == 0) == (not dataset.personal)


def test_omics_lie_as_integers_sorted_by_feature(whole: SmallCenter) -> None:
    generation = whole.generations.current("expression")
    assert generation is not None
    table = pyarrow.parquet.read_table(generation.parts[0])
    assert [str(table.schema.field(name).type) for name in ("sample_id", "ensembl_id")] == ["int32", "int32"]
    assert table["ensembl_id"].to_pylist() == sorted(table["ensembl_id"].to_pylist())
    whole.generations.verify(generation)


def test_science_follows_cell_type_and_passage(whole: SmallCenter) -> None:
    def mean(text: str) -> float:
        over, of = (
            whole.count("expression", where.parse(f"gene_symbol = 'POU5F1' and {one}"))
            for one in (f"value > 5 and {text}", text)
        )
        return over / of

    assert mean("sample.cell_type_term = CL:0002248") > mean("not sample.cell_type_term = CL:0002248") + 0.3


def test_abnormalities_rise_with_passage() -> None:
    findings = sample("lyon", 2_000, 2, features=1)["karyotype_findings"]
    late = pyarrow.compute.greater(findings["passage_no"], 20)
    gains = pyarrow.compute.equal(findings["change"], "gain").cast("int64")
    shares = [pyarrow.compute.mean(gains.filter(rows)).as_py() for rows in (late, pyarrow.compute.invert(late))]
    assert shares[0] > 1.3 * shares[1]


@pytest.mark.parametrize("donors", [1, 7])
def test_the_smallest_centers_can_be_made(donors: int) -> None:
    assert tuple(sample("lyon", donors, 1, features=1)) == ORDER


def test_tables_are_coherent() -> None:
    tables = sample("lyon", 2_000, 2, scope=Scope.BANK)
    donors = {row["id"]: row for row in tables["donors"].to_pylist()}
    for line in tables["cell_lines"].to_pylist():
        assert line["disease_term"] == donors[line["donor_id"]]["primary_disease_term"]
        assert (line["type"] == "ESC") == (line["reprogramming_method"] == "not_applicable")
        assert line["gmp"] == (line["grade"] == "clinical")
        assert re.fullmatch(patterns.HPSCREG_NAME.usual, line["hpscreg_name"])
        assert len(line["hpscreg_name"]) <= 15
        assert f"{'e' if line['type'] == 'ESC' else 'i'}" == line["hpscreg_name"].split("-")[0][-4]
    passages = pyarrow.compute
    by_level = {
        level: passages.mean(tables["lots"].filter(passages.field("bank_level") == level)["passage_no"]).as_py()
        for level in ("seed", "MCB", "WCB")
    }
    assert by_level["seed"] < by_level["MCB"] < by_level["WCB"]
    for consent in tables["consents"].to_pylist():
        disease = donors[consent["donor_id"]]["primary_disease_term"]
        if consent["duo_permission"] == "DUO:0000007":
            assert f"DUO:0000007={disease}" in consent["modifiers"].split(";")
        assert (consent["withdrawn_on"] is not None) == (consent["status"] == "withdrawn")


def test_what_models_are_trained_on_can_be_made_alone(tmp_path: Path) -> None:
    whole = sample("lyon", 60, 4, features=5)
    tables = sample("lyon", 60, 4, features=5, scope=Scope.SCIENCE)
    assert tuple(tables) == SCIENCE
    assert tables["differentiation_runs"].equals(whole["differentiation_runs"])
    files = write_sample(tmp_path / "s", center="lyon", donors=60, seed=4, features=5, scope=Scope.SCIENCE)
    center = SmallCenter(tmp_path / "node")
    for dataset, file in files.items():
        outcome = center.load(dataset, file)
        assert outcome.generation is not None, outcome
    center.close()
