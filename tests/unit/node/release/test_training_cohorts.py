"""Trainings with exact updates held against each other: by words where they can be, else by donors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from connexon.analyses.train import Train
from connexon.clock import END
from connexon.conditions import where
from connexon.learning.recipe import FeatureSet, FieldFeature, LocalWork, Logistic, Recipe, Target, TargetClass
from connexon.query.question import Question
from connexon_node.pipeline.values import Cell, Computed, Participation, TrainingTable
from connexon_node.release.grants import ANY, Grant
from connexon_node.release.training_cohorts import CohortRefused, TrainingCohorts, words_of
from connexon_node.release.training_summaries import Told
from tests.support.center import SmallCenter, ask, permit

CLASSES = (TargetClass("failed", (False,)), TargetClass("succeeded", (True,)))
SET = FeatureSet("timepoints", "marker", ("OCT4",), "value", where.parse("day <= 14"))
RECIPE = Recipe(
    "m", Target("success", CLASSES), (FieldFeature("vessel"), SET), Logistic(LocalWork(1.0)), 5, privacy=None
)
EVERYBODY = range(100)


@pytest.fixture
def center(tmp_path: Path) -> Iterator[SmallCenter]:
    center = SmallCenter(tmp_path)
    yield center
    center.close()


def question(recipe: Recipe = RECIPE, text: str = "", project: str = "p") -> Question:
    asked = ask("differentiation_runs", where.parse(text) if text else None, Train(recipe))
    return replace(asked, purpose=replace(asked.purpose, project=project))


def grant(name: str = "one") -> Grant:
    return Grant(name, "lyon/ada", ANY, frozenset({ANY}), "a test", "steward", 0, END)


def computed(center: SmallCenter, asked: Question, donors: range | list[int], *, table: bool = False) -> Computed:
    behind = numpy.repeat(numpy.array(list(donors), dtype=numpy.int32), 2)
    nothing = numpy.zeros((len(behind), 0))
    shape = (
        TrainingTable((), (), behind, numpy.zeros(len(behind)), nothing, {})
        if table
        else Participation(Cell((), len(behind), len(set(donors)), behind))
    )
    return Computed(replace(center.cohort(), permit=permit(asked)), shape, {}, "1", edition=1)


def began(cohorts: TrainingCohorts, center: SmallCenter, asked: Question, donors: object, name: str = "one") -> None:
    found = cohorts.required(computed(center, asked, donors), grant(name))  # type: ignore[arg-type]
    with center.database.writing() as connection:
        cohorts.write(connection, found)


def code(cohorts: TrainingCohorts, center: SmallCenter, asked: Question, donors: object, name: str = "one") -> str:
    try:
        cohorts.required(computed(center, asked, donors), grant(name))  # type: ignore[arg-type]
    except CohortRefused as refused:
        return refused.code
    return ""


def test_models_rounds_and_features_are_free_and_rows_are_not(center: SmallCenter) -> None:
    cohorts = TrainingCohorts(center.database, 5, 50)
    began(cohorts, center, question(), EVERYBODY)
    free = replace(RECIPE, rounds=9, model=Logistic(LocalWork(0.1, epochs=4)), features=(FieldFeature("vessel"),))
    assert code(cohorts, center, question(free), EVERYBODY) == ""
    other_set = replace(SET, filter=where.parse("day <= 13"))
    for asked in (
        question(text="vessel = 'plate'"),
        question(replace(RECIPE, held_out=0.2)),
        question(replace(RECIPE, target=Target("success", CLASSES[::-1]))),
        question(replace(RECIPE, features=(other_set,))),
        question(replace(RECIPE, features=(SET, other_set))),
    ):
        assert code(cohorts, center, asked, EVERYBODY) == "training.other_rows"
    # The conditions of a feature set are the center's, whoever asks.
    assert code(cohorts, center, question(replace(RECIPE, features=(other_set,))), range(50), "two") == (
        "training.other_rows"
    )


@pytest.mark.parametrize(
    ("donors", "refused"),
    [
        (range(100), "training.too_alike"),
        (range(1, 100), "training.too_alike"),
        (range(104), "training.too_alike"),
        (range(2, 102), "training.too_alike"),
        (range(105), ""),
        (range(5, 100), ""),
    ],
)
def test_other_words_select_other_donors_or_are_refused(center: SmallCenter, donors: range, refused: str) -> None:
    cohorts = TrainingCohorts(center.database, 5, 50)
    began(cohorts, center, question(), EVERYBODY)
    assert code(cohorts, center, question(text="vessel = 'plate'"), donors, "two") == refused


@pytest.mark.parametrize(("donors", "refused"), [(range(1, 100), "training.cohort_moved"), (range(5, 100), "")])
def test_the_same_words_are_the_same_donors_or_so_many_have_gone(
    center: SmallCenter, donors: range, refused: str
) -> None:
    cohorts = TrainingCohorts(center.database, 5, 50)
    began(cohorts, center, question(), EVERYBODY)
    assert code(cohorts, center, question(), EVERYBODY) == ""
    assert code(cohorts, center, question(), donors) == refused


def test_a_run_goes_on_with_the_donors_it_began_with(center: SmallCenter) -> None:
    cohorts, asked = TrainingCohorts(center.database, 5, 50), question()
    began(cohorts, center, asked, EVERYBODY)
    cohorts.require_same(computed(center, asked, EVERYBODY, table=True))
    for donors in (range(99), range(101)):
        with pytest.raises(CohortRefused) as refused:
            cohorts.require_same(computed(center, asked, donors, table=True))
        assert refused.value.code == "training.cohort_moved"
    with pytest.raises(CohortRefused) as refused:
        cohorts.require_same(replace(computed(center, asked, EVERYBODY, table=True), edition=2))
    assert refused.value.code == "training.edition_ended"


def test_where_any_donor_may_show_nothing_is_compared(center: SmallCenter) -> None:
    cohorts = TrainingCohorts(center.database, 1, 50)
    began(cohorts, center, question(), EVERYBODY)
    assert code(cohorts, center, question(text="vessel = 'plate'"), range(1, 100)) == ""


def test_a_project_has_so_many_runs_of_an_edition(center: SmallCenter) -> None:
    cohorts = TrainingCohorts(center.database, 5, 2)
    for _ in range(2):
        began(cohorts, center, question(), EVERYBODY)
    assert code(cohorts, center, question(), EVERYBODY) == "training.too_many_runs"
    assert code(cohorts, center, question(project="q"), EVERYBODY) == ""


def test_the_order_of_a_condition_is_no_other_words() -> None:
    one, two = "vessel = 'plate' and success = true", "success = true and vessel = 'plate'"
    assert words_of(question(text=one)) == words_of(question(text=two))


def test_sums_of_two_summaries_stand_beside_each_other_by_donor() -> None:
    one = Told(("a", ""), numpy.array([1, 2, 5], dtype=numpy.int32), numpy.ones((4, 3, 2)))
    other = Told.from_bytes(
        Told(("b", "a"), numpy.array([2, 9], dtype=numpy.int32), numpy.full((4, 2, 2), 3.0)).to_bytes()
    )
    here, there = one.beside(other, 0) or (None, None)
    assert here is not None
    assert there is not None
    assert here[0].tolist() == [1, 1, 1, 0]
    assert there[0].tolist() == [0, 3, 0, 3]
    assert one.beside(other, 1) is None
    assert one.only([True, False]).names == ("a",)
