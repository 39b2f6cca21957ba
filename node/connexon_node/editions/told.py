"""Which questions an edition's tables answer: decided by the words of the question, whoever asks.

INVARIANT: no number, exact or drawn, is looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connexon.analyses.count import Count
from connexon.analyses.spec import Kind, Unit
from connexon.query.purpose import HEALTH
from connexon.query.question import Purpose, Question
from connexon_node.data.dictionary import Dictionary, relations
from connexon_node.editions.first_ask import Tables, largest_variance
from connexon_node.privacy.first_ask import Answerable, half_width

STANDING = Purpose(research=(HEALTH,))
"""What tables are measured for: health research, not for profit."""


@dataclass(frozen=True)
class Told:
    """A question that the tables answer. `variance` is the largest of its numbers'."""

    tables: Tables
    asked: Answerable
    variance: float

    @property
    def half_width(self) -> int:
        """Of the least accurate of its numbers."""
        return half_width(self.variance)


def is_standing(purpose: Purpose) -> bool:
    """Whether the words of a purpose are the standing purpose's, whatever the project and its ethics approval."""
    return frozenset(purpose.research) == {HEALTH} and not purpose.disease and not purpose.commercial_use


def told(
    tables: Tables | None, generations: Mapping[str, int], dictionary: Dictionary, question: Question
) -> Told | None:
    """How the tables answer a count; None where they do not, or not as accurately as was asked for.

    `generations` are those of their edition: of datasets that it does not have the tables know nothing.
    """
    analysis = question.analysis
    if tables is None or not isinstance(analysis, Count) or not is_standing(question.purpose):
        return None
    if analysis.kind is not Kind.PRIVATE or analysis.unit is not Unit.DONORS:
        return None
    if not all(one.name in generations for one in relations.touched(dictionary, question)):
        return None
    found = tables.decide(dictionary, question, analysis.by)
    if found is None:
        return None
    made = Told(tables, found, largest_variance(tables.precision, found))
    return None if question.within is not None and question.within < made.half_width else made
