"""Real clinical files (an SDTM pilot trial, a table of survival times) at two centers; right answers are the files'."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import connexon
from connexon.client.center_answer import Status
from deploy.local.federation import LocalFederation
from tests.support.in_process import commands_in_process

EXACT = {"minimum_donors": 1, "round_to": 1}
SEXES = {"F": "female", "M": "male", "1": "male", "2": "female"}
LUNG_SUBJECTS = """
exclude = {left_out}
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
LUNG_SURVIVAL = """
exclude = {left_out}
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
Row = dict[str, str]


def _rows(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


class Trials:
    """The files as they lie there, and the network that has them at its centers pilot and lung."""

    def __init__(self, data: Path, federation: LocalFederation, network: connexon.Network) -> None:
        self.federation = federation
        self.network = network
        pilot = data / "cdisc_pilot01"
        self.people, self.events, self.ends = (_rows(pilot / f"{name}.csv") for name in ("dm", "ae", "ds"))
        self.patients = _rows(data / "survival" / "lung.csv")
        self.sex_of = {row["USUBJID"]: SEXES[row["SEX"]] for row in self.people}

    def counts(self, dataset: str, *, where: str = "", by: str = "") -> dict[tuple[str, object], int]:
        """Records by center and group. Trials are restricted: a steward who sees the question first approves it."""
        asked = self.network.study(purpose="health", project="trials", wait=60).dataset(dataset)
        answer = (asked.where(where) if where else asked).count(by=(by,) if by else (), unit="records", kind="granted")
        for part in answer.centers:
            if part.status is Status.AWAITING_STEWARD:
                self.federation.centers[part.id].command("approve", answer.query_id, "--scope", "project")
        answer = answer.wait(60)
        assert answer.complete, [(part.id, part.status, part.message) for part in answer.centers]
        return {(row["center"], row.get(by)): row["count"] for row in answer.rows}


@pytest.fixture(scope="module")
def trials(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with LocalFederation(tmp_path_factory.mktemp("trials")) as federation:
        with commands_in_process():
            federation.make_hub()
            for name in ("pilot", "lung"):
                federation.join_center(name).set("release", **EXACT)
            _import_pilot(federation, shared_data / "cdisc_pilot01")
            _import_lung(federation, shared_data / "survival" / "lung.csv")
            federation.sign_roster()
            federation.start()
            ada = federation.accredit("ada", home="pilot")
            federation.grant_exact(ada, project="trials")
        with connexon.connect(ada.home) as network:
            yield Trials(shared_data, federation, network)


def _import_pilot(federation: LocalFederation, files: Path) -> None:
    pilot = federation.centers["pilot"]
    people = [row["USUBJID"] for row in _rows(files / "dm.csv")]
    pilot.import_file("consents", _consents(federation.folder / "pilot-consents.csv", people))
    for dataset, domain in (("subjects", "dm"), ("treatments", "ex"), ("adverse_events", "ae"), ("survival", "ds")):
        pilot.import_file(dataset, files / f"{domain}.csv", "--format", "sdtm")


def _import_lung(federation: LocalFederation, file: Path) -> None:
    lung, patients = federation.centers["lung"], _rows(file)
    people = [f"LUNG-{number}" for number in range(1, len(patients) + 1)]
    lung.import_file("consents", _consents(federation.folder / "lung-consents.csv", people))
    for dataset, mapping, used in (
        ("subjects", LUNG_SUBJECTS, {"age", "sex"}),
        ("survival", LUNG_SURVIVAL, {"time", "status"}),
    ):
        path = federation.folder / f"lung-{dataset}.toml"
        path.write_text(mapping.format(left_out=json.dumps(sorted(set(patients[0]) - used))))
        lung.import_file(dataset, file, "--mapping", str(path))


def _consents(path: Path, people: Iterable[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "donor_id", "form_version", "obtained_on", "status", "scope", "duo_permission"))
        for person in people:
            writer.writerow((f"C-{person}", person, "1", "2012-01-01", "active", "research", "DUO:0000006"))
    return path


def test_subjects_of_two_trials_are_counted_together(trials: Trials) -> None:
    expected = Counter(("pilot", SEXES[row["SEX"]]) for row in trials.people)
    expected += Counter(("lung", SEXES[row["sex"]]) for row in trials.patients)
    assert trials.counts("subjects", by="sex") == expected


def test_serious_events_are_counted_by_who_had_them(trials: Trials) -> None:
    serious = [row["USUBJID"] for row in trials.events if row["AESER"] == "Y"]
    by_sex = Counter(("pilot", trials.sex_of[subject]) for subject in serious)
    assert trials.counts("adverse_events", where="serious = true", by="subject.sex") == by_sex
    subjects = trials.counts("subjects", where="has adverse_events (serious = true)")
    assert subjects == {("pilot", None): len(set(serious))}


def test_survival_at_both_centers_is_that_of_the_files(trials: Trials) -> None:
    treated = {row["USUBJID"] for row in trials.people if row["RFSTDTC"] != "NA"}
    dead = {row["USUBJID"] for row in trials.ends if row["DSDECOD"] == "DEATH"} & treated
    expected = Counter({("pilot", True): len(dead), ("pilot", False): len(treated - dead)})
    expected += Counter(("lung", row["status"] == "1") for row in trials.patients)
    assert trials.counts("survival", by="event") == expected
    longer = sum(float(row["time"]) > 365 for row in trials.patients)
    assert trials.counts("survival", where="time_d > 365")["lung", None] == longer


def test_a_withdrawn_subject_leaves_every_dataset_of_the_trial(trials: Trials) -> None:
    subject = next(row["USUBJID"] for row in trials.events if row["AESER"] == "Y")
    trials.federation.centers["pilot"].command("consent", "withdraw", subject)
    assert trials.counts("subjects")["pilot", None] == len(trials.people) - 1
    left = sum(row["USUBJID"] != subject for row in trials.events)
    assert trials.counts("adverse_events") == {("pilot", None): left}
