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
from pyroaring import BitMap
from sqlalchemy import Connection

from connexon.analyses.registry import spec_of
from connexon.analyses.wire_kinds import unit_to_wire
from connexon.clock import now_ms
from connexon.conditions.filters import Scalar
from connexon.errors import Refused
from connexon.query.question import Question
from connexon.query.signed import Asked
from connexon.service.database import Database
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.analyses.spec import NoisyTable
from connexon_node.data.dictionary import Dictionary
from connexon_node.pipeline.values import Cell, Computed, ReleaseMoved, Shape
from connexon_node.policy.request import Requester
from connexon_node.privacy import Account, BudgetSpent, Charge, Share, draws
from connexon_node.privacy.contributions import require_own_rows
from connexon_node.privacy.draws import Draw
from connexon_node.privacy.noise import Noise
from connexon_node.privacy.normal_form import canonical
from connexon_node.release import rules
from connexon_node.release.donor_multiset import Donors
from connexon_node.release.measures import Key, Measured, Numbers, measured, write
from connexon_node.release.price import Price, noisy_table_of, possible_groups, price_of
from connexon_node.settings import PrivacySection

NO_NAME_SHOWS = answer_pb2.Reason(
    code="release.too_few_donors",
    message="No group is large enough for its name to show through the noise, or there is none: the center does not "
    "say which.",
)


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

    def decide(self, computed: Computed, begun: answer_pb2.Answer) -> Outcome:
        """What leaves of numbers about persons.

        Raises BudgetSpent, UnknownShape, or OtherDonors where one donor's noise would not be enough.
        """
        permit = computed.cohort.permit
        question = permit.asked.question
        require_own_rows(self._dictionary, question)
        table, price = noisy_table_of(question, self._dictionary), price_of(question, self._dictionary, self._privacy)
        exact = measured(computed.shape, table, price.contributions)
        digest = self._digest(computed)
        with self._database.reading() as connection:
            standing = draws.of(connection, digest)
            noise = price.noise(draws.paid(standing))
            charge = None if noise is None else self._charge(permit.asked, price, noise.rho)
            if charge is not None:
                self.account.require(connection, charge)
        draw = None if noise is None else self._drawn(digest, question, exact, price, noise)
        numbers = draws.mean((*standing, *([draw] if draw else [])))
        spent = draws.paid(standing) + (draw.rho if draw else 0.0)
        answer = answer_pb2.Answer()
        answer.CopyFrom(begun)
        answer.protection.kind, answer.protection.edition = query_pb2.NUMBER_KIND_PRIVATE, computed.edition
        # Said whether or not a name shows through the noise: what was counted is no secret.
        answer.protection.unit = unit_to_wire(table.unit)
        price.state(answer.protection.noise, paid=spent, charged=draw.rho if draw else 0.0)
        least = price.shown_from(price.scale_of(spent))
        groups = {
            _asked_order(key[:-1], exact.by): tuple(numbers[(*key[:-1], place)] for place in range(len(exact.steps)))
            for key in numbers
            if key[-1] == 0
        }
        shown = [
            _shown(key, found[0] if not least or found[0] >= least else None, exact.cells.get(key), least)
            for key, found in groups.items()
        ]
        leaving = {one.cell.key: groups[one.cell.key] for one in shown if one.number is not None}
        self._write(answer, computed.shape, table, leaving, hidden=price.hidden)
        return Outcome(answer, shown, len(standing), draw, charge)

    def _drawn(self, digest: bytes, question: Question, exact: Measured, price: Price, noise: Noise) -> Draw:
        """New noise on every number of every group that can be, in an order that the data do not decide.

        Groups stand in one order of their fields, so that another order is the same question; the last part of a key is
        the place of the number in its group.
        """
        possible = possible_groups(exact.by, self._dictionary.dataset(question.dataset), self._dictionary)
        keys = in_order(exact.groups if possible is None else possible)
        nothing = (0,) * len(exact.steps)
        numbers: dict[Key, int] = {}
        for place, step in enumerate(exact.steps):
            # In its own unit, one donor moves each number alike.
            finer = Noise.of_scale(sensitivity=price.sensitivity * step, scale=noise.scale * step)
            drawn = finer.added([exact.groups.get(key, nothing)[place] for key in keys])
            numbers.update({(*_sorted_order(key, exact.by), place): one for key, one in zip(keys, drawn, strict=True)})
        return Draw(
            question=digest,
            dataset=question.dataset,
            query_id=question.query_id,
            rho=noise.rho,
            scale=noise.scale,
            numbers=numbers,
            bitmap=_counted(exact.behind),
        )

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
        requester = Requester.of(permit.asked.researcher, at_ms=now_ms())
        versions = {"policies": permit.policy_version, "dictionary": self._dictionary.version}
        return digest_of(permit.asked.question, requester, edition=computed.edition, versions=versions)

    def _write(
        self,
        answer: answer_pb2.Answer,
        shape: Shape,
        table: NoisyTable,
        leaving: Mapping[Key, Numbers],
        *,
        hidden: bool,
    ) -> None:
        if not leaving:
            answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
            answer.reason.CopyFrom(NO_NAME_SHOWS)
            return
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        write(shape, table, {key: leaving[key] for key in in_order(leaving)}, answer, withheld=hidden)


