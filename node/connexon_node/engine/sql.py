"""What is alike in every engine that runs SQL: from question and cohort to an exact result, within limits.

An engine adds a database: sessions that read Parquet, are told which donors may be counted, and can be stopped. The
expressions are the same for all; ibis writes them in each database's SQL.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from typing import Any as Compiler
from typing import Any as Expression

import numpy
import pyarrow
from numpy.typing import NDArray

from connexon.analyses.registry import spec_of
from connexon.conditions.filters import All, Filter
from connexon.query.question import Question
from connexon_node.analyses.registry import at_node
from connexon_node.analyses.spec import DONOR, NodeAnalysis, Rows
from connexon_node.consent.ledger import Ledger
from connexon_node.data.dictionary import KEY, Dataset, Dictionary, not_offered, relations
from connexon_node.data.generations import Generation, Generations
from connexon_node.editions import Edition, Editions, NoEdition, NotInEdition
from connexon_node.editions.told import told
from connexon_node.engine.bins import require_bins
from connexon_node.engine.checking import FilterCheck
from connexon_node.engine.condition_parts import looked_up, parts_of
from connexon_node.engine.fetching import fetched
from connexon_node.engine.granted_counts import is_granted, judged_name, rows_that_count
from connexon_node.engine.limits import Places, Watch
from connexon_node.engine.permitted import PermittedDonors, is_permitted
from connexon_node.engine.plans import CompiledQuestions, Key, key_of, table, view_name
from connexon_node.engine.present_values import Occurring
from connexon_node.engine.related import Related
from connexon_node.engine.session import Session
from connexon_node.engine.training import TrainingReading
from connexon_node.ontology import Ontologies
from connexon_node.pipeline.values import Cohort, Computed, StandingCohort, TrainingTable, Uncomputed, Work
from connexon_node.settings import EngineSection

TABLES_KEPT = 2
"""Tables of training runs in memory, between one task and the next."""
_FIRST_BY = ("derived_on",)
"""The days by which rows of a donor come first, where they have one; then by id."""
POPULATIONS_KEPT = 16
"""Populations in memory: 4 bytes a record each."""
TableKey = tuple[bytes, tuple[str, ...], bytes]
"""The question, the generations it reads, and the donors who are permitted."""


@dataclass(frozen=True)
class Data:
    """What a question reads: the data of now, or of the edition in force."""

    generations: Mapping[str, Generation]
    edition: Edition | None = None

    @property
    def number(self) -> int:
        """Of the edition; 0 for the data of now."""
        return self.edition.number if self.edition is not None else 0


class SqlEngine(ABC):
    """Implements pipeline.Engine over a database's sessions. Thread-safe; one per process."""

    def __init__(
        self,
        generations: Generations,
        ledger: Ledger,
        ontologies: Ontologies,
        dictionary: Dictionary,
        limits: EngineSection,
        editions: Editions,
        compiler: Compiler,
    ) -> None:
        self._generations = generations
        self._editions = editions
        self._ontologies = ontologies
        self._dictionary = dictionary
        self._limits = limits
        self._places = Places(limits.concurrent_queries)
        self._watch = Watch()
        self._permitted = PermittedDonors(ledger)
        self._compiled = CompiledQuestions(compiler)
        self._populations: OrderedDict[tuple[str, bytes], NDArray[numpy.int32]] = OrderedDict()
        self._tables: OrderedDict[TableKey, tuple[TrainingTable, NDArray[numpy.int32]]] = OrderedDict()
        self._lock = threading.Lock()
        self._occurring = Occurring(dictionary, self._compiled)
        self.minimum: Callable[[], int] = lambda: 1
        """The fewest donors for which a part of a condition counts, where numbers about them are exact."""

    @abstractmethod
    def session(self, work: Work) -> AbstractContextManager[Session]:
        """A session of its own, stopped with the work or at the time limit."""

    @abstractmethod
    def close(self) -> None:
        """Give up the database. No query may run any more."""

    def run(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        """See pipeline.Engine. Raises NotFound, InvalidQuery, Interrupted, TooLong, OutOfMemory or Unavailable.

        Private numbers are of the edition in force: NoEdition, NotInEdition.
        """
        plan = at_node(question.analysis)
        with self._places.taken(work), self._data(question) as data, self.session(work) as session:
            if question.price_only or self._is_told(question, data):
                return self._checked_only(question, plan, cohort, data, session)
            return self._computed(question, plan, cohort, data, session, work)

    def _computed(
        self, question: Question, plan: NodeAnalysis[Any], cohort: Cohort, data: Data, session: Session, work: Work
    ) -> Computed:
        results: dict[str, Rows] = {}
        population, current, minimum = None, data.generations, self.minimum()
        datasets = self._datasets(question, plan, current, cohort.permit.withheld)
        for dataset in datasets:
            work.require_wanted()
            if question.filter is not None and is_granted(question, dataset):
                results[dataset.name] = self._rows_that_count(
                    question, cohort, plan, dataset, current, session, work, minimum
                )
            else:
                results[dataset.name] = self._rows(question, cohort, plan, dataset, current, session, work)
        if not spec_of(question.analysis).traits.covers_all and datasets[0].personal:
            population = self._population(cohort, datasets[0], current[datasets[0].name], session)
        work.require_wanted()
        return Computed(
            cohort=cohort,
            shape=plan.result(question.analysis, results),
            generations=self._numbers(question, datasets, current),
            dictionary_version=self._dictionary.version,
            population=population,
            edition=data.number,
            parts=minimum,
        )

    def _checked_only(
        self, question: Question, plan: NodeAnalysis[Any], cohort: Cohort, data: Data, session: Session
    ) -> Computed:
        """The question is checked as one that is computed, and no row is read."""
        datasets = self._datasets(question, plan, data.generations, cohort.permit.withheld)
        for dataset in datasets:
            self._checked(question, dataset, data.generations, session)
            plan.fields(question.analysis, dataset, self._dictionary)
        numbers = {} if question.price_only else self._numbers(question, datasets, data.generations)
        return Computed(cohort, Uncomputed(), numbers, self._dictionary.version, edition=data.number)

    @contextmanager
    def _data(self, question: Question) -> Iterator[Data]:
        """The generations that a question is about: those of the edition in force, or those of now."""
        of_edition = at_node(question.analysis).reads_edition(question.analysis)
        if not of_edition or not self._dictionary.dataset(question.dataset).personal:
            with self._generations.held() as current:
                yield Data(current)
            return
        edition = self._editions.latest()
        self._require_in(edition, question)
        assert edition is not None
        with self._generations.held(lambda: self._generations.numbered(edition.generations)) as pinned:
            yield Data(pinned, edition)

    def _require_in(self, edition: Edition | None, question: Question) -> None:
        """Raise what an edition, or that there is none, has against a question."""
        in_edition = edition.generations if edition is not None else {}
        current = self._generations.all_current()
        for dataset in relations.touched(self._dictionary, question):
            if dataset.name in in_edition:
                continue
            if dataset.name not in current:
                raise not_offered(dataset.name)
            raise NoEdition if edition is None else NotInEdition(dataset.name, edition.number)

    def _is_told(self, question: Question, data: Data) -> bool:
        if data.edition is None:
            return False
        tables = self._editions.tables(data.edition)
        return told(tables, data.edition.generations, self._dictionary, question) is not None

    def donor_values(
        self,
        cohort: StandingCohort,
        generations: Mapping[str, Generation],
        wanted: Mapping[str, tuple[str, ...]],
        work: Work,
    ) -> dict[str, pyarrow.Table]:
        """Of each dataset the donor number and these fields of every permitted row, each donor's first before others.

        For first-ask tables alone. INVARIANT: nothing of it may leave, or be kept, without noise.
        """
        found = {}
        with self._places.taken(work), self.session(work) as session:
            self._occurring.at(generations, session)
            # INVARIANT: as in `_read`: every text below reads personal data through is_permitted alone.
            session.permit(self._permitted.bits(cohort, max(one.last_donor for one in generations.values())))
            for name, fields in wanted.items():
                if name in generations:
                    found[name] = self._values_of(self._dictionary.dataset(name), fields, generations[name], session)
        return found

    def _values_of(
        self, dataset: Dataset, fields: tuple[str, ...], generation: Generation, session: Session
    ) -> pyarrow.Table:
        when = [field.name for field in dataset.fields if field.name in _FIRST_BY]

        def build() -> Expression:
            rows = table(dataset, generation)
            return rows.filter(is_permitted(rows[DONOR]))[list(dict.fromkeys((DONOR, *when, KEY, *fields)))]

        rows = session.fetch(self._compiled.compile(build))
        order = [(name, "ascending") for name in (DONOR, *when, KEY)]
        return rows.sort_by(order).select([DONOR, *fields])

    def training_table(self, question: Question, cohort: Cohort, work: Work) -> Computed:
        """See pipeline.Engine; raises as `run` does. The same table while rows and permitted donors are the same."""
        with self._places.taken(work), self._data(question) as data:
            current = data.generations
            touched = [one for one in relations.touched(self._dictionary, question) if one.name in current]
            generations = {one.name: current[one.name].number for one in touched}
            last = max(generation.last_donor for generation in current.values())
            bits = self._permitted.bits(cohort, last)
            key = (cohort.permit.asked.sha256, tuple(view_name(current[one.name]) for one in touched), bits)
            with self._lock:
                known = self._tables.get(key)
            if known is None:
                known = self._training_table(question, cohort, current, bits, work)
                with self._lock:
                    self._tables[key] = known
                    if len(self._tables) > TABLES_KEPT:
                        self._tables.popitem(last=False)
            work.require_wanted()
        table, population = known
        return Computed(
            cohort=cohort,
            shape=table,
            generations=generations,
            dictionary_version=self._dictionary.version,
            population=population,
            edition=data.number,
        )

    def _training_table(
        self, question: Question, cohort: Cohort, current: Mapping[str, Generation], bits: bytes, work: Work
    ) -> tuple[TrainingTable, NDArray[numpy.int32]]:
        with self.session(work) as session:
            reading = self._reading(question, current, session)
            related = self._related(current)
            # INVARIANT: as in `_read`: every text below reads personal data through is_permitted alone.
            session.permit(bits)
            table = reading.table(related, lambda build: session.fetch(self._compiled.compile(build)))
            dataset = self._dictionary.dataset(question.dataset)
            return table, self._population(cohort, dataset, current[dataset.name], session)

    def _reading(self, question: Question, current: Mapping[str, Generation], session: Session) -> TrainingReading:
        dataset = self._dictionary.dataset(question.dataset)
        if dataset.name not in current:
            raise not_offered(dataset.name)
        present = self._occurring.at(current, session)

        def check(at: Dataset, condition: Filter) -> Filter:
            return FilterCheck(at, self._dictionary, self._ontologies, present).check(condition)

        return TrainingReading(question, dataset, self._dictionary, current, check)

    def _datasets(
        self, question: Question, plan: NodeAnalysis[Any], current: Mapping[str, Generation], withheld: frozenset[str]
    ) -> list[Dataset]:
        if not question.dataset and spec_of(question.analysis).traits.covers_all:
            shown = current.keys() - withheld
            return [dataset for dataset in self._dictionary.datasets if dataset.name in shown]
        dataset = self._dictionary.dataset(question.dataset)
        if dataset.name not in current:
            raise not_offered(dataset.name)
        return [dataset]

    def _numbers(
        self, question: Question, datasets: list[Dataset], current: Mapping[str, Generation]
    ) -> dict[str, int]:
        """The generations that the answer rests on, those that conditions and groups look into too."""
        looked_into = relations.touched(self._dictionary, question) if question.dataset else ()
        read = dict.fromkeys(one.name for one in (*datasets, *looked_into))
        return {name: current[name].number for name in read if name in current}

    def _rows(
        self,
        question: Question,
        cohort: Cohort,
        plan: NodeAnalysis[Any],
        dataset: Dataset,
        current: Mapping[str, Generation],
        session: Session,
        work: Work,
    ) -> Rows:
        checked = self._checked(question, dataset, current, session)
        by = plan.fields(question.analysis, dataset, self._dictionary)
        key = key_of(dataset, current, checked, question.analysis)

        def build(related: Related) -> Expression:
            return plan.aggregate(question.analysis, dataset, related.rows(dataset, checked, by))

        return fetched(self._read(key, build, cohort, current, session, work))

    def _rows_that_count(
        self,
        question: Question,
        cohort: Cohort,
        plan: NodeAnalysis[Any],
        dataset: Dataset,
        current: Mapping[str, Generation],
        session: Session,
        work: Work,
        minimum: int,
    ) -> Rows:
        """As `_rows`, with a part of the condition only where it makes a difference for enough donors."""
        assert question.filter is not None
        self._checked(question, dataset, current, session)
        by = plan.fields(question.analysis, dataset, self._dictionary)
        root = parts_of(question.filter)
        found, present = looked_up(root), self._occurring.at(current, session)
        check = FilterCheck(dataset, self._dictionary, self._ontologies, present).check
        named = {judged_name(number): check(one) for number, one in enumerate(found)}

        key = key_of(dataset, current, All(tuple(named.values())), question.analysis)
        table = self._read(key, lambda related: related.judged(dataset, named, by), cohort, current, session, work)
        return rows_that_count(question, root, found, minimum, table)

    def _related(self, current: Mapping[str, Generation]) -> Related:
        """The rows of permitted donors, and what they lead to."""
        return Related(self._dictionary, current, lambda rows: rows.filter(is_permitted(rows[DONOR])))

    def _read(
        self,
        key: Key,
        build: Callable[[Related], Expression],
        cohort: Cohort,
        current: Mapping[str, Generation],
        session: Session,
        work: Work,
    ) -> pyarrow.Table:
        """What an expression gives; its SQL is kept under `key`.

        INVARIANT: the only way to a row of personal data. is_permitted, which every text holds, reads what is set here;
        a number beyond the last one of any dataset cannot occur.
        """
        sql = self._compiled.known(key) or self._compiled.compile(lambda: build(self._related(current)), key)
        work.require_wanted()
        last = max(generation.last_donor for generation in current.values())
        session.permit(self._permitted.bits(cohort, last))
        return session.fetch(sql)

    def _population(
        self, cohort: Cohort, dataset: Dataset, generation: Generation, session: Session
    ) -> NDArray[numpy.int32]:
        """The donor of every record that the cohort reaches, as the permitted donors were a moment ago."""
        bits = self._permitted.bits(cohort, generation.last_donor)
        key = (view_name(generation), bits)
        with self._lock:
            known = self._populations.get(key)
        if known is None:

            def build() -> Expression:
                rows = table(dataset, generation)
                return rows.filter(is_permitted(rows[DONOR]))[[DONOR]]

            session.permit(bits)
            column = session.fetch(self._compiled.compile(build)).column(0)
            known = column.to_numpy().astype(numpy.int32, copy=False)
            with self._lock:
                self._populations[key] = known
                if len(self._populations) > POPULATIONS_KEPT:
                    self._populations.popitem(last=False)
        return known

    def _checked(
        self, question: Question, dataset: Dataset, current: Mapping[str, Generation], session: Session
    ) -> Filter | None:
        present = self._occurring.at(current, session)
        analysis = question.analysis

        def check(at: Dataset, condition: Filter) -> Filter:
            return FilterCheck(at, self._dictionary, self._ontologies, present).check(condition)

        # INVARIANT: what an analysis looks up elsewhere is held against the dictionary like the question's own filter.
        for one in spec_of(analysis).lookups(analysis):
            _, at, name = relations.place(self._dictionary, dataset, one.dataset)
            other = relations.pointing(self._dictionary, at, name)
            if one.filter is not None:
                check(other, one.filter)
        for other, further in at_node(analysis).further_conditions(analysis, dataset, self._dictionary):
            check(other, further)
        condition = at_node(analysis).condition(question, analysis)
        if condition is not None and is_granted(question, dataset) and self.minimum() > 1:
            require_bins(self._dictionary, dataset, condition)
        return None if condition is None else check(dataset, condition)
