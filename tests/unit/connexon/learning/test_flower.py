"""What this network needs of Flower beyond its public promises: where one of these fails, Flower has changed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import pytest

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower_strategies
from flwr.serverapp.strategy import FedAvg

from connexon.identity.keys import CenterId, center_id
from connexon.learning import flower
from connexon.learning.recipe import Strategy, TrainingPrivacy
from connexon.learning.records import RecordsRefused
from connexon.learning.wire_recipe import STRATEGIES
from connexon.v1 import answer_pb2
from connexon_hub.training.grid import HubGrid, Outcome
from connexon_hub.training.reply_values import Expected, ReplyRefused, require_sound
from connexon_hub.training.strategies import strategy_of
from connexon_hub.training.worker_protocol import Collect, Nodes, PartState, RunEnded, Told
from tests.unit.connexon.query.recipes.test_wire_recipe import varied

PINNED = "1.41.0"


def test_flower_is_the_version_that_this_was_written_for() -> None:
    assert version("flwr") == PINNED, "read flwr's changes of Grid, Message, TaskIdentity and the strategies anew"


def test_messages_can_be_made_and_numbered_and_replied_to() -> None:
    flower.identify()
    message = flower.instruction(RecordDict(), action="query.summary", node=101)
    flower.number(message, "7.lyon")
    reply = Message(RecordDict(), reply_to=message)
    assert (reply.metadata.src_node_id, reply.metadata.reply_to_message_id) == (101, "7.lyon")
    assert Message(Error(1, "why"), reply_to=message).has_error()
    assert flower.context().run_config == {}


def test_the_grid_is_all_that_flower_asks_for() -> None:
    assert set(Grid.__abstractmethods__) <= set(vars(HubGrid))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_that_a_recipe_may_name_can_be_made(name: str) -> None:
    options = {"client_learning_rate": 0.1} if name == "QFedAvg" else {}
    made = strategy_of(varied(strategy=Strategy(name, options), minimum_centers=3))
    assert isinstance(made, getattr(flower_strategies, name))
    assert isinstance(made, FedAvg)
    assert (made.min_train_nodes, made.min_available_nodes, made.weighted_by_key) == (3, 3, "num-examples")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FedAvg", {"momentum": 1.0}),
        ("FedAvg", {"min_train_nodes": 1.0}),
        ("MultiKrum", {"num_nodes_to_select": 1.5}),
        ("FedTrimmedAvg", {"self": 1.0}),
        ("FedXgbCyclic", {"fraction_train": 0.5}),
        ("QFedAvg", {}),
    ],
)
def test_options_that_a_strategy_does_not_take_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(RunEnded) as refused:
        strategy_of(varied(strategy=Strategy(name, options)))
    assert refused.value.code == "recipe.strategy"


def test_with_noise_a_model_is_a_plain_mean_and_nobody_evaluates_it_before_the_last_round() -> None:
    made = strategy_of(varied(strategy=Strategy(), stopping=None, privacy=TrainingPrivacy()))
    assert type(made) is FedAvg
    assert made.fraction_evaluate == 0.0
    assert strategy_of(varied(strategy=Strategy())).fraction_evaluate == 1.0


def test_centers_keep_their_numbers_when_one_drops_out() -> None:
    everyone = tuple(map(center_id, ("boston", "kyoto", "lyon")))
    grid = HubGrid("q", varied(), None, None, everyone, everyone)  # type: ignore[arg-type]  # nothing is sent
    numbers = {center: grid.node_of(center) for center in everyone}
    grid.training = everyone[1:]
    assert {grid.center_of(number): number for number in numbers.values()} == numbers


def test_one_center_after_the_other_a_failure_costs_a_turn_and_all_failures_the_run() -> None:
    everyone = tuple(map(center_id, ("boston", "kyoto", "lyon")))
    grid = HubGrid("q", varied(minimum_centers=2, rounds=9), None, None, everyone, everyone)  # type: ignore[arg-type]
    flower.identify()
    message = flower.instruction(RecordDict(), action="train", node=100)
    good, bad = Outcome(everyone[0], message), Outcome(everyone[1], message, "run.no_reply", "It was late.")
    for outcome in (bad, good, bad, good):
        grid._require_update(1, [outcome])
    grid._require_update(1, [bad])
    with pytest.raises(RunEnded, match="kyoto: It was late"):
        grid._require_update(1, [bad])
    grid._require_update(3, [good, good, bad])
    with pytest.raises(RunEnded):
        grid._require_update(3, [good, bad, bad])


@pytest.mark.parametrize(
    ("told", "right"),
    [
        ({"loss": 0.4, "accuracy": 0.9, "auc": 0.8, "auc-pairs": 600.0, "auc-variance": 0.01}, True),
        ({"loss": 1e9, "mean-predicted": 0.4, "mean-observed": 1.0}, True),
        ({"loss": -0.1}, False),
        ({"accuracy": 1.1}, False),
        ({"auc": 5.0}, False),
        ({"auc-pairs": 1e12}, False),
        ({"auc-variance": -1.0}, False),
        ({"mean-observed": float("nan")}, False),
        ({"loss": [0.1, 0.2]}, False),
        ({"luck": 0.5}, False),
    ],
)
def test_metrics_that_cannot_be_are_not_taken(told: dict[str, Any], right: bool) -> None:
    content = RecordDict({"metrics": MetricRecord({"num-examples": 50, **told})})
    judged = (content, answer_pb2.TaskResult(examples=50), Expected("evaluate", varied(), RecordDict()))
    if right:
        require_sound(*judged)
    else:
        with pytest.raises((ReplyRefused, RecordsRefused)):
            require_sound(*judged)


class Away:
    """The hub's end of a run's pipe: of the centers one is connected, and does not reply."""

    def __init__(self, *connected: CenterId) -> None:
        self.connected = connected

    def send(self, request: object) -> None:
        """What is asked."""
        self.request = request

    def recv(self) -> object:
        """What the hub answers."""
        match self.request:
            case Nodes():
                return self.connected
            case Collect(numbers):
                return tuple(Told(numbers[0], center, PartState.MISSED, None) for center in self.connected)
            case _:
                return None


def test_centers_that_are_away_when_a_round_begins_are_known(tmp_path: Path) -> None:
    boston, kyoto, lyon = everyone = tuple(map(center_id, ("boston", "kyoto", "lyon")))
    pipe: Any = Away(kyoto)
    grid = HubGrid(
        "0b7c2f0e-5a1f-4a43-9f0e-5d2a6d1f3b11", varied(minimum_centers=1), tmp_path, pipe, everyone, everyone
    )
    flower.identify()
    made = strategy_of(varied(strategy=Strategy(), minimum_centers=1))
    start = ArrayRecord({"coefficients": Array(numpy.zeros((1, 2)))})
    with pytest.raises(RunEnded):
        grid.send_and_receive(made.configure_train(1, start, ConfigRecord({}), grid))
    assert grid.away == (boston, lyon)
