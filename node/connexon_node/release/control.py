"""The release step: what of an exact result may leave, rule by rule, in one visible order.

minimum donors -> what is known outside (complement, differencing, margins, generations) -> rounding -> what may be said
about what was withheld. What leaves under differential privacy is decided in private.py instead. Everything that is
not understood here does not leave.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy
from sqlalchemy import Connection

from connexon.database import Database
from connexon.errors import Refused
from connexon.question import DifferentialPrivacy, Train
from connexon.v1 import answer_pb2
from connexon_node.dictionary import DONORS, Dataset, Dictionary
from connexon_node.pipeline import (
    Cell,
    CellTable,
    Computed,
    Offer,
    Participation,
    Reach,
    Released,
    ReleaseMoved,
    TrainingTable,
)
from connexon_node.release import rules
from connexon_node.release.counted import Counted
from connexon_node.release.floors import Floors, stricter, stricter_privacy
from connexon_node.release.known import Known
from connexon_node.release.ledger import ReleaseLedger
from connexon_node.release.populations import Population, Populations
from connexon_node.release.private import Outcome, PrivateRelease
from connexon_node.release.settling import EXACT, Settled, Settling
from connexon_node.release.wire import add_cell, described
from connexon_node.settings import PrivacySection, ReleaseSection, TrainingSection
from connexon_node.training.rows import held_out

TOO_FEW = answer_pb2.Reason(
    code="release.too_few_donors",
    message="Too few donors stand behind this, or none: the center does not say which.",
)


class UnknownShape(Refused):
    """A result that the release step does not understand."""

    code = "release.unknown_result"


class Judged(NamedTuple):
    """One group with what became of it: `why` is for the steward, `number` is what leaves (None: nothing)."""

    cell: Cell
    number: int | None
    why: str


@dataclass
class Decision:
    """What may leave, and what becomes known with it by dataset. `judged` is for the steward only.

    `private` is how it was decided under differential privacy, where it was, and `pay` what then must be committed.
    """

    answer: answer_pb2.Answer
    private: Outcome | None = None
    pay: Callable[[Connection], None] | None = None
    new: dict[str, list[Known]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)


Decide = Callable[[Computed, Connection | None], Decision]


class ReleaseControl:
    """Implements pipeline.Release. Thread-safe; one per process."""

    def __init__(
        self,
        section: ReleaseSection,
        dictionary: Dictionary,
        database: Database,
        training: TrainingSection | None = None,
        privacy: PrivacySection | None = None,
    ) -> None:
        self._own = section
        self._own_privacy = privacy or PrivacySection()
        self._dictionary = dictionary
        self._database = database
        self._lock = threading.Lock()
        self._training_minimum = (training or TrainingSection()).minimum_donors
        self._keep_to(section, self._own_privacy)

    def raise_to(self, least: Floors) -> None:
        """Keep to the federation's floors too, from the next answer on."""
        with self._lock:
            self._keep_to(stricter(self._own, least), stricter_privacy(self._own_privacy, least.privacy))

    @property
    def in_force(self) -> ReleaseSection:
        """The center's settings, raised to the federation's floors."""
        return self._section

    @property
    def privacy_in_force(self) -> PrivacySection:
        """The center's settings of differential privacy, held to the federation's floors."""
        return self._privacy

    def _keep_to(self, section: ReleaseSection, privacy: PrivacySection) -> None:
        self._section, self._privacy = section, privacy
        self._private = PrivateRelease(section, privacy, self._dictionary, self._database)
        self._minimum = section.minimum_donors
        self._round_to = section.round_to
        self._random = section.rounding == "random"
        self._ledger = ReleaseLedger(self._database, self._minimum)
        self._secret = self._ledger.secret() if self._random else b""
        self._populations = Populations(self._ledger.counted)

    def protect(self, computed: Computed) -> Released:
        """See pipeline.Release. Raises UnknownShape."""
        decision = self.decide(computed)
        if decision.pay is not None:
            return Released(computed, decision.answer, decision.pay)
        if not decision.known:
            return Released(computed, decision.answer)
        return Released(computed, decision.answer, self._committing(computed, decision))

    def catch_up(self) -> None:
        """See pipeline.Release."""
        with self._lock:
            self._ledger.catch_up()

    def decide(self, computed: Computed) -> Decision:
        """What would leave, without letting it become known. Raises UnknownShape, or Refused where no noise may be."""
        private = self._private
        terms = private.terms(computed.cohort.permit.asked.question)
        if terms is not None:
            return self._decide_privately(computed, terms, private)
        with self._lock:
            return self._decide(computed, None)

    def weigh(self, computed: Computed) -> Released:
        """How many rows and donors stand behind an update, as counts of them would leave; nothing else.

        For a TrainingTable, which itself never leaves. Suppressed where they are too few.
        """
        with self._lock:
            decision = self._weigh(computed, None)
        if not decision.known:
            return Released(computed, decision.answer)
        return Released(computed, decision.answer, self._committing(computed, decision, self._weigh))

    def _weigh(self, computed: Computed, connection: Connection | None) -> Decision:
        decision = Decision(self._begun(computed))
        assert isinstance(computed.shape, TrainingTable)
        behind = computed.shape.donors
        cell = Cell((), len(behind), int(numpy.unique(behind).size), behind)
        donors = self._number_of_donors(computed, cell, decision, connection)
        numbers = (
            {}
            if donors is None
            else self._numbers(computed, self._dataset(computed), (), [cell], [cell], decision, connection)
        )
        settled = numbers.get(())
        if donors is None or settled is None or settled.withheld:
            decision.answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            decision.answer.reason.CopyFrom(TOO_FEW)
            decision.new.clear()
            return decision
        decision.answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        decision.answer.task.donors, decision.answer.task.examples = donors, self._rounded(settled)
        return decision

    def _committing(
        self, computed: Computed, decision: Decision, decide: Decide | None = None
    ) -> Callable[[Connection], None]:
        def commit(connection: Connection) -> None:
            final = decision
            with self._lock:
                present = {name: len(self._ledger.known(name, connection).all) for name in decision.known}
                if present != decision.known:
                    final = (decide or self._decide)(computed, connection)
            if final.answer != decision.answer:
                raise ReleaseMoved("Another answer was released meanwhile that changes what of this one may leave.")
            query_id = computed.cohort.permit.asked.question.query_id
            for dataset, new in final.new.items():
                self._ledger.write(connection, dataset, query_id, new)

        return commit

    def _decide(self, computed: Computed, connection: Connection | None) -> Decision:
        decision = Decision(self._begun(computed))
        match computed.shape:
            case CellTable():
                self._decide_cells(computed, computed.shape, decision, connection)
            case Offer():
                self._decide_offer(computed.shape, decision, connection)
            case Participation(cell):
                self._decide_participation(computed, cell, decision, connection)
            case _:
                raise UnknownShape("The center does not know how to release such a result, so it does not leave.")
        return decision

    def _decide_privately(self, computed: Computed, terms: DifferentialPrivacy, private: PrivateRelease) -> Decision:
        begun = self._begun(computed)
        match computed.shape:
            case CellTable() as table if self._dataset(computed).personal:
                dataset = self._dataset(computed)
                outcome = private.decide_table(computed, table, dataset, terms, begun)
            case Offer(reaches):
                owned = [one for one in reaches if self._dictionary.dataset(one.dataset).personal]
                outcome = private.decide_reaches(computed, owned, terms, begun)
                self._add_of_nobody(reaches, outcome.answer)
            case _:
                # What belongs to nobody needs no noise; what is unknown does not leave.
                with self._lock:
                    return self._decide(computed, None)
        judged = [Judged(one.cell, one.number, one.why) for one in outcome.shown]
        pay = functools.partial(private.commit, computed=computed, outcome=outcome)
        return Decision(outcome.answer, outcome, pay, judged=judged)

    def _add_of_nobody(self, reaches: Sequence[Reach], answer: answer_pb2.Answer) -> None:
        answer.description.dictionary_version = answer.provenance.dictionary_version
        for reach in reaches:
            if not self._dictionary.dataset(reach.dataset).personal:
                records = self._rounded_of_nobody(reach.records)
                answer.description.datasets.append(described(self._dictionary, reach.dataset, records))

    def _decide_cells(
        self, computed: Computed, table: CellTable, decision: Decision, connection: Connection | None
    ) -> None:
        # INVARIANT: decide on exact numbers first, round last. The other way round, rounding would let small cells by.
        answer, dataset = decision.answer, self._dataset(computed)
        cells = rules.in_order(table.cells)
        if not dataset.personal:
            self._release_of_nobody(table, cells, answer)
            return
        kept = rules.enough_donors(cells, self._minimum)
        numbers = self._numbers(computed, dataset, table.by, cells, kept, decision, connection) if kept else {}
        for cell in cells:
            settled = numbers.get(cell.key)
            if settled is None or settled.withheld:
                why = "too few donors" if settled is None else settled.why
                decision.judged.append(Judged(cell, None, why))
            else:
                decision.judged.append(Judged(cell, self._rounded(settled), self._why(settled)))
        shown = [one.cell for one in decision.judged if one.number is not None]
        if not shown:
            answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            answer.reason.CopyFrom(TOO_FEW)
            decision.new.clear()
            return
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.count.by.extend(table.by)
        answer.count.groups_withheld = bool(table.by) and not rules.all_groups_shown(
            shown, rules.domains_of(table.by, dataset, self._dictionary)
        )
        for one in decision.judged:
            if one.number is not None:
                add_cell(answer.count, one.cell.key, one.number)

    def _decide_participation(
        self, computed: Computed, cell: Cell, decision: Decision, connection: Connection | None
    ) -> None:
        """A center takes part where enough donors stand behind its rows; how many they are leaves as a count would."""
        donors = self._number_of_donors(computed, cell, decision, connection)
        if donors is None:
            decision.answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            decision.answer.reason.CopyFrom(TOO_FEW)
            decision.new.clear()
            return
        decision.answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        decision.answer.enrolment.SetInParent()
        if not self._privacy.required:
            decision.answer.enrolment.donors = donors

    def _number_of_donors(
        self, computed: Computed, cell: Cell, decision: Decision, connection: Connection | None
    ) -> int | None:
        """The donors behind rows, counted as those of the dataset of donors would be; None where they are too few."""
        least = max(self._minimum, self._training_minimum)
        if cell.donors < least or self._trained_on(computed, cell) < least:
            return None
        if self._minimum == 1:
            return self._rounded(Settled(_nobody(cell), cell.donors, b"donors"))
        if computed.population is None or cell.behind is None:
            raise UnknownShape("The center cannot tell which donors stand behind this, so it does not leave.")
        population, behind = self._populations.once_each(computed.population), numpy.unique(cell.behind)
        settling = self._settling(DONORS, population, decision, connection)
        settlement = settling.settle_table(population.counted, [Cell((), behind.size, behind.size, behind)], [])
        decision.new[DONORS] = settlement.new
        (settled,) = settlement.cells
        return None if settled.withheld else self._rounded(settled)

    def _trained_on(self, computed: Computed, cell: Cell) -> int:
        """The donors whose rows a model is trained on: those that are not kept apart to evaluate it."""
        analysis = computed.cohort.permit.asked.question.analysis
        if not isinstance(analysis, Train) or not analysis.recipe.held_out or cell.behind is None:
            return cell.donors
        donors = numpy.unique(cell.behind)
        return int((~held_out(donors, analysis.recipe.held_out, analysis.recipe.seed)).sum())

    def _release_of_nobody(self, table: CellTable, cells: Sequence[Cell], answer: answer_pb2.Answer) -> None:
        """Counts of what belongs to no person leave rounded; a count of none is none."""
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.count.by.extend(table.by)
        for cell in cells:
            add_cell(answer.count, cell.key, self._rounded_of_nobody(cell.records))

    def _rounded_of_nobody(self, records: int) -> int:
        return rules.rounded(records, self._round_to) if records else 0

    def _numbers(
        self,
        computed: Computed,
        dataset: Dataset,
        by: tuple[str, ...],
        cells: Sequence[Cell],
        kept: Sequence[Cell],
        decision: Decision,
        connection: Connection | None,
    ) -> dict[tuple[object, ...], Settled]:
        """The number that stands for each cell with enough donors."""
        if self._minimum == 1:
            # Every single donor may show: there is nothing to hide by comparing.
            return {cell.key: Settled(_nobody(cell), cell.records, repr(cell.key).encode(), why=EXACT) for cell in kept}
        if computed.population is None or any(cell.behind is None for cell in cells):
            raise UnknownShape("The center cannot tell which donors stand behind this, so it does not leave.")
        population = self._populations.of(computed.population)
        settling = self._settling(dataset.name, population, decision, connection)
        domains = rules.domains_of(by, dataset, self._dictionary)
        sizes = [None if domain is None else len(domain) for domain in domains]
        settlement = settling.settle_table(population.counted, cells, sizes)
        decision.new[dataset.name] = settlement.new
        return dict(zip((cell.key for cell in kept), settlement.cells, strict=True))

    def _settling(
        self, dataset: str, population: Population, decision: Decision, connection: Connection | None
    ) -> Settling:
        known = self._ledger.known(dataset, connection)
        known.heaviest = max(known.heaviest, population.heaviest)
        decision.known[dataset] = len(known.all)
        return Settling(known, self._ledger.counted)

    def _rounded(self, settled: Settled) -> int:
        if self._random:
            return rules.randomly_rounded(settled.value, self._round_to, secret=self._secret, seal=settled.seal)
        return rules.rounded(settled.value, self._round_to)

    def _why(self, settled: Settled) -> str:
        if self._round_to == 1:
            return settled.why
        rounded = f"rounded to a multiple of {self._round_to}"
        return rounded if settled.why == EXACT else f"{settled.why}, {rounded}"

    def _decide_offer(self, offer: Offer, decision: Decision, connection: Connection | None) -> None:
        answer = decision.answer
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.description.dictionary_version = answer.provenance.dictionary_version
        for reach in offer.reaches:
            number = self._reach(reach, decision, connection)
            answer.description.datasets.append(described(self._dictionary, reach.dataset, number))

    def _reach(self, reach: Reach, decision: Decision, connection: Connection | None) -> int | None:
        if not self._dictionary.dataset(reach.dataset).personal:
            return self._rounded_of_nobody(reach.records)
        if reach.donors < self._minimum or self._privacy.required:
            # Where noise is demanded, a description that asks for none has no numbers, and costs nothing.
            return None
        if self._minimum == 1:
            return self._rounded(Settled(_nobody(reach), reach.records, reach.dataset.encode()))
        if reach.behind is None:
            raise UnknownShape("The center cannot tell which donors stand behind this, so it does not leave.")
        population = self._populations.of(reach.behind)
        settling = self._settling(reach.dataset, population, decision, connection)
        settlement = settling.settle_one(population.counted)
        decision.new[reach.dataset] = settlement.new
        (settled,) = settlement.cells
        return None if settled.withheld else self._rounded(settled)

    def _begun(self, computed: Computed) -> answer_pb2.Answer:
        """An answer that says where it comes from and what was done to it, without a result yet."""
        cohort = computed.cohort
        asked = cohort.permit.asked
        return answer_pb2.Answer(
            query_id=asked.question.query_id,
            query_sha256=asked.sha256,
            provenance=answer_pb2.Provenance(
                generations=computed.generations,
                dictionary_version=computed.dictionary_version,
                policy_version=cohort.permit.policy_version,
                ontologies=cohort.ontologies,
            ),
            obligations=[answer_pb2.Obligation(term=duty.term, message=duty.message) for duty in cohort.obligations],
            protection=answer_pb2.Protection(minimum_donors=self._minimum, rounded_to=self._round_to),
        )

    def _dataset(self, computed: Computed) -> Dataset:
        return self._dictionary.dataset(computed.cohort.permit.asked.question.dataset)


def _nobody(of: Cell | Reach) -> Counted:
    """A cohort that is compared with nothing."""
    empty = numpy.empty(0, dtype=numpy.int32)
    return Counted(empty, of.donors, numpy.empty(0, dtype=numpy.int64))