def digest_of(question: Question, requester: Requester, *, edition: int, versions: Mapping[str, str]) -> bytes:
    """What makes two questions the same; `versions` are those of "policies" and "dictionary"."""
    spec = spec_of(question.analysis)
    same = {
        "edition": edition,
        "dataset": question.dataset,
        "analysis": spec.traits.name,
        "identity": spec.identity(question.analysis),
        "filter": canonical(question.filter),
        "purpose": _purpose(question),
        "requester": [
            requester.id,
            requester.country,
            requester.organisation.value,
            requester.role,
            *map(sorted, (requester.statuses, requester.grants, requester.terms)),
        ],
        **versions,
    }
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).digest()


def drawn_order(groups: Mapping[Key, Numbers], by: Sequence[str]) -> dict[Key, int]:
    """Numbers by group in the question's order of fields, as a draw keeps them: in one order, each by its place."""
    return {
        (*_sorted_order(key, by), place): number for key, found in groups.items() for place, number in enumerate(found)
    }


def _shown(key: Key, number: int | None, cell: Cell | None, least: int) -> Shown:
    """For the steward: the group of now beside the number that leaves."""
    group = replace(cell, key=key) if cell is not None else Cell(key, 0, 0)
    return Shown(group, number, "with noise" if number is not None else f"below {least} after noise")


def in_order(keys: Mapping[Key, object] | Sequence[Key]) -> list[Key]:
    """Keys in the order in which groups travel, which tells nothing of their numbers."""
    return [cell.key for cell in rules.in_order(Cell(key, 0, 0) for key in keys)]


def _order(by: Sequence[str]) -> list[int]:
    return sorted(range(len(by)), key=lambda place: by[place])


def _sorted_order(key: Key, by: Sequence[str]) -> Key:
    return tuple(key[place] for place in _order(by))


def _asked_order(key: Key, by: Sequence[str]) -> Key:
    """The inverse of _sorted_order."""
    asked: list[Scalar | None] = [None] * len(by)
    for place, value in zip(_order(by), key, strict=True):
        asked[place] = value
    return tuple(asked)


def _purpose(question: Question) -> list[object]:
    purpose = question.purpose
    return [
        sorted(purpose.research),
        purpose.disease,
        purpose.commercial_use,
        purpose.project,
        bool(purpose.ethics_approval.strip()),
    ]


def _counted(groups: Sequence[Donors]) -> bytes:
    """The distinct donors, so that a release that counted one can be found."""
    behind = numpy.concatenate(groups) if groups else numpy.empty(0, dtype=numpy.int32)
    present = numpy.flatnonzero(numpy.bincount(behind)) if behind.size else behind
    return BitMap(array.array("I", present.astype(numpy.uint32).tobytes())).serialize()
