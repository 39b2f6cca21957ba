"""What a question about persons costs, by its words and the dictionary alone, and the noise that this buys."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from connexon.analyses.registry import spec_of
from connexon.analyses.spec import Unit
from connexon.conditions.filters import All, Compare, Filter, IsMissing, OneOf, Operator, Scalar
from connexon.errors import Refused
from connexon.query.question import Question
from connexon.v1 import answer_pb2
from connexon_node.analyses.registry import at_node
from connexon_node.analyses.spec import NoisyTable
from connexon_node.data.dictionary import DONORS, Dataset, Dictionary, relations
from connexon_node.editions.lists import diseases
from connexon_node.privacy.account import EVERYBODY
from connexon_node.privacy.accuracy import scale_within
from connexon_node.privacy.noise import Noise, half_width, rarely_above
from connexon_node.release import rules
from connexon_node.settings import PrivacySection

STRATIFIED_BY = "primary_disease_term"
"""The field of donors by which charges are kept apart: each donor has one value, or none."""
NO_VALUE = "(none)"
"""The stratum of donors without one."""
MAXIMUM_GROUPS = 2_000
"""Groups known by name up to which each gets noise, also those of nobody; beyond it they are hidden by a threshold."""


@dataclass(frozen=True)
class Price:
    """One table of numbers: the noise that makes it as close as was asked for, and whom it concerns.

    `contributions` bounds the groups of one donor, or the records where these are counted; `alone` is the most that one
    donor adds to one group, `sensitivity` the most that one donor changes the table by (Euclidean). `hidden`: which
    groups there are may depend on a single donor, so that names show only of numbers from `shown_from` on. `delta` is
    what that adds to the account.
    """

    scale: float
    sensitivity: float
    contributions: int
    alone: int
    stratum: str
    hidden: bool
    delta: float

    @property
    def rho(self) -> float:
        """What the whole table costs, in all."""
        return self.sensitivity**2 / (2 * self.scale**2)

    @property
    def half_width(self) -> int:
        """The half-width of each number's 95 % interval."""
        return half_width(self.scale)

    def noise(self, paid: float = 0.0) -> Noise | None:
        """What is still to be drawn where so much rho has been paid for the same numbers; None for nothing."""
        lacking = self.rho - paid
        if lacking <= self.rho * 1e-9:
            return None
        return Noise.of_scale(sensitivity=self.sensitivity, scale=self.sensitivity / math.sqrt(2 * lacking))

    def scale_of(self, paid: float) -> float:
        """The scale of the mean of draws that have cost so much together, each weighted by what it cost."""
        return self.sensitivity / math.sqrt(2 * paid)

    def shown_from(self, scale: float) -> int:
        """The smallest number that shows the name of a group; 0 where all names are public.

        A group that one donor brings has at most as many records as that donor, and the donor is in at most
        `contributions` groups: one of them passes with probability `delta` at most (Desfontaines et al. 2022).
        """
        if not self.hidden:
            return 0
        return self.alone + rarely_above(scale, self.delta / self.contributions)

    def state(self, wire: answer_pb2.Noise, *, paid: float, charged: float) -> None:
        """Write into an answer what was done to its numbers."""
        wire.scale = self.scale_of(paid)
        wire.rho, wire.charged, wire.delta = paid, charged, self.delta if self.hidden else 0.0
        wire.half_width = half_width(wire.scale)
        wire.contributions, wire.shown_from = self.contributions, self.shown_from(wire.scale)


def price_of(question: Question, dictionary: Dictionary, section: PrivacySection) -> Price:
    """The price of a table about persons. Raises Refused for one that is not offered with noise."""
    table = noisy_table_of(question, dictionary)
    dataset, by = dictionary.dataset(question.dataset), table.by
    contributions = contributions_of(dataset, by, table.unit, dictionary)
    records = table.unit is Unit.RECORDS
    hidden = possible_groups(by, dataset, dictionary) is None
    return Price(
        scale=scale_within(question.within or section.within),
        sensitivity=math.sqrt(table.numbers) * (contributions if records else math.sqrt(contributions)),
        contributions=contributions,
        alone=contributions if records else 1,
        stratum=stratum_of(question.filter, dataset, dictionary),
        hidden=hidden,
        delta=section.delta if hidden else 0.0,
    )


def noisy_table_of(question: Question, dictionary: Dictionary) -> NoisyTable:
    """The table that a question asks for with noise. Raises Refused where its analysis has none."""
    dataset = dictionary.dataset(question.dataset)
    table = at_node(question.analysis).noisy_table(question.analysis, dataset, dictionary)
    if table is None:
        raise Refused(
            f"This center gives no {spec_of(question.analysis).traits.name} with noise.", code="privacy.no_noisy_form"
        )
    return table


def contributions_of(dataset: Dataset, by: tuple[str, ...], unit: Unit, dictionary: Dictionary) -> int:
    """The most groups that one donor counts in, or records; what is above is left out, by a hash of donor and group.

    Raises Refused where records of a dataset are too many for each donor to be hidden among them.
    """
    if dataset.one_row_per_donor:
        return 1
    if unit is Unit.RECORDS:
        if not dataset.records_per_donor:
            raise Refused(
                f"A donor has too many {dataset.name} for records to be counted with noise; count donors instead.",
                code="privacy.records",
            )
        return dataset.records_per_donor
    own = all(relations.field_at(dictionary, dataset, path)[0].name == DONORS for path in by)
    return 1 if own else dataset.groups_per_donor


def possible_groups(
    by: tuple[str, ...], dataset: Dataset, dictionary: Dictionary
) -> list[tuple[Scalar | None, ...]] | None:
    """Every group that can be, by the dictionary alone; None where they are not few and fixed."""
    domains = rules.domains_of(by, dataset, dictionary)
    known = [domain for domain in domains if domain is not None]
    if len(known) < len(domains) or math.prod(map(len, known)) > MAXIMUM_GROUPS:
        return None
    return list(itertools.product(*known))


def stratum_of(condition: Filter | None, dataset: Dataset, dictionary: Dictionary) -> str:
    """The main disease of every donor whom a condition lets count, where its words fix one; else EVERYBODY.

    INVARIANT: read from the words alone. Only what must hold of every row counts, not a branch of an or; and only what
    the network's list has: a term's former ids select the same donors, who would pay on a line for each of them.
    """
    match condition:
        case All(filters):
            found = (stratum_of(one, dataset, dictionary) for one in filters)
            return next((one for one in found if one != EVERYBODY), EVERYBODY)
        case Compare(path, Operator.EQUAL, str(value)) | OneOf(path, (str(value),)) if value in diseases():
            return value if _is_stratifying(path, dataset, dictionary) else EVERYBODY
        case IsMissing(path) if _is_stratifying(path, dataset, dictionary):
            return NO_VALUE
        case _:
            return EVERYBODY


def _is_stratifying(path: str, dataset: Dataset, dictionary: Dictionary) -> bool:
    """Whether a path leads to the main disease of the row's own donor. INVARIANT: require_own_rows has passed."""
    at, field = relations.field_at(dictionary, dataset, path)
    taken = relations.place(dictionary, dataset, path)[0]
    return at.name == DONORS and field.name == STRATIFIED_BY and (not taken or taken[-1].field is None)
