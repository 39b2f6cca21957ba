"""Private numbers: about persons, with noise, paid from the account of persons. The default for all that rests on them.

price, by words -> what was drawn for the question already -> bound each donor -> noise -> names that may show. Numbers
travel signed, unrounded and unclamped: what is cut off here could not be added up without a bias. What left in other
answers plays no part: the noise hides one donor, whatever else is known. why.md says what that covers.

INVARIANT: nothing exact decides what leaves, which groups do, in which order, or whether an answer is refused.
"""

from __future__ import annotations

import array
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy
from connexon.analyses.spec import Unit
from pyroaring import BitMap
from sqlalchemy import Connection

from connexon.analyses.count import Count
from connexon.clock import now_ms
from connexon.conditions.filters import Scalar
from connexon.errors import Refused
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.data.dictionary import Dataset, Dictionary
from connexon_node.pipeline.values import Cell, CellTable, Computed, ReleaseMoved
from connexon_node.policy.request import Requester
from connexon_node.privacy import Account, BudgetSpent, Charge, Share, draws
from connexon_node.privacy.contributions import bounded_groups, bounded_records, require_own_rows
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.normal_form import canonical
from connexon_node.release import rules
from connexon_node.release.donor_multiset import Donors
from connexon_node.release.price import Price, possible_groups, price_of
from connexon_node.release.wire import add_cell
from connexon_node.settings import PrivacySection

NO_NAME_SHOWS = answer_pb2.Reason(
    code="release.too_few_donors",
    message="No group is large enough for its name to show through the noise, or there is none: the center does not "
    "say which.",
)
Key = tuple[Scalar | None, ...]


class UnknownEdition(Refused):
    """A private number that was not computed over an edition."""

    code = "release.unknown_edition"


@dataclass(frozen=True)
class Shown:
    """One group with what became of it; see control.Judged."""

    cell: Cell
    number: int | None
    why: str


@dataclass
class Outcome:
    """What would leave of one question. `draw` is what must be kept and `charge` what must be paid for it, if anything.

    `stood` is the number of draws that it rests on beside `draw`: had there been others, it would be another answer.
    """

    answer: answer_pb2.Answer
    shown: list[Shown]
    stood: int
    draw: Draw | None = None
    charge: Charge | None = None


