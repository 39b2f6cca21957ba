"""Trees from elsewhere: together they predict as all of them, bare they say no counts, and bent ones are not read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy
import pytest

pytest.importorskip("xgboost")
pytest.importorskip("flwr")

import xgboost
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from connexon.learning import flower, forest, models
from connexon.learning.forest import TreesRefused
from connexon.learning.moments import Moments
from connexon.learning.preprocessing import Column, Preprocessing, Summary
from connexon.learning.recipe import BoostedTrees, FeatureSet, FieldFeature, Recipe, Strategy, Target, TargetClass
from connexon.learning.records import RecordsRefused
from connexon.v1 import answer_pb2
from connexon_hub.training.reply_values import Expected, ReplyRefused, require_sound
from connexon_hub.training.strategies import strategy_of
from connexon_node.training import trees
from connexon_node.training.client_app import require_model

RANDOM = numpy.random.default_rng(4)
ROWS, INPUTS = 200, 3
VALUES = RANDOM.normal(size=(ROWS, INPUTS))
LABEL = (VALUES[:, 0] + RANDOM.normal(0, 0.5, ROWS) > 0).astype(float)
DONORS = numpy.arange(ROWS, dtype=numpy.int32)
RECIPE = Recipe(
    "m",
    Target("y", (TargetClass("no", (0,)), TargetClass("yes", (1,)))),
    tuple(FieldFeature(f"x{place}") for place in range(INPUTS)),
    BoostedTrees(trees_per_round=2, depth=3),
    4,
    strategy=Strategy("FedXgbBagging"),
    privacy=None,
)
FITTED = Preprocessing(tuple(Column(f"x{place}", "number") for place in range(INPUTS)))


def grown(rows: slice, before: bytes = b"") -> bytes:
    """A center's two new trees over some of the rows."""
    start = {models.TREES: numpy.frombuffer(before, dtype=numpy.uint8)}
    made, _ = trees.trained(RECIPE, start, VALUES[rows], LABEL[rows], DONORS[rows], minimum=5)
    return made[models.TREES].tobytes()


FIRST, SECOND = grown(slice(0, 100)), grown(slice(100, 200))


def margins(data: bytes) -> numpy.ndarray:
    """What the trees say of all rows."""
    return models.scores(RECIPE, {models.TREES: numpy.frombuffer(data, dtype=numpy.uint8)}, VALUES)[:, 0]


def count(data: bytes) -> int:
    """How many trees, if they are sound."""
    return forest.require_sound(data, inputs=INPUTS, depth=3, classifies=True)


def test_trees_of_several_centers_say_together_what_each_says() -> None:
    whole = forest.joined(FIRST, SECOND)
    assert (count(b""), count(FIRST), count(whole)) == (0, 2, 4)
    assert margins(whole) == pytest.approx(margins(FIRST) + margins(SECOND), abs=1e-5)
    assert forest.joined(b"", FIRST) == forest.joined(FIRST, b"") == FIRST
    more = grown(slice(0, 100), whole)
    assert (count(more), count(forest.joined(whole, more))) == (2, 6)


def test_trees_leave_without_the_numbers_of_rows_in_their_leaves() -> None:
    booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(VALUES, label=LABEL), 2)
    told = bytes(booster.save_raw("json"))
    assert ROWS in json.loads(told)["learner"]["gradient_booster"]["model"]["trees"][0]["sum_hessian"]
    bare = forest.bare(told)
    again = xgboost.Booster(model_file=bytearray(bare))
    matrix = xgboost.DMatrix(VALUES)
    assert numpy.array_equal(again.predict(matrix), booster.predict(matrix))
    for data in (bare, FIRST):
        for tree in json.loads(data)["learner"]["gradient_booster"]["model"]["trees"]:
            assert not any(any(tree[name]) for name in ("sum_hessian", "loss_changes", "base_weights"))


def bent(change: Callable[[Any, Any], object]) -> bytes:
    """The first trees with something changed: of the learner, or of the first tree."""
    document = json.loads(FIRST)
    learner = document["learner"]
    change(learner, learner["gradient_booster"]["model"]["trees"][0])
    return json.dumps(document).encode()


