"""Releasing under differential privacy: its own visible order, beside that of ReleaseControl and not mixed with it.

price -> what stands already -> bound each donor -> noise -> leave out what is too small to show -> round. What left in
other answers plays no part: the noise hides one donor, whatever else is known. why.md says what that covers.
"""

from __future__ import annotations

import array
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from pyroaring import BitMap
from sqlalchemy import Connection

from connexon.clock import now_ms
from connexon.database import Database
from connexon.errors import Refused
from connexon.question import Count, DifferentialPrivacy, Question, Scalar
from connexon.v1 import answer_pb2
from connexon.wire_filter import value_from_wire
from connexon_node.consent.ledger import Ledger
from connexon_node.dictionary import Dataset, Dictionary
from connexon_node.pipeline import Cell, CellTable, Computed, Reach, ReleaseMoved
from connexon_node.privacy import Budgets, BudgetSpent, project_of
from connexon_node.privacy import draws as kept_draws
from connexon_node.privacy.contributions import bounded, records_of_a_donor, require_own_rows
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.limits import require_within
from connexon_node.privacy.sameness import canonical
from connexon_node.release import rules
from connexon_node.release.counted import Donors
from connexon_node.release.price import Price, price_of
from connexon_node.release.wire import add_cell, described
from connexon_node.settings import PrivacySection, ReleaseSection

TOO_FEW = answer_pb2.Reason(
    code="release.too_few_donors",
    message="Too few donors stand behind this to show through the noise, or none: the center does not say which.",
)
MAXIMUM_GROUPS = 2_000
"""Groups known by name up to which each gets noise, also those of nobody; beyond it they are hidden by a threshold."""
Key = tuple[Scalar | None, ...]


@dataclass(frozen=True)
class Charge:
    """What an account pays for a part of an answer."""

    dataset: str
    rho: float
    delta: float


@dataclass(frozen=True)
class Shown:
    """One group with what became of it; see control.Judged."""

    cell: Cell
    number: int | None
    why: str


@dataclass
class Outcome:
    """What leaves, by `answer`. `stood` is the draw that stands (0: a new one was made).

    Of a new one: what it costs, what is kept of it, and the donors that it counted.
    """

    answer: answer_pb2.Answer
    question: bytes
    stood: int
    charges: tuple[Charge, ...]
    shown: list[Shown]
    kept: bytes = b""
    counted: bytes = b""


