"""The release step: what of an exact result may leave.

Three kinds of numbers, each by rules of its own, and every answer says which it has. What belongs to nobody is
*published*: exact. What rests on persons is *private*: with noise, see private.py; or *granted* by the steward to a
project and researcher: exact, see granted.py.

Everything that is not understood here does not leave.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import assert_never

import numpy
from sqlalchemy import Connection

from connexon.analyses.registry import spec_of
from connexon.analyses.spec import Kind
from connexon.analyses.train import Train
from connexon.errors import Refused
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.analyses.registry import at_node
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.editions import Editions
from connexon_node.ontology.vocabulary import Vocabulary
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
from connexon_node.release.cohorts_used import CohortsUsed
from connexon_node.release.decision import Decide, Decision, Judged
from connexon_node.release.exact_numbers import ExactNumbers
from connexon_node.release.first_ask import FirstAsk, state
from connexon_node.release.floors import Floors, stricter, stricter_privacy, stricter_training
from connexon_node.release.granted import Covering, GrantedRelease
from connexon_node.release.grants import Grants
from connexon_node.release.measures import UnknownShape
from connexon_node.release.price import noisy_table_of
from connexon_node.release.private import PrivateRelease, in_order
from connexon_node.release.private_training import PrivateTraining
from connexon_node.release.training_cohorts import TrainingCohorts
from connexon_node.release.training_summaries import TrainingSummaries
from connexon_node.release.wire import add_cell, add_sums, described
from connexon_node.settings import PrivacySection, ReleaseSection, TrainingSection

FROM_TABLES = "from first-ask tables"
"""Why a number leaves that was paid for with an edition."""


class NoGrantedForm(Refused):
    """Exact numbers were asked for of an analysis that has no rules for them."""

    code = "release.no_granted_form"

    def __init__(self) -> None:
        super().__init__("There is no exact form of this about persons, granted or not. Ask without exact.")


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
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """`covering`: Grants.covering of the database, where not given. Without `editions` no table answers.

        `vocabulary` is what a catalog tells of ontologies.
        """
        self._vocabulary = vocabulary
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
            self._grants_allowed = least.privacy.grants
            self._training = stricter_training(self._own_training, least.privacy)
            self._keep_to(stricter(self._own, least), stricter_privacy(self._own_privacy, least.privacy))

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
        self._exact = ExactNumbers(section, self._dictionary, self._database)
        self._granted = GrantedRelease(
            self._exact,
            self._dictionary,
            self._covering if self._grants_allowed else None,
            CohortsUsed(self._database, section.independent_cohorts),
        )
        self._private_training = PrivateTraining(self._private.account, self._dictionary, self._database)
        self.summaries = TrainingSummaries(self._database)
        self._cohorts = TrainingCohorts(self._database, section.minimum_donors, self._training.runs_per_project)

    def protect(self, computed: Computed) -> Released:
        """See pipeline.Release. Raises UnknownShape."""
        decision = self.decide(computed)
        if decision.pay is not None:
            return Released(computed, decision.answer, decision.pay)
        if decision.known is None and decision.grant is None:
            return Released(computed, decision.answer)
        return Released(computed, decision.answer, self._committing(computed, decision))

    def catch_up(self) -> None:
        """See pipeline.Release."""
        with self._lock:
            self._exact.ledger.catch_up()

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
        if spec_of(analysis).kind(analysis) is Kind.PRIVATE:
            begun = self._begun(computed)
            return Decision(begun, pay=self._private_training.enrol(computed, shape, begun))
        with self._lock:
            return self._decide(computed, None)

    def require_same(self, computed: Computed, connection: Connection | None = None) -> None:
        """For a task of a run with exact updates: raise where its grant has ended, or its donors are not those of then.

        NotGranted, CohortRefused.
        """
        self._granted.grant_for(computed, connection)
        self._cohorts.require_same(computed, connection)

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
            self._granted.grant_for(computed)
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
        if decision.known is None:
            return Released(computed, decision.answer)
        return Released(computed, decision.answer, self._committing(computed, decision, self._weigh))

    def _weigh(self, computed: Computed, connection: Connection | None) -> Decision:
        decision = Decision(self._begun(computed))
        assert isinstance(computed.shape, TrainingTable)
        behind = computed.shape.donors
        cell = Cell((), len(behind), int(numpy.unique(behind).size), behind)
        donors = self._exact.donors(computed, cell, decision, connection, least=self._training_minimum)
        numbers = {}
        if donors is not None:
            numbers = self._exact.numbers(computed, self._dataset(computed), (), [cell], decision, connection)
        settled = numbers.get(())
        if donors is None or settled is None or settled.withheld:
            decision.withhold()
            return decision
        decision.answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        decision.answer.task.donors, decision.answer.task.examples = donors, self._exact.rounded(settled)
        return decision

    def _committing(
        self, computed: Computed, decision: Decision, decide: Decide | None = None
    ) -> Callable[[Connection], None]:
        def commit(connection: Connection) -> None:
            final, ledger = decision, self._exact.ledger
            if decision.grant is not None:
                self._granted.require_in_force(connection, computed)
            if decision.known is not None:
                with self._lock:
                    if len(ledger.known(connection).cohorts.all) != decision.known:
                        final = self._decided_again(decide or self._decide, computed, connection)
            if final.answer != decision.answer:
                raise ReleaseMoved("Another answer was released meanwhile that changes what of this one may leave.")
            if final.training is not None:
                self._cohorts.write(connection, final.training)
            self._granted.use_up(connection, computed, final)
            query_id = computed.cohort.permit.asked.question.query_id
            for dataset, new in final.new.items():
                ledger.write(connection, dataset, query_id, new)

        return commit

    def _decided_again(self, decide: Decide, computed: Computed, connection: Connection) -> Decision:
        try:
            return decide(computed, connection)
        except Refused as refusal:
            # As a question that is asked now it is a refusal, which is sealed like any other.
            raise ReleaseMoved(
                "Another answer was released meanwhile, after which this one may not leave."
            ) from refusal

    def _decide(self, computed: Computed, connection: Connection | None) -> Decision:
        decision = Decision(self._begun(computed))
        match computed.shape:
            case CellTable():
                dataset = self._dataset(computed)
                if dataset.personal:
                    self._granted.decide(computed, computed.shape, dataset, decision, connection)
                else:
                    self._release_of_nobody(computed.shape, decision.answer)
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

    def _decide_participation(
        self, computed: Computed, cell: Cell, decision: Decision, connection: Connection | None
    ) -> None:
        """A center takes part where enough donors stand behind its rows; how many they are leaves as a count would.

        Raises NotGranted, or CohortRefused where exact updates would tell what earlier ones hide.
        """
        decision.grant = self._granted.grant_for(computed, connection)
        self._granted.state(decision.answer.protection, decision.grant)
        decision.training = self._cohorts.required(computed, decision.grant, connection)
        donors = self._exact.donors(computed, cell, decision, connection, least=self._training_minimum)
        if donors is None:
            decision.withhold()
            return
        decision.answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        decision.answer.protection.edition = computed.edition
        decision.answer.enrolment.donors = donors

    def _release_of_nobody(self, table: CellTable, answer: answer_pb2.Answer) -> None:
        """Counts of what belongs to no person are exact."""
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.protection.kind = query_pb2.NUMBER_KIND_PUBLISHED
        answer.count.by.extend(table.by)
        answer.protection.unit = query_pb2.COUNT_UNIT_RECORDS
        for cell in rules.in_order(table.cells):
            add_cell(answer.count, cell.key, cell.records)

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
        if self._vocabulary is not None and not computed.cohort.permit.asked.question.dataset:
            self._vocabulary.describe(answer.description)

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