BENT = {
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "nothing in it": b"{}",
    "other objective": bent(lambda learner, _: learner["objective"].update(name="reg:squarederror")),
    "other begin": bent(lambda learner, _: learner["learner_model_param"].update(base_score="9E9")),
    "other inputs": bent(lambda learner, _: learner["learner_model_param"].update(num_feature="4")),
    "other booster": bent(lambda learner, _: learner["gradient_booster"].update(name="dart")),
    "a tree less": bent(lambda learner, _: learner["gradient_booster"]["model"]["trees"].pop()),
    "not finite": bent(lambda _, tree: tree["split_conditions"].__setitem__(0, float("nan"))),
    "infinite": bent(lambda _, tree: tree["split_conditions"].__setitem__(-1, 1e300)),
    "far too large": bent(lambda _, tree: tree["split_conditions"].__setitem__(-1, 10**400)),
    "round and round": bent(lambda _, tree: tree["left_children"].__setitem__(1, 0)),
    "out of bounds": bent(lambda _, tree: tree["right_children"].__setitem__(0, 10_000)),
    "a branch shared": bent(lambda _, tree: tree["right_children"].__setitem__(0, tree["left_children"][0])),
    "an input that is not there": bent(lambda _, tree: tree["split_indices"].__setitem__(0, INPUTS)),
    "below the first input": bent(lambda _, tree: tree["split_indices"].__setitem__(0, -1)),
    "a list too short": bent(lambda _, tree: tree["default_left"].pop()),
    "half an index": bent(lambda _, tree: tree["split_indices"].__setitem__(0, 0.5)),
    "categories": bent(lambda _, tree: tree["split_type"].__setitem__(0, 1)),
    "a text": bent(lambda _, tree: tree["sum_hessian"].__setitem__(0, "5")),
    "too many nodes": bent(lambda _, tree: tree["tree_param"].update(num_nodes="1000000")),
}


@pytest.mark.parametrize("what", BENT)
def test_what_is_bent_is_refused_by_hub_and_center(what: str) -> None:
    with pytest.raises(TreesRefused):
        count(BENT[what])
    with pytest.raises((ReplyRefused, TreesRefused)):
        judge(BENT[what])
    with pytest.raises((RecordsRefused, TreesRefused)):
        require_model(RECIPE, FITTED, arrays_of(BENT[what]))


def arrays_of(data: bytes) -> ArrayRecord:
    """Trees as Flower carries them."""
    return ArrayRecord({models.TREES: Array(numpy.frombuffer(data, dtype=numpy.uint8))})


def judge(data: bytes, *, sent: bytes = b"", recipe: Recipe = RECIPE) -> None:
    """What the hub makes of a center's trees."""
    asked = RecordDict(
        {"arrays": arrays_of(sent), "config": ConfigRecord({"preprocessing": FITTED.to_json(), "server-round": 1})}
    )
    reply = RecordDict({"arrays": arrays_of(data), "metrics": MetricRecord({"num-examples": 100, "loss": 0.5})})
    require_sound(reply, answer_pb2.TaskResult(examples=100), Expected("train", recipe, asked))


def test_as_many_trees_are_taken_as_the_recipe_asks_for() -> None:
    judge(FIRST)
    judge(FIRST, sent=SECOND)
    for data in (b"", forest.joined(FIRST, SECOND)):
        with pytest.raises(ReplyRefused):
            judge(data)
    cyclic = Recipe(**{**vars(RECIPE), "strategy": Strategy("FedXgbCyclic")})
    judge(forest.joined(FIRST, SECOND), sent=FIRST, recipe=cyclic)
    with pytest.raises(ReplyRefused):
        judge(SECOND, sent=FIRST, recipe=cyclic)


class NoGrid:
    """Three centers, of whom nothing is asked."""

    def get_node_ids(self) -> list[int]:
        """Their numbers."""
        return [100, 101, 102]


def test_a_round_takes_every_tree_of_every_center_that_replied() -> None:
    flower.identify()
    made = strategy_of(RECIPE)
    before = b""
    for number, expected in ((1, 4), (2, 8)):
        sent = arrays_of(before)
        messages = list(made.configure_train(number, sent, ConfigRecord({}), NoGrid()))  # type: ignore[arg-type]
        replies = [Message(Error(1, "why"), reply_to=messages[0])]
        for message, data in zip(messages[1:], (FIRST, SECOND), strict=True):
            content: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {
                "arrays": arrays_of(data),
                "metrics": MetricRecord({"num-examples": 50, "loss": 0.5}),
            }
            replies.append(Message(RecordDict(content), reply_to=message))
        arrays, metrics = made.aggregate_train(number, replies)
        assert arrays is not None
        assert metrics is not None
        before = arrays[models.TREES].numpy().tobytes()
        assert count(before) == expected
    assert margins(before) == pytest.approx(2 * (margins(FIRST) + margins(SECOND)), abs=1e-5)


@pytest.mark.parametrize(
    ("kinds", "right"),
    [
        (("category", "number", "number"), True),
        (("number", "number", "number"), True),
        (("number", "number"), False),
        (("number", "category", "number"), False),
    ],
)
def test_a_summary_has_the_columns_of_the_recipe(kinds: tuple[Any, ...], right: bool) -> None:
    features = (FieldFeature("donor.sex"), FeatureSet("timepoints", "attribute", ("ph", "lactate"), "value"))
    recipe = Recipe(**{**vars(RECIPE), "features": features})
    content = Summary(kinds, (Moments(),) * len(kinds), examples=40).to_records()
    expected = Expected("query.summary", recipe, RecordDict())
    if right:
        require_sound(content, answer_pb2.TaskResult(examples=40), expected)
    else:
        with pytest.raises(ReplyRefused):
            require_sound(content, answer_pb2.TaskResult(examples=40), expected)
