"""Flower's Grid over the durable link: messages become tasks, replies are checked before a strategy sees them.

Everything here is decided alike when a run is taken up again: tasks are numbered in order, what was written down is
used again, and replies come back in the order of their messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from connexon.clock import SECOND, now_ms
from connexon.errors import Refused
from connexon.identity.keys import CenterId
from connexon.learning import flower, records
from connexon.learning.recipe import Recipe
from connexon.link import parcel_files
from connexon.link.parcel_files import TaskId
from connexon.v1 import answer_pb2, task_pb2
from connexon_hub.training import reply_values
from connexon_hub.training.reply_values import TRAIN, WEIGHT, Expected
from connexon_hub.training.worker_protocol import Collect, NewTask, Nodes, PartState, Push, RunEnded, Told

if TYPE_CHECKING:
    from flwr.supercore.run import Run

FIRST_NODE = 100
"""Centers are numbered from here, in the order of their ids."""
NO_REPLY, REFUSED, BAD_REPLY = 1, 2, 3
"""Flower's error codes as this network uses them."""


@dataclass(frozen=True)
class Outcome:
    """What came of a message, for reports: the center, the reply, and the code where there is none to use."""

    center: CenterId
    message: Message
    code: str = ""
    reason: str = ""


@dataclass
class HubGrid(Grid):
    """The one Grid of a run's process. `last` keeps what came of the messages of each action most lately."""

    query_id: str
    recipe: Recipe
    folder: Path
    connection: Connection[Any, Any]
    everyone: tuple[CenterId, ...]
    """All that take part, held-out centers too, in order."""
    training: tuple[CenterId, ...]
    """Those that train; strategies see these."""
    last: dict[str, list[Outcome]] = field(default_factory=dict)
    away: tuple[CenterId, ...] = ()
    """Those that were not there when a round's updates were asked for most lately."""
    round: int = 0
    examples: dict[CenterId, int] = field(default_factory=dict)
    """What each center signed of its rows in the summary: it counts for no more later."""
    _present: tuple[CenterId, ...] | None = None
    _tasks: int = 0
    _choices: int = 0
    _lost: int = 0
    """Rounds one after the other that brought no update."""
    _messages: dict[str, Message] = field(default_factory=dict)

    def node_of(self, center: CenterId) -> int:
        """A center's number in Flower's eyes."""
        return FIRST_NODE + self.everyone.index(center)

    def center_of(self, node: int) -> CenterId:
        """The inverse of node_of."""
        return self.everyone[node - FIRST_NODE]

    def set_run(self, run: Run) -> None:
        """There is one run, this one."""

    @property
    def run(self) -> Run:
        """Flower's own record of a run, which no strategy asks for."""
        raise NotImplementedError("A run of this network is not kept as Flower keeps its own.")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a center."""
        return flower.instruction(content, action=message_type, node=dst_node_id)

    def get_node_ids(self) -> Iterable[int]:
        """The centers that are there for the next messages. Raises RunEnded where they are too few."""
        # INVARIANT: the same answer until something is sent. Flower asks more than once for the same messages, and
        # would wait for ever for a center that has gone in between.
        if self._present is None:
            self._choices += 1
            connected: tuple[CenterId, ...] = self._ask(Nodes(self._choices))
            self._present = tuple(center for center in self.training if center in connected)
            self.require_enough(len(self._present), "are connected")
        return [self.node_of(center) for center in self._present]

    def require_enough(self, centers: int, what: str, reasons: str = "") -> None:
        """Raise RunEnded where fewer centers than the recipe asks for do `what`."""
        if centers < self.recipe.minimum_centers:
            raise RunEnded(
                f"{centers} centers {what}, and the recipe asks for {self.recipe.minimum_centers}.{reasons}",
                code="run.too_few_centers",
            )

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand tasks to the hub, which writes them down. Returns an id for each message."""
        tasks: dict[int, NewTask] = {}
        number_of: dict[tuple[int, str], int] = {}
        ids = []
        for message in messages:
            # Strategies give the same content to many: it lies on disk and goes over the wire as one task.
            same = (id(message.content), message.metadata.message_type)
            center = self.center_of(message.metadata.dst_node_id)
            number = number_of.get(same)
            if number is None:
                self._tasks += 1
                number = number_of[same] = self._tasks
                tasks[number] = self._written(number, message)
            task = tasks[number]
            tasks[number] = NewTask(
                task.number, task.action, task.round, task.deadline_ms, task.size, (*task.centers, center)
            )
            identifier = f"{number}.{center}"
            flower.number(message, identifier)
            self._messages[identifier] = message
            ids.append(identifier)
        if tasks:
            self._ask(Push(tuple(tasks.values())))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come to these messages."""
        return [outcome.message for outcome in self._collected(list(message_ids), wait=False)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for what becomes of each; the recipe's seconds for a round always hold."""
        sent = list(messages)
        if sent and sent[0].metadata.message_type == TRAIN:
            self.away = tuple(center for center in self.training if center not in (self._present or self.training))
        outcomes = self._collected(list(self.push_messages(sent)), wait=True)
        self._present = None
        if sent:
            self.last[sent[0].metadata.message_type] = outcomes
            if sent[0].metadata.message_type == TRAIN:
                self._require_update(len(sent), outcomes)
        return [outcome.message for outcome in outcomes]

    def ask(self, action: str, content: RecordDict, centers: Sequence[CenterId]) -> list[Outcome]:
        """What the run itself asks of centers, beside its strategy."""
        messages = [flower.instruction(content, action=action, node=self.node_of(center)) for center in centers]
        self.send_and_receive(messages)
        return self.last.get(action, [])

    def _require_update(self, sent: int, outcomes: Sequence[Outcome]) -> None:
        # Flower goes on with the old arrays where nobody has replied, as if that were a round.
        usable = sum(not outcome.code for outcome in outcomes)
        if sent < self.recipe.minimum_centers:
            # One center after the other (FedXgbCyclic): one that fails has lost its turn, and no more.
            self._lost = 0 if usable else self._lost + 1
            if self._lost < min(self.recipe.minimum_centers, self.recipe.rounds):
                return
        if usable < min(sent, self.recipe.minimum_centers):
            reasons = "".join(f" {one.center}: {one.reason}" for one in outcomes if one.code)
            self.require_enough(usable, "have given an update", reasons)

    def _written(self, number: int, message: Message) -> NewTask:
        path = self.folder / f"{number}.task"
        digest, size = parcel_files.sha256_and_size(records.to_pieces(message.content))
        if path.is_file():
            task = task_pb2.Task.FromString(parcel_files.read(path).head)
            if task.records_sha256 != digest or task.action != message.metadata.message_type:
                raise RunEnded(
                    "The run came to another result when it was taken up again, so it cannot go on; start it anew.",
                    code="run.diverged",
                )
        else:
            task = task_pb2.Task(
                task_id=str(TaskId(self.query_id, number)),
                action=message.metadata.message_type,
                round=self._round_of(message),
                deadline_ms=now_ms() + int(self.recipe.round_seconds * SECOND),
                records_sha256=digest,
                records_size=size,
            )
            parcel_files.write(path, task.SerializeToString(), records.to_pieces(message.content))
        # What is on disk need not be in memory: the strategy goes on with the same record.
        records.leave_on_disk(message.content, parcel_files.read(path))
        self.round = task.round
        return NewTask(number, task.action, task.round, task.deadline_ms, path.stat().st_size, ())

    def _round_of(self, message: Message) -> int:
        config = message.content.config_records.get("config")
        number = 0 if config is None else config.get("server-round", 0)
        return number if isinstance(number, int) else 0

    def _collected(self, ids: Sequence[str], *, wait: bool) -> list[Outcome]:
        if not ids:
            return []
        numbers = tuple(sorted({int(identifier.partition(".")[0]) for identifier in ids}))
        told: dict[str, Told] = {f"{one.number}.{one.center}": one for one in self._ask(Collect(numbers, wait))}
        found = (told[identifier] for identifier in ids)
        return [self._outcome(one) for one in found if one.state is not PartState.OPEN]

    def _outcome(self, told: Told) -> Outcome:
        message = self._messages.pop(f"{told.number}.{told.center}")
        if told.reply is None:
            reason = "The center did not reply in time."
            return Outcome(told.center, Message(Error(NO_REPLY, reason), reply_to=message), "run.no_reply", reason)
        parcel = parcel_files.read(told.reply)
        answer = answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(parcel.head).payload)
        if answer.status != answer_pb2.ANSWER_STATUS_RELEASED:
            code, reason = answer.reason.code or "answer.no_reason", answer.reason.message
            return Outcome(told.center, Message(Error(REFUSED, reason), reply_to=message), code, reason)
        try:
            content = records.read(parcel)
            action = message.metadata.message_type
            reply_values.require_sound(content, answer.task, Expected(action, self.recipe, message.content))
        except Refused as error:
            bad = Message(Error(BAD_REPLY, error.public), reply_to=message)
            return Outcome(told.center, bad, error.code, error.public)
        # More rows than at first may be an import, or a lie: a center counts for those it has told of, and goes on.
        metrics, rows = content.metric_records["metrics"], answer.task.examples
        metrics[WEIGHT] = min(rows, self.examples.get(told.center, rows))
        return Outcome(told.center, Message(content, reply_to=message))

    def _ask(self, request: object) -> Any:
        self.connection.send(request)
        return self.connection.recv()
