"""Local work beside plain libraries: gradients beside differences, AUC beside scikit-learn, trees beside XGBoost."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from connexon.errors import Refused
from connexon.learning import models
from connexon.learning.moments import Moments
from connexon.learning.preprocessing import Column, Preprocessing, Summary
from connexon.learning.recipe import (
    BoostedTrees,
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Model,
    Multinomial,
    Perceptron,
    Recipe,
    Strategy,
    Target,
    TargetClass,
)
from connexon_node.pipeline.held_out import held_out
from connexon_node.pipeline.values import TrainingTable
from connexon_node.training import evaluation, gradients, rows, trees
from connexon_node.training.client_app import Work

RANDOM = numpy.random.default_rng(2)
N, D = 120, 4
INPUTS = RANDOM.normal(size=(N, D))
DONORS = numpy.repeat(numpy.arange(N // 2, dtype=numpy.int32), 2)
NUMBER = INPUTS @ [1.0, -2.0, 0.5, 0.0] + 3 + RANDOM.normal(0, 0.1, N)
LABEL = (INPUTS[:, 0] + RANDOM.normal(0, 0.7, N) > 0).astype(float)
FITTED = Preprocessing(tuple(Column(f"x{n}", "number") for n in range(D)))


def recipe(model: Model, classes: int = 0, strategy: str = "FedAvg", **options: float) -> Recipe:
    named = tuple(TargetClass(f"c{number}", (number,)) for number in range(classes))
    features = tuple(FieldFeature(f"x{n}") for n in range(D))
    return Recipe(
        "m", Target("y", named), features, model, 2, strategy=Strategy(strategy, options), privacy=None, seed=7
    )


def after(asked: Recipe, target: numpy.ndarray, *, proximal: float = 0.0) -> dict[str, numpy.ndarray]:
    start = models.initial_arrays(asked, FITTED)
    return gradients.trained(asked, start, INPUTS, target, round_number=1, proximal=proximal)


def test_a_linear_model_comes_to_what_ridge_regression_says() -> None:
    found = after(recipe(Linear(LocalWork(0.2, epochs=600), l2=0.3)), NUMBER)
    theirs = Ridge(alpha=0.3 * N).fit(INPUTS, NUMBER)
    assert found["coefficients"][0] == pytest.approx(theirs.coef_, abs=1e-6)
    assert found["intercept"][0] == pytest.approx(theirs.intercept_, abs=1e-6)


def test_a_logistic_model_comes_to_what_scikit_learn_says() -> None:
    found = after(recipe(Logistic(LocalWork(0.5, epochs=1000), l2=0.1), 2), LABEL)
    theirs = LogisticRegression(C=1 / (0.1 * N), tol=1e-10, max_iter=1000).fit(INPUTS, LABEL)
    assert found["coefficients"] == pytest.approx(theirs.coef_, abs=1e-4)
    assert found["intercept"] == pytest.approx(theirs.intercept_, abs=1e-4)


@pytest.mark.parametrize("model", [Logistic(LocalWork(1.0), l2=0.2), Multinomial(LocalWork(1.0), l2=0.2)])
def test_one_step_follows_the_slope_of_the_objective(model: Logistic | Multinomial) -> None:
    asked = recipe(model, 2)
    found, start = after(asked, LABEL), models.initial_arrays(asked, FITTED)
    for name, values in start.items():
        for place in numpy.ndindex(values.shape):
            slope = start[name][place] - found[name][place]
            assert slope == pytest.approx(_difference(asked, start, name, place), abs=1e-6)


def _difference(asked: Recipe, start: dict[str, numpy.ndarray], name: str, place: tuple[int, ...]) -> float:
    ends = []
    for step in (1e-6, -1e-6):
        moved = {key: values.copy() for key, values in start.items()}
        moved[name][place] += step
        penalty = asked.model.l2 / 2 * float((moved["coefficients"] ** 2).sum())
        ends.append(models.loss(asked, models.scores(asked, moved, INPUTS), LABEL) + penalty)
    return (ends[0] - ends[1]) / 2e-6


def test_the_proximal_term_keeps_the_model_near_where_the_round_began() -> None:
    free = after(recipe(Linear(LocalWork(0.1, epochs=50))), NUMBER)
    held = after(recipe(Linear(LocalWork(0.1, epochs=50))), NUMBER, proximal=5.0)
    assert 0 < numpy.abs(held["coefficients"]).sum() < 0.5 * numpy.abs(free["coefficients"]).sum()


def test_batches_are_the_same_in_the_same_round_and_others_in_another() -> None:
    work = LocalWork(0.1, epochs=2, batch=50)
    first, again, other = ([*gradients.batches(work, N, seed=1, round_number=r)] for r in (1, 1, 2))
    assert all(numpy.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not numpy.array_equal(first[0], other[0])
    assert sorted(numpy.concatenate(first[:3])) == list(range(N))


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 10), st.integers(0, 2**32 - 1))
def test_no_donor_moves_the_sum_by_more_than_the_clip(clip: float, seed: int) -> None:
    random = numpy.random.default_rng(seed)
    asked = recipe(Multinomial(LocalWork(0.1)), 3)
    arrays = {"coefficients": random.normal(size=(3, D)), "intercept": random.normal(size=3)}
    inputs, target = random.normal(size=(20, D)) * 10, random.integers(0, 3, 20)
    donors = numpy.sort(random.integers(0, 6, 20)).astype(numpy.int32)
    whole = gradients.clipped_sums(asked, arrays, inputs, target, donors, clip)
    for donor in numpy.unique(donors):
        rest = donors != donor
        part = gradients.clipped_sums(asked, arrays, inputs[rest], target[rest], donors[rest], clip)
        moved = sum(float(((whole[name] - part[name]) ** 2).sum()) for name in whole)
        assert numpy.sqrt(moved) <= clip * (1 + 1e-9)


def test_a_clip_that_nobody_reaches_leaves_the_gradient() -> None:
    asked = recipe(Linear(LocalWork(1.0)))
    start = models.initial_arrays(asked, FITTED)
    sums = gradients.clipped_sums(asked, start, INPUTS, NUMBER, DONORS, 1e9)
    step = after(asked, NUMBER)
    # Two rows of each donor: the mean over donors of their means is the mean over rows.
    assert -step["coefficients"] == pytest.approx(sums["coefficients"] / (N / 2))


@given(st.lists(st.tuples(st.floats(-5, 5).map(lambda x: round(x, 1)), st.booleans()), min_size=2, max_size=60))
def test_the_area_under_the_curve_is_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    scores, positive = numpy.array([one for one, _ in pairs]), numpy.array([one for _, one in pairs])
    told = evaluation.auc_of(scores, positive)
    if positive.all() or not positive.any():
        assert told == {"auc": 0.0, "auc-pairs": 0.0, "auc-variance": 0.0}
    else:
        assert told["auc"] == pytest.approx(roc_auc_score(positive, scores))
        assert told["auc-pairs"] == positive.sum() * (~positive).sum()


def test_the_variance_is_that_of_hanley_and_mcneil() -> None:
    # Their table II: an area of 0.893 over 51 abnormal and 58 normal images has a standard error of about 0.032.
    assert evaluation.variance_of(0.893, 51, 58) ** 0.5 == pytest.approx(0.032, abs=0.001)


def table(share: float = 0.0) -> TrainingTable:
    return TrainingTable(
        names=tuple(f"x{n}" for n in range(D)),
        kinds=tuple("number" for _ in range(D)),
        donors=DONORS + 100,
        target=LABEL,
        numbers=INPUTS,
        texts={},
    )


def test_rows_are_handed_over_whole_and_without_the_donors_numbers() -> None:
    with rows.write(table(), share=0.3, seed=4) as file:
        received = rows.read(file)
    assert received.donors.min() == 0
    assert numpy.array_equal(received.columns["x1"], INPUTS[:, 1])
    assert 0.1 < received.held_out.mean() < 0.5
    by_donor = {(int(donor), bool(apart)) for donor, apart in zip(received.donors, received.held_out, strict=True)}
    assert len(by_donor) == N // 2


def test_who_is_kept_apart_does_not_depend_on_who_else_is_there() -> None:
    whole = held_out(DONORS, 0.3, 4)
    some = numpy.isin(DONORS, numpy.unique(DONORS)[::3])
    assert numpy.array_equal(held_out(DONORS[some], 0.3, 4), whole[some])
    assert not numpy.array_equal(held_out(DONORS, 0.3, 5), whole)


@pytest.mark.parametrize("strategy", ["FedXgbBagging", "FedXgbCyclic"])
def test_trees_are_added_to_the_federations_and_no_leaf_is_of_few_donors(strategy: str) -> None:
    pytest.importorskip("xgboost")
    asked = recipe(BoostedTrees(trees_per_round=2, depth=5), 2, strategy)
    start = models.initial_arrays(asked, FITTED)
    first, fewest = trees.trained(asked, start, INPUTS, LABEL, DONORS, minimum=7)
    again, _ = trees.trained(asked, start, INPUTS, LABEL, DONORS, minimum=7)
    assert first["0"].tobytes() == again["0"].tobytes()
    assert fewest >= 7
    second, _ = trees.trained(asked, first, INPUTS, LABEL, DONORS, minimum=7)
    grown = models.load_trees(second["0"]).num_boosted_rounds()
    assert grown == (2 if strategy == "FedXgbBagging" else 4)
    before = models.loss(asked, models.scores(asked, start, INPUTS), LABEL)
    assert models.loss(asked, models.scores(asked, first, INPUTS), LABEL) < before


def test_a_donor_with_many_rows_does_not_leave_trees_without_branches() -> None:
    pytest.importorskip("xgboost")
    asked = recipe(BoostedTrees(depth=2), 2, "FedXgbBagging")
    heavy = numpy.where(numpy.arange(N) < N // 4, 0, DONORS + 1).astype(numpy.int32)
    grown, fewest = trees.trained(asked, models.initial_arrays(asked, FITTED), INPUTS, LABEL, heavy, minimum=7)
    assert fewest >= 7
    assert len(numpy.unique(models.scores(asked, grown, INPUTS))) > 1


@pytest.mark.torch
def test_a_perceptron_learns_and_its_steps_are_those_of_the_numpy_model() -> None:
    pytest.importorskip("torch", reason="perceptrons need PyTorch, an extra of its own")
    from connexon_node.training import perceptron

    asked = recipe(Perceptron((8,), LocalWork(0.3, epochs=100)), 2)
    start = models.initial_arrays(asked, FITTED)
    first = perceptron.trained(asked, start, INPUTS, LABEL, round_number=1, proximal=0.0)
    again = perceptron.trained(asked, start, INPUTS, LABEL, round_number=1, proximal=0.0)
    assert all(first[name].tobytes() == again[name].tobytes() for name in start)
    assert {name: (one.dtype, one.shape) for name, one in first.items()} == {
        name: (one.dtype, one.shape) for name, one in start.items()
    }
    before, then = (models.loss(asked, models.scores(asked, one, INPUTS), LABEL) for one in (start, first))
    assert then < 0.8 * before
    one = replace(asked, model=Perceptron((8,), LocalWork(1.0)))
    slope = {
        name: start[name] - values
        for name, values in perceptron.trained(one, start, INPUTS, LABEL, round_number=1, proximal=0.0).items()
    }
    sums = perceptron.clipped_sums(one, start, INPUTS, LABEL, DONORS, 1e9)
    assert all(sums[name] / (N / 2) == pytest.approx(slope[name], abs=1e-4) for name in start)


def test_a_summary_tells_moments_and_who_is_behind_each_value() -> None:
    some = INPUTS.copy()
    some[:40, 0] = numpy.nan
    given_table = replace(
        table(),
        numbers=some,
        kinds=("number", "number", "boolean", "category"),
        texts={3: (numpy.arange(N, dtype=numpy.int32) % 3 - 1, ("a", "b"))},
    )
    with rows.write(given_table, share=0.0, seed=4) as file:
        work = Work(recipe(Logistic(LocalWork(0.1)), 2), rows.read(file), 5, split=False)
    told = work.summary()
    numbers = {name: array.numpy() for name, array in told.array_records["numbers"].items()}
    assert numbers["count"].tolist() == [N - 40, N, 0, 0]
    assert numbers["mean"][:2] == pytest.approx(numpy.nanmean(some[:, :2], axis=0))
    spread = numbers["squared-deviations"][:2]
    assert spread == pytest.approx(numbers["count"][:2] * numpy.nanvar(some[:, :2], axis=0))
    each = told.array_records["each"]["parts"].numpy()
    assert each.shape == (4, N // 2, 4)
    assert each[:, :, 1].sum(axis=1) == pytest.approx([N, INPUTS[:, 1].sum(), (INPUTS[:, 1] ** 2).sum(), spread[1]])
    # Whoever has no value adds nothing.
    assert not each[:, :20, 0].any()
    assert not each[:, :, 2:].any()
    counts = told.config_records["each-3"]
    assert set(counts["values"]) == {"a", "b"}  # type: ignore[arg-type]
    assert max(counts["donors"]) <= N // 2  # type: ignore[arg-type]
    with pytest.raises(Refused, match="lacks"):
        work.train(RecordDict({"config": ConfigRecord({})}))


@pytest.mark.parametrize("extreme", [1e200, -1e150])
def test_numbers_too_large_to_be_squared_are_not_told_of_and_the_rest_is(extreme: float) -> None:
    some = INPUTS.copy()
    some[3, 0] = extreme
    with rows.write(replace(table(), numbers=some), share=0.0, seed=4) as file:
        told = Work(recipe(Logistic(LocalWork(0.1)), 2), rows.read(file), 5, split=False).summary()
    assert Summary.from_records(told).moments[0] == Moments()
    assert not told.array_records["each"]["parts"].numpy()[:, :, 0].any()
    assert Summary.from_records(told).moments[1].count == N
