"""Other people's real files, imported as they are and asked; the right answers are read from the files themselves."""

from __future__ import annotations

import csv
import datetime
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.conditions.filters import Compare, Operator
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.importing import FileFormat, FileRefused, ImportOptions, ImportOutcome, Mapping, load_mapping
from connexon_node.importing.drafting import draft
from tests.support.center import SmallCenter

DATA = Path(__file__).parents[5] / "shared" / "data"
TRIAL = DATA / "cdisc_pilot01"
NEUROLINCS = DATA / "neurolincs"
MATRIX = NEUROLINCS / "LDS-1358_protein_normalized.tsv"
LUNG = DATA / "survival" / "lung.csv"


def needs(folder: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not folder.exists(), reason=f"the public data {folder.name} is not beside the project")


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("center") / "node")
    yield made
    made.close()


def rows_of(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def consent_to_all(center: SmallCenter, people: list[str]) -> None:
    center.load_rows(
        "consents",
        [
            {
                "id": f"C-{person}",
                "donor_id": person,
                "form_version": "1",
                "obtained_on": "2012-01-01",
                "status": "active",
                "scope": "research",
                "duo_permission": "DUO:0000042",
            }
            for person in people
        ],
    )


def load(center: SmallCenter, dataset: str, file: Path, mapping: str = "", **options: object) -> ImportOutcome:
    path = center.folder / "mapping.toml"
    path.write_text(mapping)
    asked = ImportOptions(by="steward", mapping=load_mapping(path), **options)  # type: ignore[arg-type]
    return center.importer.run(dataset, file, asked)


@pytest.fixture(scope="module")
def trial(center: SmallCenter) -> SmallCenter:
    """The pilot trial, as its SDTM files tell it."""
    consent_to_all(center, [row["USUBJID"] for row in rows_of(TRIAL / "dm.csv")])
    for dataset, domain in (("subjects", "dm"), ("treatments", "ex"), ("adverse_events", "ae"), ("survival", "ds")):
        outcome = load(center, dataset, TRIAL / f"{domain}.csv", file_format=FileFormat.SDTM)
        assert outcome.generation is not None, outcome.problems
    return center


def equal(field: str, value: object) -> Compare:
    return Compare(field, Operator.EQUAL, value)  # type: ignore[arg-type]


@needs(TRIAL)
def test_every_subject_event_and_treatment_of_the_trial_is_there(trial: SmallCenter) -> None:
    for dataset, domain in (("subjects", "dm"), ("adverse_events", "ae"), ("treatments", "ex")):
        assert trial.count(dataset) == len(rows_of(TRIAL / f"{domain}.csv"))


@needs(TRIAL)
def test_days_count_from_day_0_and_no_date_is_kept(trial: SmallCenter) -> None:
    zero = {row["USUBJID"]: row["RFSTDTC"] for row in rows_of(TRIAL / "dm.csv")}
    expected = Counter(
        (row["USUBJID"], row["AEDECOD"], _days(zero[row["USUBJID"]], row["AESTDTC"]))
        for row in rows_of(TRIAL / "ae.csv")
    )
    found = Counter((row["subject_id"], row["pt_text"], row["onset_day"]) for row in trial.rows("adverse_events"))
    for (subject, term, day), count in expected.items():
        if day is not None:
            assert found[subject, term, day] == count
    written = str([trial.rows(dataset) for dataset in ("subjects", "treatments", "adverse_events", "survival")])
    assert re.search(r"(19|20)\d\d-\d\d", written) is None


@needs(TRIAL)
def test_ages_sexes_and_arms_of_the_trial_are_those_of_the_file(trial: SmallCenter) -> None:
    people = rows_of(TRIAL / "dm.csv")
    rows = trial.rows("subjects")
    assert Counter(row["sex"] for row in rows) == {
        "female": sum(row["SEX"] == "F" for row in people),
        "male": sum(row["SEX"] == "M" for row in people),
    }
    low = Counter(int(row["AGE"]) // 5 * 5 for row in people)
    assert Counter(int(str(row["age_range_y"]).split("-")[0]) for row in rows) == low
    assert Counter(row["arm"] for row in rows) == Counter(row["ACTARMCD"] for row in people)
    completed = {row["USUBJID"] for row in rows_of(TRIAL / "ds.csv") if row["DSDECOD"] == "COMPLETED"}
    assert trial.count("subjects", equal("disposition", "completed")) == len(completed)


@needs(TRIAL)
def test_serious_events_and_deaths_of_the_trial_can_be_asked(trial: SmallCenter) -> None:
    events = rows_of(TRIAL / "ae.csv")
    assert trial.count("adverse_events", equal("serious", True)) == sum(row["AESER"] == "Y" for row in events)
    probable = sum(row["AEREL"] == "PROBABLE" for row in events)
    assert trial.count("adverse_events", equal("related", "probable")) == probable
    dead = {row["USUBJID"] for row in rows_of(TRIAL / "ds.csv") if row["DSDECOD"] == "DEATH"}
    treated = {row["USUBJID"] for row in rows_of(TRIAL / "dm.csv") if row["RFSTDTC"] != "NA"}
    assert trial.count("survival", equal("event", True)) == len(dead & treated) > 0
    assert trial.count("survival") == len(treated)


@needs(TRIAL)
def test_a_domain_that_the_dataset_is_not_made_of_is_refused(trial: SmallCenter) -> None:
    with pytest.raises(FileRefused) as caught:
        load(trial, "treatments", TRIAL / "ae.csv", file_format=FileFormat.SDTM)
    assert caught.value.code == "import.unfit"


@pytest.fixture(scope="module")
def lines(center: SmallCenter) -> SmallCenter:
    """The lines of NeuroLINCS with their lots, samples and proteins, from its own files."""
    samples = list(csv.reader((NEUROLINCS / "LDS-1358_sample_ids.tsv").open(), delimiter="\t"))[1:]
    donors = sorted({row[1] for row in samples if row})
    consent_to_all(center, donors)
    center.load_rows("donors", [{"id": donor, "sex": "unknown"} for donor in donors])
    kinds = {"type": "iPSC", "grade": "research"}
    center.load_rows("cell_lines", [{"id": f"L-{donor}", "donor_id": donor, **kinds} for donor in donors])
    lot = {"lot_no": "1", "bank_level": "MCB", "status": "released"}
    center.load_rows("lots", [{"id": f"B-{donor}", "cell_line_id": f"L-{donor}", **lot} for donor in donors])
    lots = "\n".join(f'"{row[0]}" = "B-{row[1]}"' for row in samples if row)
    made = f"""
        dataset = "samples"
        exclude = ["Gene_Organism", "nFragment", "nPeptide"]
        [columns.kind]
        constant = "protein"
        [columns.lot_id]
        from = "column"
        [columns.lot_id.values]
        {lots}
    """
    outcome = load(center, "samples", MATRIX, made, file_format=FileFormat.MATRIX)
    assert outcome.generation is not None, outcome.problems
    outcome = load(center, "protein_abundance", MATRIX, _drafted(MATRIX))
    assert outcome.generation is not None, outcome.problems
    return center


@needs(NEUROLINCS)
def test_a_wide_matrix_of_proteins_becomes_its_values(lines: SmallCenter) -> None:
    rows = [row for row in rows_of(MATRIX, "\t") if not row["UniProtKB"].startswith("#")]
    samples = list(rows[0])[2:-2]
    assert lines.count("samples") == len(samples) == 28
    assert lines.count("protein_abundance") == len(rows) * len(samples)
    zeros = sum(float(row[sample]) == 0 for row in rows for sample in samples)
    assert lines.count("protein_abundance", equal("detected", False)) == zeros > 0
    for row in (rows[0], rows[700]):
        found = lines.count("protein_abundance", equal("uniprot", row["UniProtKB"]))
        assert found == len(samples)
    total = sum(float(row[sample]) for row in rows for sample in samples)
    assert sum(float(str(row["intensity"] or 0)) for row in lines.rows("protein_abundance")) == pytest.approx(total)


@needs(LUNG)
def test_survival_times_of_a_table_without_ids_are_loaded_with_a_mapping(tmp_path: Path) -> None:
    patients = rows_of(LUNG)
    spare = [name for name in patients[0] if name not in ("time", "status", "age", "sex")]
    center = SmallCenter(tmp_path / "node")
    people = [f"LUNG-{number}" for number in range(1, len(patients) + 1)]
    consent_to_all(center, people)
    subjects = f"""
        exclude = {[*spare, "time", "status"]}
        [columns.id]
        numbered = true
        prefix = "LUNG-"
        [columns.person_id]
        numbered = true
        prefix = "LUNG-"
        [columns.age_range_y]
        from = "age"
        ages = true
        [columns.sex]
        from = "sex"
        values = {{ 1 = "male", 2 = "female" }}
    """
    survival = f"""
        exclude = {[*spare, "age", "sex"]}
        [columns.subject_id]
        numbered = true
        prefix = "LUNG-"
        [columns.endpoint]
        constant = "death"
        [columns.time_d]
        from = "time"
        unit = "days"
        [columns.event]
        from = "status"
    """
    assert load(center, "subjects", LUNG, subjects).generation is not None
    assert load(center, "survival", LUNG, survival).generation is not None
    assert center.count("survival", equal("event", True)) == sum(row["status"] == "1" for row in patients)
    assert sum(float(str(row["time_d"])) for row in center.rows("survival")) == sum(float(r["time"]) for r in patients)
    assert center.count("subjects", equal("age_range_y", "60-64")) == sum(60 <= int(r["age"]) < 65 for r in patients)
    assert center.count("subjects", equal("sex", "female")) == sum(row["sex"] == "2" for row in patients)
    center.close()


def _days(zero: str, moment: str) -> int | None:
    try:
        return (datetime.date.fromisoformat(moment) - datetime.date.fromisoformat(zero)).days
    except ValueError:
        return None


def _drafted(file: Path, dataset: str = "") -> str:
    return "\n".join(draft(file, DICTIONARY, dataset=dataset, mapping=Mapping(), named=None).values())
