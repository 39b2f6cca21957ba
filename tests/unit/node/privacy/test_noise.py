"""What noise is and what it costs. Statistical bounds are six standard errors wide: they fail once in 10^8 runs."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opendp.combinators import make_zCDP_to_approxDP
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_gaussian
from opendp.metrics import l2_distance
from opendp.mod import enable_features

from connexon_node.privacy import epsilon_of, rho_of
from connexon_node.privacy.accuracy import scale_within
from connexon_node.privacy.noise import Noise, half_width, rarely_above
from connexon_node.release.price import Price

DRAWS = 20_000
SIGMAS = 6
rhos = st.floats(1e-5, 50)
deltas = st.floats(1e-10, 1e-3)
epsilons = st.floats(1e-3, 10)


@pytest.mark.parametrize(("rho", "delta"), list(itertools.product([1e-4, 0.01, 0.2, 3.0, 30.0], [1e-3, 1e-6, 1e-10])))
def test_the_conversion_is_that_of_opendp(rho: float, delta: float) -> None:
    enable_features("contrib")
    space = (vector_domain(atom_domain(T="i64")), l2_distance(T="f64"))
    profile = make_zCDP_to_approxDP(make_gaussian(*space, scale=1 / math.sqrt(2 * rho))).map(1.0)
    assert epsilon_of(rho, delta) == pytest.approx(profile.epsilon(delta=delta), rel=1e-9)


@given(rhos, deltas)
def test_it_is_never_worse_than_the_classic_conversion(rho: float, delta: float) -> None:
    """Bun and Steinke 2016, proposition 1.3."""
    assert epsilon_of(rho, delta) <= rho + 2 * math.sqrt(rho * math.log(1 / delta))


@given(epsilons, deltas)
def test_a_price_keeps_its_promise_and_wastes_nothing(epsilon: float, delta: float) -> None:
    rho = rho_of(epsilon, delta)
    assert epsilon_of(rho, delta) <= epsilon
    if rho < epsilon * (1 - 1e-9):
        assert epsilon_of(rho * (1 + 1e-6), delta) > epsilon


@given(rhos, st.floats(1.01, 10), deltas)
def test_more_rho_is_more_epsilon_and_less_delta_is_more_epsilon(rho: float, factor: float, delta: float) -> None:
    assert epsilon_of(rho * factor, delta) >= epsilon_of(rho, delta)
    assert epsilon_of(rho, delta / factor) >= epsilon_of(rho, delta)


@settings(max_examples=30, deadline=None)
@given(rhos, st.integers(2, 100))
def test_averaging_many_answers_gives_no_more_than_one_at_the_same_cost(rho: float, times: int) -> None:
    many, one = (Noise(sensitivity=1.0, rho=price, whole=False) for price in (rho, rho * times))
    assert many.scale / math.sqrt(times) == pytest.approx(one.scale, rel=1e-9)


def test_nothing_spent_is_nothing_promised_away() -> None:
    assert epsilon_of(0.0, 1e-6) == 0.0
    assert rho_of(0.0, 1e-6) == 0.0


@pytest.mark.parametrize("wrong", [(-1.0, 1e-6), (math.nan, 1e-6), (1.0, 0.0), (1.0, 1.0), (1.0, math.nan)])
def test_numbers_that_mean_nothing_are_refused(wrong: tuple[float, float]) -> None:
    for convert in (epsilon_of, rho_of):
        with pytest.raises(ValueError, match="finite"):
            convert(*wrong)


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 1000), st.floats(1e-4, 10), st.booleans())
def test_noise_never_costs_more_than_was_paid(sensitivity: float, rho: float, whole: bool) -> None:
    noise = Noise(sensitivity=sensitivity, rho=rho, whole=whole)
    assert noise.rho <= rho
    assert noise.rho == pytest.approx(rho, rel=1e-6)
    assert noise.scale == pytest.approx(sensitivity / math.sqrt(2 * rho), rel=1e-6)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("scale", [0.8, 4.8, 60.0])
def test_draws_are_centered_and_as_wide_as_they_say(scale: float, whole: bool) -> None:
    noise = Noise(sensitivity=1.0, rho=1 / (2 * scale**2), whole=whole)
    drawn = noise.added([1000 if whole else 1000.0] * DRAWS)
    mean = math.fsum(drawn) / DRAWS
    assert abs(mean - 1000) < SIGMAS * scale / math.sqrt(DRAWS)
    variance = math.fsum((one - mean) ** 2 for one in drawn) / (DRAWS - 1)
    # The variance of a variance is about 2 sigma^4 / n; a discrete Gaussian's variance is at most sigma^2.
    assert abs(variance / scale**2 - 1) < SIGMAS * math.sqrt(2 / DRAWS) + 0.02
    assert all(isinstance(one, int if whole else float) for one in drawn[:5])


def test_no_draw_is_like_the_one_before() -> None:
    noise = Noise(sensitivity=1.0, rho=1e-6, whole=True)
    assert len({tuple(noise.added([0, 0, 0, 0])) for _ in range(20)}) == 20


@pytest.mark.parametrize("scale", [0.8, 4.8, 60.0])
def test_the_interval_holds_nineteen_draws_in_twenty(scale: float) -> None:
    width = half_width(scale)
    drawn = Noise(sensitivity=1.0, rho=1 / (2 * scale**2), whole=True).added([0] * DRAWS)
    inside = sum(abs(one) <= width for one in drawn) / DRAWS
    assert inside > 0.95 - SIGMAS * math.sqrt(0.05 * 0.95 / DRAWS)
    narrower = sum(abs(one) <= width - 1 for one in drawn) / DRAWS
    assert narrower < 0.95 + SIGMAS * math.sqrt(0.05 * 0.95 / DRAWS)


@given(st.floats(0.3, 300), st.floats(1e-12, 0.4))
def test_a_threshold_is_reached_as_seldom_as_it_says(scale: float, probability: float) -> None:
    threshold = rarely_above(scale, probability)
    if scale > 30:
        reached = 0.5 * math.erfc((threshold - 1) / scale / math.sqrt(2))
    else:
        reach = range(-math.ceil(12 * scale) - 2, math.ceil(12 * scale) + threshold + 2)
        weights = {number: math.exp(-(number**2) / (2 * scale**2)) for number in reach}
        reached = math.fsum(weights[n] for n in reach if n >= threshold) / math.fsum(weights.values())
    assert reached <= probability * (1 + 1e-6)


@pytest.mark.parametrize("within", [1, 3, 8, 15, 60])
@pytest.mark.parametrize(("contributions", "alone"), [(1, 1), (3, 1), (6, 1), (3, 3)])
def test_a_name_that_rests_on_one_donor_shows_as_seldom_as_delta_says(
    within: int, contributions: int, alone: int
) -> None:
    """The donor adds `alone` to each of `contributions` groups at most."""
    sensitivity = float(contributions) if alone > 1 else math.sqrt(contributions)
    price = Price(scale_within(within), sensitivity, contributions, alone, "", hidden=True, delta=1e-8)
    least = price.shown_from(price.scale)
    reach = math.ceil(least + 40 * price.scale)
    weights = [math.exp(-(number**2) / (2 * price.scale**2)) for number in range(reach)]
    shows = sum(weights[least - alone :]) / (weights[0] + 2 * sum(weights[1:]))
    assert contributions * shows <= price.delta


@pytest.mark.parametrize("within", [1, 2, 3, 5, 8, 15, 30, 40, 79, 80, 300, 1000])
def test_the_scale_is_the_largest_that_is_as_close_as_asked(within: int) -> None:
    scale = scale_within(within)
    assert half_width(scale) == within
    assert half_width(scale * 1.0001) > within


@pytest.mark.parametrize("wrong", [(0.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (1.0, math.nan)])
def test_noise_without_a_price_or_a_bound_is_none(wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Noise(sensitivity=wrong[0], rho=wrong[1], whole=True)
