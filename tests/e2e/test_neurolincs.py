"""Real cell lines (NeuroLINCS, 28 samples of human iPSC lines) at three centers; right answers come from the file."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import pytest
from sklearn.linear_model import LogisticRegression

import connexon
from connexon.client.training.run import RunState
from connexon.learning.recipe import FeatureSet, LocalWork, Multinomial
from connexon.query.recipes import file as recipe_file
from deploy.local.federation import LocalFederation
from tests.support.in_process import commands_in_process

CENTERS = ("cedars", "irvine", "boston")
DISEASES = {"ALS": "MONDO:0004976", "SMA": "MONDO:0001516", "CTR": None}
NEUROLOGICAL = "MONDO:0005071"
MINIMUM = 1
"""Exact counts are what the file gives: with three or four donors at a center, two suffice to hide everything."""
RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
MATRIX = "LDS-1358_protein_normalized.tsv"


@dataclass(frozen=True)
class Sample:
    """One line of the file."""

    label: str
    donor: str
    disease: str | None
    passage: int
    center: str


def _samples(file: Path) -> list[Sample]:
    rows = [line.split("\t") for line in file.read_text().splitlines()[1:] if line.strip()]
    donors = sorted({row[1] for row in rows})
    return [
        Sample(
            label=row[0],
            donor=row[1],
            disease=DISEASES[row[1][-3:]],
            passage=int(re.search(r"P(\d+)", row[0])[1]),  # type: ignore[index]  # every label has it
            center=CENTERS[donors.index(row[1]) % 3],
        )
        for row in rows
    ]


def _write(folder: Path, name: str, rows: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _import(federation: LocalFederation, name: str, samples: list[Sample], shared: Path) -> None:
    center, folder = federation.centers[name], federation.folder / "files" / name
    donors = {sample.donor: sample.disease for sample in samples}
    tables: dict[str, list[dict[str, object]]] = {
        "donors": [
            {"id": donor, "sex": "unknown", "primary_disease_term": disease or ""} for donor, disease in donors.items()
        ],
        "consents": [
            {
                "id": f"consent-{donor}",
                "donor_id": donor,
                "form_version": "2014-1",
                "obtained_on": "2014-01-10",
                "status": "active",
                "scope": "research",
                "duo_permission": "DUO:0000006",
            }
            for donor in donors
        ],
        "cell_lines": [
            {
                "id": _line(sample),
                "donor_id": sample.donor,
                "type": "iPSC",
                "grade": "research",
                "disease_term": sample.disease or "",
            }
            for sample in samples
        ],
        "lots": [
            {
                "id": f"lot-{_line(sample)}",
                "cell_line_id": _line(sample),
                "lot_no": sample.label,
                "bank_level": "WCB",
                "passage_no": sample.passage,
                "status": "released",
            }
            for sample in samples
        ],
    }
    center.command("ontology", "add", str(shared / "mondo" / "mondo_rare_isa.tsv"))
    for dataset, rows in tables.items():
        center.import_file(dataset, _write(folder, dataset, rows))
    matrix = shared / "neurolincs" / MATRIX
    for dataset, columns in (("samples", _LOTS), ("protein_abundance", "")):
        mapping = folder / f"{dataset}.toml"
        mapping.write_text(_mapping(dataset, matrix, {sample.label for sample in samples}) + columns)
        center.import_file(dataset, matrix, "--mapping", str(mapping))


_LOTS = """
[columns.id]
from = "id"
[columns.kind]
constant = "protein"
[columns.lot_id]
from = "id"
prefix = "lot-"
"""


def _mapping(dataset: str, matrix: Path, labels: set[str]) -> str:
    """How the columns of this center's samples become its samples; those of others are left out."""
    header = matrix.read_text().split("\n", 1)[0].split("\t")
    left_out = [name for name in header[1:] if name not in labels]
    samples = "\n".join(f"{json.dumps(label)} = {json.dumps(_line_of(label))}" for label in sorted(labels))
    return f'dataset = "{dataset}"\nformat = "matrix"\nexclude = {json.dumps(left_out)}\n[matrix.samples]\n{samples}\n'


def _line(sample: Sample) -> str:
    return _line_of(sample.label)


