"""Many centers in one process: each with its own keys, certificate and connection, speaking the link for real.

    python -m tests.bench.simulated FOLDER

Only what stands behind the link is simulated: every center signs the same small count. FOLDER/centers.json says
who they are; the process prints `attached` once all are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import grpc

from connexon.clock import now_ms
from connexon.identity.keys import SigningKey
from connexon.link import frames
from connexon.query import signed
from connexon.v1 import answer_pb2, link_pb2, link_pb2_grpc, query_pb2, roster_pb2
from tests.support.federation import NOISE
from tests.support.receipts import with_receipt

GROUPS = 10
SLOW_SECONDS = 1.5


@dataclass(frozen=True)
class Simulated:
    """One center. `kind` is quick, slow (answers late) or dead (takes the question and never answers)."""

    name: str
    key: SigningKey
    credentials: grpc.ChannelCredentials
    kind: str


def load(folder: Path) -> tuple[str, int, list[Simulated]]:
    """The link's address, the roster's serial, and the centers that `fanout` wrote down."""
    plan = json.loads((folder / "centers.json").read_text())
    authority = (folder / "authority.pem").read_bytes()
    centers = []
    for entry in plan["centers"]:
        own = folder / entry["name"]
        credentials = grpc.ssl_channel_credentials(
            authority, (own / "link.key").read_bytes(), (own / "link.crt").read_bytes()
        )
        centers.append(Simulated(entry["name"], SigningKey.load(own / "answering.key"), credentials, entry["kind"]))
    return plan["link_address"], plan["roster_serial"], centers


async def stay(center: Simulated, address: str, serial: int, attached: asyncio.Semaphore) -> None:
    """Attach again as long as the hub says that it may become possible: a new roster takes it a moment."""
    again = True
    while again:
        again = await attach(center, address, serial, attached)
        await asyncio.sleep(0.5 if again else 0)


async def attach(center: Simulated, address: str, serial: int, attached: asyncio.Semaphore) -> bool:
    """Hold one center's session until the hub ends it; returns whether to try again."""
    options = [*frames.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, center.credentials, options=options) as channel:
        stream = link_pb2_grpc.LinkStub(channel).Attach()
        await stream.write(link_pb2.AttachRequest(hello=_hello(serial)))
        async for frame in stream:
            match frame.WhichOneof("frame"):
                case "welcome":
                    attached.release()
                case "heartbeat" if not frame.heartbeat.answer:
                    echo = link_pb2.Heartbeat(number=frame.heartbeat.number, answer=True)
                    await stream.write(link_pb2.AttachRequest(heartbeat=echo))
                case "chunk":
                    await _answer(center, frame.chunk, stream)
                case "goodbye":
                    if not frame.goodbye.retry:
                        raise SystemExit(f"{center.name}: {frame.goodbye.message}")
                    return True
    return False


def _hello(serial: int) -> link_pb2.Hello:
    protocol = roster_pb2.ProtocolVersion(major=frames.PROTOCOL.major, minor=frames.PROTOCOL.minor)
    return link_pb2.Hello(
        protocol=protocol, software_version="simulated", process_id=uuid.uuid4().hex, roster_serial=serial
    )


async def _answer(center: Simulated, chunk: link_pb2.Chunk, stream: grpc.aio.StreamStreamCall) -> None:  # type: ignore[type-arg]
    if center.kind != "quick":
        # As a real node does: an answer that comes at once says by itself that the question is written down.
        received = link_pb2.Stored(query_id=chunk.query_id, kind=link_pb2.PARCEL_KIND_QUERY)
        await stream.write(link_pb2.AttachRequest(stored=received))
    if center.kind == "dead":
        return
    if center.kind == "slow":
        await asyncio.sleep(SLOW_SECONDS)
    answer = answer_pb2.Answer(
        query_id=chunk.query_id,
        center_id=center.name,
        query_sha256=hashlib.sha256(query_pb2.SignedQuery.FromString(chunk.data).payload).digest(),
        status=answer_pb2.ANSWER_STATUS_RELEASED,
        protection=answer_pb2.Protection(kind=query_pb2.NUMBER_KIND_PRIVATE, noise=NOISE),
        answered_at_ms=now_ms(),
    )
    answer.count.by.append("disease_term")
    answer.protection.unit = query_pb2.COUNT_UNIT_DONORS
    for group in range(GROUPS):
        answer.count.cells.add(key=[query_pb2.Value(text=f"MONDO:{group:07d}")], number=5 * group + 5)
    body = with_receipt(signed.sign_answer(answer, center.key), center.key).SerializeToString()
    for piece in frames.pieces(chunk.query_id, link_pb2.PARCEL_KIND_ANSWER, body):
        await stream.write(link_pb2.AttachRequest(chunk=piece))


async def main(folder: Path) -> None:
    """Attach them all and stay."""
    address, serial, centers = load(folder)
    attached = asyncio.Semaphore(0)
    sessions = [asyncio.create_task(stay(center, address, serial, attached)) for center in centers]
    for _ in centers:
        await attached.acquire()
    print("attached", flush=True)
    await asyncio.gather(*sessions)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
