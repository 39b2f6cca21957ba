"""What a training costs: every part that leaves, against what is charged."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.learning.recipe import (
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Recipe,
    Target,
    TargetClass,
    TrainingPrivacy,
)
from connexon.zcdp import rho_of
from connexon_node.privacy.noise import half_width
from connexon_node.privacy.training import TrainingPrice
from connexon_node.settings import PrivacySection

CLASSES = (TargetClass("no", (False,)), TargetClass("yes", (True,)))
RECIPE = Recipe("m", Target("y", CLASSES), (FieldFeature("a"),), Logistic(LocalWork(1.0)), 12)


@given(st.floats(0.05, 10), st.floats(1e-9, 1e-3), st.integers(1, 1000), st.sampled_from([0.0, 0.2, 0.5]))
def test_no_donor_pays_for_more_than_is_charged(epsilon: float, delta: float, rounds: int, held_out: float) -> None:
    recipe = replace(RECIPE, rounds=rounds, held_out=held_out, privacy=TrainingPrivacy(epsilon, delta, 1.0))
    price = TrainingPrice.of(recipe)
    assert price.rho == rho_of(epsilon, delta)
    updates = rounds * price.update
    # A donor is trained on or kept apart, and never both.
    of_one = max(updates, price.evaluation) if held_out else updates + price.evaluation
    assert price.donors + of_one <= price.rho * (1 + 1e-9)
    assert min(price.donors, price.update, price.evaluation) > 0


def test_three_models_at_the_usual_price_are_a_centers_year_and_a_researchers() -> None:
    section = PrivacySection()
    assert (
        int(section.models / TrainingPrice.of(RECIPE).rho)
        == int(section.researcher / TrainingPrice.of(RECIPE).rho)
        == 3
    )


def test_the_noise_of_a_part_costs_what_it_is_said_to() -> None:
    price = TrainingPrice.of(RECIPE)
    assert price.counting.rho <= price.donors * (1 + 1e-9)
    many = numpy.zeros((400, 3))
    drawn = numpy.array([price.noisy_evaluation(row)[0] for row in many])
    scale = price.noisy_evaluation(numpy.zeros(3))[1]
    # Three sums of which one donor may change each by 1.
    assert 3 / (2 * scale**2) <= price.evaluation
    assert drawn.std() == pytest.approx(scale, rel=0.1)
    sums = price.noisy_sums(RECIPE, numpy.zeros(4000))
    assert sums.std() == pytest.approx(1 / numpy.sqrt(2 * price.update), rel=0.1)


def test_a_center_counts_for_no_fewer_donors_than_noise_makes_up() -> None:
    price = TrainingPrice.of(RECIPE)
    least = half_width(price.counting.scale)
    assert (price.weight(-40), price.weight(1), price.weight(500)) == (least, least, 500)


def test_a_number_is_predicted_at_the_same_price() -> None:
    linear = replace(RECIPE, target=Target("y", range=(0, 8)), model=Linear(LocalWork(1.0)))
    assert TrainingPrice.of(linear) == TrainingPrice.of(RECIPE)
