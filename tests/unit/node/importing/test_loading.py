from __future__ import annotations

import datetime
import hashlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from connexon.errors import Conflict, NotFound, Unavailable
from connexon_node.importing import FileRefused, ImportOptions, ImportOutcome
from connexon_node.importing import staging as staging_module
from connexon_node.importing.reader.process import Reader
from tests.support.center import SmallCenter

DONOR = {"id": "D1", "sex": "female", "age_range_y": "40-44", "primary_disease_term": "MONDO:0005180"}
CONSENT = {
    "id": "C1",
    "donor_id": "D1",
    "form_version": "2",
    "obtained_on": "2024-05-01",
    "status": "active",
    "scope": "research",
    "duo_permission": "DUO:0000042",
}
LINE = {"id": "L1", "donor_id": "D1", "type": "iPSC", "grade": "research"}
LOT = {"id": "B1", "cell_line_id": "L1", "lot_no": "1", "bank_level": "MCB", "status": "released"}


@pytest.fixture
def center(tmp_path: Path) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path / "node")
    yield made
    made.close()


@pytest.fixture
def bank(center: SmallCenter) -> SmallCenter:
    """A center with one donor who consented, one line and one lot."""
    for dataset, row in (("donors", DONOR), ("consents", CONSENT), ("cell_lines", LINE), ("lots", LOT)):
        center.load_rows(dataset, [row])
    return center


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    """The same bank, shared by tests that load nothing into it."""
    made = SmallCenter(tmp_path_factory.mktemp("bank") / "node")
    for dataset, row in (("donors", DONOR), ("consents", CONSENT), ("cell_lines", LINE), ("lots", LOT)):
        made.load_rows(dataset, [row])
    yield made
    made.close()


def test_a_file_larger_than_the_memory_of_an_import_is_read(
    center: SmallCenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_module, "_MEMORY", "120MB")
    file, rows = tmp_path / "donors.csv", 24_000
    with file.open("w") as opened:
        opened.write("id,sex,age_range_y\n")
        opened.writelines(f"D{number},{'female':<7000},40-44\n" for number in range(rows))
    assert file.stat().st_size > 160_000_000
    outcome = center.importer.run("donors", file, ImportOptions(by="steward"))
    assert outcome.generation is not None
    assert outcome.generation.rows == rows


def test_too_little_memory_for_an_import_is_said(
    settled: SmallCenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_module, "_MEMORY", "2MB")
    file = tmp_path / "donors.csv"
    file.write_text("id,sex,age_range_y\n" + "".join(f"D{number},female,40-44\n" for number in range(100_000)))
    with pytest.raises(Unavailable) as caught:
        settled.importer.run("donors", file, ImportOptions(by="steward", dry_run=True))
    assert caught.value.code == "import.memory"


