"""Metrics of a federation: means over rows, pairs within centers, and silence where nothing can be told."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from connexon.learning.metrics import combine_evaluations, spread, stratified_auc

UNTOLD = {
    **dict.fromkeys(("num-examples", "loss", "accuracy", "auc", "auc-pairs", "auc-variance"), 0.0),
    **dict.fromkeys(("mean-predicted", "mean-observed"), 0.0),
}


def evaluation(observed: numpy.ndarray, predicted: numpy.ndarray) -> dict[str, float]:
    """One center's, as a node makes it."""
    positives, negatives = int(observed.sum()), int((1 - observed).sum())
    auc = pairs_in_order(observed, predicted) / (positives * negatives) if positives and negatives else 0.0
    return {
        "num-examples": len(observed),
        "loss": float(-numpy.log(numpy.where(observed == 1, predicted, 1 - predicted)).mean()),
        "accuracy": float(((predicted > 0.5) == observed).mean()),
        "auc": auc,
        "auc-pairs": positives * negatives,
        "auc-variance": _hanley_mcneil(auc, positives, negatives) if positives and negatives else 0.0,
        "mean-predicted": float(predicted.mean()),
        "mean-observed": float(observed.mean()),
    }


def pairs_in_order(observed: numpy.ndarray, predicted: numpy.ndarray) -> float:
    difference = predicted[observed == 1][:, None] - predicted[observed == 0][None, :]
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum())


def _hanley_mcneil(auc: float, positives: int, negatives: int) -> float:
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return spread / (positives * negatives)


def simulated(seed: int, rows: int, *, shift: float = 0.0) -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(seed)
    score = random.normal(size=rows)
    observed = (random.random(rows) < 1 / (1 + numpy.exp(-score - shift))).astype(int)
    return observed, 1 / (1 + numpy.exp(-score))


def test_loss_and_accuracy_are_those_of_the_rows_pooled() -> None:
    sites = {"kyoto": simulated(1, 90), "lyon": simulated(2, 30), "oslo": simulated(3, 400)}
    combined = combine_evaluations({name: evaluation(*rows) for name, rows in sites.items()})
    observed, predicted = (numpy.concatenate([rows[side] for rows in sites.values()]) for side in (0, 1))
    assert combined["loss"] == pytest.approx(log_loss(observed, predicted))
    assert combined["accuracy"] == pytest.approx(accuracy_score(observed, predicted > 0.5))
    assert combined["calibration"] == pytest.approx(observed.mean() - predicted.mean())


def test_the_auc_is_the_share_of_pairs_in_order_within_centers() -> None:
    sites = {"kyoto": simulated(1, 60), "lyon": simulated(2, 25)}
    in_order = sum(pairs_in_order(*rows) for rows in sites.values())
    pairs = sum(int(observed.sum() * (1 - observed).sum()) for observed, _ in sites.values())
    combined = stratified_auc({name: evaluation(*rows) for name, rows in sites.items()})
    assert combined["auc"] == pytest.approx(in_order / pairs)
    alone = stratified_auc({"kyoto": evaluation(*sites["kyoto"])})
    assert alone["auc"] == pytest.approx(roc_auc_score(*sites["kyoto"]))


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says() -> None:
    # Scores of one model at every center: the true AUC is that of a very large sample.
    truth = float(roc_auc_score(*simulated(99, 200_000)))
    covered = 0
    for seed in range(300):
        parts = {str(center): evaluation(*simulated(1000 + 10 * seed + center, 80)) for center in range(3)}
        auc = stratified_auc(parts)
        covered += auc["auc-low"] <= truth <= auc["auc-high"]
    assert 0.91 <= covered / 300 <= 0.985


def test_a_center_with_one_class_counts_for_the_loss_and_not_for_the_auc() -> None:
    whole = evaluation(*simulated(1, 60))
    observed = numpy.ones(20, dtype=int)
    one_class = evaluation(observed, numpy.linspace(0.4, 0.9, 20))
    combined = combine_evaluations({"kyoto": whole, "lyon": one_class})
    assert combined["auc"] == pytest.approx(whole["auc"])
    assert combined["loss"] != pytest.approx(whole["loss"])


def test_what_a_center_could_not_tell_moves_nothing() -> None:
    told = {"kyoto": evaluation(*simulated(1, 60)), "lyon": evaluation(*simulated(2, 60))}
    assert combine_evaluations({**told, "oslo": UNTOLD}) == combine_evaluations(told)
    assert spread({**told, "oslo": UNTOLD}) == spread(told)
    assert combine_evaluations({"oslo": UNTOLD}) == {}
    assert combine_evaluations({}) == {}


def test_a_model_of_a_number_has_a_loss_and_nothing_of_classes() -> None:
    parts = {"kyoto": {"num-examples": 30.0, "loss": 2.0}, "lyon": {"num-examples": 10.0, "loss": 4.0}}
    assert combine_evaluations(parts) == {"loss": 2.5}


def test_a_perfect_order_has_no_interval() -> None:
    part = {"num-examples": 9.0, "loss": 0.1, "auc": 1.0, "auc-pairs": 20.0, "auc-variance": 0.0}
    assert stratified_auc({"kyoto": part}) == {"auc": 1.0}


def test_the_spread_says_the_least_and_the_greatest_center() -> None:
    parts = {
        "kyoto": {"num-examples": 30.0, "loss": 2.0, "auc": 0.7, "auc-pairs": 200.0},
        "lyon": {"num-examples": 10.0, "loss": 4.0, "auc": 0.0, "auc-pairs": 0.0},
        "oslo": {"num-examples": 10.0, "loss": 3.0, "auc": 0.8, "auc-pairs": 20.0},
    }
    assert spread(parts) == {"loss": (2.0, 4.0), "auc": (0.7, 0.8)}
    assert spread({"kyoto": parts["kyoto"]}) == {}


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 10**9), st.floats(0, 0.25), st.integers(0, 10**6)),
        max_size=6,
    )
)
def test_whatever_centers_say_the_result_is_finite_and_in_bounds(numbers: list[tuple[float, int, float, int]]) -> None:
    parts = {
        str(number): {"auc": auc, "auc-pairs": pairs, "auc-variance": variance, "num-examples": rows, "loss": auc}
        for number, (auc, pairs, variance, rows) in enumerate(numbers)
    }
    combined = combine_evaluations(parts)
    assert all(math.isfinite(value) for value in combined.values())
    if "auc-low" in combined:
        assert 0 <= combined["auc-low"] <= combined["auc"] + 1e-12
        assert combined["auc"] - 1e-12 <= combined["auc-high"] <= 1
