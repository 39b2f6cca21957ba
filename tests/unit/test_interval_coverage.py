"""Intervals hold what they promise: 95 % nominally, 93.5 to 96.5 % of them, over 1 to 100 centers and small groups.

By the product's own path: drawn by the release step, stated on the wire, read and added up by the researcher's side.
Bounds leave four standard errors of the simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from numpy.typing import NDArray

from connexon.analyses import noise as noises
from connexon.analyses.count import Count, Counts, CountSpec
from connexon.analyses.mean import STEPS, Mean, Means, MeanSpec, Sums
from connexon.analyses.noise import Noise, half_width_of
from connexon.analyses.spec import Kind
from connexon.identity.keys import CenterId
from connexon.v1 import answer_pb2
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.privacy import draws
from connexon_node.privacy.accuracy import scale_within
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.first_ask import (
    Answerable,
    Estimates,
    Group,
    Precision,
    answer,
    count,
    measure,
    plan,
    reconstruct,
)
from connexon_node.privacy.first_ask import half_width as first_ask_half_width
from connexon_node.release.measures import Measured
from connexon_node.release.price import price_of
from connexon_node.release.private import PrivateRelease
from connexon_node.settings import PrivacySection
from connexon_node.state import open_state
from tests.support.center import ask
from tests.support.first_ask import coded_center, shipped_frame

LEAST, MOST = 0.935, 0.965
SECTION = PrivacySection()
SMALL = (0, 1, 2, 5, 10, 40)
"""Donors of the groups, at each center."""
Cells = Mapping[tuple[str], int]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> PrivateRelease:
    folder: Path = tmp_path_factory.mktemp("state")
    return PrivateRelease(SECTION, DICTIONARY, open_state(f"sqlite:///{folder / 'state.db'}"))


def require_covered(inside: NDArray[numpy.bool_] | Sequence[bool], what: object = "") -> None:
    share, error = float(numpy.mean(inside)), 4 * math.sqrt(0.05 * 0.95 / len(inside))
    print(what, round(share, 4))
    assert LEAST - error <= share <= MOST + error, (what, share)


def exact_share(scales: Sequence[float], width: int) -> float:
    """The probability that a sum of discrete Gaussian draws lies within a width."""
    reach = math.ceil(12 * math.sqrt(sum(scale**2 for scale in scales))) + 2
    numbers, summed = numpy.arange(-reach, reach + 1), numpy.ones(1)
    for scale in scales:
        weights = numpy.exp(-(numbers**2) / (2 * scale**2))
        summed = numpy.convolve(summed, weights / weights.sum())
        middle = len(summed) // 2
        summed = summed[max(0, middle - reach) : middle + reach + 1]
    middle = len(summed) // 2
    return float(summed[middle - width : middle + width + 1].sum())


@pytest.mark.parametrize("centers", [1, 2, 3, 4, 7, 10, 30, 100])
def test_the_stated_width_of_a_sum_holds_95_percent_exactly(centers: int) -> None:
    """From within 4 on. Closer numbers are so few that no whole half-width of a few centers is nearer to 95 %."""
    for within in (4, 5, 6, 8, 10, 15, 20, 30):
        scales = [scale_within(within)] * centers
        assert LEAST <= exact_share(scales, half_width_of(scales)) <= MOST, (within, centers)
    for within in (1, 2, 3):
        scales = [scale_within(within)] * centers
        assert 0.925 <= exact_share(scales, half_width_of(scales)) <= 0.975, (within, centers)


def answered(release: PrivateRelease, exact: Cells, widths: Sequence[int], *, kind: Kind = Kind.PRIVATE) -> Counts:
    """One center's answer, asked ever closer, with groups of these exact sizes."""
    if kind is not Kind.PRIVATE:
        return Counts(dict(exact.items()), False, kind)
    question, standing = ask("donors", None, Count(("country_iso2",))), list[Draw]()
    table = Measured(("country_iso2",), (1,), {key: (number,) for key, number in exact.items()}, {}, ())
    for within in widths:
        price = price_of(replace(question, within=within), DICTIONARY, SECTION)
        noise = price.noise(draws.paid(standing))
        assert noise is not None
        standing.append(release._drawn(b"", question, table, price, noise))
    wire = answer_pb2.Noise()
    price.state(wire, paid=draws.paid(standing), charged=0.0)
    told = {key[:-1]: number for key, number in draws.mean(standing).items()}
    # As of known names: what a threshold leaves out is another matter.
    return Counts(told, False, kind, replace(noises.read(wire), shown_from=0))


def groups(many: int) -> Cells:
    return {(f"g{number:06d}",): SMALL[number % len(SMALL)] for number in range(many)}


