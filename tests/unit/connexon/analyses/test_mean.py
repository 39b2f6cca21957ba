"""Means: asked for, read and put together over centers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connexon.analyses.mean import STEPS, Mean, Means, MeanSpec, Sums
from connexon.analyses.noise import Noise, half_width_of
from connexon.analyses.results import ResultUnreadable
from connexon.analyses.spec import Kind
from connexon.errors import ConnexonError, InvalidQuery
from connexon.identity.keys import CenterId
from connexon.query import wire_question
from connexon.v1 import answer_pb2, query_pb2
from tests.support.federation import new_federation
from tests.support.questions import PATHS

ADA = new_federation().researcher("lyon", "ada")
SPEC = MeanSpec()
RANGES = st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)).filter(lambda one: one[0] < one[1])


@given(PATHS, st.lists(PATHS, max_size=2, unique=True), st.sampled_from(Kind), st.none() | RANGES)
def test_every_mean_comes_back_from_its_bytes(
    field: str, by: list[str], kind: Kind, limits: tuple[float, float] | None
) -> None:
    low, high = limits or (None, None)
    question = ADA.question(["kyoto"], Mean(field, tuple(by), kind, low, high))
    assert wire_question.from_bytes(wire_question.to_bytes(question)).analysis == question.analysis


@pytest.mark.parametrize(
    "limits", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (-1.7e308, 1.7e308), (0, None)]
)
def test_a_range_that_is_none_is_refused(limits: tuple[Any, Any]) -> None:
    wire = query_pb2.Query()
    wire.mean.field, wire.mean.kind, wire.mean.low = "passage_no", query_pb2.NUMBER_KIND_PRIVATE, limits[0]
    if limits[1] is not None:
        wire.mean.high = limits[1]
    with pytest.raises(InvalidQuery) as caught:
        SPEC.from_wire(wire)
    assert caught.value.code == "query.invalid_range"


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc"), st.floats(-1e6, 1e6)), min_size=1, max_size=60))
def test_however_rows_are_split_over_centers_the_mean_is_the_same(rows: list[tuple[int, str, float]]) -> None:
    asked = Mean("value", ("group",), Kind.GRANTED)

    def totals(split: dict[int, int]) -> dict[str, tuple[int, float]]:
        parts: dict[str, dict[tuple[str], list[float]]] = {}
        for center, group, value in rows:
            parts.setdefault(f"c{split[center]}", {}).setdefault((group,), []).append(value)
        means = {
            CenterId(name): Means(
                {key: Sums(len(values), math.fsum(values)) for key, values in cells.items()}, False, Kind.PUBLISHED
            )
            for name, cells in parts.items()
        }
        return {one["group"]: (one["number"], one["mean"]) for one in SPEC.combine(asked, means, silent=0).totals}

    one, all_apart = totals(dict.fromkeys(range(5), 0)), totals({center: center for center in range(5)})
    assert one.keys() == all_apart.keys()
    for group, (number, mean) in one.items():
        assert all_apart[group][0] == number
        assert all_apart[group][1] == pytest.approx(mean, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("centers", [1, 3, 10, 100])
def test_the_interval_covers_what_the_noise_hides(centers: int) -> None:
    """95 % of intervals hold the mean of all donors, whatever it is beside the middle of the range."""
    random = numpy.random.default_rng(centers)
    low, high, scale, each = 0.0, 80.0, 7.9, 400
    half, middle, tries, inside = 40.0, 40.0, 2_000, 0
    exact = [each * 12.0 + 100.0 * number for number in range(centers)]
    truth = math.fsum(exact) / (each * centers)
    noise = Noise(0.016, 0.016, scale, half_width_of([scale]), 1, 0, 0.0)
    for _ in range(tries):
        parts = {}
        for number, total in enumerate(exact):
            drawn = each + round(random.normal(0, scale))
            steps = round((total - each * middle) / half * STEPS + random.normal(0, scale * STEPS))
            parts[CenterId(f"c{number}")] = Means(
                {(): Sums(drawn, drawn * middle + steps / STEPS * half)}, False, Kind.PRIVATE, middle, half, noise
            )
        (found,) = SPEC.combine(Mean("value", low=low, high=high), parts, silent=0).totals
        inside += abs(found["mean"] - truth) <= found["plus_minus"]
    assert 0.935 <= inside / tries <= 0.965


def test_a_group_of_hardly_anybody_has_no_mean() -> None:
    noise = Noise(0.016, 0.016, 7.9, half_width_of([7.9]), 1, 0, 0.0)
    one = Means(
        {("a",): Sums(3, 900.0), ("b",): Sums(-4, 2.0), ("c",): Sums(400, 800.0)}, False, Kind.PRIVATE, 0, 9, noise
    )
    combined = SPEC.combine(Mean("value", ("group",)), {CenterId("lyon"): one}, silent=1)
    found = {total["group"]: total["mean"] for total in combined.totals}
    assert found == {"a": None, "b": None, "c": pytest.approx(2.0, abs=0.01)}
    assert [row[0] for row in combined.sheets[0].rows] == ["c"]
    assert [row[2] for row in combined.whole_sheets[0].rows][:2] == ["·", "·"]
    assert "too few donors" in combined.notes[0]
    assert combined.totals[0]["at_least"]


def answer() -> answer_pb2.Answer:
    wire = answer_pb2.Answer()
    wire.mean.field, wire.mean.low, wire.mean.high = "passage_no", 0, 80
    wire.mean.cells.add(number=400, steps=-100 * STEPS)
    wire.protection.kind = query_pb2.NUMBER_KIND_PRIVATE
    wire.protection.noise.CopyFrom(
        answer_pb2.Noise(rho=0.016, scale=7.9, half_width=half_width_of([7.9]), contributions=2)
    )
    return wire


def test_what_a_center_sends_is_read_as_sums() -> None:
    read = SPEC.read(Mean("passage_no"), answer())
    assert read.cells == {(): Sums(400, 400 * 40 - 100 * 40.0)}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: setattr(one.mean, "field", "other"),
        lambda one: one.mean.by.append("type"),
        lambda one: one.mean.cells.add(number=1),
        lambda one: one.mean.ClearField("cells"),
        lambda one: setattr(one.mean, "high", 0),
        lambda one: setattr(one.mean, "high", math.nan),
        lambda one: setattr(one.mean, "low", -math.inf),
        lambda one: setattr(one.mean.cells[0], "number", 10**15),
        lambda one: one.protection.ClearField("noise"),
        lambda one: setattr(one.protection, "kind", query_pb2.NUMBER_KIND_GRANTED),
        lambda one: setattr(one.protection.noise, "scale", 1e-9),
        lambda one: one.ClearField("mean"),
        lambda one: one.count.SetInParent(),
    ],
)
def test_what_does_not_fit_the_question_is_not_read(spoil: Any) -> None:
    wire = answer()
    spoil(wire)
    with pytest.raises(ConnexonError, match=r"center|noise") as caught:
        SPEC.read(Mean("passage_no"), wire)
    assert caught.value.code in ("answer.bad_result", "answer.bad_noise")


def test_another_range_than_was_asked_for_is_not_read() -> None:
    assert SPEC.read(Mean("passage_no", low=0, high=80), answer()).half == 40
    with pytest.raises(ResultUnreadable):
        SPEC.read(Mean("passage_no", low=0, high=100), answer())


def test_groups_in_another_order_are_the_same_question_and_another_range_is_not() -> None:
    asked = Mean("value", ("a", "b"))
    assert SPEC.identity(asked) == SPEC.identity(replace(asked, by=("b", "a")))
    assert SPEC.identity(asked) != SPEC.identity(replace(asked, low=0.0, high=1.0))
    assert SPEC.words(replace(asked, low=0.0, high=1.0), "lots") == "mean value of lots by a, b, from 0 to 1"
