"""Policy and consent: judging profiles cold and kept, recording a million consents, opening and asking ontologies."""

from __future__ import annotations

import datetime
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from connexon.analyses.count import Count
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon.query.purpose import parse_purpose
from connexon.service import policy_files
from connexon_node.consent.cohort import CedarConsent
from connexon_node.consent.ledger import Ledger
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.ontology import DEMO, Ontologies
from connexon_node.policy.access import CedarAccess
from connexon_node.policy.store import PolicyStore, read_folder
from connexon_node.state import open_state
from tests.bench.figures import Report, timed
from tests.support.federation import new_federation

MONDO = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mondo" / "mondo_rare_isa.tsv"
PERMISSIONS = ("DUO:0000042", "DUO:0000006", "DUO:0000007=MONDO:0005180", "DUO:0000011", "DUO:0000004")
FLAGS = ("", "DUO:0000045", "DUO:0000046", "DUO:0000019", "DUO:0000015", "DUO:0000044", "DUO:0000021", "DUO:0000029")
OBTAINED = datetime.date(2026, 3, 1)


def profiles(count: int) -> Iterator[ConsentProfile]:
    """Distinct profiles that the rules can tell apart."""
    for number in range(count):
        permission = PERMISSIONS[number % len(PERMISSIONS)]
        flag = FLAGS[number // len(PERMISSIONS) % len(FLAGS)]
        project = f"DUO:0000027=study|project-{number // len(PERMISSIONS) // len(FLAGS)}"
        yield ConsentProfile.parse(permission, filter(None, (flag, project)))


def measure(report: Report, *, quick: bool) -> None:
    """All of it, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if MONDO.is_file():
            (folder / "ontologies").mkdir()
            shutil.copy2(MONDO, folder / "ontologies")
        else:
            shutil.copytree(DEMO, folder / "ontologies")
        _ontologies(report, folder / "ontologies", quick=quick)
        for count, budget in ((100, "30 ms"), (10_000, "2 s")):
            _judging(report, folder, count, budget, runs=3 if quick else 10)
        _recording(report, folder, donors=20_000 if quick else 1_000_000)


def _ontologies(report: Report, folder: Path, *, quick: bool) -> None:
    compiled = timed(lambda: _compile(folder), 1 if quick else 3, warm_up=0)
    known = Ontologies.open(folder)
    report.add("ontology: compile", compiled, note=f"{len(known)} terms")
    runs = 20 if quick else 100
    report.add("ontology: open", timed(lambda: Ontologies.open(folder), runs), budget="50 ms")

    def ask(direction: str) -> list[float]:
        seconds = []
        for _ in range(runs):
            fresh = Ontologies.open(folder)
            start = time.perf_counter()
            getattr(fresh, direction)("MONDO:0005071")
            seconds.append(time.perf_counter() - start)
        return seconds

    below = len(known.descendants("MONDO:0005071"))
    report.add("ontology: ancestors, first time", ask("ancestors"), budget="1 ms")
    report.add("ontology: descendants, first time", ask("descendants"), budget="1 ms", note=f"{below} of them")


def _compile(folder: Path) -> None:
    for index in folder.glob(".*.index"):
        index.unlink()
    Ontologies.open(folder)


def _judging(report: Report, folder: Path, count: int, budget: str, *, runs: int) -> None:
    database = open_state(f"sqlite:///{folder / f'judging-{count}.db'}")
    ledger = Ledger(database)
    ledger.record_many(
        (ConsentRecord(f"D{number}", profile, OBTAINED) for number, profile in enumerate(profiles(count))),
        by="bench",
        source="bench",
    )
    policies = PolicyStore(folder / "policies")
    policies.load(read_folder(policy_files.shipped()))
    ontologies = Ontologies.open(folder / "ontologies")
    federation = new_federation()
    asker = federation.researcher()
    purpose = parse_purpose("disease=MONDO:0008199", project="study")
    question = asker.question(["kyoto"], Count(), dataset="donors", purpose=purpose)
    asked = signed.verify_query(asker.sign(question), federation.roster(), NOTHING_REVOKED)
    access = CedarAccess(policies, DICTIONARY)
    permit = access.authorise(asked)
    report.add("access: one decision", timed(lambda: access.authorise(asked), runs * 10), note="discover and count")
    cold = timed(lambda: CedarConsent(ledger, policies, ontologies).cohort(permit), runs)
    kept = CedarConsent(ledger, policies, ontologies)
    permitted = len(kept.cohort(permit).profiles)
    note = f"{permitted} permitted; with reading the profiles"
    report.add(f"consent: {count} profiles, cold", cold, budget=budget, note=note)
    again = timed(lambda: kept.cohort(permit), runs * 10)
    report.add(f"consent: {count} profiles, kept", again, budget="1 ms" if count == 100 else "")
    database.close()


def _recording(report: Report, folder: Path, *, donors: int) -> None:
    database = open_state(f"sqlite:///{folder / 'recording.db'}")
    ledger = Ledger(database)
    names = [f"D-{(number * 2_654_435_761) % 2**32:08x}" for number in range(donors)]
    known = list(profiles(100))
    records = (ConsentRecord(name, known[number % 100], OBTAINED) for number, name in enumerate(names))
    start = time.perf_counter()
    ledger.number_donors(names)
    numbered = time.perf_counter()
    ledger.record_many(records, by="bench", source="bench")
    recorded = time.perf_counter()
    report.add(f"ledger: number {donors:,} donors", [numbered - start], budget="20 s for a million")
    report.add(f"ledger: record {donors:,} consents", [recorded - numbered], budget="60 s for a million")
    report.add("ledger: snapshot of them", timed(ledger.snapshot, 3))
    database.close()