@pytest.mark.parametrize(
    ("centers", "widths", "many"),
    [
        (1, (8,), 6000),
        (1, (15,), 6000),
        (1, (20, 12, 8), 3000),
        (1, (30, 5), 3000),
        (2, (8,), 3000),
        (3, (15, 10), 2000),
        (10, (8,), 1200),
        (10, (15,), 1200),
        (30, (8,), 600),
        (100, (8,), 600),
    ],
)
def test_counts_and_refined_counts_are_covered(
    release: PrivateRelease, centers: int, widths: tuple[int, ...], many: int
) -> None:
    exact = groups(many)
    counts = {CenterId(f"c{number}"): answered(release, exact, widths) for number in range(centers)}
    combined = CountSpec().combine(Count(("g",)), counts, silent=0)
    inside = [abs(one["count"] - centers * exact[(one["g"],)]) <= one["plus_minus"] for one in combined.totals]
    assert {type(one["plus_minus"]) for one in (*combined.rows, *combined.totals)} == {int}
    require_covered(inside, (centers, widths))
    if centers == 1:
        require_covered([abs(one["count"] - exact[(one["g"],)]) <= one["plus_minus"] for one in combined.rows])


def test_sums_of_mixed_kinds_are_covered(release: PrivateRelease) -> None:
    """Close, wide, refined and exact numbers in one sum."""
    exact = groups(1800)
    kinds = [((8,), Kind.PRIVATE), ((30,), Kind.PRIVATE), ((20, 5), Kind.PRIVATE), ((), Kind.GRANTED)]
    counts = {
        CenterId(f"c{number}"): answered(release, exact, widths, kind=kind)
        for number, (widths, kind) in enumerate(kinds)
    }
    combined = CountSpec().combine(Count(("g",)), counts, silent=0)
    require_covered([abs(one["count"] - 4 * exact[(one["g"],)]) <= one["plus_minus"] for one in combined.totals])


@pytest.mark.parametrize("centers", [1, 3, 10])
def test_first_ask_tables_are_covered(centers: int) -> None:
    """Every cell of every table, of centers of 60 donors, so that most cells are of nobody or of a few."""
    frame = shipped_frame()
    made = plan(frame, rho=SECTION.tables)
    precision = Precision(frame, made)
    codes = coded_center(frame, 60, seed=3)
    truth = {table: count(frame, table, codes) for table in frame.tables}
    inside: dict[object, list[bool]] = {table: [] for table in frame.tables}
    for _ in range(60 // centers):
        told = [reconstruct(precision, measure(frame, made, codes)[0]) for _ in range(centers)]
        for table in frame.tables:
            numbers, noise = zip(*[stated(one, table) for one in told], strict=True)
            width = noises.together(noise)
            assert width is not None
            inside[table] += list(numpy.abs(sum(numbers) - centers * truth[table].ravel()) <= width)
    require_covered([one for each in inside.values() for one in each], centers)


def stated(estimates: Estimates, table: tuple[str, ...]) -> tuple[NDArray[numpy.int64], Noise]:
    """The cells of a table as they leave, and the noise as it is read."""
    frame = estimates.precision.frame
    eye = [numpy.eye(size, dtype=bool) for size in frame.sizes(table)]
    places = numpy.ndindex(*frame.sizes(table))
    asked = Answerable(table, tuple(Group((), tuple(eye[axis][at] for axis, at in enumerate(one))) for one in places))
    cells = answer(estimates, asked)
    variance = cells[0].variance
    wire = answer_pb2.Noise(rho=0.46, scale=math.sqrt(variance), half_width=first_ask_half_width(variance))
    return numpy.array([cell.count for cell in cells]), noises.read(wire)


def simulated_means(centers: int, donors: int, value: float, scale: float, tries: int) -> Callable[[], list[bool]]:
    """Of means between 0 and 80, whether the interval holds the true one; of those that have one."""
    random = numpy.random.default_rng(centers * 1000 + donors)
    noise = Noise(0.016, 0.016, scale, half_width_of([scale]), 1, 0, 0.0)

    def run() -> list[bool]:
        inside = []
        for _ in range(tries):
            parts = {}
            for number in range(centers):
                drawn = donors + round(random.normal(0, scale))
                steps = round((donors * (value - 40) / 40 + random.normal(0, scale)) * STEPS)
                sums = Sums(drawn, drawn * 40 + steps / STEPS * 40)
                parts[CenterId(f"c{number}")] = Means({(): sums}, False, Kind.PRIVATE, 40.0, 40.0, noise)
            (found,) = MeanSpec().combine(Mean("v"), parts, silent=0).totals
            if found["mean"] is not None:
                inside.append(abs(found["mean"] - value) <= found["plus_minus"] + 1e-9)
        return inside

    return run


@pytest.mark.parametrize("value", [12.0, 40.0, 75.0])
@pytest.mark.parametrize(("centers", "donors"), [(1, 40), (1, 400), (3, 40), (10, 10), (10, 40), (100, 5)])
def test_means_are_covered(centers: int, donors: int, value: float) -> None:
    require_covered(simulated_means(centers, donors, value, scale_within(15), 4000 // centers + 400)())


@pytest.mark.parametrize(("centers", "donors"), [(1, 2), (1, 10), (1, 20), (10, 2)])
def test_means_of_hardly_anybody_promise_no_more_than_they_hold(centers: int, donors: int) -> None:
    """Their intervals end where the range does, so that they hold more than 95 %."""
    for value in (12.0, 40.0, 75.0):
        inside = simulated_means(centers, donors, value, scale_within(15), 1500)()
        assert numpy.mean(inside) >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / len(inside))