class PrivateRelease:
    """Decides counts of what rests on persons. Thread-safe: it holds nothing but settings."""

    def __init__(self, privacy: PrivacySection, dictionary: Dictionary, database: Database) -> None:
        self._privacy = privacy
        self._dictionary = dictionary
        self._database = database
        self.account = Account(database, privacy)

    def price(self, computed: Computed, begun: answer_pb2.Answer) -> answer_pb2.Answer:
        """What a count would cost, in place of its answer. Raises Refused where it could not be answered at all."""
        permit = computed.cohort.permit
        question = permit.asked.question
        require_own_rows(self._dictionary, question)
        price = price_of(question, self._dictionary, self._privacy)
        answer = answer_pb2.Answer()
        answer.CopyFrom(begun)
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        with self._database.reading() as connection:
            noise = price.noise(draws.paid(draws.of(connection, self._digest(computed))))
        wire = answer.price
        wire.rho, wire.charge = price.rho, 0.0 if noise is None else noise.rho
        wire.half_width, wire.kind = price.half_width, query_pb2.NUMBER_KIND_PRIVATE
        self.state_left(computed, wire)
        return answer

    def state_left(self, computed: Computed, wire: answer_pb2.Price) -> None:
        """Write into a price what may still be spent on such a question. Raises as `price` does."""
        asked = computed.cohort.permit.asked
        require_own_rows(self._dictionary, asked.question)
        stratum = price_of(asked.question, self._dictionary, self._privacy).stratum
        with self._database.reading() as connection:
            own = self.account.of_researcher(connection, asked.researcher.id, stratum=stratum)
            all_together = self.account.of_researchers(connection, stratum=stratum)
        wire.left_of_researcher, wire.left_of_center = min(own.left, all_together.left), all_together.left

    def decide(self, computed: Computed, table: CellTable, begun: answer_pb2.Answer) -> Outcome:
        """What leaves of counts. Raises BudgetSpent, or OtherDonors where one donor's noise would not be enough."""
        permit = computed.cohort.permit
        question = permit.asked.question
        require_own_rows(self._dictionary, question)
        price = price_of(question, self._dictionary, self._privacy)
        # Groups stand in one order of their fields, so that another order is the same question.
        order = sorted(range(len(table.by)), key=lambda place: table.by[place])
        by = tuple(table.by[place] for place in order)
        cells = {tuple(cell.key[place] for place in order): cell for cell in table.cells}
        digest = self._digest(computed)
        with self._database.reading() as connection:
            standing = draws.of(connection, digest)
            noise = price.noise(draws.paid(standing))
            charge = None if noise is None else self._charge(permit.asked, price, noise.rho)
            if charge is not None:
                self.account.require(connection, charge)
        draw = None
        if noise is not None:
            bounded = _bounded(cells, question, price)
            possible = possible_groups(by, self._dataset(question), self._dictionary)
            keys = in_order(cells if possible is None else possible)
            drawn = noise.added([bounded.get(key, 0) for key in keys])
            draw = Draw(
                question=digest,
                dataset=question.dataset,
                query_id=question.query_id,
                rho=noise.rho,
                scale=noise.scale,
                numbers=dict(zip(keys, drawn, strict=True)),
                bitmap=_counted([_behind(cell) for cell in cells.values()]),
            )
        numbers = draws.mean((*standing, *([draw] if draw else [])))
        spent = draws.paid(standing) + (draw.rho if draw else 0.0)
        answer = answer_pb2.Answer()
        answer.CopyFrom(begun)
        answer.protection.kind, answer.protection.edition = query_pb2.NUMBER_KIND_PRIVATE, computed.edition
        price.state(answer.protection.noise, paid=spent, charged=draw.rho if draw else 0.0)
        least = price.shown_from(price.scale_of(spent))
        shown = [
            _shown(key, number if not least or number >= least else None, cells.get(key), least)
            for key, number in numbers.items()
        ]
        self._write(answer, table.by, order, shown, question, hidden=price.hidden)
        in_asked_order = [replace(one, cell=_asked_order(one.cell, order)) for one in shown]
        return Outcome(answer, in_asked_order, len(standing), draw, charge)

    def commit(self, connection: Connection, computed: Computed, outcome: Outcome) -> None:
        """Within the sealing transaction: pay, and keep what was drawn. Raises ReleaseMoved where it has changed."""
        permit = computed.cohort.permit
        if len(draws.of(connection, self._digest(computed))) != outcome.stood:
            raise ReleaseMoved("The same question was answered meanwhile.")
        if outcome.charge is None or outcome.draw is None:
            return
        try:
            self.account.charge(connection, outcome.charge, query_id=permit.asked.question.query_id, at_ms=now_ms())
        except BudgetSpent as spent:
            # Decided again, it is a refusal that is sealed like any other.
            raise ReleaseMoved("Another answer has been charged to the account meanwhile.") from spent
        draws.keep(connection, outcome.draw)

    def _charge(self, asked: Asked, price: Price, rho: float) -> Charge:
        return Charge(
            Share.QUESTIONS,
            rho,
            price.delta,
            researcher=asked.researcher.id,
            project=asked.question.purpose.project,
            stratum=price.stratum,
        )

    def _digest(self, computed: Computed) -> bytes:
        """What makes two questions the same: words, edition, who asks by what the rules can tell, and the rules.

        INVARIANT: nothing of the data. If questions were the same because the same donors consent, or are selected,
        equal numbers would tell that they are. Raises UnknownEdition for numbers of no edition.
        """
        if computed.edition < 1:
            raise UnknownEdition("Numbers about persons are of an edition of the center's data, and these are of none.")
        permit = computed.cohort.permit
        question = permit.asked.question
        assert isinstance(question.analysis, Count)
        requester = Requester.of(permit.asked.researcher, at_ms=now_ms())
        same = {
            "edition": computed.edition,
            "dataset": question.dataset,
            "by": sorted(question.analysis.by),
            "unit": question.analysis.unit.value,
            "filter": canonical(question.filter),
            "purpose": _purpose(question),
            "requester": [
                requester.id,
                requester.country,
                requester.organisation.value,
                requester.role,
                *map(sorted, (requester.statuses, requester.grants, requester.terms)),
            ],
            "policies": permit.policy_version,
            "dictionary": self._dictionary.version,
        }
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).digest()

    def _write(
        self,
        answer: answer_pb2.Answer,
        by: tuple[str, ...],
        order: Sequence[int],
        shown: Sequence[Shown],
        question: Question,
        *,
        hidden: bool,
    ) -> None:
        leaving = {_asked_order(one.cell, order).key: one.number for one in shown if one.number is not None}
        if not leaving:
            answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            answer.reason.CopyFrom(NO_NAME_SHOWS)
            return
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.count.by.extend(by)
        answer.count.groups_withheld = hidden
        assert isinstance(question.analysis, Count)
        records = question.analysis.unit is Unit.RECORDS
        answer.protection.unit = query_pb2.COUNT_UNIT_RECORDS if records else query_pb2.COUNT_UNIT_DONORS
        for key in in_order(leaving):
            number = leaving[key]
            assert number is not None
            add_cell(answer.count, key, number)

    def _dataset(self, question: Question) -> Dataset:
        return self._dictionary.dataset(question.dataset)