class PrivateRelease:
    """Decides counts and descriptions under differential privacy. Thread-safe: it holds nothing but settings."""

    def __init__(
        self, release: ReleaseSection, privacy: PrivacySection, dictionary: Dictionary, database: Database
    ) -> None:
        self._release = release
        self._privacy = privacy
        self._dictionary = dictionary
        self._database = database
        self._ledger = Ledger(database)
        self.budgets = Budgets(database, privacy)

    def terms(self, question: Question) -> DifferentialPrivacy | None:
        """The noise that a question gets: what it asks for, else what the center demands, else none. Raises Refused."""
        asked, section = question.privacy, self._privacy
        if asked is None:
            required = section.required and isinstance(question.analysis, Count)
            return DifferentialPrivacy(section.epsilon, section.delta) if required else None
        require_within(section, asked.epsilon, asked.delta)
        return asked

    def decide_table(
        self,
        computed: Computed,
        table: CellTable,
        dataset: Dataset,
        terms: DifferentialPrivacy,
        begun: answer_pb2.Answer,
    ) -> Outcome:
        """What leaves of counts. Raises BudgetSpent, or OtherDonors where one donor's noise would not be enough."""
        question = computed.cohort.permit.asked.question
        require_own_rows(self._dictionary, question)
        # Groups stand in one order of their fields, so that another order is the same question.
        order = sorted(range(len(table.by)), key=lambda place: table.by[place])
        by = tuple(table.by[place] for place in order)
        cells = {tuple(cell.key[place] for place in order): cell for cell in table.cells}
        possible = _possible(by, dataset, self._dictionary)
        price = self._price(dataset, terms, hidden=possible is None)
        charge = Charge(dataset.name, price.noise.rho, price.delta)
        outcome = self._standing(computed, terms, begun, (charge,))
        if outcome.stood == 0:
            keys = list(cells) if possible is None else possible
            self._draw_table(by, keys, cells, price, outcome)
            _hide_groups(outcome.answer, by, dataset, self._dictionary)
            outcome.kept = _without_addresses(outcome.answer)
        outcome.shown = outcome.shown or _shown_before(cells, outcome.answer)
        _put_in_order(outcome, table.by, order)
        return outcome

    def decide_reaches(
        self,
        computed: Computed,
        reaches: Sequence[Reach],
        terms: DifferentialPrivacy,
        begun: answer_pb2.Answer,
    ) -> Outcome:
        """What leaves of a description whose datasets `reaches` belong to donors: its price is shared out evenly."""
        prices = {
            reach.dataset: self._price(
                self._dictionary.dataset(reach.dataset), terms, hidden=False, parts=max(1, len(reaches))
            )
            for reach in reaches
        }
        charges = tuple(Charge(name, price.noise.rho, price.delta) for name, price in prices.items())
        outcome = self._standing(computed, terms, begun, charges)
        if outcome.stood == 0:
            outcome.answer.status = answer_pb2.ANSWER_STATUS_RELEASED
            for reach in reaches:
                price = prices[reach.dataset]
                cell = Cell((reach.dataset,), reach.records, reach.donors, reach.behind)
                (shown,) = self._drawn([(reach.dataset,)], {(reach.dataset,): cell}, price)
                outcome.shown.append(shown)
                outcome.answer.description.datasets.append(described(self._dictionary, reach.dataset, shown.number))
                if shown.number is not None:
                    price.state(outcome.answer.description.datasets[-1].noise, self._release.round_to)
            if prices:
                widest = max(prices.values(), key=lambda price: price.noise.scale)
                widest.state(outcome.answer.protection.noise, self._release.round_to)
                outcome.answer.protection.noise.rho = sum(price.noise.rho for price in prices.values())
            outcome.counted = _counted([_behind(reach) for reach in reaches])
            outcome.kept = _without_addresses(outcome.answer)
        return outcome

    def commit(self, connection: Connection, computed: Computed, outcome: Outcome) -> None:
        """Within the sealing transaction: pay, and keep what was drawn. Raises ReleaseMoved where it has changed."""
        stands = self._stands(connection, outcome.question)
        if (stands.id if stands else 0) != outcome.stood:
            raise ReleaseMoved("The same question was answered meanwhile, or donors' consent has changed.")
        if outcome.stood:
            return
        asked = computed.cohort.permit.asked
        moment = now_ms()
        account = {"researcher": asked.researcher.id, "project": project_of(asked, at_ms=moment)}
        try:
            for charge in outcome.charges:
                self.budgets.charge(
                    connection,
                    **account,
                    dataset=charge.dataset,
                    rho=charge.rho,
                    delta=charge.delta,
                    query_id=asked.question.query_id,
                    at_ms=moment,
                )
        except BudgetSpent as spent:
            # Decided again, it is a refusal that is sealed like any other.
            raise ReleaseMoved("Another answer has spent the budget meanwhile.") from spent
        draw = Draw(
            question=outcome.question,
            dataset=asked.question.dataset,
            epoch=computed.cohort.epoch,
            query_id=asked.question.query_id,
            outcome=outcome.kept,
            bitmap=outcome.counted,
        )
        kept_draws.keep(connection, draw)

    def _price(self, dataset: Dataset, terms: DifferentialPrivacy, *, hidden: bool, parts: int = 1) -> Price:
        allowed = records_of_a_donor(dataset, self._privacy.records_per_donor)
        return price_of(terms, allowed, self._release.minimum_donors, hidden=hidden, parts=parts)

    def _standing(
        self,
        computed: Computed,
        terms: DifferentialPrivacy,
        begun: answer_pb2.Answer,
        charges: tuple[Charge, ...],
    ) -> Outcome:
        """The outcome that stands for this question, or an empty one that the account can pay."""
        asked = computed.cohort.permit.asked
        question = self._digest(computed, terms)
        with self._database.reading() as connection:
            stands = self._stands(connection, question)
            if stands is None:
                project = project_of(asked, at_ms=now_ms()) if charges else ""
                for charge in charges:
                    self.budgets.require(
                        connection,
                        researcher=asked.researcher.id,
                        project=project,
                        dataset=charge.dataset,
                        rho=charge.rho,
                        delta=charge.delta,
                    )
        answer = answer_pb2.Answer()
        answer.CopyFrom(begun)
        if stands is not None:
            answer.ClearField("protection")
            answer.MergeFrom(answer_pb2.Answer.FromString(stands.outcome))
        return Outcome(answer, question, stands.id if stands else 0, charges, [])

    def _stands(self, connection: Connection, question: bytes) -> Draw | None:
        return kept_draws.standing(connection, self._ledger, question, fewer_than=self._release.minimum_donors)

    def _digest(self, computed: Computed, terms: DifferentialPrivacy) -> bytes:
        """What makes two questions the same: their meaning, whose consents count, the data, and the rules."""
        cohort = computed.cohort
        question = cohort.permit.asked.question
        by = sorted(question.analysis.by) if isinstance(question.analysis, Count) else None
        same = {
            "dataset": question.dataset,
            "by": by,
            "filter": canonical(question.filter),
            "terms": [terms.epsilon, terms.delta],
            "withheld": sorted(cohort.permit.withheld),
            "profiles": sorted(cohort.profiles),
            "generations": dict(computed.generations),
            "dictionary": computed.dictionary_version,
            "ontologies": dict(cohort.ontologies),
            "rules": [self._release.minimum_donors, self._release.round_to, self._privacy.records_per_donor],
        }
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).digest()

    def _draw_table(
        self,
        by: tuple[str, ...],
        keys: Sequence[Key],
        cells: Mapping[Key, Cell],
        price: Price,
        outcome: Outcome,
    ) -> None:
        answer = outcome.answer
        outcome.shown = self._drawn(keys, cells, price)
        outcome.counted = _counted([_behind(cell) for cell in cells.values()])
        price.state(answer.protection.noise, self._release.round_to)
        if all(one.number is None for one in outcome.shown):
            answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            answer.reason.CopyFrom(TOO_FEW)
            return
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.count.by.extend(by)
        answer.count.noisy = True
        for one in outcome.shown:
            if one.number is not None:
                add_cell(answer.count, one.cell.key, one.number)

    def _drawn(self, keys: Sequence[Key], cells: Mapping[Key, Cell], price: Price) -> list[Shown]:
        """Every group of `keys`, in order, with noise; None where it does not show."""
        present = list(cells)
        limited = bounded(present, [_behind(cells[key]) for key in present], price.allowed)
        exact = dict(zip(present, limited, strict=True))
        groups = rules.in_order(
            Cell(key, exact[key].records, exact[key].donors) if key in exact else Cell(key, 0, 0) for key in keys
        )
        drawn = price.noise.added([group.records for group in groups])
        return [
            self._shown(group, number, cells.get(group.key), price) for group, number in zip(groups, drawn, strict=True)
        ]

    def _shown(self, group: Cell, number: int, whole: Cell | None, price: Price) -> Shown:
        minimum = self._release.minimum_donors
        cell = Cell(group.key, whole.records, whole.donors) if whole else group
        if price.shown_from and group.donors < minimum:
            return Shown(cell, None, "too few donors")
        if price.shown_from and number < price.shown_from:
            return Shown(cell, None, f"below {price.shown_from} after noise")
        cut = (
            f", {cell.records - group.records} records above the limit of a donor"
            if group.records < cell.records
            else ""
        )
        to = self._release.round_to
        # Rounding what has noise already tells no more. A negative number would be nonsense to readers.
        rounded = max(0, (2 * number + to) // (2 * to) * to)
        return Shown(cell, rounded, f"noise of scale {price.noise.scale:.3g}{cut}")


def _possible(by: tuple[str, ...], dataset: Dataset, dictionary: Dictionary) -> list[Key] | None:
    """Every group that can be, by the dictionary alone; None where they are not few and fixed."""
    domains = rules.domains_of(by, dataset, dictionary)
    if any(domain is None for domain in domains):
        return None
    if math.prod(len(domain or ()) for domain in domains) > MAXIMUM_GROUPS:
        return None
    return list(itertools.product(*(domain or () for domain in domains)))


def _hide_groups(answer: answer_pb2.Answer, by: tuple[str, ...], dataset: Dataset, dictionary: Dictionary) -> None:
    if by and answer.status == answer_pb2.ANSWER_STATUS_RELEASED:
        shown = [Cell(_key_of(cell), 0, 0) for cell in answer.count.cells]
        answer.count.groups_withheld = not rules.all_groups_shown(shown, rules.domains_of(by, dataset, dictionary))


def _key_of(cell: answer_pb2.CountCell) -> Key:
    return tuple(value_from_wire(value) for value in cell.key)


def _shown_before(cells: Mapping[Key, Cell], answer: answer_pb2.Answer) -> list[Shown]:
    """For the steward: the groups of now beside the numbers that stand."""
    numbers = {_key_of(cell): int(cell.count) for cell in answer.count.cells}
    groups = rules.in_order(
        Cell(key, cells[key].records, cells[key].donors) if key in cells else Cell(key, 0, 0)
        for key in dict.fromkeys((*cells, *numbers))
    )
    return [Shown(group, numbers.get(group.key), "drawn before, and stands") for group in groups]


def _put_in_order(outcome: Outcome, by: tuple[str, ...], order: Sequence[int]) -> None:
    """The groups' fields as they were asked for; what is kept has them sorted."""
    outcome.shown = [Shown(_asked_order(one.cell, order), one.number, one.why) for one in outcome.shown]
    if not outcome.answer.count.by:
        return
    del outcome.answer.count.by[:]
    outcome.answer.count.by.extend(by)
    cells = [Cell(_key_of(cell), int(cell.count), 0) for cell in outcome.answer.count.cells]
    del outcome.answer.count.cells[:]
    for cell in rules.in_order(_asked_order(cell, order) for cell in cells):
        add_cell(outcome.answer.count, cell.key, cell.records)


def _asked_order(cell: Cell, order: Sequence[int]) -> Cell:
    key: list[Scalar | None] = [None] * len(order)
    for place, value in zip(order, cell.key, strict=True):
        key[place] = value
    return Cell(tuple(key), cell.records, cell.donors)


def _without_addresses(answer: answer_pb2.Answer) -> bytes:
    """What stands for every question that is the same: numbers, reason and noise."""
    kept = answer_pb2.Answer(status=answer.status)
    for name in ("reason", "count", "description", "protection"):
        if answer.HasField(name):
            getattr(kept, name).CopyFrom(getattr(answer, name))
    return kept.SerializeToString(deterministic=True)


def _behind(of: Cell | Reach) -> Donors:
    if of.behind is None:
        raise Refused(
            "The center cannot tell which donors stand behind this, so it does not leave.",
            code="release.unknown_result",
        )
    return of.behind


def _counted(groups: Sequence[Donors]) -> bytes:
    """The distinct donors, so that a release that counted one can be found."""
    behind = numpy.concatenate(groups) if groups else numpy.empty(0, dtype=numpy.int32)
    present = numpy.flatnonzero(numpy.bincount(behind)) if behind.size else behind
    return BitMap(array.array("I", present.astype(numpy.uint32).tobytes())).serialize()
