"""The rows of a recipe, against a reference in plain Python: whose they are, what they hold, and what is refused."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from connexon.analyses.train import Train
from connexon.clock import MINUTE, now_ms
from connexon.conditions import where
from connexon.errors import Refused
from connexon.learning.recipe import FeatureSet, FieldFeature, Linear, LocalWork, Logistic, Recipe, Target, TargetClass
from connexon.query.question import Question
from connexon_node.data.dictionary import DICTIONARY, relations
from connexon_node.pipeline.values import Participation, TrainingTable, Work
from connexon_node.release import ReleaseControl
from connexon_node.settings import ReleaseSection, TrainingSection
from tests.support.center import SmallCenter, ask, everything_granted
from tests.unit.node.engine.test_joins import CONSENTED, EXPRESSION, FINDINGS, LOTS, SAMPLES, TABLES, Row, donor_of, one

GENES = FeatureSet("expression", "gene_symbol", ("POU5F1", "GAPDH", "NONE"), "value", log2=True)
REGIONS = FeatureSet(
    "karyotype_findings", "recurrent_region", ("20q11.21", "12p"), "clone_pct", filter=where.parse("change != 'none'")
)
RECIPE = Recipe(
    name="bank-level",
    target=Target("bank_level", (TargetClass("seed", ("seed",)), TargetClass("bank", ("MCB", "WCB")))),
    features=(FieldFeature("donor.sex"), FieldFeature("cell_line.grade"), GENES, REGIONS),
    model=Logistic(LocalWork(0.1)),
    rounds=2,
    privacy=None,
)


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    center = SmallCenter(tmp_path_factory.mktemp("rows"))
    for dataset, rows in TABLES.items():
        center.load_rows(dataset, rows)
    yield center
    center.close()


def training(recipe: Recipe = RECIPE, dataset: str = "lots", text: str = "") -> Question:
    return ask(dataset, where.parse(text) if text else None, Train(recipe))


def table(center: SmallCenter, question: Question) -> TrainingTable:
    cohort = center.cohort()
    asked = replace(cohort.permit.asked, sha256=hashlib.sha256(repr(question).encode()).digest())
    cohort = replace(cohort, permit=replace(cohort.permit, asked=asked))
    shape = center.engine.training_table(question, cohort, Work(deadline_ms=now_ms() + MINUTE)).shape
    assert isinstance(shape, TrainingTable)
    return shape


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def expected(row: Row) -> list[float]:
    """The numeric columns of one lot."""
    lot = row["id"]

    def of_lot(sample: object) -> object:
        found = one("samples", sample)
        return found["lot_id"] or one("differentiation_runs", found["run_id"])["lot_id"]

    genes = [
        mean([float(e["value"]) for e in EXPRESSION if e["gene_symbol"] == gene and of_lot(e["sample_id"]) == lot])  # type: ignore[arg-type]
        for gene in GENES.keys
    ]
    regions = [
        mean(
            [
                float(f["clone_pct"])  # type: ignore[arg-type]
                for f in FINDINGS
                if f["recurrent_region"] == region and f["lot_id"] == lot and f["change"] != "none"
            ]
        )
        for region in REGIONS.keys
    ]
    return [math.log2(1 + gene) if not math.isnan(gene) else gene for gene in genes] + regions


def test_each_permitted_record_is_one_row_with_its_columns(center: SmallCenter) -> None:
    found = table(center, training(text="bank_level != 'product'"))
    reference = [row for row in LOTS if donor_of("lots", row) in CONSENTED]
    assert len(found.donors) == len(reference) > 10
    assert found.kinds == ("category", "category", *["number"] * 5)
    ours = {
        (*numpy.nan_to_num(row, nan=-1.0).round(9).tolist(), label)
        for row, label in zip(found.numbers[:, 2:], found.target, strict=True)
    }
    theirs = {
        tuple([-1.0 if math.isnan(v) else round(v, 9) for v in expected(row)] + [float(row["bank_level"] != "seed")])
        for row in reference
    }
    assert ours == theirs
    codes, values = found.texts[0]
    assert values == ("female", "male")
    assert numpy.bincount(codes).tolist() == [
        sum(1 for row in reference if one("donors", donor_of("lots", row))["sex"] == sex) for sex in values
    ]


def test_the_same_rows_come_the_same_way_every_time(center: SmallCenter) -> None:
    first, again = table(center, training()), table(center, training())
    assert first.donors.tobytes() == again.donors.tobytes()
    assert first.numbers.tobytes() == again.numbers.tobytes()
    assert (numpy.diff(first.donors) >= 0).all()


def test_enrolling_counts_the_very_rows_and_no_others(center: SmallCenter) -> None:
    shape = center.compute(training()).shape
    assert isinstance(shape, Participation)
    found = table(center, training())
    assert shape.cell.records == len(found.donors)
    assert sorted(shape.cell.behind.tolist()) == sorted(found.donors.tolist())


def test_rows_whose_target_is_unknown_are_left_out(center: SmallCenter) -> None:
    recipe = replace(RECIPE, target=Target("bank_level", (TargetClass("a", ("seed",)), TargetClass("b", ("MCB",)))))
    assert len(table(center, training(recipe)).donors) == sum(
        1 for row in LOTS if donor_of("lots", row) in CONSENTED and row["bank_level"] != "WCB"
    )


def test_a_missing_value_can_be_a_class(center: SmallCenter) -> None:
    classes = (TargetClass("unknown", (None,)), TargetClass("neuron", ("CL:0000540",)))
    recipe = replace(RECIPE, target=Target("cell_type_term", classes), features=(FieldFeature("kind"),))
    found = table(center, training(recipe, "samples"))
    permitted = [row for row in SAMPLES if donor_of("samples", row) in CONSENTED]
    assert sorted(found.target.tolist()) == sorted(float(bool(row["cell_type_term"])) for row in permitted)
    assert 0 < found.target.sum() < len(found.target)
    named = (TargetClass("neuron", ("CL:0000540",)), TargetClass("other", ("CL:0000700",)))
    some = table(center, training(replace(recipe, target=Target("cell_type_term", named)), "samples"))
    assert len(some.target) == found.target.sum()


def test_every_dataset_that_a_recipe_looks_into_counts_for_policy() -> None:
    recipe = replace(
        RECIPE, features=(*RECIPE.features, replace(REGIONS, filter=where.parse("lot.cell_line.donor.sex = 'male'")))
    )
    touched = {one.name for one in relations.touched(DICTIONARY, training(recipe, text="has differentiation_runs"))}
    assert touched == {"lots", "donors", "cell_lines", "expression", "karyotype_findings", "differentiation_runs"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": Target("grade")}, "no field"),
        ({"target": Target("lot_no")}, "identifies"),
        ({"target": Target("bank_level"), "model": Linear(LocalWork(0.1))}, "no number"),
        ({"target": Target("passage_no", (TargetClass("a", ("x",)), TargetClass("b", (2,))))}, "holds integer"),
        ({"features": (FieldFeature("cell_line.hpscreg_name"),)}, "identifies"),
        ({"features": (FieldFeature("frozen_on"),)}, "date"),
        ({"features": (FieldFeature("donor.phenotype_terms"),)}, "several values"),
        ({"features": (replace(GENES, value="unit"),)}, "value of a feature set"),
        ({"features": (replace(GENES, key="value"),)}, "key of a feature set"),
        ({"features": (replace(GENES, key="sample_id"),)}, "identifies"),
        ({"features": (replace(REGIONS, filter=where.parse("nothing = 1")),)}, "no field"),
        ({"features": (replace(REGIONS, dataset="trials"),)}, "points to"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_with_the_reason(
    center: SmallCenter, change: dict[str, object], says: str
) -> None:
    with pytest.raises(Refused, match=says):
        center.compute(training(replace(RECIPE, **change)))  # type: ignore[arg-type]


def test_release_lets_no_row_out(center: SmallCenter) -> None:
    computed = center.engine.training_table(training(), center.cohort(), Work(deadline_ms=now_ms() + MINUTE))
    control = ReleaseControl(ReleaseSection(minimum_donors=1), DICTIONARY, center.database)
    with pytest.raises(Refused, match="does not know how to release"):
        control.protect(computed)


@pytest.mark.parametrize(("minimum", "donors"), [(5, 5), (7, 5), (8, None)])
def test_a_center_takes_part_where_enough_donors_stand_behind_it(
    center: SmallCenter, minimum: int, donors: int | None, tmp_path: Path
) -> None:
    section = ReleaseSection(minimum_donors=3, round_to=5)
    own = TrainingSection(minimum_donors=minimum)
    control = ReleaseControl(section, DICTIONARY, center.database, own, covering=everything_granted)
    question = training()
    answer = control.protect(center.compute(question, center.cohort(question=question))).answer
    assert (answer.enrolment.donors if answer.HasField("enrolment") else None) == donors
    assert (answer.reason.code == "release.too_few_donors") == (donors is None)
