"""How a run looks: every text of others is made safe, every number told is shown, and nothing is made up."""

from __future__ import annotations

import re
from typing import Any

import pytest

from connexon.analyses.results import ResultUnreadable
from connexon.analyses.train import Enrolled, Train, TrainSpec
from connexon.client.answer import Answer
from connexon.client.center_answer import CenterAnswer, Status
from connexon.client.training.run import Run, RunState
from connexon.client.training.run_display import picture, sparkline
from connexon.errors import NotFound
from connexon.identity.keys import CenterId
from connexon.learning.recipe import KINDS, Model
from connexon.query.question import Purpose, Question
from connexon.query.recipes import file as recipe_file
from connexon.v1 import answer_pb2, models_pb2
from tests.support.training_hub import RECIPE, report

KYOTO, LYON = CenterId("kyoto"), CenterId("lyon")
RECIPE_FILE = recipe_file.read(RECIPE)
TRAIN = Train(RECIPE_FILE.recipe)


def run_with(*reports: models_pb2.RoundReport, state: str = "RUNNING", **more: Any) -> Run:
    question = Question(
        query_id="0b7c2f0e-5a1f-4a43-9f0e-5d2a6d1f3b11",
        federation="alliance",
        centers=(KYOTO, LYON),
        issued_at_ms=1_795_420_535_186,
        expires_at_ms=1_796_020_535_186,
        purpose=Purpose(research=("DUO:0000037",)),
        dataset="differentiation_runs",
        filter=None,
        analysis=TRAIN,
    )
    answer = Answer(question, {KYOTO: "Kyoto", LYON: "Lyon"})
    answer.take(CenterAnswer(KYOTO, "Kyoto", Status.RELEASED, "released", "", result=Enrolled(40)))
    run = Run(
        answer, follow=lambda run, seconds: None, cancel=lambda: 0, model=lambda name: pytest.fail("not asked for")
    )
    status = models_pb2.RunStatus(
        query_id=question.query_id,
        state=models_pb2.RunState.Value(f"RUN_STATE_{state}"),
        rounds=3,
        reports=reports,
        **more,
    )
    run.take(status)
    return run


def test_a_hostile_hub_moves_no_cursor_and_writes_no_html() -> None:
    nasty = "\x1b[2J<script>alert(1)</script>"
    one = report(1, {"kyoto": 0.5}, missing={nasty: nasty})
    one.parts[-1].reason.message = nasty
    one.metrics[nasty] = 1.0
    run = run_with(one, state="FAILED", reason=answer_pb2.Reason(code=nasty, message=nasty))
    assert "\x1b" not in str(run)
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()


def test_rounds_are_told_once_in_order_and_within_the_recipe() -> None:
    run = run_with(report(2, {"kyoto": 0.4}), report(1, {"kyoto": 0.5}), report(9, {"kyoto": 0.1}))
    assert [one.number for one in run.rounds] == [1, 2]
    run.take(models_pb2.RunStatus(query_id=run.id, state=models_pb2.RUN_STATE_RUNNING, round=3))
    assert [one.number for one in run.rounds] == [1, 2]
    assert "round 3 of 3" in str(run)


def test_the_picture_has_a_point_for_each_round_within_its_frame() -> None:
    assert picture(run_with(report(1, {"kyoto": 0.5}))) == ""
    drawn = picture(run_with(*(report(number, {"kyoto": 0.6 / number}) for number in (1, 2, 3))))
    lines = re.findall(r'points="([^"]+)"', drawn)
    assert len(lines) == 2  # loss and auc
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        assert len(points) == 3
        assert all(0 <= x <= 420 and 0 <= y <= 120 for x, y in points)
    loss = [float(point.split(",")[1]) for point in lines[0].split()]
    assert loss == sorted(loss)  # downwards on a page


def test_bars_rise_with_the_numbers() -> None:
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""


def test_a_run_without_metrics_says_that_they_cannot_be_told() -> None:
    silent = models_pb2.RoundReport(round=1, parts=[models_pb2.RoundPart(center_id="kyoto", took_part=True)])
    run = run_with(silent)
    assert "cannot be told" in str(run)
    assert "nan" not in str(run)


def test_there_is_no_model_before_there_is_one() -> None:
    with pytest.raises(NotFound, match="run is running"):
        _ = run_with().model


def test_a_state_of_a_later_version_is_not_guessed() -> None:
    run = run_with()
    with pytest.raises(Exception, match="upgrade connexon"):
        run.take(models_pb2.RunStatus(query_id=run.id, state=99))  # type: ignore[arg-type]
    assert run.state is RunState.RUNNING


class TestEnrolment:
    def test_what_is_no_enrolment_is_refused(self) -> None:
        enrolling = TrainSpec()
        with pytest.raises(ResultUnreadable):
            enrolling.read(TRAIN, answer_pb2.Answer(count=answer_pb2.CountResult()))
        with pytest.raises(ResultUnreadable):
            enrolling.read(TRAIN, answer_pb2.Answer())
        newer = answer_pb2.Enrolment.FromString(b"\xa0\x06\x01")
        with pytest.raises(ResultUnreadable, match="newer"):
            enrolling.read(TRAIN, answer_pb2.Answer(enrolment=newer))

    def test_donors_add_up_to_a_lower_bound_where_one_does_not_say(self) -> None:
        combined = TrainSpec().combine(TRAIN, {LYON: Enrolled(None), KYOTO: Enrolled(40)}, silent=0)
        assert combined.rows == ({"center": "kyoto", "donors": 40}, {"center": "lyon", "donors": None})
        assert combined.totals == ({"centers": 2, "donors": 40, "at_least": True},)
        assert combined.notes == ()
        few = TrainSpec().combine(TRAIN, {KYOTO: Enrolled(40)}, silent=1)
        assert few.notes == ("1 center takes part, so far; the recipe wants at least 2.",)
        assert TrainSpec().combine(TRAIN, {}, silent=2).totals == ()

    def test_every_model_has_its_name(self) -> None:
        assert set(KINDS) == set(Model.__args__)
        assert TrainSpec().parameters(TRAIN)["kind"] == "logistic"
