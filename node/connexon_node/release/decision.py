"""What release decides of one result, before anything becomes known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection

from connexon.v1 import answer_pb2
from connexon_node.pipeline.values import Cell, Computed
from connexon_node.release.cohorts_used import Use
from connexon_node.release.grants import Grant
from connexon_node.release.private import Outcome
from connexon_node.release.released_cohorts import Known
from connexon_node.release.training_cohorts import TrainingCohort

TOO_FEW = answer_pb2.Reason(
    code="release.too_few_donors",
    message="Too few donors stand behind this, or none: the center does not say which.",
)


class Judged(NamedTuple):
    """One group with what became of it: `why` is for the steward, `number` is what leaves (None: nothing)."""

    cell: Cell
    number: int | None
    why: str


@dataclass
class Decision:
    """What may leave, and what becomes known with it by dataset. `judged` is for the steward only.

    `private` is how numbers with noise were decided, and `pay` what must be committed with them; `grant` is what exact
    numbers rest on, and `use` what they use up of the cohorts that may be told. `known` is how many cohorts it was
    compared with; None where with none. `from_tables` is the edition whose first-ask tables answered, 0 where none did.
    """

    answer: answer_pb2.Answer
    private: Outcome | None = None
    pay: Callable[[Connection], None] | None = None
    grant: Grant | None = None
    use: Use | None = None
    new: dict[str, list[Known]] = field(default_factory=dict)
    known: int | None = None
    judged: list[Judged] = field(default_factory=list)
    from_tables: int = 0
    training: TrainingCohort | None = None
    """What becomes known of a training with exact updates."""

    def withhold(self) -> None:
        """Too few donors, or none: nothing leaves, and nothing becomes known."""
        self.answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
        self.answer.reason.CopyFrom(TOO_FEW)
        self.new.clear()
        self.use = None
        self.training = None


Decide = Callable[[Computed, Connection | None], Decision]