def _line_of(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", label)


@dataclass(frozen=True)
class Loaded:
    """The federation with the file's samples in it."""

    federation: LocalFederation
    network: connexon.Network
    samples: list[Sample]


@pytest.fixture(scope="module")
def loaded(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    samples = _samples(shared_data / "neurolincs" / "LDS-1358_sample_ids.tsv")
    assert len(samples) == 28
    with LocalFederation(tmp_path_factory.mktemp("neurolincs")) as federation:
        with commands_in_process():
            federation.make_hub()
            for name in CENTERS:
                center = federation.join_center(name)
                center.set("release", minimum_donors=MINIMUM, round_to=1)
                center.set("training", minimum_donors=MINIMUM)
                mine = [sample for sample in samples if sample.center == name]
                _import(federation, name, mine, shared_data)
            federation.sign_roster()
            federation.start()
            ada = federation.accredit("ada", home="cedars")
            federation.grant_exact(ada)
            federation.grant_exact(ada, training=True)
            for name in CENTERS:
                federation.centers[name].command("edition", "open")
        with connexon.connect(ada.home) as network:
            yield Loaded(federation, network, samples)


def _expected(samples: list[Sample], key: str = "disease") -> dict[tuple[str, object], int]:
    """Records by center and group, groups of too few donors left out."""
    records: Counter[tuple[str, object]] = Counter()
    donors: dict[tuple[str, object], set[str]] = {}
    for sample in samples:
        group = (sample.center, getattr(sample, key) if key else None)
        records[group] += 1
        donors.setdefault(group, set()).add(sample.donor)
    return {group: count for group, count in records.items() if len(donors[group]) >= MINIMUM}


def _records(loaded: Loaded, dataset: str, *where: str, by: str = "", purpose: str = "health") -> connexon.Answer:
    asked = loaded.network.study(purpose=purpose, wait=30).dataset(dataset).where(*where)
    return asked.count(by=(by,) if by else (), unit="records", kind="granted")


def _found(answer: connexon.Answer, field: str) -> dict[tuple[str, object], int]:
    assert answer.complete
    return {(row["center"], row.get(field)): row["count"] for row in answer.rows}


def test_lines_by_disease_are_those_of_the_file(loaded: Loaded) -> None:
    answer = _records(loaded, "cell_lines", by="disease_term")
    expected = _expected(loaded.samples)
    assert expected, "the file gives groups large enough to be shown"
    assert _found(answer, "disease_term") == expected


def test_lines_under_a_broader_disease_are_those_of_its_descendants(loaded: Loaded) -> None:
    under = f"disease_term under {NEUROLOGICAL}"
    answer = _records(loaded, "cell_lines", under, purpose=f"disease={NEUROLOGICAL}")
    diseased = [sample for sample in loaded.samples if sample.disease]
    assert _found(answer, "") == _expected(diseased, key="")


def test_lots_by_passage_are_those_of_the_file(loaded: Loaded) -> None:
    answer = _records(loaded, "lots", "passage_no between 26 and 27", by="passage_no")
    chosen = [sample for sample in loaded.samples if 26 <= sample.passage <= 27]
    assert _found(answer, "passage_no") == _expected(chosen, key="passage")


def test_proteins_found_are_those_of_the_matrix(loaded: Loaded, shared_data: Path) -> None:
    with (shared_data / "neurolincs" / MATRIX).open(newline="") as file:
        proteins = [row for row in csv.DictReader(file, delimiter="\t") if not row["UniProtKB"].startswith("#")]
    expected = Counter((sample.center, float(row[sample.label]) > 0) for row in proteins for sample in loaded.samples)
    answer = _records(loaded, "protein_abundance", by="detected")
    assert _found(answer, "detected") == expected


def test_ancestry_research_reaches_nobody_who_consented_to_health_research(loaded: Loaded) -> None:
    answer = _records(loaded, "cell_lines", purpose="ancestry")
    assert {center.status.value for center in answer.centers} == {"suppressed"}
    assert {center.code for center in answer.centers} == {"release.too_few_donors"}


def test_disease_status_is_told_from_proteins_as_the_pooled_samples_would(loaded: Loaded, shared_data: Path) -> None:
    file = recipe_file.load(RECIPES / "disease-status.yaml")
    run = loaded.network.train(
        replace(file, recipe=replace(file.recipe, model=Multinomial(LocalWork(0.5), 0.1), rounds=25)), wait=120
    )
    assert run.state is RunState.FINISHED, str(run)
    proteins = _intensities(shared_data / "neurolincs" / MATRIX, loaded.samples)
    feature = file.recipe.features[0]
    assert isinstance(feature, FeatureSet)
    columns = {key: [proteins[sample.label].get(key) for sample in loaded.samples] for key in feature.keys}
    found = run.model.predict(columns)
    assert found.shape == (28, 3)
    log2 = numpy.log2(1 + numpy.array([columns[key] for key in feature.keys], dtype=float).T)
    means = numpy.nanmean(log2, axis=0)
    inputs = numpy.nan_to_num((log2 - means) / numpy.nanstd(log2, axis=0))
    status = numpy.array([["CTR", "ALS", "SMA"].index(sample.donor[-3:]) for sample in loaded.samples])
    reference = LogisticRegression(C=1 / (0.1 * 28), tol=1e-10, max_iter=1000).fit(inputs, status)
    # Twenty-five steps of gradient descent, and means told by the centers that have enough donors for it.
    assert found == pytest.approx(reference.predict_proba(inputs), abs=0.1)
    assert (found.argmax(axis=1) == status).mean() >= (reference.predict(inputs) == status).mean() - 0.08
    assert run.metrics["accuracy"] == pytest.approx((found.argmax(axis=1) == status).mean(), abs=1e-6)


def test_a_withdrawn_donor_disappears_from_the_next_count(loaded: Loaded) -> None:
    donor = next(sample.donor for sample in loaded.samples if sample.center == "cedars")
    loaded.federation.centers["cedars"].command("consent", "withdraw", donor)
    answer = _records(loaded, "cell_lines")
    left = [sample for sample in loaded.samples if sample.donor != donor]
    assert _found(answer, "") == _expected(left, key="")


def _intensities(matrix: Path, samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Each sample's intensities by protein; what was not found is absent."""
    with matrix.open(newline="") as file:
        proteins = [row for row in csv.DictReader(file, delimiter="\t") if not row["UniProtKB"].startswith("#")]
    found: dict[str, dict[str, float]] = {sample.label: {} for sample in samples}
    for row in proteins:
        for label, intensities in found.items():
            if float(row[label]) > 0:
                intensities[row["UniProtKB"]] = float(row[label])
    return found
