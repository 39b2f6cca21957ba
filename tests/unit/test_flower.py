"""What this network needs of Flower beyond its public promises: where one of these fails, Flower has changed."""

from __future__ import annotations

from importlib.metadata import version

import pytest

pytest.importorskip("flwr")

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower_strategies
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg

from connexon.identity import center_id
from connexon.learning import flower
from connexon.learning.recipe import PrivacySide, Strategy, TrainingPrivacy
from connexon.learning.wire_recipe import STRATEGIES
from connexon_hub.training.grid import HubGrid
from connexon_hub.training.strategies import noise_multiplier, strategy_of
from connexon_hub.training.talk import RunEnded
from tests.unit.test_recipe import varied

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
    made = strategy_of(varied(strategy=Strategy(name, options), minimum_centers=3), centers=4)
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
        strategy_of(varied(strategy=Strategy(name, options)), centers=3)
    assert refused.value.code == "recipe.strategy"


def test_privacy_at_the_hub_wraps_the_strategy_and_privacy_at_centers_does_not() -> None:
    hub = TrainingPrivacy(PrivacySide.HUB, 1.0, 1e-5, 2.0)
    made = strategy_of(varied(strategy=Strategy(), privacy=hub), centers=3)
    assert isinstance(made, DifferentialPrivacyServerSideFixedClipping)
    assert (made.clipping_norm, made.num_sampled_clients) == (2.0, 3)
    center = TrainingPrivacy(PrivacySide.CENTER, 1.0, 1e-5, 2.0)
    assert type(strategy_of(varied(strategy=Strategy(), privacy=center), centers=3)) is FedAvg


def test_more_rounds_or_less_epsilon_need_more_noise() -> None:
    privacy = TrainingPrivacy(PrivacySide.HUB, 1.0, 1e-5, 1.0)
    tighter = TrainingPrivacy(PrivacySide.HUB, 0.5, 1e-5, 1.0)
    assert noise_multiplier(privacy, 10) < noise_multiplier(privacy, 20) < noise_multiplier(tighter, 20)


def test_centers_keep_their_numbers_when_one_drops_out() -> None:
    everyone = tuple(map(center_id, ("boston", "kyoto", "lyon")))
    grid = HubGrid("q", varied(), None, None, everyone, everyone)  # type: ignore[arg-type]  # nothing is sent
    numbers = {center: grid.node_of(center) for center in everyone}
    grid.training = everyone[1:]
    assert {grid.center_of(number): number for number in numbers.values()} == numbers
