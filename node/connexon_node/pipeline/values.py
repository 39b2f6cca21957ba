"""How a node answers a question: one story, each step taking what the step before made.

verify (who) -> authorise (access policy) -> consent (which donors) -> compute -> release -> record -> sign

The types here are the promises between the steps. INVARIANT: `Permit` is made only by connexon_node.policy,
`Cohort` and `StandingCohort` only by connexon_node.consent, `Computed` results only by connexon_node.engine, `Released`
only by connexon_node.release, `connexon.query.signed.Asked` only by connexon.query.signed
(tests/unit/test_pipeline_seals.py holds that). So no step can be skipped: the next one has nothing to take.

A task of a training run goes the same way, anew each time, with local work in the place of computing:

order (of a signed recipe) -> authorise -> consent -> rows -> local work -> release of the update -> record -> sign

INVARIANT: `Ordered` is made only by connexon_node.training.task_verification, `Worked` only by
connexon_node.training.task_pipeline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.conditions.filters import Scalar
from connexon.errors import ConnexonError, Refused
from connexon.link.parcel_files import ParcelFile, TaskId
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, query_pb2

if TYPE_CHECKING:
    # Not loaded by what only speaks of these steps: most of the steward's commands.
    import numpy
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from connexon.learning.preprocessing import Kind
    from connexon.learning.recipe import Recipe


class Interrupted(Refused):
    """The work was cancelled by the researcher or ran out of time."""

    code = "query.cancelled"


class Work:
    """The time a query has and whether it is still wanted. Thread-safe; shared by all steps."""

    def __init__(self, *, deadline_ms: int) -> None:
        self.deadline_ms = deadline_ms
        self._cancelled = threading.Event()
        self._hooks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """End the work: the running database query is interrupted."""
        with self._lock:
            self._cancelled.set()
            hooks = tuple(self._hooks)
        for hook in hooks:
            hook()

    def on_cancel(self, hook: Callable[[], None]) -> Callable[[], None]:
        """Call `hook` on cancellation, at once if that has been. Returns what takes the hook away again."""
        with self._lock:
            self._hooks.append(hook)
            cancelled = self._cancelled.is_set()
        if cancelled:
            hook()

        def remove() -> None:
            with self._lock:
                self._hooks.remove(hook)

        return remove

    @property
    def seconds_left(self) -> float:
        """Until the deadline; never negative."""
        return max(0.0, (self.deadline_ms - now_ms()) / 1000)

    def require_wanted(self) -> None:
        """Raise Interrupted when cancelled or out of time."""
        if self._cancelled.is_set():
            raise Interrupted("The researcher cancelled the query.", code="query.cancelled")
        if self.seconds_left == 0:
            raise Interrupted("The query's time ended before the center had an answer.", code="query.expired")


@dataclass(frozen=True)
class Permit:
    """The access policy allows this question. Names the rule that decided.

    `withheld` are datasets that a description of all must leave out: this researcher may not see them. What is asked
    about data that is not `personal`, protocols for example, needs nobody's consent.
    """

    asked: Asked
    rule: str
    policy_version: str
    withheld: frozenset[str] = frozenset()
    personal: bool = True


@dataclass(frozen=True)
class Obligation:
    """A duty that comes with the answer. `term` is the DUO term it comes from."""

    term: str
    message: str


@dataclass(frozen=True)
class Referral:
    """One reason why only the steward can say. `profiles` are the consents it is about; none: every donor's."""

    rule: str
    says: str
    profiles: frozenset[int] = frozenset()


class Referred(Refused):
    """Only the steward can say. `referrals` are the reasons, of which the researcher reads the first ones only.

    `of_consents` are reasons that single donors' consents give: the steward settles them too, and only the steward sees
    them.
    """

    code = "consent.refer"

    def __init__(self, referrals: tuple[Referral, ...], of_consents: tuple[Referral, ...] = ()) -> None:
        super().__init__(" ".join(dict.fromkeys(one.says for one in referrals)), rule=referrals[0].rule)
        self.referrals = (*referrals, *of_consents)


@dataclass(frozen=True)
class SaidYes:
    """What the steward has approved for a question: the rules that refer it, and the approvals that say so."""

    rules: frozenset[str] = frozenset()
    approvals: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cohort:
    """The donors this purpose may count, as the consent profiles that permit it.

    `profiles` are numbers of consent profiles; `epoch` is the consent ledger's state they were judged in: an answer
    computed under an older epoch must not be released under a newer one. `approvals` are those of the steward that
    it rests on: they must still be in force when it is released.
    """

    permit: Permit
    profiles: frozenset[int]
    epoch: int
    obligations: tuple[Obligation, ...] = ()
    ontologies: Mapping[str, str] = field(default_factory=dict)
    approvals: tuple[str, ...] = ()


