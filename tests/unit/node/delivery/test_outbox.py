"""What the node says first, and how much of it it holds in memory."""

from __future__ import annotations

import asyncio

from connexon.link import frames
from connexon.v1 import link_pb2
from connexon_node.delivery.outbox import MAXIMUM_BODIES, Outbox, Outlet


def heartbeat(number: int) -> link_pb2.AttachRequest:
    return link_pb2.AttachRequest(heartbeat=link_pb2.Heartbeat(number=number))


async def nothing_stored(_: str) -> bytes | None:
    return None


def test_a_short_frame_overtakes_the_pieces_of_an_answer() -> None:
    async def story() -> list[str | None]:
        outbox = Outbox(nothing_stored)
        outbox.answer("a", b"x" * (3 * frames.CHUNK_SIZE))
        said = [(await outbox.next()).WhichOneof("frame")]
        outbox.say(heartbeat(1))
        return [*said, *[(await outbox.next()).WhichOneof("frame") for _ in range(3)]]

    assert asyncio.run(story()) == ["chunk", "heartbeat", "chunk", "chunk"]


def test_answers_beyond_what_may_be_held_are_read_from_the_database_in_their_turn() -> None:
    loaded: list[str] = []

    async def load(query_id: str) -> bytes:
        loaded.append(query_id)
        return b"stored " + query_id.encode()

    async def story() -> list[link_pb2.AttachRequest]:
        outbox = Outbox(load)
        for number in range(MAXIMUM_BODIES + 3):
            outbox.answer(str(number), b"held " + str(number).encode())
        outbox.answer("0", b"said twice")
        return [await outbox.next() for _ in range(MAXIMUM_BODIES + 3)]

    said = asyncio.run(story())
    assert [frame.chunk.query_id for frame in said] == [str(number) for number in range(MAXIMUM_BODIES + 3)]
    # The one that was said twice too: what is kept may have followed what is held.
    assert loaded == ["0", *(str(number) for number in range(MAXIMUM_BODIES, MAXIMUM_BODIES + 3))]
    assert (said[0].chunk.data, said[-1].chunk.data) == (b"stored 0", b"stored 66")


def test_an_answer_that_was_pruned_meanwhile_is_passed_over() -> None:
    async def story() -> link_pb2.AttachRequest:
        outbox = Outbox(nothing_stored)
        outbox.answers(["gone"])
        outbox.answer("here", b"1")
        return await outbox.next()

    assert asyncio.run(story()).chunk.query_id == "here"


def test_a_query_is_said_to_be_written_down_unless_its_answer_says_so_first() -> None:
    async def story() -> list[str]:
        outlet = Outlet()
        outlet.outbox = Outbox(nothing_stored)
        outlet.stored("slow")
        outlet.stored("quick")
        outlet.answer("quick", b"1")
        first, second = await outlet.outbox.next(), await outlet.outbox.next()
        outlet.answer("slow", b"2")
        third = await outlet.outbox.next()
        return [first.chunk.query_id, second.stored.query_id, third.chunk.query_id]

    assert asyncio.run(story()) == ["quick", "slow", "slow"]


async def test_speaking_without_a_session_is_no_error() -> None:
    outlet = Outlet()
    outlet.stored("a")
    outlet.answer("a", b"1")
    outlet.progress("a", link_pb2.STAGE_COMPUTING)
