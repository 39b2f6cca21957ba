"""The release step: what of an exact result may leave.

Three kinds of numbers, each by rules of its own, and every answer says which it has. What belongs to nobody is
*published*: exact. What rests on persons is *private*: with noise, see private.py; or *granted* by the steward to a
project and researcher, see grants.py, and then by these rules, in one visible order:

minimum donors -> what is known outside (complement, differencing, margins, generations) -> rounding -> what may be said
about what was withheld.

Everything that is not understood here does not leave.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

import numpy
from sqlalchemy import Connection

from connexon.analyses.count import Count
from connexon.analyses.registry import spec_of
from connexon.analyses.spec import Kind, Unit
from connexon.analyses.train import Train
from connexon.errors import Refused
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.analyses.registry import at_node
from connexon_node.data.dictionary import DONORS, Dataset, Dictionary, relations
from connexon_node.editions import Editions
from connexon_node.pipeline.held_out import held_out
from connexon_node.pipeline.values import (
    Cell,
    CellTable,
    Computed,
    Offer,
    Participation,
    Released,
    ReleaseMoved,
    SumTable,
    TrainingTable,
    Uncomputed,
)
from connexon_node.privacy.contributions import require_own_rows
from connexon_node.release import rules
from connexon_node.release.differencing import EXACT, Settled, Settling
from connexon_node.release.donor_multiset import Counted
from connexon_node.release.first_ask import FirstAsk, state
from connexon_node.release.floors import Floors, stricter, stricter_privacy, stricter_training
from connexon_node.release.grants import Grant, Grants
from connexon_node.release.ledger import ReleaseLedger
from connexon_node.release.measures import UnknownShape
from connexon_node.release.populations import Population, Populations
from connexon_node.release.price import noisy_table_of
from connexon_node.release.private import Outcome, PrivateRelease, in_order
from connexon_node.release.private_training import PrivateTraining
from connexon_node.release.released_cohorts import Known
from connexon_node.release.training_cohorts import TrainingCohort, TrainingCohorts
from connexon_node.release.training_summaries import TrainingSummaries
from connexon_node.release.wire import add_cell, add_sums, described
from connexon_node.settings import PrivacySection, ReleaseSection, TrainingSection

FROM_TABLES = "from first-ask tables"
"""Why a number leaves that was paid for with an edition."""
TOO_FEW = answer_pb2.Reason(
    code="release.too_few_donors",
    message="Too few donors stand behind this, or none: the center does not say which.",
)


class NoGrantedForm(Refused):
    """Exact numbers were asked for of an analysis that has no rules for them."""

    code = "release.no_granted_form"

    def __init__(self) -> None:
        super().__init__("There is no exact form of this about persons, granted or not. Ask without exact.")


class NotGranted(Refused):
    """Exact numbers were asked for that the steward has not granted."""

    code = "release.not_granted"


class Judged(NamedTuple):
    """One group with what became of it: `why` is for the steward, `number` is what leaves (None: nothing)."""

    cell: Cell
    number: int | None
    why: str


@dataclass
class Decision:
    """What may leave, and what becomes known with it by dataset. `judged` is for the steward only.

    `private` is how numbers with noise were decided, and `pay` what must be committed with them; `grant` is what exact
    numbers rest on. `from_tables` is the edition whose first-ask tables answered, 0 where none did.
    """

    answer: answer_pb2.Answer
    private: Outcome | None = None
    pay: Callable[[Connection], None] | None = None
    grant: Grant | None = None
    new: dict[str, list[Known]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)
    from_tables: int = 0
    training: TrainingCohort | None = None
    """What becomes known of a training with exact updates."""


Decide = Callable[[Computed, Connection | None], Decision]
Covering = Callable[[Asked, frozenset[str], Connection | None], Grant | None]
"""Finds the grant by which a question that looks into these datasets may be answered exactly, if there is one."""


class ReleaseControl:
    """Implements pipeline.Release. Thread-safe; one per process."""

    def __init__(
        self,
        section: ReleaseSection,
        dictionary: Dictionary,
        database: Database,
        training: TrainingSection | None = None,
        privacy: PrivacySection | None = None,
        covering: Covering | None = None,
        editions: Editions | None = None,
    ) -> None:
        """`covering`: Grants.covering of the database, where not given. Without `editions` no table answers."""
        self._first_ask = FirstAsk(editions, dictionary)
        self._covering = covering or Grants(database).covering
        self._grants_allowed = True
        self._own_training = training or TrainingSection()
        self._own = section
        self._own_privacy = privacy or PrivacySection()
        self._dictionary = dictionary
        self._database = database
        self._lock = threading.Lock()
        self._training_minimum = self._own_training.minimum_donors
        self._training = self._own_training
        self._keep_to(section, self._own_privacy)

    def raise_to(self, least: Floors) -> None:
        """Keep to the federation's floors too, from the next answer on."""
        with self._lock:
            self._training = stricter_training(self._own_training, least.privacy)
            self._keep_to(stricter(self._own, least), stricter_privacy(self._own_privacy, least.privacy))
            self._grants_allowed = least.privacy.grants

    @property
    def in_force(self) -> ReleaseSection:
        """The center's settings, raised to the federation's floors."""
        return self._section

    @property
    def privacy_in_force(self) -> PrivacySection:
        """The center's account of persons, held to the federation's floors."""
        return self._privacy

    @property
    def training_in_force(self) -> TrainingSection:
        """The center's settings of training, held to the federation's floors."""
        return self._training

    def _keep_to(self, section: ReleaseSection, privacy: PrivacySection) -> None:
        self._section, self._privacy = section, privacy
        self._private = PrivateRelease(privacy, self._dictionary, self._database)
        self._private_training = PrivateTraining(self._private.account, self._dictionary, self._database)
        self._minimum = section.minimum_donors
        self._round_to = section.round_to
        self._random = section.rounding == "random"
        self._ledger = ReleaseLedger(self._database, self._minimum)
        self._secret = self._ledger.secret() if self._random else b""
        self._populations = Populations(self._ledger.counted)
        self.summaries = TrainingSummaries(self._database)
        self._cohorts = TrainingCohorts(self._database, self._minimum, self._training.runs_per_project)

    def protect(self, computed: Computed) -> Released:
        """See pipeline.Release. Raises UnknownShape."""
        decision = self.decide(computed)
        if decision.pay is not None:
            return Released(computed, decision.answer, decision.pay)
        if not decision.known and decision.training is None:
            return Released(computed, decision.answer)
        return Released(computed, decision.answer, self._committing(computed, decision))

    def catch_up(self) -> None:
        """See pipeline.Release."""
        with self._lock:
            self._ledger.catch_up()

    def decide(self, computed: Computed) -> Decision:
        """What would leave, without letting it become known. Raises UnknownShape, or Refused where no noise may be."""
        if isinstance(computed.shape, Uncomputed):
            if computed.cohort.permit.asked.question.price_only:
                return Decision(self._price(computed))
            return self._decide_from_tables(computed)
        analysis = computed.cohort.permit.asked.question.analysis
        if type(computed.shape) is not at_node(analysis).traits.shape:
            raise UnknownShape
        if isinstance(computed.shape, Participation):
            return self._decide_enrolment(computed, computed.shape)
        if isinstance(computed.shape, CellTable | SumTable) and self._dataset(computed).personal:
            match spec_of(analysis).kind(analysis):
                case Kind.PRIVATE:
                    return self._decide_privately(computed)
                case Kind.PUBLISHED:
                    raise Refused("This center has published nothing of its bank.", code="published.not_offered")
                case Kind.GRANTED:
                    pass
                case None:
                    raise UnknownShape
                case other:
                    assert_never(other)
        with self._lock:
            return self._decide(computed, None)

    def _decide_enrolment(self, computed: Computed, shape: Participation) -> Decision:
        analysis = computed.cohort.permit.asked.question.analysis
        assert isinstance(analysis, Train)
        if analysis.recipe.privacy is not None:
            begun = self._begun(computed)
            return Decision(begun, pay=self._private_training.enrol(computed, shape, begun))
        with self._lock:
            return self._decide(computed, None)

    def grant_for(self, computed: Computed, connection: Connection | None = None) -> Grant:
        """The steward's grant for a question, in force now. Raises NotGranted."""
        asked = computed.cohort.permit.asked
        looked_into = relations.touched(self._dictionary, asked.question)
        datasets = frozenset(one.name for one in looked_into if one.personal)
        grant = self._covering(asked, datasets, connection) if self._grants_allowed else None
        if grant is None and isinstance(asked.question.analysis, Train):
            raise NotGranted(
                "This center has not granted exact training on this to you and your project; its steward may. Leave "
                "out  privacy: exact  and each center adds noise to what leaves."
            )
        if grant is None:
            raise NotGranted(
                "This center has not granted exact numbers about this to you and your project; its steward may. "
                "Ask without exact for numbers with noise."
            )
        return grant

    def require_same(self, computed: Computed, connection: Connection | None = None) -> None:
        """For a task of a run with exact updates: raise where its grant has ended, or its donors are not those of then.

        NotGranted, CohortRefused.
        """
        self.grant_for(computed, connection)
        self._cohorts.require_same(computed, connection)

    def _require_granted(self, computed: Computed, connection: Connection) -> None:
        try:
            self.grant_for(computed, connection)
        except NotGranted as error:
            # Decided again, it is a refusal that is sealed like any other.
            raise ReleaseMoved("The grant of exact numbers has ended or was withdrawn meanwhile.") from error

    def _price(self, computed: Computed) -> answer_pb2.Answer:
        asked = computed.cohort.permit.asked
        begun, analysis = self._begun(computed), asked.question.analysis
        kind = spec_of(analysis).kind(analysis)
        if isinstance(analysis, Train) and kind is Kind.PRIVATE:
            self._private_training.price(asked, begun)
            return begun
        if not self._dataset(computed).personal or kind is Kind.PUBLISHED:
            begun.price.kind = query_pb2.NUMBER_KIND_PUBLISHED
        elif kind is Kind.GRANTED:
            self.grant_for(computed)
            begun.price.kind = query_pb2.NUMBER_KIND_GRANTED
        else:
            noisy_table_of(computed.cohort.permit.asked.question, self._dictionary)
            told = self._first_ask.told(computed)
            if told is None:
                return self._private.price(computed, begun)
            self._private.state_left(computed, begun.price)
            self._first_ask.price(told, begun.price)
        begun.status = answer_pb2.ANSWER_STATUS_RELEASED
        return begun

    def begin(self, computed: Computed) -> answer_pb2.Answer:
        """An answer to a task that says where it comes from, and nothing else yet."""
        return self._begun(computed)

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
            if decision.grant is not None:
                self._require_granted(computed, connection)
            with self._lock:
                present = {name: len(self._ledger.known(name, connection).all) for name in decision.known}
                if present != decision.known:
                    final = (decide or self._decide)(computed, connection)
            if final.answer != decision.answer:
                raise ReleaseMoved("Another answer was released meanwhile that changes what of this one may leave.")
            if final.training is not None:
                self._cohorts.write(connection, final.training)
            query_id = computed.cohort.permit.asked.question.query_id
            for dataset, new in final.new.items():
                self._ledger.write(connection, dataset, query_id, new)

        return commit

    def _decide(self, computed: Computed, connection: Connection | None) -> Decision:
        decision = Decision(self._begun(computed))
        match computed.shape:
            case CellTable():
                self._decide_cells(computed, computed.shape, decision, connection)
            case SumTable():
                self._decide_sums(computed, computed.shape, decision)
            case Offer():
                self._decide_offer(computed, computed.shape, decision)
            case Participation(cell):
                self._decide_participation(computed, cell, decision, connection)
            case _:
                raise UnknownShape
        return decision

    def _decide_from_tables(self, computed: Computed) -> Decision:
        """What nothing was computed for since tables answer it. Raises ReleaseMoved where they no longer do."""
        require_own_rows(self._dictionary, computed.cohort.permit.asked.question)
        told = self._first_ask.told(computed)
        if told is None:
            raise ReleaseMoved("Another edition of the center's data was opened meanwhile.")
        begun = self._begun(computed)
        numbers = self._first_ask.write(told, computed, begun)
        judged = [Judged(Cell(key, 0, 0), number, FROM_TABLES) for key, number in numbers.items()]
        return Decision(begun, judged=judged, from_tables=computed.edition)

    def _decide_privately(self, computed: Computed) -> Decision:
        private = self._private
        outcome = private.decide(computed, self._begun(computed))
        judged = [Judged(one.cell, one.number, one.why) for one in outcome.shown]
        pay = functools.partial(private.commit, computed=computed, outcome=outcome)
        return Decision(outcome.answer, outcome, pay, judged=judged)

    def _decide_cells(
        self, computed: Computed, table: CellTable, decision: Decision, connection: Connection | None
    ) -> None:
        # INVARIANT: decide on exact numbers first, round last. The other way round, rounding would let small cells by.
        answer, dataset = decision.answer, self._dataset(computed)
        cells = rules.in_order(table.cells)
        if not dataset.personal:
            self._release_of_nobody(table, cells, answer)
            return
        decision.grant = self.grant_for(computed, connection)
        self._state_grant(answer, decision.grant)
        donors = self._counts_donors(computed)
        if donors:
            cells = tuple(map(_of_donors, cells))
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
        answer.protection.unit = query_pb2.COUNT_UNIT_DONORS if donors else query_pb2.COUNT_UNIT_RECORDS
        answer.count.groups_withheld = bool(table.by) and not rules.all_groups_shown(
            shown, rules.domains_of(table.by, dataset, self._dictionary)
        )
        for one in decision.judged:
            if one.number is not None:
                add_cell(answer.count, one.cell.key, one.number)

    def _decide_sums(self, computed: Computed, table: SumTable, decision: Decision) -> None:
        """Sums of what belongs to nobody are exact. Exact sums about persons have no rules yet, so none leaves."""
        if self._dataset(computed).personal:
            raise NoGrantedForm
        answer = decision.answer
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.protection.kind, answer.protection.unit = query_pb2.NUMBER_KIND_PUBLISHED, query_pb2.COUNT_UNIT_RECORDS
        answer.mean.field = table.field
        answer.mean.by.extend(table.by)
        cells = {cell.key: cell for cell in table.cells}
        for key in in_order(cells):
            add_sums(answer.mean, key, cells[key].records, total=cells[key].total)

    def _state_grant(self, answer: answer_pb2.Answer, grant: Grant) -> None:
        protection = answer.protection
        protection.kind, protection.grant = query_pb2.NUMBER_KIND_GRANTED, grant.id
        protection.minimum_donors, protection.rounded_to = self._minimum, self._round_to

    def _counts_donors(self, computed: Computed) -> bool:
        analysis = computed.cohort.permit.asked.question.analysis
        return isinstance(analysis, Count) and analysis.unit is Unit.DONORS

    def _decide_participation(
        self, computed: Computed, cell: Cell, decision: Decision, connection: Connection | None
    ) -> None:
        """A center takes part where enough donors stand behind its rows; how many they are leaves as a count would.

        Raises NotGranted, or CohortRefused where exact updates would tell what earlier ones hide.
        """
        decision.grant = self.grant_for(computed, connection)
        self._state_grant(decision.answer, decision.grant)
        decision.training = self._cohorts.required(computed, decision.grant, connection)
        donors = self._number_of_donors(computed, cell, decision, connection)
        if donors is None:
            decision.answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            decision.answer.reason.CopyFrom(TOO_FEW)
            decision.new.clear()
            decision.training = None
            return
        decision.answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        decision.answer.protection.edition = computed.edition
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
            raise UnknownShape
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
        """Counts of what belongs to no person are exact."""
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.protection.kind = query_pb2.NUMBER_KIND_PUBLISHED
        answer.count.by.extend(table.by)
        answer.protection.unit = query_pb2.COUNT_UNIT_RECORDS
        for cell in cells:
            add_cell(answer.count, cell.key, cell.records)

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
            raise UnknownShape
        # Donors of any dataset are compared with each other: one person stands behind all of their rows.
        donors = self._counts_donors(computed)
        populations, compared_as = self._populations, DONORS if donors else dataset.name
        population = (populations.once_each if donors else populations.of)(computed.population)
        settling = self._settling(compared_as, population, decision, connection)
        domains = rules.domains_of(by, dataset, self._dictionary)
        sizes = [None if domain is None else len(domain) for domain in domains]
        settlement = settling.settle_table(population.counted, cells, sizes)
        decision.new[compared_as] = settlement.new
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

    def _decide_offer(self, computed: Computed, offer: Offer, decision: Decision) -> None:
        answer = decision.answer
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.description.dictionary_version = answer.provenance.dictionary_version
        # A catalog costs nothing: its numbers about persons are those that tables tell.
        for reach in offer.reaches:
            if self._dictionary.dataset(reach.dataset).personal:
                answer.description.datasets.append(self._described(computed, reach.dataset, answer.protection))
            else:
                kind = query_pb2.NUMBER_KIND_PUBLISHED
                answer.description.datasets.append(described(self._dictionary, reach.dataset, reach.records, kind))

    def _described(
        self, computed: Computed, dataset: str, protection: answer_pb2.Protection
    ) -> answer_pb2.DatasetDescription:
        """A dataset about persons, with the number of its donors where the tables of the edition tell it."""
        told = self._first_ask.of_dataset(computed, dataset)
        if told is None:
            return described(self._dictionary, dataset, None, query_pb2.NUMBER_KIND_UNSPECIFIED)
        (number,) = self._first_ask.numbers(told).values()
        wire = described(self._dictionary, dataset, number, query_pb2.NUMBER_KIND_PRIVATE)
        state(told, wire.noise)
        if wire.noise.scale > protection.noise.scale:
            self._first_ask.state(told, self._first_ask.edition(), protection)
        return wire

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
        )

    def _dataset(self, computed: Computed) -> Dataset:
        return self._dictionary.dataset(computed.cohort.permit.asked.question.dataset)


def _of_donors(cell: Cell) -> Cell:
    """A group counted in distinct donors."""
    return Cell(cell.key, cell.donors, cell.donors, None if cell.behind is None else numpy.unique(cell.behind))


def _nobody(of: Cell) -> Counted:
    """A cohort that is compared with nothing."""
    empty = numpy.empty(0, dtype=numpy.int32)
    return Counted(empty, of.donors, numpy.empty(0, dtype=numpy.int64))