def _bounded(cells: Mapping[Key, Cell], question: Question, price: Price) -> dict[Key, int]:
    """What is counted of each group: donors or records, each donor within the bound."""
    assert isinstance(question.analysis, Count)
    keys, behind = list(cells), [_behind(cell) for cell in cells.values()]
    bound = bounded_records if question.analysis.unit is Unit.RECORDS else bounded_groups
    return dict(zip(keys, bound(keys, behind, price.contributions), strict=True))


def _shown(key: Key, number: int | None, cell: Cell | None, least: int) -> Shown:
    """For the steward: the group of now beside the number that leaves."""
    group = replace(cell, key=key) if cell is not None else Cell(key, 0, 0)
    return Shown(group, number, "with noise" if number is not None else f"below {least} after noise")


def in_order(keys: Mapping[Key, object] | Sequence[Key]) -> list[Key]:
    """Keys in the order in which groups travel, which tells nothing of their numbers."""
    return [cell.key for cell in rules.in_order(Cell(key, 0, 0) for key in keys)]


def _asked_order(cell: Cell, order: Sequence[int]) -> Cell:
    key: list[Scalar | None] = [None] * len(order)
    for place, value in zip(order, cell.key, strict=True):
        key[place] = value
    return replace(cell, key=tuple(key))


def _purpose(question: Question) -> list[object]:
    purpose = question.purpose
    return [
        sorted(purpose.research),
        purpose.disease,
        purpose.commercial_use,
        purpose.project,
        bool(purpose.ethics_approval.strip()),
    ]


def _behind(cell: Cell) -> Donors:
    if cell.behind is None:
        raise Refused(
            "The center cannot tell which donors stand behind this, so it does not leave.",
            code="release.unknown_result",
        )
    return cell.behind


def _counted(groups: Sequence[Donors]) -> bytes:
    """The distinct donors, so that a release that counted one can be found."""
    behind = numpy.concatenate(groups) if groups else numpy.empty(0, dtype=numpy.int32)
    present = numpy.flatnonzero(numpy.bincount(behind)) if behind.size else behind
    return BitMap(array.array("I", present.astype(numpy.uint32).tobytes())).serialize()
