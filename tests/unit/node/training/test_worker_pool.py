"""What a node can train, and the processes that do it: they come when needed and go when they are not."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.app import ConfigRecord, RecordDict

from connexon.analyses.train import Train
from connexon.clock import MINUTE, now_ms
from connexon.conditions.filters import Compare, Operator
from connexon.errors import Refused
from connexon.learning import records
from connexon.learning.recipe import (
    FeatureSet,
    FieldFeature,
    Linear,
    LocalWork,
    Perceptron,
    Target,
    TrainingPrivacy,
)
from connexon.link import parcel_files
from connexon_node.pipeline.values import Work
from connexon_node.settings import TrainingSection
from connexon_node.training.capabilities import Able
from connexon_node.training.worker_pool import Crew, Errand, WorkFailed
from tests.support.center import ask
from tests.unit.node.training.test_local_work import recipe, table

RECIPE = replace(
    recipe(Linear(LocalWork(0.1))), target=Target("cells_per_vial_1e6"), features=(FieldFeature("passage_no"),)
)


def test_a_center_that_does_not_train_or_lacks_a_library_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[bool] = []
    able = Able(TrainingSection, warm=lambda: warmed.append(True))
    able.require(ask("lots", analysis=Train(RECIPE)))
    able.require(ask("lots"))
    assert warmed == [True]
    with pytest.raises(Refused, match="in no training"):
        Able(lambda: TrainingSection(enabled=False)).require(ask("lots", analysis=Train(RECIPE)))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(Refused, match="lacks torch"):
        able.require(ask("lots", analysis=Train(recipe(Perceptron((3,), LocalWork(0.1))))))
    assert warmed == [True]


def test_a_center_that_demands_noise_trains_with_noise_only() -> None:
    able = Able(lambda: TrainingSection(noise=True))
    able.require(ask("lots", analysis=Train(replace(RECIPE, privacy=TrainingPrivacy()))))
    with pytest.raises(Refused, match="whatever was granted") as caught:
        able.require(ask("lots", analysis=Train(RECIPE)))
    assert caught.value.code == "privacy.required"


@pytest.mark.parametrize(("epsilon", "delta"), [(2.01, 1e-6), (2.0, 1.01e-6)])
def test_a_recipe_costs_no_more_than_one_model_may(epsilon: float, delta: float) -> None:
    able = Able(lambda: TrainingSection(maximum_epsilon=2.0, maximum_delta=1e-6))
    most = TrainingPrivacy(2.0, 1e-6, 1.0)
    able.require(ask("lots", analysis=Train(replace(RECIPE, privacy=most))))
    more = replace(most, epsilon=epsilon, delta=delta)
    with pytest.raises(Refused, match="at most epsilon 2 and delta 1e-06") as caught:
        able.require(ask("lots", analysis=Train(replace(RECIPE, privacy=more))))
    assert caught.value.code == "privacy.too_much"


OF_A_PARENT = Compare("lot.parent_lot.passage_no", Operator.GREATER, 3)


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        ({"features": (FieldFeature("passage_no"), FieldFeature("cell_line.donor.sex"))}, True),
        ({"features": (FeatureSet("differentiation_runs", "vessel", ("plate",), "yield_1e6"),)}, True),
        ({"features": (FieldFeature("parent_lot.passage_no"),)}, False),
        ({"target": Target("parent_lot.passage_no")}, False),
        ({"features": (FeatureSet("lots", "bank_level", ("master",), "passage_no"),)}, False),
        ({"features": (FeatureSet("differentiation_runs", "vessel", ("plate",), "yield_1e6", OF_A_PARENT),)}, False),
    ],
)
def test_where_one_donors_rows_say_something_of_anothers_a_centers_noise_is_not_given(
    changes: dict[str, Any], own: bool
) -> None:
    able = Able(TrainingSection)
    privacy = TrainingPrivacy(1.0, 1e-6, 1.0)
    asked = replace(RECIPE, privacy=privacy, **changes)
    if own:
        able.require(ask("lots", analysis=Train(asked)))
    else:
        with pytest.raises(Refused) as caught:
            able.require(ask("lots", analysis=Train(asked)))
        assert caught.value.code == "privacy.other_donors"
    # Without noise nothing is promised.
    able.require(ask("lots", analysis=Train(replace(asked, privacy=None))))


def test_a_process_comes_with_a_runs_first_task_stays_for_the_next_and_goes_when_idle(tmp_path: Path) -> None:
    crew, here = Crew(TrainingSection()), psutil.Process()
    before = {one.pid for one in here.children(recursive=True)}
    parcel_files.write(tmp_path / "task", b"", records.to_pieces(RecordDict({"config": ConfigRecord({})})))
    rows = table()

    def children() -> set[int]:
        return {one.pid for one in here.children(recursive=True) if one.status() != "zombie"} - before

    def do(run: str, action: str = "query.summary") -> None:
        errand = Errand(run, f"{run}.1", action, tmp_path / "task", tmp_path / "out", share=0.0)
        crew.do(errand, RECIPE, rows, Work(deadline_ms=now_ms() + MINUTE), minimum=5)

    try:
        assert children() == set()
        do("one")
        first = children()
        do("one")
        assert children() == first
        do("two")
        assert len(children()) == len(first) + 1
        with pytest.raises(WorkFailed):
            do("two", "query.unknown")
        with pytest.raises(Refused, match="lacks"):
            do("two", "train")
        crew.tidy()
        assert len(children()) == len(first) + 1
        crew.tidy(idle_seconds=0)
        do("three")
        assert len(children()) == len(first)
    finally:
        crew.close()
    assert children() == set()
