"""A training run as its researcher sees it: who takes part, round by round how good the model is, and the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from connexon.analyses.train import Train
from connexon.client.answer import Answer, moment, purpose_json
from connexon.clock import writable
from connexon.errors import NotFound, Refused
from connexon.identity.keys import CenterId
from connexon.learning.metrics import spread
from connexon.learning.recipe import Recipe
from connexon.safe_text import plain
from connexon.v1 import models_pb2

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from connexon.client.training.model import Model

SCHEMA = "connexon.run/1"
MAXIMUM_METRICS = 100


class RunState(Enum):
    """How a run stands; `value` is its name in documents."""

    GATHERING = "gathering"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


_STATES = {
    models_pb2.RUN_STATE_GATHERING: RunState.GATHERING,
    models_pb2.RUN_STATE_RUNNING: RunState.RUNNING,
    models_pb2.RUN_STATE_FINISHED: RunState.FINISHED,
    models_pb2.RUN_STATE_FAILED: RunState.FAILED,
    models_pb2.RUN_STATE_CANCELLED: RunState.CANCELLED,
}


@dataclass(frozen=True)
class Part:
    """One center's part in a round; `code` and `message` say why it took none."""

    center: CenterId
    took_part: bool
    code: str = ""
    message: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """One round as it came out: the federation's metrics, and each center's part."""

    number: int
    metrics: Mapping[str, float]
    parts: tuple[Part, ...]
    ended_at_ms: int

    @property
    def took_part(self) -> tuple[CenterId, ...]:
        """The centers whose update is in the model."""
        return tuple(part.center for part in self.parts if part.took_part)

    @property
    def spread(self) -> dict[str, tuple[float, float]]:
        """The least and the greatest of the centers' own metrics."""
        return spread({part.center: part.metrics for part in self.parts})


class Run:
    """A training run. `wait` for more; everything else looks at what is known.

    `enrolment` says of each center whether it takes part and why not; `rounds` how the model became better. Leaving it
    does not end it: `cancel` does, and network.run(id) comes back.
    """

    def __init__(
        self,
        enrolment: Answer,
        *,
        follow: Callable[[Run, float | None], None],
        cancel: Callable[[], int],
        model: Callable[[str], Model],
    ) -> None:
        self.enrolment = enrolment
        self.state = RunState.GATHERING
        self.code, self.message = "", ""
        self.round = 0
        self.model_id = ""
        self.started_at_ms: int | None = None
        self.ended_at_ms: int | None = None
        self._rounds: dict[int, Round] = {}
        self._follow, self._cancel, self._fetch = follow, cancel, model

    @property
    def id(self) -> str:
        """By which the run is come back to: the id of the query that asked for it."""
        return self.enrolment.query_id

    @property
    def recipe(self) -> Recipe:
        """What is trained."""
        analysis = self.enrolment.question.analysis
        assert isinstance(analysis, Train)
        return analysis.recipe

    @property
    def over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.state not in (RunState.GATHERING, RunState.RUNNING)

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The rounds that are done, in order."""
        return tuple(self._rounds[number] for number in sorted(self._rounds))

    @property
    def metrics(self) -> dict[str, float]:
        """The federation's metrics of the last round."""
        return dict(self.rounds[-1].metrics) if self._rounds else {}

    @property
    def model(self) -> Model:
        """The model, fetched and verified. Raises NotFound while there is none."""
        if not self.model_id:
            raise NotFound(f"There is no model yet: the run is {self.state.value}.{self._because()}", code="model.none")
        return self._fetch(self.model_id)

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended, or for `timeout` seconds, and return this same run. None waits without limit."""
        if not self.over:
            self._follow(self, timeout)
        return self

    def cancel(self) -> Run:
        """End it. What centers have already sent stays where it is; no model comes of it."""
        self._cancel()
        self._follow(self, 0)
        return self

    def take(self, status: models_pb2.RunStatus) -> None:
        """Put in what is newly known. Raises Refused where it is another run's, or says what is not known here."""
        if status.query_id != self.id:
            raise Refused("The hub tells of another run than the one that was asked for.", code="run.swapped")
        state = _STATES.get(status.state)
        if state is None:
            raise Refused("The run is in a state that this version does not know; upgrade connexon.", code="run.state")
        self.state = state
        self.code, self.message = plain(status.reason.code), plain(status.reason.message)
        self.round, self.model_id = status.round, plain(status.model_id)
        self.started_at_ms = writable(status.started_at_ms) or self.started_at_ms
        self.ended_at_ms = writable(status.ended_at_ms) or self.ended_at_ms
        for one in rounds_from(status.reports):
            if 0 < one.number <= self.recipe.rounds:
                self._rounds[one.number] = one

    def to_json(self) -> dict[str, Any]:
        """The whole run as a document of the shape connexon.run/1; see docs/json.md."""
        answer = self.enrolment.to_json()
        return {
            "schema": SCHEMA,
            "query_id": self.id,
            "federation": answer["federation"],
            "dataset": answer["dataset"],
            "where": answer["where"],
            "model": answer["analysis"],
            "purpose": purpose_json(self.enrolment.question),
            "state": self.state.value,
            "code": self.code,
            "message": self.message,
            "started_at": self.started_at_ms and moment(self.started_at_ms),
            "ended_at": self.ended_at_ms and moment(self.ended_at_ms),
            "round": self.round,
            "rounds": [round_json(one) for one in self.rounds],
            "metrics": self.metrics,
            "model_id": self.model_id or None,
            "centers": [
                {**center, "donors": part.result.donors if part.result else None}
                for center, part in zip(answer["centers"], self.enrolment.centers, strict=True)
            ],
        }

    def _because(self) -> str:
        return f" {self.message} ({self.code})" if self.message else ""

    def __repr__(self) -> str:
        done = f"{len(self._rounds)} of {self.recipe.rounds} rounds"
        return f"<Run {self.id}: {self.recipe.name}, {self.state.value}, {done}>"

    def __str__(self) -> str:
        from connexon.client.training.run_display import to_plain_text

        return to_plain_text(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from connexon.client.training.run_display import render

        yield from render(self)

    def _repr_html_(self) -> str:
        from connexon.client.training.run_display import to_html

        return to_html(self)


def rounds_from(reports: Iterable[models_pb2.RoundReport]) -> tuple[Round, ...]:
    """Rounds from their wire form, texts made safe to show."""
    return tuple(
        Round(
            number=one.round,
            metrics=metrics_from(one.metrics),
            parts=tuple(
                Part(
                    center=CenterId(plain(part.center_id)),
                    took_part=part.took_part,
                    code=plain(part.reason.code),
                    message=plain(part.reason.message),
                    metrics=metrics_from(part.metrics),
                )
                for part in sorted(one.parts, key=lambda part: part.center_id)
            ),
            ended_at_ms=writable(one.ended_at_ms),
        )
        for one in reports
    )


def metrics_from(wire: Mapping[str, float]) -> dict[str, float]:
    """Metrics by name, in order of their names; what is not finite is no metric, and no document can hold it."""
    finite = sorted((name, value) for name, value in wire.items() if math.isfinite(value))
    return {plain(name): float(value) for name, value in finite[:MAXIMUM_METRICS]}


def round_json(one: Round) -> dict[str, Any]:
    """A round in documents."""
    return {
        "round": one.number,
        "metrics": dict(one.metrics),
        "ended_at": moment(one.ended_at_ms) if one.ended_at_ms else None,
        "centers": [
            {
                "id": part.center,
                "took_part": part.took_part,
                "code": part.code,
                "message": part.message,
                "metrics": dict(part.metrics),
            }
            for part in one.parts
        ],
    }
