"""What plain gRPC takes for as many streams: a frame to each over TLS, one back from each, a word of thanks to each.

    python -m tests.bench.plain_streams STREAMS ROUNDS

Prints the seconds of each round until all have answered, as JSON. Frames are as long as a question and an answer;
nobody signs, checks or stores anything. The other ends live in a process of their own, as in `simulated`.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
import time

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from connexon.identity import certificates
from connexon.identity.certificates import Authority, TlsKey
from connexon.link import frames
from connexon.v1 import link_pb2, link_pb2_grpc

QUESTION, ANSWER = b"q" * 1_000, b"a" * 1_000
THANKS = link_pb2.AttachResponse(stored=link_pb2.Stored(query_id="q" * 32, kind=link_pb2.PARCEL_KIND_ANSWER))

Context = grpc.aio.ServicerContext[link_pb2.AttachRequest, link_pb2.AttachResponse]


class Streams(link_pb2_grpc.LinkServicer):
    """Counts the frames that come, and thanks for each."""

    def __init__(self) -> None:
        self.outgoing: list[asyncio.Queue[link_pb2.AttachResponse]] = []
        self.opened = asyncio.Semaphore(0)
        self.answered = asyncio.Semaphore(0)

    async def Attach(  # type: ignore[override]  # noqa: N802
        self, request_iterator: object, context: Context
    ) -> None:
        """One stream, until its other end goes."""
        queue: asyncio.Queue[link_pb2.AttachResponse] = asyncio.Queue()
        writing = asyncio.create_task(_write_all(queue, context))
        await context.read()
        self.outgoing.append(queue)
        self.opened.release()
        while await context.read() is not grpc.aio.EOF:
            self.answered.release()
            queue.put_nowait(THANKS)
        writing.cancel()


async def _write_all(queue: asyncio.Queue[link_pb2.AttachResponse], context: Context) -> None:
    while True:
        await context.write(await queue.get())


async def serve(streams: int, rounds: int) -> list[float]:
    """Seconds per round."""
    authority, key = Authority.create("plain"), TlsKey.generate()
    issued = authority.issue_server(key, ["127.0.0.1"], life=datetime.timedelta(hours=1))
    certificate = issued.public_bytes(Encoding.PEM)
    server, service = grpc.aio.server(options=frames.CHANNEL_OPTIONS), Streams()
    link_pb2_grpc.add_LinkServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key.pem(), certificate)]))
    await server.start()
    others = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.plain_streams", "others", str(streams), str(port)),
        stdin=asyncio.subprocess.PIPE,
    )
    assert others.stdin is not None
    others.stdin.write(certificates.to_pem(authority.der))
    others.stdin.close()
    for _ in range(streams):
        await service.opened.acquire()
    question = link_pb2.Chunk(query_id="q" * 32, data=QUESTION, total_size=len(QUESTION))
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for queue in service.outgoing:
            queue.put_nowait(link_pb2.AttachResponse(chunk=question))
        for _ in range(streams):
            await service.answered.acquire()
        seconds.append(time.perf_counter() - begun)
        await asyncio.sleep(0.5)
    others.terminate()
    await others.wait()
    await server.stop(10)
    return seconds


async def stay(streams: int, port: int, authority: bytes) -> None:
    """The other ends of all streams."""
    few, credentials = asyncio.Semaphore(20), grpc.ssl_channel_credentials(authority)
    await asyncio.gather(*(_answer_all(port, credentials, few) for _ in range(streams)))


async def _answer_all(port: int, credentials: grpc.ChannelCredentials, few: asyncio.Semaphore) -> None:
    """One other end. Only a `few` connect at a time."""
    options = [*frames.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    answer = link_pb2.Chunk(query_id="q" * 32, data=ANSWER, total_size=len(ANSWER))
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        async with few:
            await channel.channel_ready()
            stream = link_pb2_grpc.LinkStub(channel).Attach()
            await stream.write(link_pb2.AttachRequest(hello=link_pb2.Hello(process_id="plain")))
        async for frame in stream:
            if frame.HasField("chunk"):
                await stream.write(link_pb2.AttachRequest(chunk=answer))


if __name__ == "__main__":
    if sys.argv[1] == "others":
        asyncio.run(stay(int(sys.argv[2]), int(sys.argv[3]), sys.stdin.buffer.read()))
    else:
        print(json.dumps(asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))))
