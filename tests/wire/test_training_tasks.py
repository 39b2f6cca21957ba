"""A training run as a center's node sees it: a real process, real rows, and a hub that the test plays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.small_hub import SmallHub
from tests.support.training import Run, TrainingNode, content_of, initial


@pytest.fixture
def node(tmp_path: Path) -> TrainingNode:
    return TrainingNode(tmp_path / "kyoto")


@pytest.fixture
def hub(node: TrainingNode) -> SmallHub:
    return SmallHub(node.federation)


def test_a_run_from_enrolment_to_evaluation(node: TrainingNode, hub: SmallHub) -> None:
    async def story() -> None:
        async with hub.running():
            with node.serving(hub):
                session = await hub.session()
                run = await Run.enrolled(node, session)
                fitted = await run.preprocessing()
                assert [column.kind for column in fitted.columns] == ["number", "number", "category"]
                arrays = initial(run, fitted)
                losses = []
                for number in (1, 2, 3):
                    answer, content = await run.reply(run.send("train", content_of(arrays, fitted, number), number))
                    assert content is not None, answer.reason
                    assert (answer.task.donors, answer.task.examples) == (40, 80)
                    assert content.metric_records["metrics"]["num-examples"] == 80
                    losses.append(content.metric_records["metrics"]["loss"])
                    arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
                assert losses[0] > losses[1] > losses[2]
                answer, content = await run.reply(run.send("evaluate", content_of(arrays, fitted, 3), 3))
                assert content is not None, answer.reason
                assert content.metric_records["metrics"]["loss"] < losses[2]
                assert list(content) == ["metrics"]

    asyncio.run(story())
