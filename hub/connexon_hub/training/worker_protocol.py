"""What a run's process and the hub say to each other, over a pipe between them; bodies lie in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from connexon.errors import ConnexonError
from connexon.identity.keys import CenterId


class PartState(IntEnum):
    """What became of a task at one center."""

    OPEN = 0
    REPLIED = 1
    MISSED = 2
    """No reply by the deadline, or the run ended before."""


@dataclass(frozen=True)
class NewTask:
    """A task whose parcel lies in the run's folder, and the centers it goes to."""

    number: int
    action: str
    round: int
    deadline_ms: int
    size: int
    centers: tuple[CenterId, ...]


class RunEnded(ConnexonError):
    """The run cannot go on; code and sentence are for the researcher."""

    code = "run.failed"


@dataclass(frozen=True)
class Order:
    """What a run's process is told when it begins. `recipe` is a serialised Recipe."""

    query_id: str
    recipe: bytes
    dataset: str
    centers: tuple[CenterId, ...]
    """Those that train."""
    held_out: tuple[CenterId, ...]
    folder: Path
    arrays: Path
    """Where the model's arrays go in the end."""
    noise_seed: bytes


@dataclass(frozen=True)
class Nodes:
    """Which centers are there now? Answered with their ids; the same again for the same number."""

    number: int


@dataclass(frozen=True)
class Push:
    """Tasks whose parcels are written. Answered with nothing, once they are in the database."""

    tasks: tuple[NewTask, ...]


@dataclass(frozen=True)
class Collect:
    """What became of these tasks? With `wait`, when all of them are settled. Answered with a Told each."""

    numbers: tuple[int, ...]
    wait: bool


@dataclass(frozen=True)
class Told:
    """What became of one task at one center. `reply` is the parcel's file where it replied."""

    number: int
    center: CenterId
    state: PartState
    reply: Path | None


@dataclass(frozen=True)
class Report:
    """A round is done; `report` is a serialised RoundReport. Answered with nothing."""

    report: bytes


@dataclass(frozen=True)
class Finished:
    """The model is made and its arrays are in their file; `statement` is a serialised ModelStatement as far as known.

    Answered with nothing; the last that is said.
    """

    statement: bytes


@dataclass(frozen=True)
class Ended:
    """It is over without a model. The last that is said."""

    code: str
    message: str


Request = Nodes | Push | Collect | Report | Finished | Ended