def test_too_little_room_for_what_does_not_fit_into_memory_is_a_full_disk(
    settled: SmallCenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = staging_module.Staging.read

    def read_with_little_room(staging: staging_module.Staging) -> None:
        staging.connection.execute("SET max_temp_directory_size = '1MB'")
        read(staging)

    monkeypatch.setattr(staging_module, "_MEMORY", "80MB")
    monkeypatch.setattr(staging_module.Staging, "read", read_with_little_room)
    file = tmp_path / "donors.csv"
    names = (hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() for number in range(600_000))
    file.write_text("id,sex,age_range_y\n" + "".join(f"{name},female,40-44\n" for name in names))
    with pytest.raises(Unavailable) as caught:
        settled.importer.run("donors", file, ImportOptions(by="steward", dry_run=True))
    assert caught.value.code == "import.disk_full"


def entries(outcome: ImportOutcome) -> list[dict[str, object]]:
    assert outcome.report is not None
    return [json.loads(line) for line in outcome.report.read_text(encoding="utf-8").splitlines()]


def refused(center: SmallCenter, dataset: str, data: bytes, name: str = "file.csv") -> FileRefused:
    path = center.folder / name
    path.write_bytes(data)
    with pytest.raises(FileRefused) as caught:
        center.load(dataset, path)
    assert center.generations.current(dataset) is None
    return caught.value


@pytest.mark.parametrize(
    ("dataset", "change", "field", "reason"),
    [
        ("donors", {"id": ""}, "id", "is missing"),
        ("donors", {"id": "anna?1"}, "id", "is not a pseudonym"),
        ("donors", {"sex": "f"}, "sex", "is none of female, male"),
        ("donors", {"sex": ""}, "sex", "is missing"),
        ("donors", {"age_range_y": "40"}, "age_range_y", "is none of 0-4"),
        ("donors", {"country_iso2": "fr"}, "country_iso2", "is not a country"),
        ("donors", {"primary_disease_term": "Parkinson"}, "primary_disease_term", "is not a term of MONDO"),
        ("donors", {"primary_disease_term": "HP:0001300"}, "primary_disease_term", "is not a term of MONDO"),
        ("donors", {"primary_disease_term": "MONDO:9999999"}, "primary_disease_term", "is not in the ontology"),
        ("donors", {"phenotype_terms": "HP:0001300;tremor"}, "phenotype_terms", "is not a term of HP"),
        ("donors", {"biosample_id": "SAM1"}, "biosample_id", "is not a BioSamples id"),
        ("consents", {"obtained_on": "01/05/2024"}, "obtained_on", "is not a date"),
        ("consents", {"obtained_on": "2023-02-29"}, "obtained_on", "is not a date"),
        ("consents", {"obtained_on": "0024-03-05"}, "obtained_on", "is before 1900-01-01: write the year"),
        ("consents", {"obtained_on": "1899-12-31"}, "obtained_on", "is before 1900-01-01"),
        ("lots", {"frozen_on": "0025-01-02"}, "frozen_on", "is before 1900-01-01"),
        ("consents", {"withdrawn_on": "2024-04-30"}, "withdrawn_on", "is before obtained_on"),
        ("consents", {"duo_permission": "DUO:0000045"}, "duo_permission", "is not a DUO permission"),
        ("consents", {"duo_permission": "DUO:0000007"}, "duo_permission", "needs the disease"),
        ("consents", {"modifiers": "DUO:0000022=ISO:UK"}, "duo_permission", "needs a country"),
        ("consents", {"modifiers": "DUO:0000025=soon"}, "duo_permission", "whole number of months"),
        ("consents", {"modifiers": "non-profit"}, "modifiers", "is not a DUO modifier"),
        ("cell_lines", {"donor_id": "D2"}, "donor_id", "is no id in donors"),
        ("cell_lines", {"parent_line_id": "L9"}, "parent_line_id", "is no id in cell_lines"),
        ("cell_lines", {"rrid": "CVCL-1234"}, "rrid", "is not a Cellosaurus accession"),
        ("cell_lines", {"hpscreg_name": "a line with a long name"}, "hpscreg_name", "is not an hPSCreg name"),
        ("cell_lines", {"gmp": "perhaps"}, "gmp", "is not true or false"),
        ("lots", {"cell_line_id": "L2"}, "cell_line_id", "is no id in cell_lines"),
        ("lots", {"passage_no": "12.5"}, "passage_no", "is not a whole number"),
        ("lots", {"passage_no": "-1"}, "passage_no", "is less than 0"),
        ("lots", {"passage_no": "501"}, "passage_no", "is more than 500"),
        ("lots", {"cells_per_vial_1e6": "1,5"}, "cells_per_vial_1e6", "is not a number"),
        ("lots", {"cells_per_vial_1e6": "nan"}, "cells_per_vial_1e6", "is not a number"),
        ("lots", {"cells_per_vial_1e6": "1_000"}, "cells_per_vial_1e6", "is not a number"),
        ("lots", {"cells_per_vial_1e6": "1e400"}, "cells_per_vial_1e6", "is not a number"),
        ("lots", {"sec_code": "DE1234"}, "sec_code", "is not a Single European Code"),
        ("lots", {"sec_code": "DE0000AB0000000000001E0000001A0120261340"}, "sec_code", "a date that exists"),
        ("lots", {"frozen_on": "2025-01-02", "expiry_on": "2025-01-01"}, "expiry_on", "is before frozen_on"),
    ],
)
def test_a_bad_value_is_reported_with_line_field_and_reason(
    settled: SmallCenter, dataset: str, change: dict[str, str], field: str, reason: str
) -> None:
    right = {"donors": DONOR, "consents": CONSENT, "cell_lines": LINE, "lots": LOT}[dataset]
    before = settled.generations.current(dataset)
    outcome = settled.load(dataset, settled.write(dataset, [right, {**right, "id": "X2", **change}]))
    assert outcome.refused
    assert outcome.bad_rows == 1
    assert [(entry["line"], entry["field"]) for entry in entries(outcome)] == [(3, field)]
    assert reason in str(entries(outcome)[0]["reason"])
    assert settled.generations.current(dataset) == before


def test_right_values_of_every_field_arrive_in_their_types(bank: SmallCenter) -> None:
    lot = {
        **LOT,
        "passage_no": "12",
        "cells_per_vial_1e6": "1.5",
        "vials_made": "40.0",
        "frozen_on": "2025-01-01",
        "expiry_on": "2035-01-01",
        "sec_code": "DE0000AB0000000000001E0000001A0120261231",
    }
    bank.load_rows("lots", [lot])
    bank.load_rows("donors", [{**DONOR, "phenotype_terms": "HP:0001337; HP:0001300;"}])
    (row,) = bank.rows("lots")
    assert (row["passage_no"], row["cells_per_vial_1e6"], row["vials_made"]) == (12, 1.5, 40)
    assert str(row["expiry_on"]) == "2035-01-01"
    assert bank.rows("donors")[0]["phenotype_terms"] == ["HP:0001300", "HP:0001337"]


def test_skip_bad_loads_the_rest_and_counts_what_it_skipped(center: SmallCenter) -> None:
    rows = [{**DONOR, "id": f"D{number}"} for number in range(10)]
    rows[4]["sex"] = rows[7]["sex"] = "?"
    outcome = center.load("donors", center.write("donors", rows), skip_bad=True)
    assert outcome.generation is not None
    assert (outcome.rows, outcome.bad_rows, outcome.generation.rows) == (10, 2, 8)
    assert {row["id"] for row in center.rows("donors")} == {f"D{n}" for n in range(10)} - {"D4", "D7"}
    assert [entry["line"] for entry in entries(outcome)] == [6, 9]


def test_every_occurrence_of_a_duplicate_key_is_bad(center: SmallCenter) -> None:
    rows = [{**DONOR, "id": key} for key in ("D1", "D2", "D1")]
    outcome = center.load("donors", center.write("donors", rows))
    assert [(entry["line"], entry["value"]) for entry in entries(outcome)] == [(2, "D1"), (4, "D1")]


def test_children_of_skipped_parents_in_the_same_file_are_skipped_with_them(bank: SmallCenter) -> None:
    lines = [LINE, {**LINE, "id": "L2", "type": "?"}, {**LINE, "id": "L3", "parent_line_id": "L2"}]
    lines.append({**LINE, "id": "L4", "parent_line_id": "L3"})
    outcome = bank.load("cell_lines", bank.write("cell_lines", lines), skip_bad=True)
    assert outcome.bad_rows == 3
    assert [row["id"] for row in bank.rows("cell_lines")] == ["L1"]


def test_malformed_records_are_reported_at_their_lines(center: SmallCenter) -> None:
    path = center.folder / "donors.csv"
    path.write_text('id,sex\nD1,male\nD2\nD3,male,40\nD4,"ma"le\nD5,female\n')
    outcome = center.load("donors", path, skip_bad=True)
    assert sorted(int(str(entry["line"])) for entry in entries(outcome)) == [3, 4, 5]
    assert {row["id"] for row in center.rows("donors")} == {"D1", "D5"}


def test_lines_are_counted_through_quoted_line_ends_and_blank_lines(bank: SmallCenter) -> None:
    path = bank.folder / "consents.csv"
    head = ",".join(CONSENT)
    rows = [{**CONSENT, "id": f"C{number}", "form_version": version} for number, version in ((1, "1"), (2, "2"))]
    bad = {**CONSENT, "id": "C3", "status": "?"}
    text = "\n".join([head, ",".join(rows[0].values()), "", ",".join(rows[1].values()), ",".join(bad.values()), ""])
    path.write_text(text.replace("C1,", '"C1\n",'))
    outcome = bank.load("consents", path)
    # Header, a record of two lines (its key holds a line end), a blank line, a right record, the bad one.
    assert [(entry["line"], entry["field"]) for entry in entries(outcome)] == [(2, "id"), (6, "status")]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_any_line_end_is_read(center: SmallCenter, ends: str) -> None:
    path = center.folder / "donors.csv"
    path.write_bytes(ends.join(["id,sex", "D1,male", "D2,female", ""]).encode())
    assert center.load("donors", path).rows == 2


def test_mixed_line_ends_are_read(center: SmallCenter) -> None:
    path = center.folder / "donors.csv"
    path.write_bytes(b"id,sex\r\nD1,male\nD2,female\rD3,male\r\n")
    assert center.load("donors", path).rows == 3
    assert [row["id"] for row in center.rows("donors")] == ["D1", "D2", "D3"]


def test_a_byte_order_mark_is_no_part_of_the_first_name(center: SmallCenter) -> None:
    path = center.folder / "donors.csv"
    path.write_bytes(b"\xef\xbb\xbfid,sex\nD1,male\n")
    assert center.load("donors", path).rows == 1


def test_semicolons_and_tabs_separate_as_well(center: SmallCenter) -> None:
    for name, data in (("a.csv", "id;sex\nD1;male\n"), ("b.tsv", "id\tsex\nD1\tmale\n")):
        path = center.folder / name
        path.write_text(data)
        assert center.load("donors", path).rows == 1


def test_a_cut_off_last_line_is_warned_of(center: SmallCenter) -> None:
    path = center.folder / "donors.csv"
    path.write_text("id,sex\nD1,male\nD2,male")
    assert "no end" in center.load("donors", path).warnings[0].reason


def test_an_unusual_registry_name_is_accepted_with_a_warning(bank: SmallCenter) -> None:
    outcome = bank.load("cell_lines", bank.write("cell_lines", [{**LINE, "hpscreg_name": "CS28iALS-n2A"}]))
    assert outcome.generation is not None
    assert [(warning.field, warning.rows) for warning in outcome.warnings] == [("hpscreg_name", 1)]
    assert not bank.load("cell_lines", bank.write("cell_lines", [{**LINE, "hpscreg_name": "UKKi023-A"}])).warnings


@pytest.mark.parametrize(
    ("data", "name", "code", "says"),
    [
        (b"", "f.csv", "import.empty", "empty"),
        (b"id,sex\nD1,m\xe4nnlich\n", "f.csv", "import.encoding", "line 2"),
        ("id,sex\nD1,male\n".encode("utf-16"), "f.csv", "import.encoding", "UTF-16"),
        ("id,sex\nD1,male\n".encode("utf-16-le"), "f.csv", "import.encoding", "UTF-16"),
        (b"id,sex\nD1,male\n\xc3", "f.csv", "import.unreadable", "cut off"),
        (b"PK\x03\x04rest", "f.csv", "import.encoding", "Excel"),
        (b"PAR1rest", "f.csv", "import.encoding", "Parquet"),
        (b"id,sex\n", "f.parquet", "import.unreadable", "Parquet"),
        (b"PAR1 broken PAR1", "f.parquet", "import.unreadable", "cannot be read"),
        (b"id,sex\nD1,male\n", "f.txt", "import.unknown_format", "--format"),
        (b"id,sexx\nD1,male\n", "f.csv", "import.columns", "Is it sex?"),
        (b"id,sex,shoe\nD1,male,4\n", "f.csv", "import.columns", "donors has: id"),
        (b"id\nD1\n", "f.csv", "import.columns", "lacks the required column sex"),
        (b"id,sex,id\nD1,male,D1\n", "f.csv", "import.columns", "twice"),
        (b"\n\n", "f.csv", "import.columns", "not a header"),
        (b"[1, 2]\n", "f.jsonl", "import.unreadable", "no JSON object"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_whole(
    center: SmallCenter, data: bytes, name: str, code: str, says: str
) -> None:
    error = refused(center, "donors", data, name)
    assert error.code == code
    assert says in error.public


def test_parquet_and_json_lines_give_the_same_rows_as_csv(center: SmallCenter) -> None:
    rows: list[dict[str, Any]] = [
        {**DONOR, "phenotype_terms": "HP:0001300;HP:0001337"},
        {**DONOR, "id": "D2", "phenotype_terms": None},
    ]
    center.load_rows("donors", rows)
    expected = center.rows("donors")
    parquet, lines = center.folder / "d.parquet", center.folder / "d.jsonl"
    listed = [{**row, "phenotype_terms": row["phenotype_terms"] and row["phenotype_terms"].split(";")} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(listed), parquet)
    lines.write_text("\n\n".join(json.dumps(row) for row in listed) + "\n")
    for path in (parquet, lines):
        assert center.load("donors", path).rows == 2
        assert center.rows("donors") == expected


def test_types_of_parquet_columns_are_taken_as_they_are(bank: SmallCenter) -> None:
    columns = {name: [value] for name, value in LOT.items()}
    table = pyarrow.table(
        {
            **columns,
            "passage_no": pyarrow.array([12.0]),
            "frozen_on": pyarrow.array([1_700_000_000 // 86_400 * 86_400], pyarrow.timestamp("s")),
        }
    )
    path = bank.folder / "lots.parquet"
    pyarrow.parquet.write_table(table, path)
    assert bank.load("lots", path).generation is not None
    assert bank.rows("lots")[0]["passage_no"] == 12
    assert str(bank.rows("lots")[0]["frozen_on"]) == "2023-11-14"


def test_broken_json_lines_are_reported_at_their_lines(center: SmallCenter) -> None:
    path = center.folder / "d.jsonl"
    path.write_text('{"id": "D1", "sex": "male"}\n\n{"id": "D2", "sex"\n[1]\n{"id": {"a": 1}, "sex": "male"}\n')
    outcome = center.load("donors", path)
    assert [entry["line"] for entry in entries(outcome)] == [3, 4, 5]
    assert (outcome.rows, outcome.bad_rows) == (4, 3)


def test_an_object_that_says_two_things_of_one_is_reported(center: SmallCenter) -> None:
    path = center.folder / "donors.jsonl"
    path.write_text('{"id": "D1", "sex": "male"}\n{"id": "D2", "sex": "male", "sex": "female"}\n')
    (entry,) = entries(center.load("donors", path))
    assert (entry["line"], entry["reason"]) == (2, "is not one whole JSON object with each key once")


def test_text_of_parquet_that_is_not_declared_as_text_is_read(center: SmallCenter) -> None:
    path = center.folder / "donors.parquet"
    table = {"id": [b"D1"], "sex": [b"male"], "phenotype_terms": ["é".encode()]}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    (entry,) = entries(center.load("donors", path))
    assert entry["value"] == "é"


def test_who_writes_na_is_asked_whether_it_is_namibia(center: SmallCenter) -> None:
    outcome = center.load_rows("donors", [{**DONOR, "country_iso2": "NA"}, {**DONOR, "id": "D2", "country_iso2": "NZ"}])
    assert [(one.field, "NA is Namibia" in one.reason, one.rows) for one in outcome.warnings] == [
        ("country_iso2", True, 1)
    ]


def test_a_line_needs_its_donors_imported_first(center: SmallCenter) -> None:
    with pytest.raises(FileRefused) as caught:
        center.load("cell_lines", center.write("cell_lines", [LINE]))
    assert caught.value.code == "import.needs_parent"


def test_an_unknown_dataset_is_not_offered(center: SmallCenter) -> None:
    with pytest.raises(NotFound):
        center.load("spaceships", center.write("spaceships", [LINE]))


def test_a_file_that_changes_while_it_is_read_is_refused(center: SmallCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    path = center.write("donors", [DONOR])
    stage = Reader.stage

    def stage_then_change(*arguments: Any, **options: Any) -> object:
        staged = stage(*arguments, **options)
        with path.open("a") as file:
            file.write("D2,female,,\n")
        return staged

    monkeypatch.setattr(Reader, "stage", stage_then_change)
    with pytest.raises(FileRefused) as caught:
        center.load("donors", path)
    assert caught.value.code == "import.changed"
    assert center.generations.current("donors") is None


@pytest.mark.parametrize("rows", ["", "D2,?\n"])
def test_a_file_without_a_row_to_load_replaces_nothing_unless_told(center: SmallCenter, rows: str) -> None:
    path = center.folder / "empty.csv"
    path.write_text(f"id,sex\n{rows}")
    assert center.importer.run("donors", path, ImportOptions(by="steward", skip_bad=True)).generation is not None
    center.load_rows("donors", [DONOR])
    for dry_run in (True, False):
        with pytest.raises(Conflict) as caught:
            center.importer.run("donors", path, ImportOptions(by="steward", skip_bad=True, dry_run=dry_run))
        assert (caught.value.code, "--allow-empty" in caught.value.public) == ("import.no_rows", True)
    assert len(center.rows("donors")) == 1
    center.importer.run("donors", path, ImportOptions(by="steward", skip_bad=True, allow_empty=True))
    assert center.rows("donors") == []


PEOPLE = [
    "Anna Smith",
    "Smith_Anna",
    "Mueller/Hans/1970",
    "P1 Anna-Maria Smith",
    "1970-01-31",
    "31.01.1970",
    "01/31/1970",
]


@pytest.mark.parametrize("name", [*PEOPLE, "Smith, Anna"])
def test_what_names_a_person_is_no_pseudonym(settled: SmallCenter, name: str) -> None:
    for dataset, row in (
        ("donors", {**DONOR, "id": name}),
        ("consents", {**CONSENT, "donor_id": name}),
        ("subjects", {"id": name, "person_id": "D1"}),
        ("subjects", {"id": "P1", "person_id": name}),
    ):
        with pytest.raises(FileRefused) as caught:
            settled.load(dataset, settled.write(dataset, [row]))
        assert (caught.value.code, "pseudonym" in caught.value.public) == ("import.identifying", True)


def test_ordinary_pseudonyms_are_taken(settled: SmallCenter) -> None:
    names = ["KY-0001", "Donor 12", "H9", "UKKi023-A", "LUNG-12", "01-701-1015", "CDISC01/701/1015", "1970", "P1_AB"]
    rows = [{**DONOR, "id": name} for name in names]
    options = ImportOptions(by="steward", dry_run=True, retire_dependents=True)
    assert settled.importer.run("donors", settled.write("donors", rows), options).bad_rows == 0


def test_the_name_of_a_line_may_be_words(settled: SmallCenter) -> None:
    rows = [{**LINE, "id": "Lyon Alpha"}, {**LINE, "id": "2024-05-01"}]
    options = ImportOptions(by="steward", dry_run=True, retire_dependents=True)
    assert settled.importer.run("cell_lines", settled.write("cell_lines", rows), options).bad_rows == 0


def test_the_report_is_for_its_owner_only(center: SmallCenter) -> None:
    outcome = center.load("donors", center.write("donors", [{**DONOR, "sex": "?"}]))
    assert outcome.report is not None
    assert outcome.report.parent == center.folder
    assert stat.S_IMODE(outcome.report.stat().st_mode) == 0o600


def test_a_dry_run_checks_and_loads_nothing(center: SmallCenter) -> None:
    options = ImportOptions(by="steward", dry_run=True)
    outcome = center.importer.run("donors", center.write("donors", [DONOR]), options)
    assert (outcome.rows, outcome.bad_rows, outcome.generation) == (1, 0, None)
    assert center.generations.current("donors") is None


def test_a_line_given_to_another_donor_does_not_leave_its_lots_with_the_first(bank: SmallCenter) -> None:
    bank.load_rows("donors", [DONOR, {**DONOR, "id": "D2"}])
    moved = bank.write("cell_lines", [{**LINE, "donor_id": "D2"}])
    with pytest.raises(Conflict) as caught:
        bank.load("cell_lines", moved)
    assert caught.value.code == "import.dependents"
    assert bank.rows("cell_lines")[0]["donor_id"] == "D1"
    assert bank.load("cell_lines", moved, retire=True).retired == ("lots",)
    with pytest.raises(NotFound):
        bank.count("lots")
    bank.load_rows("lots", [LOT])
    assert bank.rows("lots")[0]["_donor"] == bank.rows("cell_lines")[0]["_donor"] == 2


def test_donors_left_out_of_a_new_file_retire_what_hangs_on_them(bank: SmallCenter) -> None:
    assert bank.load("donors", bank.write("donors", [{**DONOR, "id": "D2"}]), retire=True).retired == (
        "cell_lines",
        "lots",
    )


@pytest.mark.parametrize(("dataset", "row"), [("donors", DONOR), ("cell_lines", LINE)])
def test_a_dry_run_says_no_where_the_import_does(bank: SmallCenter, dataset: str, row: dict[str, object]) -> None:
    file = bank.write(dataset, [{**row, "id": "new"}])
    with pytest.raises(Conflict) as caught:
        bank.load(dataset, file)
    with pytest.raises(Conflict) as foreseen:
        bank.importer.run(dataset, file, ImportOptions(by="steward", dry_run=True))
    assert (foreseen.value.code, foreseen.value.public) == ("import.dependents", caught.value.public)
    agreed = ImportOptions(by="steward", dry_run=True, retire_dependents=True)
    assert bank.importer.run(dataset, file, agreed).retired == bank.load(dataset, file, retire=True).retired


def test_a_dry_run_says_yes_where_the_import_does_and_numbers_no_donors(bank: SmallCenter) -> None:
    options = ImportOptions(by="steward", dry_run=True)
    for dataset, rows in (("donors", [DONOR, {**DONOR, "id": "D2"}]), ("cell_lines", [LINE])):
        assert bank.importer.run(dataset, bank.write(dataset, rows), options).retired == ()
    with pytest.raises(NotFound):
        bank.ledger.standing("D2")


def test_consents_may_come_before_their_donors(center: SmallCenter) -> None:
    center.load_rows("consents", [CONSENT])
    center.load_rows("donors", [DONOR])
    assert center.count("donors") == 1


def test_importing_an_old_consents_file_does_not_undo_a_withdrawal(bank: SmallCenter) -> None:
    withdrawn = {**CONSENT, "status": "withdrawn", "withdrawn_on": "2025-01-01"}
    bank.load_rows("consents", [withdrawn])
    assert bank.count("donors") == 0
    bank.load_rows("consents", [CONSENT])
    assert bank.count("donors") == 0
    bank.load_rows("consents", [{**CONSENT, "id": "C2", "obtained_on": "2025-06-01"}])
    assert bank.count("donors") == 1


def test_a_consent_that_is_not_signed_yet_is_no_consent(bank: SmallCenter) -> None:
    """A mistyped year would outlive every true form, and every withdrawal."""
    today = datetime.datetime.now(datetime.UTC).date()
    for days, bad in ((1, 0), (2, 1)):
        later = (today + datetime.timedelta(days=days)).isoformat()
        outcome = bank.load("consents", bank.write("consents", [{**CONSENT, "obtained_on": later}]))
        assert [(one.field, one.rows) for one in outcome.problems] == [("obtained_on", 1)] * bad


@pytest.mark.parametrize(
    "change",
    [
        {"status": "withdrawn"},
        {"status": "expired"},
        {"withdrawn_on": "2025-01-01"},
        {"expires_on": "2025-01-01"},
        {"duo_permission": ""},
    ],
)
def test_a_consent_that_is_not_in_force_permits_nobody(bank: SmallCenter, change: dict[str, str]) -> None:
    bank.load_rows("donors", [{**DONOR, "id": "D9"}], retire=True)
    bank.load_rows("consents", [{**CONSENT, "id": "C9", "donor_id": "D9", **change}])
    permitted = {number for number, profile in bank.ledger.profiles().items() if profile.permission}
    assert bank.count("donors", cohort=bank.cohort(frozenset(permitted))) == 0


def test_a_full_disk_is_said_and_the_data_in_force_goes_on_serving(
    bank: SmallCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("connexon_node.data.generations._sync", full)
    with pytest.raises(Unavailable) as caught:
        bank.load("donors", bank.write("donors", [DONOR, {**DONOR, "id": "D2"}]))
    assert caught.value.code == "import.disk_full"
    assert bank.count("donors") == 1
    monkeypatch.undo()
    assert bank.load_rows("donors", [DONOR, {**DONOR, "id": "D2"}]).rows == 2
