"""Flower's Grid without any network: what centers would do is done at once, in the same process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from connexon.learning import flower


@dataclass
class LocalGrid(Grid):
    """Centers by their number at Flower, each by what it replies to a message."""

    centers: Mapping[int, Callable[[Message], RecordDict]]

    def set_run(self, run: Any) -> None:
        """There is none."""

    @property
    def run(self) -> Any:
        """There is none."""
        raise NotImplementedError

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message."""
        return flower.instruction(content, action=message_type, node=dst_node_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every center."""
        return list(self.centers)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not needed: strategies send and receive."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not needed: strategies send and receive."""
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Every message's reply."""
        return [Message(self.centers[one.metadata.dst_node_id](one), reply_to=one) for one in messages]
