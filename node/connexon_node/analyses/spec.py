"""What a center must know of an analysis. Nothing has a default: what an analysis does not say, no step assumes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any as Expression
from typing import Generic, TypeVar

from connexon.analyses.spec import Analysis, Unit
from connexon.conditions.filters import Filter
from connexon.query.question import Question
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.pipeline.values import Shape

DONOR = "_donor"
"""The hidden column of every dataset: the donor number of the row."""
BEHIND = "behind"
"""The column of an aggregate that lists the donor of each record."""
OWN = "own_values"
"""The column of an aggregate that lists a number of each donor, with the donor."""
Rows = Sequence[tuple[object, ...]]
"""What running one expression gave, in its column order; of lists see connexon_node.engine.fetching."""
A = TypeVar("A", bound=Analysis)


@dataclass(frozen=True)
class NoisyTable:
    """A table of numbers that leaves with noise: the fields grouped by, what is counted, and how often a donor counts.

    `numbers` are those of one group: each of them changes by at most 1 with a donor, in the unit it is drawn in.
    """

    by: tuple[str, ...]
    unit: Unit
    numbers: int
    range: tuple[float, float] | None
    """Between which values each donor's own value is brought, where it is counted; None for counts."""


@dataclass(frozen=True)
class NodeTraits:
    """What the steps before and after the computation ask of an analysis.

    `action` is the access rules' word for it. `shape` is what it computes: release refuses any other.
    """

    action: str
    shape: type[Shape]
    may_be_referred: bool
    """Whether the steward may be asked to decide about one."""


class NodeAnalysis(ABC, Generic[A]):
    """One analysis at a center: its rows, its aggregate, its shape, and the noise that hides a donor in it."""

    @property
    @abstractmethod
    def traits(self) -> NodeTraits:
        """What other steps ask of it."""

    @abstractmethod
    def reads_edition(self, analysis: A) -> bool:
        """Whether it is about the edition of the center's data in force; False: about the data of now."""

    @abstractmethod
    def condition(self, question: Question, analysis: A) -> Filter | None:
        """The question's filter, with what the analysis itself demands of each row."""

    @abstractmethod
    def further_conditions(
        self, analysis: A, dataset: Dataset, dictionary: Dictionary
    ) -> tuple[tuple[Dataset, Filter], ...]:
        """Conditions that its work will need beside `condition` and those of its lookups, each with its dataset.

        They are held against the dictionary before anything is worked out. Raises InvalidQuery.
        """

    @abstractmethod
    def fields(self, analysis: A, dataset: Dataset, dictionary: Dictionary) -> tuple[str, ...]:
        """The fields, paths included, that the aggregate needs columns of. Raises InvalidQuery for what cannot be."""

    @abstractmethod
    def aggregate(self, analysis: A, dataset: Dataset, rows: Expression) -> Expression:
        """The ibis expression to run over one dataset's rows. Raises InvalidQuery.

        `rows` are those that the filter and the donors' consent leave, with the column DONOR.
        """

    @abstractmethod
    def result(self, analysis: A, results: Mapping[str, Rows]) -> Shape:
        """The result for release, from what each dataset gave. Raises InvalidQuery where it is too large."""

    @abstractmethod
    def noisy_table(self, analysis: A, dataset: Dataset, dictionary: Dictionary) -> NoisyTable | None:
        """The table that leaves with noise where it rests on persons; None where no such table leaves.

        INVARIANT: decided by words and dictionary alone. Raises InvalidQuery where the noise cannot be sized.
        """


def donors_behind(dataset: Dataset, rows: Expression) -> Expression:
    """The number of distinct donors among rows, without counting distinctly where each donor has one row."""
    return rows.count() if dataset.one_row_per_donor else rows[DONOR].nunique()
