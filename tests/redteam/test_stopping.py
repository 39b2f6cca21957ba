"""A question under which the node ends is tried once more, and then refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from connexon.v1 import answer_pb2, query_pb2
from connexon_node.state import open_state
from tests.support.small_hub import SmallHub, until
from tests.support.training import TrainingNode
from tests.wire.test_node_revocations import outcome


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TrainingNode]:
    made = TrainingNode(tmp_path / "kyoto")
    yield made
    made.stop()


@pytest.fixture
def hub(node: TrainingNode) -> SmallHub:
    return SmallHub(node.federation)


def attempts(node: TrainingNode, query_id: str) -> int:
    with closing(open_state(node.folder.default_state_url)) as database, database.reading() as connection:
        found = connection.execute(text("select attempts from inbox where query_id = :id"), {"id": query_id})
        return int(found.scalar() or 0)


async def begun(node: TrainingNode, query_id: str, times: int) -> None:
    await until(lambda: attempts(node, query_id) >= times)


def block(folder: Path) -> list[Path]:
    """Make every file of rows one that nobody ever finishes to open."""
    files = sorted(folder.rglob("*.parquet"))
    assert files
    for file in files:
        file.rename(file.with_suffix(".kept"))
        os.mkfifo(file)
    return files


def unblock(files: list[Path]) -> None:
    for file in files:
        file.unlink()
        file.with_suffix(".kept").rename(file)


def test_a_question_under_which_the_node_ends_twice_is_refused_and_others_are_answered(
    node: TrainingNode, hub: SmallHub
) -> None:
    async def story() -> None:
        async with hub.running():
            files = block(node.folder.data)
            node.start(hub)
            session = await hub.session()
            ada = node.researcher()
            query = ada.ask("kyoto")
            query_id = query_pb2.Query.FromString(query.payload).query_id
            session.deliver(query)
            for times in (1, 2):
                await hub.session(times)
                await begun(node, query_id, times)
                node.kill()
                if times == 2:
                    unblock(files)
                node.start(hub)
            session = await hub.session(3)
            sealed = answer_pb2.SignedAnswer.FromString(await session.answer(query_id))
            answer = answer_pb2.Answer.FromString(sealed.payload)
            assert (answer.status, answer.reason.code) == (answer_pb2.ANSWER_STATUS_REFUSED, "query.stopped_node")
            assert "stopped 2 times" in answer.reason.message
            assert answer.query_sha256, "it is an answer to the question, signed and with its place in the log"
            assert sealed.HasField("receipt")
            assert attempts(node, query_id) == 0
            # The rows can be read again, so only what was written down refuses it: another like it is answered.
            assert (await outcome(session, ada)).status == answer_pb2.ANSWER_STATUS_RELEASED

    asyncio.run(story())


def test_a_node_that_stops_in_order_counts_nothing_against_what_it_leaves(node: TrainingNode, hub: SmallHub) -> None:
    async def story() -> None:
        async with hub.running():
            block(node.folder.data)
            node.start(hub)
            session = await hub.session()
            query_id = session.deliver(node.researcher().ask("kyoto"))
            await begun(node, query_id, 1)
            assert node.process is not None
            node.process.terminate()
            # What hangs in the system's hands holds the process itself; what it leaves is written down before.
            await until(lambda: attempts(node, query_id) == 0)
            node.kill()

    asyncio.run(story())