@dataclass(frozen=True)
class StandingCohort:
    """The donors whose consent allows the standing purpose to every accredited researcher, as consent profiles.

    What first-ask tables are measured of. `epoch` as in Cohort: tables measured under an older one are not kept.
    """

    profiles: frozenset[int]
    epoch: int
    policy_version: str


@dataclass(frozen=True)
class Cell:
    """One group: its key, how many records it has and how many distinct donors stand behind them.

    `behind` has the donor number of each record, in any order: what release compares with what left before. Without
    it nothing leaves where numbers must rest on more than one donor.
    """

    key: tuple[Scalar | None, ...]
    records: int
    donors: int
    behind: NDArray[numpy.int32] | None = field(default=None, compare=False, repr=False)


class Shape:
    """What an analysis computes. Release lets out what it knows by its shape, and no other."""


@dataclass(frozen=True)
class CellTable(Shape):
    """Counts by group; `by` empty means one total. The shape that counting computes."""

    by: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class SumCell:
    """One group of values: of persons `donors`, each once, and the value `own` of each; of nobody's data the number of
    `records` and the `total` of their values.
    """

    key: tuple[Scalar | None, ...]
    donors: NDArray[numpy.int32] | None = field(default=None, compare=False, repr=False)
    own: NDArray[numpy.float64] | None = field(default=None, compare=False, repr=False)
    records: int = 0
    total: float = 0.0


@dataclass(frozen=True)
class SumTable(Shape):
    """Values of a field by group, to be summed; `by` empty means one group of all."""

    field: str
    by: tuple[str, ...]
    cells: tuple[SumCell, ...]


@dataclass(frozen=True)
class Reach:
    """How many records and donors of one dataset a purpose reaches; `behind` as in Cell."""

    dataset: str
    records: int
    donors: int
    behind: NDArray[numpy.int32] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Offer(Shape):
    """What describing computes: the datasets of this center with how much of each the purpose reaches."""

    reaches: tuple[Reach, ...]


@dataclass(frozen=True)
class Participation(Shape):
    """What enrolling in a training run computes: the rows that could be trained on, as one group."""

    cell: Cell


@dataclass(frozen=True)
class Uncomputed(Shape):
    """Nothing, and no row was read: the question asks for its price, or first-ask tables answer it."""


@dataclass(frozen=True)
class TrainingTable(Shape):
    """The rows of one training task, in an order of their own. INVARIANT: release never lets such a shape out.

    `donors` has the donor number of each row, `target` its number or the place of its class. `numbers` [rows, columns]
    holds number and boolean columns, missing as not a number, and nothing where a column is a category: those are in
    `texts` by column, as codes of each row (-1: missing) and their values.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    donors: NDArray[numpy.int32]
    target: NDArray[numpy.float64]
    numbers: NDArray[numpy.float64]
    texts: Mapping[int, tuple[NDArray[numpy.int32], tuple[str, ...]]]


@dataclass(frozen=True)
class Computed:
    """An exact result that has not passed release and must not leave.

    `population` has the donor number of every record of the dataset that the cohort reaches, whatever was selected.
    `edition` is that of the center's data which was read; 0 where it was the data of now. `parts` is the fewest donors
    for which a part of a condition counted, where exact numbers about persons were asked for.
    """

    cohort: Cohort
    shape: Shape
    generations: Mapping[str, int]
    dictionary_version: str
    population: NDArray[numpy.int32] | None = field(default=None, compare=False, repr=False)
    edition: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Ordered:
    """A task of a training run that this center takes part in, and that the run's signed recipe provides for.

    `enrolled` is the center's own answer, by which it takes part.
    """

    asked: Asked
    enrolled: answer_pb2.Answer
    task: TaskId
    action: str
    round: int
    parcel: ParcelFile
    sha256: bytes

    @property
    def recipe(self) -> Recipe:
        """What the researcher signed."""
        assert isinstance(self.asked.question.analysis, Train)
        return self.asked.question.analysis.recipe


@dataclass(frozen=True)
class Worked:
    """What local work made of a task: records in a file, which have not passed release and must not leave."""

    order: Ordered
    computed: Computed
    records: ParcelFile


@dataclass(frozen=True)
class Released:
    """A result that may leave, complete but for receipt, signature and time. `records` go with it, in a file.

    `commit`, where given, writes what release must remember of it; the recorder calls it within the sealing
    transaction, before the audit record. It raises ReleaseMoved where something released meanwhile decides otherwise.
    """

    computed: Computed
    answer: answer_pb2.Answer
    commit: Callable[[Connection], None] | None = None
    records: ParcelFile | None = None


class Verifier(Protocol):
    """Who asks, what exactly, and is it meant for us, now, for the first time."""

    def verify(self, signed: query_pb2.SignedQuery) -> Asked:
        """Return the proved question or raise Refused."""
        ...

    def require_counting(self, connection: Connection, asked: Asked) -> None:
        """Raise ConsentMoved where what proved who asks has been revoked since, within the sealing transaction."""
        ...


class AccessPolicy(Protocol):
    """May this researcher do this to this dataset at all."""

    def authorise(self, asked: Asked) -> Permit:
        """Return the permit or raise Refused with the rule; anything but an explicit permit refuses."""
        ...


class Consent(Protocol):
    """Which donors agreed to this purpose."""

    def cohort(self, permit: Permit) -> Cohort:
        """Return the donors that may be counted, maybe nobody: that looks like too few, and release says so.

        INVARIANT: what it raises, and the cohort's obligations, depend on the request and on no donor's consent.
        Raises Refused (consent.not_covered) where the rules forbid the purpose whatever consents say, Referred where
        they leave it to the steward.
        """
        ...

    def epoch(self) -> int:
        """The consent ledger's present state."""
        ...


