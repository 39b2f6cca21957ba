"""Means over a real center, computed, noisy, priced, kept, and exact only of what is nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from connexon.analyses.mean import STEPS, Mean, MeanSpec
from connexon.analyses.spec import Kind
from connexon.conditions.where import parse
from connexon.errors import InvalidQuery, Refused
from connexon.query.question import Question
from connexon.v1 import query_pb2
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.data.synthetic import Scope
from connexon_node.pipeline.values import SumTable
from connexon_node.release import ReleaseControl
from connexon_node.settings import PrivacySection, ReleaseSection
from tests.support.center import ask, everything_granted
from tests.support.editions import EditionCenter

MUCH = PrivacySection(lifetime=100, year=100, tables=0.5, questions=99, researcher=99, models=0)
SPEC = MeanSpec()


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditionCenter]:
    made = EditionCenter(tmp_path_factory.mktemp("center"), privacy=MUCH)
    made.load_sample(300, scope=Scope.WHOLE)
    made.open()
    yield made
    made.close()


def test_what_was_drawn_stands(tmp_path: Path, database_url: str) -> None:
    center = EditionCenter(tmp_path, database_url, privacy=MUCH)
    center.load_sample(60)
    center.open()
    question = mean("lots", Mean("passage_no", ("status",)))
    first = center.answer(question)
    again = center.answer(replace(question, query_id=ask("lots").query_id))
    assert again.mean == first.mean
    assert again.protection.noise.charged == 0
    finer = center.answer(replace(question, query_id=ask("lots").query_id, within=5))
    assert finer.mean != first.mean
    assert finer.protection.noise.charged < finer.protection.noise.rho
    center.close()


def mean(
    dataset: str, analysis: Mean, text: str = "", within: int | None = None, *, price_only: bool = False
) -> Question:
    condition = parse(text) if text else None
    return replace(ask(dataset, condition, analysis), within=within, price_only=price_only)


def by_hand(center: EditionCenter, text_status: str = "") -> tuple[int, float]:
    """Donors with lots that have a passage number, and the mean over them of their own means."""
    stands = center.ledger.snapshot()
    consented = set(stands.donors[stands.profiles > 0].tolist())
    own: dict[object, list[float]] = {}
    for row in center.rows("lots"):
        if row["passage_no"] is not None and text_status in ("", row["status"]) and row["_donor"] in consented:
            own.setdefault(row["_donor"], []).append(float(row["passage_no"]))  # type: ignore[arg-type]
    return len(own), float(numpy.mean([numpy.mean(values) for values in own.values()]))


def test_each_donor_counts_once_by_its_own_mean(center: EditionCenter) -> None:
    everybody = center.cohort()
    for text, status in (("", ""), ("status = 'released'", "released")):
        shape = center.compute(mean("lots", Mean("passage_no"), text), everybody).shape
        assert isinstance(shape, SumTable)
        (cell,) = shape.cells
        assert cell.donors is not None
        assert cell.own is not None
        number, value = by_hand(center, status)
        assert cell.donors.size == numpy.unique(cell.donors).size == number
        assert cell.own.mean() == pytest.approx(value, rel=1e-12)


def test_a_mean_has_noise_of_the_width_that_was_asked_for(center: EditionCenter) -> None:
    question = mean("lots", Mean("passage_no", low=0, high=80), within=1)
    answer = center.answer(question)
    assert answer.protection.kind == query_pb2.NUMBER_KIND_PRIVATE
    read = SPEC.read(Mean("passage_no", low=0, high=80), answer)
    (found,) = SPEC.combine(Mean("passage_no"), {"lyon": read}, silent=0).totals
    shape = center.compute(question).shape
    assert isinstance(shape, SumTable)
    own = shape.cells[0].own
    assert own is not None
    # Consent keeps some donors out, so the exact numbers are those of the same cohort's.
    assert abs(found["number"] - own.size) <= own.size
    assert found["plus_minus"] is not None


def test_a_mean_costs_twice_a_count_and_says_so_before(center: EditionCenter) -> None:
    priced = center.decide(mean("lots", Mean("passage_no"), within=8, price_only=True)).answer.price
    count = center.decide(replace(center.question("lots", within=8), price_only=True)).answer.price
    assert priced.rho == pytest.approx(2 * count.rho)
    assert priced.charge == pytest.approx(priced.rho)
    paid = center.answer(mean("lots", Mean("passage_no"), within=8)).protection.noise
    assert paid.charged == pytest.approx(priced.charge, rel=1e-6)


def test_groups_in_another_order_have_the_same_numbers(center: EditionCenter) -> None:
    one = center.answer(mean("lots", Mean("passage_no", ("status", "donor.sex"))))
    other = center.answer(mean("lots", Mean("passage_no", ("donor.sex", "status"))))
    assert {(*map(str, cell.key), cell.number, cell.steps) for cell in one.mean.cells} == {
        (*map(str, reversed(cell.key)), cell.number, cell.steps) for cell in other.mean.cells
    }


def test_a_field_without_bounds_needs_a_range_and_a_text_has_no_mean(center: EditionCenter) -> None:
    with pytest.raises(InvalidQuery) as caught:
        center.decide(mean("outcomes", Mean("value")))
    assert caught.value.code == "mean.no_range"
    assert center.decide(mean("outcomes", Mean("value", low=0, high=100))).answer.HasField("mean")
    with pytest.raises(InvalidQuery) as caught:
        center.decide(mean("lots", Mean("status")))
    assert caught.value.code == "field.not_a_number"


def test_exact_means_of_persons_do_not_leave_even_where_exact_numbers_are_granted(center: EditionCenter) -> None:
    granting = ReleaseControl(ReleaseSection(), DICTIONARY, center.database, covering=everything_granted)
    for kind, code in ((Kind.GRANTED, "release.no_granted_form"), (Kind.PUBLISHED, "published.not_offered")):
        with pytest.raises(Refused) as caught:
            granting.decide(
                center.compute(
                    mean("lots", Mean("passage_no", kind=kind)),
                    center.cohort(question=mean("lots", Mean("passage_no", kind=kind))),
                )
            )
        assert caught.value.code == code


def test_what_belongs_to_nobody_has_an_exact_mean(center: EditionCenter) -> None:
    answer = center.decide(mean("specification_items", Mean("low"))).answer
    assert answer.protection.kind == query_pb2.NUMBER_KIND_PUBLISHED
    rows = [float(row["low"]) for row in center.rows("specification_items") if row["low"] is not None]  # type: ignore[arg-type]
    (cell,) = answer.mean.cells
    assert (cell.number, cell.total) == (len(rows), pytest.approx(sum(rows)))
    read = SPEC.read(Mean("low"), answer)
    assert read.noise is None


def test_sums_are_unbiased(center: EditionCenter) -> None:
    """Over many draws of other questions: the noise has mean zero and the stated width."""
    asked = Mean("passage_no", low=0, high=80)
    numbers = []
    for project in range(60):
        question = mean("lots", asked, within=15)
        question = replace(question, purpose=replace(question.purpose, project=f"p{project}"))
        cell = center.decide(question).answer.mean.cells[0]
        numbers.append((cell.number, cell.steps / STEPS))
    shape = center.compute(mean("lots", asked)).shape
    assert isinstance(shape, SumTable)
    deviations = numpy.array(numbers).std(axis=0, ddof=1)
    # Lots: a donor counts in one group here, so both have a scale of 7.9. Bounds at 1e-4 by chi-squared of 59.
    assert numpy.all((deviations > 7.9 * 0.66) & (deviations < 7.9 * 1.38))
