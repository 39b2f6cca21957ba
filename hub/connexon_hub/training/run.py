"""One run in the hub's own process: who takes part -> its process asks, the hub carries -> the model is registered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connexon.analyses.train import Train
from connexon.clock import SECOND, now_ms
from connexon.identity.keys import CenterId
from connexon.learning import wire_recipe
from connexon.learning.recipe import Recipe
from connexon.link.parcel_files import TaskId
from connexon.query.question import Question
from connexon.v1 import answer_pb2
from connexon_hub.routing.run_rows import GATHERING
from connexon_hub.routing.store import OPEN, Participation
from connexon_hub.training import registry
from connexon_hub.training.store import Part, Pushed, StoredRun
from connexon_hub.training.worker_handle import Worker
from connexon_hub.training.worker_protocol import (
    Collect,
    Ended,
    Finished,
    NewTask,
    Nodes,
    Order,
    PartState,
    Push,
    Report,
    Request,
    RunEnded,
    Told,
)

if TYPE_CHECKING:
    from connexon_hub.training.runs import Runs

LOG = logging.getLogger("connexon.hub")
GRACE_SECONDS = 10.0
"""How long a center that takes part may be away before a round begins without it."""
LOOK_SECONDS = 1.0


class Run:
    """A run that is under way. Lives on the event loop; `gather`, then `work` are its whole life in this process."""

    def __init__(self, runs: Runs, question: Question) -> None:
        assert isinstance(question.analysis, Train)
        self.query_id = question.query_id
        self.round = 0
        """The round under way."""
        self._runs = runs
        self._question = question
        self._recipe: Recipe = question.analysis.recipe
        self._news = asyncio.Event()
        self._deadline_of: dict[int, int] = {}
        self._choices: dict[int, tuple[CenterId, ...]] = {}
        """Who was there at each choice so far."""
        self._unwritten: dict[int, tuple[CenterId, ...]] = {}
        """Those of them that no task has followed yet: until then another choice would do as well."""

    def nudge(self) -> None:
        """Something has come in: an answer, a reply, a center."""
        self._news.set()

    async def gather(self, stored: StoredRun) -> tuple[CenterId, ...]:
        """The centers that take part, once they are known. Raises RunEnded where they are too few."""
        if stored.state != GATHERING:
            return stored.centers
        loop = asyncio.get_running_loop()
        late = loop.time() + self._recipe.round_seconds
        while True:
            self._news.clear()
            parts = await asyncio.to_thread(self._runs.hub.queries.participation, self.query_id)
            enrolled = tuple(part.center for part in parts if _takes_part(part))
            waiting = any(part.state in OPEN for part in parts)
            train = [center for center in enrolled if center not in self._recipe.held_out_centers]
            enough = len(train) >= self._recipe.minimum_centers
            if enough and (not waiting or loop.time() >= late):
                return enrolled
            if not waiting:
                raise RunEnded(
                    f"{len(train)} centers take part in training, and the recipe asks for "
                    f"{self._recipe.minimum_centers}; see each center's answer.",
                    code="run.too_few_centers",
                )
            await self._wait(late - loop.time() if enough else LOOK_SECONDS)

    async def work(self, stored: StoredRun, centers: tuple[CenterId, ...]) -> None:
        """Bring the run to its end. Raises RunEnded where there is no model."""
        if stored.state == GATHERING:
            await self._runs.hub.writer.write(self._runs.store.start, (self.query_id, centers, now_ms()))
            LOG.info("run %s begins with %s", self.query_id, ", ".join(centers))
        else:
            self._choices = await asyncio.to_thread(self._runs.store.choices, self.query_id)
            LOG.info("run %s is taken up again", self.query_id)
        self._runs.tell(self.query_id)
        held_out = tuple(center for center in centers if center in self._recipe.held_out_centers)
        order = Order(
            query_id=self.query_id,
            recipe=wire_recipe.to_bytes(self._recipe),
            dataset=self._question.dataset,
            centers=tuple(center for center in centers if center not in held_out),
            held_out=held_out,
            folder=await asyncio.to_thread(self._runs.files.begin, self.query_id),
            arrays=self._runs.files.model(self.query_id),
            noise_seed=stored.noise_seed,
        )
        worker = Worker(order)
        try:
            await worker.start()
            request = await worker.hear()
            while not isinstance(request, Finished):
                request = await worker.answer(await self._serve(request, order))
            await registry.register(self._runs, self._question, request.statement)
            await worker.say(None)
        except EOFError as error:
            await worker.end()
            LOG.error("the process of run %s ended with %s", self.query_id, worker.exit_code)
            raise RunEnded(
                "The run's process at the hub has ended unexpectedly; the operator finds why in the hub's log. "
                "Start the run anew.",
                code="run.crashed",
            ) from error
        finally:
            await worker.end()

    async def _serve(self, request: Request, order: Order) -> object:
        """What the run's process asks for next. Raises RunEnded where it can ask for no more."""
        match request:
            case Nodes(number):
                return await self._present(number, order.centers)
            case Push(tasks):
                await self._push(tasks)
            case Collect(numbers, wait):
                return await self._collect(numbers, wait=wait)
            case Report(report):
                await self._runs.report(self.query_id, report)
            case Ended(code, message):
                raise RunEnded(message, code=code)
        return None

    async def _present(self, number: int, centers: Sequence[CenterId]) -> tuple[CenterId, ...]:
        """The centers that are connected. One that is away is waited for, briefly where enough are there."""
        if number in self._choices:
            return self._choices[number]
        loop, begun = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        while True:
            self._news.clear()
            present = tuple(center for center in centers if self._runs.hub.sessions.get(center) is not None)
            waited = loop.time() - begun
            enough = len(present) >= self._recipe.minimum_centers
            if len(present) == len(centers) or waited >= self._recipe.round_seconds:
                break
            if enough and waited >= GRACE_SECONDS:
                break
            await self._wait(LOOK_SECONDS)
        self._choices[number] = self._unwritten[number] = present
        return present

    async def _push(self, tasks: tuple[NewTask, ...]) -> None:
        pushed = Pushed(self.query_id, tasks, self._unwritten)
        still_open = await self._runs.hub.writer.write(self._runs.store.push, pushed)
        self._unwritten = {}
        for task in tasks:
            self._deadline_of[task.number] = task.deadline_ms
            if task.round != self.round:
                self.round = task.round
                self._runs.tell(self.query_id)
        for task_id, center in still_open:
            session = self._runs.hub.sessions.get(center)
            if session is not None:
                session.deliver(str(task_id))

    async def _collect(self, numbers: tuple[int, ...], *, wait: bool) -> tuple[Told, ...]:
        while True:
            self._news.clear()
            parts = await self._parts(numbers)
            still_open = [part for part in parts if part.state is PartState.OPEN]
            if not still_open or not wait:
                break
            late = max(self._deadline_of.get(number, 0) for number in numbers)
            if late <= now_ms():
                await self._runs.hub.writer.write(self._runs.store.miss, (self.query_id, numbers, now_ms()))
                for part in still_open:
                    self._runs.take_back(TaskId(self.query_id, part.number), part.center)
                continue
            await self._wait((late - now_ms()) / SECOND)
        return tuple(self._told(part.number, part.center, part.state) for part in parts)

    async def _parts(self, numbers: Sequence[int]) -> list[Part]:
        return await asyncio.to_thread(self._runs.store.parts, self.query_id, numbers)

    def _told(self, number: int, center: CenterId, state: PartState) -> Told:
        task = TaskId(self.query_id, number)
        return Told(number, center, state, self._runs.files.reply(task, center) if state is PartState.REPLIED else None)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.01, seconds)):
                await self._news.wait()
        except TimeoutError:
            return


def _takes_part(part: Participation) -> bool:
    if part.status != answer_pb2.ANSWER_STATUS_RELEASED or part.answer is None:
        return False
    answer = answer_pb2.Answer.FromString(answer_pb2.SignedAnswer.FromString(part.answer).payload)
    return answer.WhichOneof("result") == "enrolment"
