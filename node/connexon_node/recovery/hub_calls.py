"""What the steward's recovery asks of the hub, over connections of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from connexon import errors
from connexon.identity import roster as rosters
from connexon.link import frames
from connexon.link.frames import Assembler
from connexon.v1 import answer_pb2, link_pb2, link_pb2_grpc, log_pb2, membership_pb2, membership_pb2_grpc, roster_pb2
from connexon_node.folder import NodeFolder
from connexon_node.membership import keys

SECONDS = 30.0
FETCHING_SECONDS = 3600.0


@dataclass(frozen=True)
class Kept:
    """What the hub still has of one answer; `query` is a serialised SignedQuery, empty where it was forgotten."""

    query_id: str
    query: bytes
    answer: answer_pb2.SignedAnswer


class HubCalls:
    """Calls to the hub with the node's certificate. All raise as the link does (connexon.errors)."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._link = link_pb2_grpc.LinkStub(channel)

    @classmethod
    @contextmanager
    def opened(cls, folder: NodeFolder, address: str) -> Iterator[HubCalls]:
        """Connected for the time of the block."""
        with grpc.secure_channel(address, keys.channel_credentials(folder), options=frames.CHANNEL_OPTIONS) as channel:
            yield cls(channel)

    def told(self) -> log_pb2.SignedTreeHead | None:
        """The longest log that the hub was told of; None where it knows of none."""
        with _translated():
            found = self._link.GetWitness(link_pb2.GetWitnessRequest(), timeout=SECONDS)
        return found.told if found.HasField("told") else None

    def answers(self, *, after: int) -> Iterator[Kept]:
        """The answers whose records come after this one."""
        assembler, queries = Assembler(), dict[str, bytes]()
        with _translated():
            request = link_pb2.GetAnswersRequest(after_sequence=after)
            for response in self._link.GetAnswers(request, timeout=FETCHING_SECONDS):
                parcel = assembler.add(response.chunk)
                if parcel is None:
                    continue
                if parcel.kind == link_pb2.PARCEL_KIND_QUERY:
                    queries[parcel.query_id] = parcel.body
                    continue
                answer = answer_pb2.SignedAnswer.FromString(parcel.body)
                yield Kept(parcel.query_id, queries.pop(parcel.query_id, b""), answer)

    def give_up(self, lost: log_pb2.SignedTreeHead, *, kept: int, head: log_pb2.SignedTreeHead) -> None:
        """Let the log go on as `head`."""
        with _translated():
            self._link.GiveUpLog(link_pb2.GiveUpLogRequest(lost=lost, kept=kept, head=head), timeout=SECONDS)


def fetch_roster(folder: NodeFolder, address: str) -> roster_pb2.SignedRoster:
    """The roster in force, from the hub's public address; it proves itself. Raises as above."""
    credentials = grpc.ssl_channel_credentials((folder.keys / keys.AUTHORITY).read_bytes())
    options = [("grpc.max_receive_message_length", 2 * rosters.MAXIMUM_SIZE)]
    with _translated(), grpc.secure_channel(address, credentials, options=options) as channel:
        stub = membership_pb2_grpc.MembershipStub(channel)
        return stub.GetRoster(membership_pb2.GetRosterRequest(), timeout=SECONDS).roster


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from error
