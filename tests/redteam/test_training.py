"""Attacks on training: what one donor adds to a model, read from updates, summaries, evaluations and refusals.

Noise is tried with the node's own functions, over many worlds at once, by an attacker who knows all other donors' rows
and sends whatever model suits them: the best test there is tells the two worlds apart by a shift of normal noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from connexon.analyses.train import Train
from connexon.clock import DAY, now_ms
from connexon.conditions.filters import Filter
from connexon.identity.credential import Grant as Accepted
from connexon.learning.preprocessing import Column, Preprocessing
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
from connexon.v1 import answer_pb2
from connexon.zcdp import best_guess
from connexon_node.analyses.scales import told_beforehand
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.privacy import Account
from connexon_node.privacy.training import TrainingPrice
from connexon_node.release import ReleaseControl
from connexon_node.release.grants import ANY, Grant
from connexon_node.settings import PrivacySection
from connexon_node.training import gradients
from connexon_node.training.client_app import Work
from connexon_node.training.rows import Rows
from tests.redteam.target import SECRET, TARGETS, TRUTH, both, either, is_, isnt
from tests.redteam.target import Target as Node

WORLDS = 20_000
"""Half of them with the target's secret."""
CHANCE = 1e-4
"""That a sound mechanism exceeds its bound here."""
TERMS = Accepted(
    "AcceptedTermsAndPolicies", "model-training", asserted_ms=now_ms() - DAY, expires_ms=now_ms() + 30 * DAY
)
CLASSES = (TargetClass("well", ("MONDO:0005015",)), TargetClass("ill", (SECRET,)))
PRIVATE = Recipe(
    "secrets",
    Target("primary_disease_term", CLASSES),
    (FieldFeature("sex"), FieldFeature("eligibility")),
    Logistic(LocalWork(1.0)),
    4,
)
EXACT = replace(PRIVATE, privacy=None)
FITTED = Preprocessing((Column("x", "number"), Column("z", "number")))
KNOWN = Rows(
    names=("x", "z"),
    kinds=("number", "number"),
    donors=numpy.arange(40, dtype=numpy.int32),
    target=(numpy.arange(40) % 2).astype(float),
    held_out=numpy.zeros(40, dtype=bool),
    columns={"x": numpy.linspace(-1, 1, 40), "z": numpy.zeros(40)},
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    target = Node(tmp_path_factory.mktemp("target"))
    for who in ("ada", "eve"):
        target._askers[who] = target.federation.researcher("kyoto", who, grants=(TERMS,))
    yield target
    target.center.close()


def held(secret: Any, right: Any, rho: float) -> None:
    """No more guesses are right than this much rho allows, and one guess in two at least."""
    rate, bound = float(numpy.mean(secret == right)), best_guess(rho)
    slack = NormalDist().inv_cdf(1 - CHANCE) * math.sqrt(bound * (1 - bound) / len(right))
    assert rate <= bound + slack, (rate, bound)
    assert rate > 0.5 - slack


def with_target(x: float, ill: bool) -> Rows:
    """The known donors, and the target."""
    columns = {"x": numpy.append(KNOWN.columns["x"], x), "z": numpy.append(KNOWN.columns["z"], 0.0)}
    donors, target = numpy.append(KNOWN.donors, 40).astype(numpy.int32), numpy.append(KNOWN.target, float(ill))
    return Rows(KNOWN.names, KNOWN.kinds, donors, target, numpy.append(KNOWN.held_out, False), columns)


def sums(rows: Rows, recipe: Recipe = PRIVATE, weight: float = 0.0) -> numpy.ndarray:
    """A center's clipped gradients of one round at a model that the hub chose, before noise."""
    arrays = {"coefficients": numpy.array([[weight, 0.0]]), "intercept": numpy.array([-weight])}
    assert recipe.privacy is not None
    inputs = FITTED.encode(rows.columns)
    found = gradients.clipped_sums(recipe, arrays, inputs, rows.target, rows.donors, recipe.privacy.clip)
    return numpy.append(found["coefficients"].reshape(-1), found["intercept"])


def rounds_with_noise(recipe: Recipe, present: numpy.ndarray, length: float) -> numpy.ndarray:
    """Log-likelihood ratio of presence, of all rounds together, in each world.

    Noise is alike in all directions: what a target shifts by `length` is told best along that shift.
    """
    price = TrainingPrice.of(recipe)
    assert recipe.privacy is not None
    score = numpy.zeros(len(present))
    for _ in range(recipe.rounds):
        drawn = price.noisy_sums(recipe, present * length)
        score += (drawn * length - length**2 / 2) * 2 * price.update / recipe.privacy.clip**2
    return score


@pytest.mark.parametrize("rounds", [1, 6])
@pytest.mark.parametrize("weight", [0.0, 30.0, 1e4])
def test_all_updates_of_a_run_tell_no_more_of_a_target_than_was_paid(rounds: int, weight: float) -> None:
    """One update for each target was enough, exact; here the hub sends the model that suits it, in every round."""
    recipe = replace(PRIVATE, rounds=rounds)
    length = float(numpy.linalg.norm(sums(with_target(9.0, True), weight=weight) - sums(KNOWN, weight=weight)))
    assert length <= 1 + 1e-9
    present = numpy.arange(WORLDS) % 2 == 0
    score = rounds_with_noise(recipe, present, length)
    held(present, score > 0, rounds * TrainingPrice.of(recipe).update)


def test_more_rounds_are_no_more_looks_at_a_donor() -> None:
    prices = [TrainingPrice.of(replace(PRIVATE, rounds=rounds)) for rounds in (1, 10, 1000)]
    assert {price.rho for price in prices} == {prices[0].rho}
    assert all(rounds * price.update <= price.rho for rounds, price in zip((1, 10, 1000), prices, strict=True))


def test_exact_updates_tell_it_of_every_target() -> None:
    """Why they are granted, and compared."""
    for x, ill in ((2.0, True), (2.0, False), (-1.0, True)):
        difference = sums(with_target(x, ill), replace(PRIVATE, privacy=TrainingPrivacy(clip=1e6))) - sums(KNOWN)
        # The error of a guess at random, and that times x.
        assert difference == pytest.approx([x * (0.5 - ill), 0.0, 0.5 - ill])


def test_the_number_of_donors_tells_no_more_than_was_paid() -> None:
    price = TrainingPrice.of(PRIVATE)
    present = numpy.arange(WORLDS) % 2 == 0
    drawn = numpy.array(price.counting.added((100 + present).tolist()))
    held(present, drawn > 100, price.donors)


def test_an_evaluation_is_no_oracle() -> None:
    """A model that is right of the target alone, or wrong: all sums move by one."""
    price = TrainingPrice.of(PRIVATE)
    present = numpy.arange(WORLDS) % 2 == 0
    without = numpy.array([40.0, 3.0, 20.0])
    drawn, _ = price.noisy_evaluation(without + present[:, None] * numpy.ones(3))
    held(present, (drawn - without).sum(axis=1) > 1.5, price.evaluation)


def test_everything_of_a_run_together_tells_no_more_than_was_charged() -> None:
    recipe = replace(PRIVATE, privacy=TrainingPrivacy(epsilon=2.0))
    price = TrainingPrice.of(recipe)
    present = numpy.arange(WORLDS) % 2 == 0
    score = rounds_with_noise(recipe, present, 1.0)
    donors = numpy.array(price.counting.added((100 + present).tolist())) - 100
    score += (donors - 0.5) * 2 * price.donors
    drawn, scale = price.noisy_evaluation(present[:, None] * numpy.ones(3))
    score += (drawn.sum(axis=1) - 1.5) / scale**2
    held(present, score > 0, price.rho)


def test_two_researchers_together_end_with_the_account(node: Node) -> None:
    """Each trains until the center refuses; what both have together is what the account allows, and no more."""
    node.begin()
    answers = []
    for number in range(20):
        who = ("ada", "eve")[number % 2]
        answers.append(node.ask(Train(PRIVATE), "donors", isnt("country_iso2", f"X{number}"), who=who))
    codes = [answer.reason.code for answer in answers]
    rho = TrainingPrice.of(PRIVATE).rho
    section = PrivacySection()
    assert codes.count("") == math.floor(section.models / rho)
    assert set(codes[codes.count("") :]) == {"budget.spent"}
    state = Account(node.center.database, section).state()
    assert state.total.spent == pytest.approx(codes.count("") * rho)
    present = numpy.arange(WORLDS) % 2 == 0
    score = numpy.zeros(WORLDS)
    for _ in range(codes.count("")):
        score += rounds_with_noise(PRIVATE, present, 1.0)
    held(present, score > 0, section.models)


def test_nothing_of_the_rows_decides_whether_a_center_takes_part(node: Node) -> None:
    """Somebody, nobody, and a target alone: the same answer, but for the noise in one number."""
    wanted: list[Filter] = [is_("country_iso2", "FR"), both(is_("sex", "male"), is_("sex", "female"))]
    wanted += [is_("country_iso2", one) for one in TARGETS[:4]]
    answers = []
    for where in wanted:
        node.begin()
        answer = node.ask(Train(PRIVATE), "donors", where)
        assert answer.status == answer_pb2.ANSWER_STATUS_RELEASED, answer.reason
        assert answer.enrolment.donors >= 1
        for name in ("query_id", "query_sha256", "answered_at_ms", "enrolment"):
            answer.ClearField(name)  # names of fields
        answers.append(answer)
    assert all(answer == answers[0] for answer in answers)


def test_summaries_are_the_same_whoever_is_there(node: Node) -> None:
    """The difference of two told a donor's exact values; now they are known without any donor."""
    asker = node._askers["ada"]
    told = [
        told_beforehand(asker.question(["lyon"], Train(PRIVATE), dataset="donors", where=where), DICTIONARY)
        for where in (None, is_("country_iso2", "IS"), isnt("country_iso2", "IS"))
    ]
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("value", [float("inf"), 1e300, -1e300, float("nan")])
@pytest.mark.parametrize("action", ["train", "evaluate"])
def test_a_value_that_no_sum_can_hold_is_not_told_by_a_failure(value: float, action: str) -> None:
    """A task that fails where a certain donor is there would be an exact answer, at no price."""
    content = RecordDict(
        {
            "arrays": ArrayRecord(
                {"coefficients": Array(numpy.full((1, 2), 1e4)), "intercept": Array(numpy.full(1, -1e4))}
            ),
            "config": ConfigRecord({"server-round": 1, "preprocessing": FITTED.to_json()}),
        }
    )
    recipe = replace(PRIVATE, features=(FieldFeature("x"), FieldFeature("z")))
    found = {}
    for there, rows in ((False, KNOWN), (True, with_target(value, True)), (None, KNOWN.of(KNOWN.donors < 0))):
        work = Work(recipe, rows, 20, split=False)
        reply = work.train(content) if action == "train" else work.evaluate(content)
        name = "arrays" if action == "train" else "each"
        found[there] = numpy.concatenate([one.numpy().reshape(-1) for one in reply.array_records[name].values()])
        assert numpy.isfinite(found[there]).all()
    moved = numpy.linalg.norm(found[True] - found[False])
    assert moved <= (1 if action == "train" else math.sqrt(3)) + 1e-6


class OneGrantEach(ReleaseControl):
    """Release at a center whose steward granted exact training to each researcher."""

    def __init__(self, *arguments: Any, covering: object, **named: Any) -> None:
        def of_the_researcher(asked: Any, *_: object) -> Grant:
            who = asked.researcher.id
            end = now_ms() + DAY
            return Grant(
                f"g-{who}", who, ANY, frozenset({ANY}), "a test", "steward", 0, end, what=frozenset({"training"})
            )

        super().__init__(*arguments, **{**named, "covering": of_the_researcher})


def refusals(node: Node, first: Callable[[str], Filter], second: Callable[[str], Filter], who: str) -> dict[str, str]:
    """Two exact trainings about each target, the second by `who`: the code of the second, each time anew."""
    codes = {}
    for one in TARGETS:
        node.begin(release=OneGrantEach)
        assert node.ask(Train(EXACT), "donors", first(one)).status == answer_pb2.ANSWER_STATUS_RELEASED
        codes[one] = node.ask(Train(EXACT), "donors", second(one), who=who).reason.code
    return codes


def everybody(_: str) -> Filter:
    return isnt("country_iso2", "XX")


def but_the_target(one: str) -> Filter:
    return isnt("country_iso2", one)


def but_the_target_if_ill(one: str) -> Filter:
    return either(isnt("country_iso2", one), isnt("primary_disease_term", SECRET))


@pytest.mark.parametrize("second", [but_the_target, but_the_target_if_ill])
@pytest.mark.parametrize("who", ["ada", "eve"])
def test_no_two_exact_trainings_differ_by_one_donor_and_the_refusal_does_not_tell_whether_they_would(
    node: Node, second: Callable[[str], Filter], who: str
) -> None:
    """Of half the targets the second cohort is the first, of the others it lacks one donor. Nobody learns which."""
    codes = refusals(node, everybody, second, who)
    assert {codes[one] for one in TARGETS if TRUTH[one]} == {codes[one] for one in TARGETS if not TRUTH[one]}
    assert set(codes.values()) == {"training.other_rows" if who == "ada" else "training.too_alike"}


def test_targets_and_classes_are_no_way_round(node: Node) -> None:
    """Who is trained on also follows from what is predicted, and from who is kept apart."""
    node.begin(release=OneGrantEach)
    assert node.ask(Train(EXACT), "donors", everybody("")).status == answer_pb2.ANSWER_STATUS_RELEASED
    others = (
        replace(EXACT, target=Target("primary_disease_term", (CLASSES[1], CLASSES[0]))),
        replace(EXACT, held_out=0.005),
        replace(
            EXACT,
            target=Target("sex", (TargetClass("w", ("female",)), TargetClass("m", ("male",)))),
            features=(FieldFeature("eligibility"),),
        ),
    )
    codes = [node.ask(Train(one), "donors", everybody("")).reason.code for one in others]
    assert set(codes) == {"training.other_rows"}
    again = node.ask(Train(replace(EXACT, model=Logistic(LocalWork(0.1, epochs=3)), rounds=9)), "donors", everybody(""))
    assert again.status == answer_pb2.ANSWER_STATUS_RELEASED, again.reason


def test_a_project_trains_so_often_and_no_more(node: Node) -> None:
    node.begin(release=OneGrantEach)
    node._story._steps.release._cohorts._runs = 3  # type: ignore[attr-defined]
    codes = [node.ask(Train(EXACT), "donors", everybody("")).reason.code for _ in range(5)]
    assert codes == ["", "", "", "training.too_many_runs", "training.too_many_runs"]


def test_exact_training_is_refused_where_nothing_was_granted(node: Node) -> None:
    class NothingGranted(ReleaseControl):
        def __init__(self, *arguments: Any, covering: object, **named: Any) -> None:
            super().__init__(*arguments, **{**named, "covering": lambda *_: None})

    node.begin(release=NothingGranted)
    answer = node.ask(Train(EXACT), "donors", everybody(""))
    assert (answer.reason.code, answer.HasField("enrolment")) == ("release.not_granted", False)


def test_one_centers_exact_update_is_never_a_model(node: Node) -> None:
    alone = replace(EXACT, minimum_centers=1)
    answer = node.ask(Train(alone), "donors", everybody(""))
    assert answer.reason.code == "recipe.invalid"


def test_inputs_in_which_few_donors_stand_out_are_left_out_of_exact_updates() -> None:
    """The hub chooses how rows become inputs: a category of one donor would be that donor's gradient."""
    names = numpy.array(["a"] * 30 + ["b"] * 10 + ["rare"], dtype=object)
    rows = Rows(
        ("c",),
        ("category",),
        numpy.arange(41, dtype=numpy.int32),
        (numpy.arange(41) % 3 == 0).astype(float),
        numpy.zeros(41, dtype=bool),
        {"c": names},
    )
    recipe = replace(EXACT, features=(FieldFeature("c"),))
    for categories in (("a", "b", "rare"), ("a", "b")):
        fitted = Preprocessing((Column("c", "category", categories=categories),))
        content = RecordDict(
            {
                "arrays": ArrayRecord(
                    {"coefficients": Array(numpy.zeros((1, len(categories)))), "intercept": Array(numpy.zeros(1))}
                ),
                "config": ConfigRecord({"server-round": 1, "preprocessing": fitted.to_json()}),
            }
        )
        moved = Work(recipe, rows, 5, split=False).train(content).array_records["arrays"]["coefficients"].numpy()[0]
        # Neither the rare value itself, nor what all others together leave of the intercept's sum.
        assert moved[0] != 0
        assert (moved[1:] == 0).all()


def test_a_model_of_a_number_is_protected_alike() -> None:
    linear = replace(
        PRIVATE, target=Target("y", range=(0.0, 8.0)), model=Linear(LocalWork(0.5)), privacy=TrainingPrivacy(clip=2.0)
    )
    rows = replace(with_target(9.0, True), target=numpy.append(KNOWN.target, 1e9))
    shift = sums(rows, linear) - sums(replace(KNOWN, target=KNOWN.target), linear)
    assert numpy.linalg.norm(shift) == pytest.approx(2.0)
    present = numpy.arange(WORLDS) % 2 == 0
    held(present, rounds_with_noise(linear, present, 2.0) > 0, TrainingPrice.of(linear).rho)
