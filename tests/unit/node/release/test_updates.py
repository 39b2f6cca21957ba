"""What of a task's result may leave: each rule by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from connexon.learning.clipping import LARGEST_WEIGHT, shortening
from connexon.learning.recipe import (
    FieldFeature,
    Linear,
    LocalWork,
    Recipe,
    Target,
    TargetClass,
    TrainingPrivacy,
)
from connexon_node.privacy.training import TrainingPrice, noisy_step
from connexon_node.release import ReleaseControl
from connexon_node.release.updates import UpdateRelease, _common, six_digits
from connexon_node.settings import ReleaseSection, TrainingSection
from tests.support.center import SmallCenter

PRIVACY = TrainingPrivacy(epsilon=1.0, delta=1e-6, clip=2.0)
TARGET = Target("y", range=(0.0, 8.0))
RECIPE = Recipe("m", TARGET, (FieldFeature("a"),), Linear(LocalWork(0.5), l2=0.1), 5, privacy=PRIVACY)


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> UpdateRelease:
    return updates_of(tmp_path_factory.mktemp("updates"), minimum_donors=5)


def updates_of(folder: Path, *, minimum_donors: int) -> UpdateRelease:
    from connexon_node.data.dictionary import DICTIONARY

    control = ReleaseControl(ReleaseSection(minimum_donors=minimum_donors), DICTIONARY, SmallCenter(folder).database)
    return UpdateRelease(control, TrainingSection(minimum_donors=12), DICTIONARY)


def parts(values: list[float]) -> numpy.ndarray:
    each = numpy.array(values)
    with numpy.errstate(invalid="ignore"):
        deviations = (each - each.mean()) ** 2
    return numpy.stack([numpy.ones(len(each)), each, each**2, deviations])


def test_the_stricter_minimum_counts(updates: UpdateRelease) -> None:
    assert updates.minimum == 12


@pytest.mark.parametrize(
    ("values", "leaves"),
    [
        ([1.0, 2.0, 3.0, 2.0, 1.0, 2.0], True),
        ([1.0, 2.0, 3.0, 2.0], False),
        ([1000.0, 1.0, 1.0, 1.0, 1.0, 1.0], False),
        ([1.0, 1.0, 1.0, 1.0, 1.0, float("inf")], False),
        ([0.0] * 20 + [5.0], False),
        # By sums and squares nobody stands out of these; by the spread one does, or two.
        ([100_000.0] * 20 + [100_001.0], False),
        ([1.0] * 18 + [2.0] * 2, False),
        ([100_000.0 + place for place in range(20)], True),
        ([7.0] * 20, True),
    ],
)
def test_a_column_is_told_of_where_nobody_stands_out(updates: UpdateRelease, values: list[float], leaves: bool) -> None:
    assert updates._may_leave(parts(values)) is leaves


def test_where_the_minimum_is_one_donor_anybody_may_stand_out(tmp_path: Path) -> None:
    updates = updates_of(tmp_path, minimum_donors=1)
    assert updates._may_leave(parts([1.0, 1.0, 9.0]))
    assert updates._may_leave(parts([4.0]))
    assert not updates._may_leave(parts([1.0, float("inf")]))
    assert not updates._may_leave(numpy.zeros((4, 3))), "nobody has a value"
    found = RecordDict({"each": ArrayRecord({"loss": Array(numpy.array([0.0, 0.0, 5.0]))})})
    assert updates._loss_may_leave(RECIPE, found)


@pytest.mark.parametrize(
    ("errors", "classes", "leaves"),
    [
        ([1.0, 2.0, 1.0, 3.0, 2.0, 1.0], 0, True),
        ([1.0] * 20 + [1e4], 0, False),
        ([0.0] * 20 + [5.0, 5.0], 0, False),
        ([0.0] * 20, 0, True),
        ([0.01] * 20 + [5.0], 2, True),
    ],
)
def test_an_evaluation_stays_where_its_squared_errors_are_one_or_two_donors(
    updates: UpdateRelease, errors: list[float], classes: int, leaves: bool
) -> None:
    named = tuple(TargetClass(str(place), (place,)) for place in range(classes))
    found = RecordDict({"each": ArrayRecord({"loss": Array(numpy.array(errors))})})
    assert updates._loss_may_leave(replace(RECIPE, target=Target("y", named)), found) is leaves


def test_values_of_few_donors_are_not_named() -> None:
    assert _common({"values": ["rare", "b", "a"], "donors": [4, 5, 90]}, 5) == ("a", "b")  # type: ignore[arg-type]


@given(st.floats(0.01, 100), st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3))
def test_no_donors_part_is_longer_than_the_clip_and_one_that_is_no_number_is_none(
    clip: float, part: list[float]
) -> None:
    with numpy.errstate(all="ignore"):
        length = numpy.sqrt((numpy.array(part) ** 2).sum())
    factor = float(shortening(numpy.array([length]), clip)[0])
    if not numpy.isfinite(length):
        assert factor == 0.0
    else:
        assert factor * length <= clip * (1 + 1e-9)
        assert length > clip or factor == 1.0


def test_a_noisy_step_is_the_step_with_noise_of_the_right_size_on_it() -> None:
    size, people, price = 4000, 50.0, TrainingPrice.of(RECIPE)
    start = {"coefficients": numpy.full((1, size), 2.0), "intercept": numpy.zeros(1)}
    sums = {"coefficients": numpy.full((1, size), 10.0), "intercept": numpy.zeros(1)}
    new = noisy_step(RECIPE, price, start, sums, people=people)
    slope = (start["coefficients"] - new["coefficients"])[0] / 0.5
    # Clip over the root of twice rho, divided among the donors; l2 times the coefficients is no secret.
    scale = PRIVACY.clip / numpy.sqrt(2 * price.update) / people
    assert slope.mean() == pytest.approx(10 / people + 0.1 * 2, abs=5 * scale / numpy.sqrt(size))
    assert slope.std() == pytest.approx(scale, rel=0.1)
    assert new["coefficients"].dtype == numpy.float64


def test_a_model_stays_within_what_the_next_round_may_begin_with() -> None:
    start = {"coefficients": numpy.full((1, 3), LARGEST_WEIGHT), "intercept": numpy.full(1, -LARGEST_WEIGHT)}
    sums = {"coefficients": numpy.full((1, 3), -1e9), "intercept": numpy.full(1, 1e9)}
    new = noisy_step(RECIPE, TrainingPrice.of(RECIPE), start, sums, people=21.0)
    assert all(abs(values).max() <= LARGEST_WEIGHT for values in new.values())


@given(st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9))
def test_exact_numbers_have_six_digits(value: float) -> None:
    (rounded,) = six_digits(numpy.array([value]))
    assert rounded == pytest.approx(float(f"{value:.6g}"), rel=1e-12)
    assert rounded == pytest.approx(value, rel=1e-5)
