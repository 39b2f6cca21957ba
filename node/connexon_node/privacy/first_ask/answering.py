"""Which count questions the tables answer: decided by their words alone.

INVARIANT: nothing here looks at an estimate before it is decided that the question is answered. A fallback that depends
on numbers would tell them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from connexon.conditions.filters import Filter
from connexon_node.data.dictionary import Dictionary
from connexon_node.privacy.first_ask.conditions import Reading, Undecided, read
from connexon_node.privacy.first_ask.dimensions import Mask, Value
from connexon_node.privacy.first_ask.frame import Table
from connexon_node.privacy.first_ask.reconstruct import Estimates, Precision, half_width

_WIDEST = 2
"""The most dimensions of a table that answers."""
MOST_GROUPS = 2_000
"""An answer of more is not given: a free question must not take a second."""


@dataclass(frozen=True)
class Group:
    """One line of the answer: its key, in the order of the question's `by`, and the places that it adds up."""

    key: tuple[Value, ...]
    chosen: tuple[Mask, ...]


@dataclass(frozen=True)
class Answerable:
    """A question that the tables answer: which cells of which table add up to each group of donors.

    `best_of` names the dimensions by whose best value the groups were made; whoever shows the answer has to say so.
    """

    table: Table
    groups: tuple[Group, ...]
    best_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerCell:
    """One number of distinct donors. `estimate` is unbiased and signed: clamp for show only.

    `count` is the nearest whole number, which lies within `half_width` of the truth with 95 % probability.
    """

    key: tuple[Value, ...]
    estimate: float
    variance: float
    half_width: int

    @property
    def count(self) -> int:
        """Signed."""
        return round(self.estimate)


def decide(
    precision: Precision,
    dictionary: Dictionary,
    dataset: str,
    condition: Filter | None,
    by: Sequence[str] = (),
    *,
    best_of: bool = False,
) -> Answerable | None:
    """How to count distinct donors from the tables, or None where the words ask for what these do not tell.

    The donors counted are those with a row of `dataset` that fulfils `condition`; a group has those with such a row of
    its value. `condition` is the researcher's own: a filter in which `under` became the terms that occur in the data
    would make the decision depend on data. `best_of`: whether grouping by a field of which only the best value of each
    donor is known may be answered by that.

    Of several tables the most accurate one is taken, as the plan says before anything is measured.
    """
    try:
        reading = read(precision.frame, dictionary, dataset, condition, by, best_of=best_of)
    except Undecided:
        return None
    found: Answerable | None = None
    least = math.inf
    # Over tables and not over ways to read each condition: those multiply with every `has`.
    for table in sorted(precision.residuals, key=len):
        made = _on_table(precision, table, reading) if len(table) <= _WIDEST else None
        # A table of more dimensions that says the same has to be better by more than a rounding error.
        if made is not None and (variance := _largest(precision, made)) < least * (1 - 1e-9):
            found, least = made, variance
    return found


def answer(estimates: Estimates, asked: Answerable) -> tuple[AnswerCell, ...]:
    """The numbers of distinct donors of each group."""
    # Once for all groups: the table is the same.
    table = estimates.table(asked.table)
    if table is None:
        raise ValueError("the question was decided for other tables")
    cells = []
    for group in asked.groups:
        variance = estimates.precision.variance(asked.table, group.chosen)
        assert variance is not None, "the table is told"
        value = float(table[numpy.ix_(*group.chosen)].sum() if group.chosen else table)
        cells.append(AnswerCell(group.key, value, variance, half_width(variance)))
    return tuple(cells)


def _on_table(precision: Precision, table: Table, reading: Reading) -> Answerable | None:
    """Conditions and groups on a table; None where its dimensions are not those of the question.

    A condition that several of the dimensions tell is held against all of them, which selects the same donors.
    """
    conditions = [[one for one in each if one.dimension.name in table] for each in reading.conditions]
    groupings = [[one for one in each if one.dimension.name in table][:1] for each in reading.groupings]
    used = {one.dimension.name for each in conditions for one in each}
    used |= {one.dimension.name for each in groupings for one in each}
    if not all((*conditions, *groupings)) or used != set(table):
        return None
    base = {name: numpy.ones(precision.frame.dimension(name).size, dtype=bool) for name in table}
    for condition in itertools.chain.from_iterable(conditions):
        base[condition.dimension.name] = base[condition.dimension.name] & condition.mask
    groups, by = [], [each[0] for each in groupings]
    if math.prod(len(grouping.groups) for grouping in by) > MOST_GROUPS:
        return None
    for parts in itertools.product(*(grouping.groups for grouping in by)):
        chosen = dict(base)
        for grouping, (_, mask) in zip(by, parts, strict=True):
            chosen[grouping.dimension.name] = chosen[grouping.dimension.name] & mask
        # A group that no donor can be in by its words is no group.
        if all(mask.any() for mask in chosen.values()):
            groups.append(Group(tuple(value for value, _ in parts), tuple(chosen[name] for name in table)))
    best = tuple(grouping.dimension.name for grouping in by if grouping.best)
    return Answerable(table, tuple(groups), best) if groups else None


def _largest(precision: Precision, made: Answerable) -> float:
    variances = [precision.variance(made.table, group.chosen) for group in made.groups]
    return max(math.inf if variance is None else variance for variance in variances)
