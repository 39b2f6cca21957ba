"""A dataset to ask about, narrowed step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from connexon.analyses.count import Count
from connexon.analyses.spec import Analysis, Kind, Unit
from connexon.client.answer import Answer
from connexon.client.terms import Terms
from connexon.conditions.expression import Condition, equals
from connexon.conditions.filters import All, Filter
from connexon.conditions.where_text import to_text
from connexon.errors import InvalidQuery

if TYPE_CHECKING:
    from connexon.client.study import Study


@dataclass(frozen=True, repr=False)
class Dataset:
    """A dataset and the condition so far. Every method gives a new one; nothing is asked before `count`."""

    study: Study
    name: str
    filter: Filter | None = None

    def where(self, *conditions: str | Condition, **equal: object) -> Dataset:
        """Narrow the rows: texts, col(...) conditions and field=value, all of which must hold.

        `field=value` means equal, one of a list, or, for None, missing. Raises where.WhereUnreadable.
        """
        added = [_filter(one) for one in conditions] + [equals(field, value) for field, value in equal.items()]
        if self.filter is not None:
            added.insert(0, self.filter)
        if not added:
            return self
        return replace(self, filter=added[0] if len(added) == 1 else All(tuple(added)))

    def count(
        self,
        by: str | Iterable[str] = (),
        *,
        unit: str | Unit = Unit.DONORS,
        kind: str | Kind = Kind.PRIVATE,
        within: int | None = None,
        price_only: bool = False,
    ) -> Answer:
        """Count distinct donors, by the values of up to four fields. Raises Refused or Unavailable.

        Numbers have noise that hides each donor; `within` says how close they are to be. `unit` "records" counts
        records instead, at a higher price. `kind` "granted" asks for exact numbers, which a center's steward may grant
        to your project; "published" for those of what centers have published of their banks. `price_only` asks what the
        answer would cost.
        """
        terms = replace(self.study.terms, within=within, price_only=price_only)
        return self.ask(Count(_fields(by), _unit(unit), _kind(kind)), terms)

    def ask(self, analysis: Analysis, terms: Terms) -> Answer:
        """Ask for any analysis that takes a dataset and a condition."""
        return self.study.network.ask(self.name, self.filter, analysis, terms)

    def __repr__(self) -> str:
        if self.filter is None:
            return f"<Dataset {self.name}>"
        return f"<Dataset {self.name} where {to_text(self.filter)}>"


def _fields(by: object) -> tuple[str, ...]:
    fields = (by,) if isinstance(by, str) else tuple(by) if isinstance(by, Iterable) else (by,)
    wrong = [one for one in fields if not isinstance(one, str)]
    if wrong:
        raise InvalidQuery(
            f"by names fields, such as 'type' or ['type', 'grade']; {str(wrong[0])[:40]!r} is none.",
            code="query.invalid_group",
        )
    return tuple(map(str, fields))


def _unit(unit: str | Unit) -> Unit:
    try:
        return Unit(unit)
    except ValueError:
        raise InvalidQuery("unit is 'donors' or 'records'.", code="query.invalid_unit") from None


def _kind(kind: str | Kind) -> Kind:
    try:
        return Kind(kind)
    except ValueError:
        raise InvalidQuery("kind is 'private', 'granted' or 'published'.", code="query.invalid_kind") from None


def _filter(condition: str | Condition) -> Filter:
    if isinstance(condition, Condition):
        return condition.filter
    from connexon.conditions import where

    return where.parse(condition)