class Steward(Protocol):
    """The person who decides what rules cannot, by what is written down of their decisions."""

    def decides_on(self, question: Question) -> bool:
        """Whether such a question may be put before the steward at all."""
        ...

    def looks_first(self, permit: Permit) -> tuple[Referral, ...]:
        """Why this center wants its steward to see the question, whatever the donors' consents say."""
        ...

    def require_not_refused(self, permit: Permit) -> None:
        """Raise Refused (steward.refused) where the steward has refused this very question."""
        ...

    def said_yes(self, permit: Permit, *, at_ms: int) -> SaidYes:
        """What approvals in force cover of this question."""
        ...

    def put_before(self, connection: Connection, asked: Asked, referrals: tuple[Referral, ...]) -> None:
        """Keep the question for the steward, within the transaction that seals its answer."""
        ...

    def require_in_force(self, connection: Connection, approvals: tuple[str, ...]) -> None:
        """Raise ConsentMoved where one of the approvals was revoked or has ended meanwhile."""
        ...


class Engine(Protocol):
    """Computes exact results over the cohort's rows and no others."""

    def run(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        """Return the exact result; raise Refused (not offered, invalid field) or Interrupted."""
        ...

    def training_table(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        """The rows of a recipe as a TrainingTable, for work at this center; raises as `run`."""
        ...


class Release(Protocol):
    """What of an exact result may leave."""

    def protect(self, computed: Computed) -> Released:
        """Return what may leave; a shape it does not know raises Refused."""
        ...

    def catch_up(self) -> None:
        """Take in what was sealed, while nobody waits, so that the next question need not. Raises Unavailable."""
        ...


class Recorder(Protocol):
    """Writes down every request and its outcome before anything leaves, and signs."""

    def seal(
        self,
        asked: Asked | None,
        answer: answer_pb2.Answer,
        *,
        epoch: int | None,
        started_at_ms: int,
        commit: Callable[[Connection], None] | None = None,
    ) -> answer_pb2.SignedAnswer:
        """Record, keep and sign the answer in one transaction; the same answer again for the same query.

        `epoch`, where given, must still be the consent ledger's: raises ConsentMoved otherwise. `commit` is
        Released.commit and may raise ReleaseMoved. `started_at_ms` is when the work on it began, for the record.
        """
        ...

    def seal_apart(self, answer: answer_pb2.Answer, *, started_at_ms: int) -> answer_pb2.SignedAnswer:
        """Record and sign an answer that does not become the answer of its query id."""
        ...


class ConsentMoved(ConnexonError):
    """Consent changed while the answer was computed; it must be computed again."""

    code = "consent.moved"


class ReleaseMoved(ConnexonError):
    """Another answer was released meanwhile, which changes what of this one may leave; it must be computed again."""

    code = "release.moved"
