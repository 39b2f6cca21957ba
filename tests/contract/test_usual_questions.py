"""The thirty usual questions: each is accepted, and each costs what it is said to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from connexon.analyses.count import Count, CountSpec
from connexon.v1 import answer_pb2
from connexon_node.data.synthetic import Scope
from connexon_node.privacy.accuracy import scale_within
from connexon_node.settings import PrivacySection
from tests.support.editions import EditionCenter
from tests.support.usual_questions import CHARGED, FROM_TABLES, WITHIN, usual_questions

MUCH = PrivacySection(lifetime=100, year=25, tables=0.46, questions=24, researcher=24, models=0, delta_of_year=1e-4)

UNITS = 38
"""Groups that a donor may be in, over the eighteen."""


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditionCenter]:
    made = EditionCenter(tmp_path_factory.mktemp("center"), privacy=MUCH)
    made.load_sample(60, scope=Scope.WHOLE)
    made.open()
    yield made
    made.close()


def test_every_usual_question_is_accepted_and_read(center: EditionCenter) -> None:
    questions = usual_questions(center)
    assert len(questions) == len({(one.dataset, repr(one.filter), one.analysis) for one in questions}) == 30
    for question in questions:
        answer = center.answer(question)
        hidden = answer.reason.code == "release.too_few_donors"
        assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED or hidden, (question, answer.reason)
        assert isinstance(question.analysis, Count)
        if not hidden:
            CountSpec().read(question.analysis, answer)


def test_twelve_are_free_and_the_others_cost_their_groups(center: EditionCenter) -> None:
    questions = usual_questions(center)
    prices = [center.decide(replace(one, price_only=True)).answer.price for one in questions]
    assert [price.rho for price in prices[: len(FROM_TABLES)]] == [0] * len(FROM_TABLES)
    one = 1 / (2 * scale_within(WITHIN) ** 2)
    units = [price.rho / one for price in prices[len(FROM_TABLES) :]]
    assert all(unit == pytest.approx(round(unit)) for unit in units)
    assert sum(map(round, units)) == UNITS
    # One forty-eighth of the year for each.
    assert one <= PrivacySection().year / 48
    assert len(CHARGED) == 18
