"""The question's filter held against the dictionary: every field offered, every literal of the field's type.

What comes out asks the same and holds no `under` and no `descends_from` any more: those become lists of the terms and
lines that occur in the data. Values of coded fields, by whichever of their names, become the codes that rows hold.
"""

from __future__ import annotations

import datetime
import re
from typing import Protocol

from connexon.conditions import filters
from connexon.conditions.filters import (
    Between,
    Compare,
    DescendsFrom,
    Filter,
    Has,
    IsMissing,
    Not,
    OneOf,
    Operator,
    Scalar,
    Under,
)
from connexon.conditions.terms import CURIE
from connexon.errors import InvalidQuery
from connexon_node.data.dictionary import KEY, Dataset, Dictionary, Field, FieldType, nearest, relations
from connexon_node.ontology import Ontologies

_EXAMPLES = {
    FieldType.TEXT: "a text such as 'x'",
    FieldType.INTEGER: "a number such as 12",
    FieldType.NUMBER: "a number such as 1.5",
    FieldType.BOOLEAN: "true or false",
    FieldType.DATE: "a date such as 2026-01-31",
    FieldType.TERM: "a term",
}
_LISTED = 8
"""Allowed values named in an error."""


LINES, LOTS = "cell_lines", "lots"


class Present(Protocol):
    """What occurs in the data. Never leaves the engine."""

    def values(self, dataset: Dataset, field: Field) -> frozenset[str]:
        """The distinct values of a field of terms."""
        ...

    def codes(self, dataset: Dataset, field: Field, names: tuple[str, ...]) -> tuple[int, ...]:
        """The codes of the values of a coded field that have one of the names; `field` may be an alias of it."""
        ...

    def descendants(self, line: str) -> frozenset[str]:
        """The ids of all lines derived from the line of that public name."""
        ...


class FilterCheck:
    """Checks filters on one dataset and those it leads to."""

    def __init__(self, dataset: Dataset, dictionary: Dictionary, ontologies: Ontologies, present: Present) -> None:
        self._dataset = dataset
        self._dictionary = dictionary
        self._ontologies = ontologies
        self._present = present

    def check(self, node: Filter) -> Filter:
        """The same filter with every `under`, line and name resolved. Raises InvalidQuery that names field and type."""
        match node:
            case filters.All(parts):
                return filters.All(tuple(self.check(child) for child in parts))
            case filters.Any(parts):
                return filters.Any(tuple(self.check(child) for child in parts))
            case Not(child):
                return Not(self.check(child))
            case Has(path, inside):
                return self._has(path, inside)
            case DescendsFrom(line):
                return self._descends_from(line)
            case leaf:
                _, dataset, name = relations.place(self._dictionary, self._dataset, leaf.field)
                before = leaf.field[: -len(name)]
                return _FieldCheck(dataset, dataset.offered_field(name), before, self._ontologies, self._present).check(
                    leaf
                )

    def _has(self, path: str, inside: Filter | None) -> Has:
        _, place, name = relations.place(self._dictionary, self._dataset, path)
        other = relations.pointing(self._dictionary, place, name)
        if inside is None:
            return Has(path)
        return Has(path, FilterCheck(other, self._dictionary, self._ontologies, self._present).check(inside))

    def _descends_from(self, line: str) -> OneOf:
        field = {LINES: KEY, LOTS: "cell_line_id"}.get(self._dataset.name)
        if field is None:
            raise InvalidQuery(
                f"{self._dataset.name} have no parent lines; ask with  has {LINES} (descends_from(...))  or of {LINES} "
                f"and {LOTS}.",
                code="query.wrong_operator",
            )
        return OneOf(field, tuple(sorted(self._present.descendants(line))))


class _FieldCheck:
    """Checks one comparison with one field. `before` is the way to the field's row, with its last dot."""

    def __init__(self, dataset: Dataset, field: Field, before: str, ontologies: Ontologies, present: Present) -> None:
        self._dataset = dataset
        self._field = field
        self._before = before
        self._ontologies = ontologies
        self._present = present

    def check(self, node: Compare | OneOf | Between | IsMissing | Under) -> Filter:
        """The same comparison with what it names resolved."""
        field = self._field
        if field.coded or field.alias_of:
            return self._coded(node)
        match node:
            case IsMissing():
                return node
            case Compare(name, how, value):
                return self._compared(name, how, self._literal(self._comparable(field, how), value))
            case OneOf(name, values):
                return OneOf(name, tuple(one for value in values for one in self._ids(self._literal(field, value))))
            case Between(name, low, high):
                self._ordered(field, "between")
                return Between(name, self._literal(field, low), self._literal(field, high))
            case Under(name, term):
                return self._under(name, field, term)

    def _compared(self, name: str, how: Operator, value: Scalar) -> Filter:
        ids = self._ids(value)
        if len(ids) == 1:
            return Compare(name, how, value)
        return OneOf(name, ids) if how is Operator.EQUAL else Not(OneOf(name, ids))

    def _ids(self, value: Scalar) -> tuple[Scalar, ...]:
        """The value; of a term also the ids that it has replaced since rows were imported under them."""
        if self._field.type is not FieldType.TERM or not isinstance(value, str):
            return (value,)
        present = self._present.values(self._dataset, self._field)
        return (value, *sorted(self._ontologies.former(present).get(value, ())))

    def _coded(self, node: Compare | OneOf | Between | IsMissing | Under) -> Filter:
        """A comparison of the codes that rows hold."""
        match node:
            case Compare(_, Operator.EQUAL, value):
                return self._with_codes((value,))
            case Compare(_, Operator.NOT_EQUAL, value):
                return Not(self._with_codes((value,)))
            case OneOf(_, values):
                return self._with_codes(values)
            case _:
                raise InvalidQuery(
                    f"{self._named(self._field)} can be compared with = and != and in only.",
                    code="query.wrong_operator",
                )

    def _with_codes(self, values: tuple[Scalar, ...]) -> OneOf:
        field = self._field
        names = []
        for value in values:
            name = self._literal(field, value)
            assert isinstance(name, str)
            if field.identifying_values and re.fullmatch(field.identifying_values, name):
                raise InvalidQuery(
                    f"{self._named(field)} {_shown(name)} identifies people, so it cannot be asked about.",
                    code="field.identifying",
                )
            names.append(name)
        codes = self._present.codes(self._dataset, field, tuple(names))
        return OneOf(self._before + (field.alias_of or field.name), codes)

    def _comparable(self, field: Field, how: Operator) -> Field:
        if how is Operator.NOT_EQUAL and field.many:
            raise InvalidQuery(
                f"{self._named(field)} holds several values at once: write  not ({field.name} = ...)  instead of !=.",
                code="query.wrong_operator",
            )
        return field if how in (Operator.EQUAL, Operator.NOT_EQUAL) else self._ordered(field, how.value)

    def _ordered(self, field: Field, how: str) -> Field:
        if not field.type.ordered:
            raise InvalidQuery(
                f"{self._named(field)} holds {field.type.value}, which has no order, so {how!r} cannot be asked of it.",
                code="query.wrong_operator",
            )
        return field

    def _under(self, name: str, field: Field, term: str) -> OneOf:
        if field.type is not FieldType.TERM:
            raise InvalidQuery(
                f"{self._named(field)} holds {field.type.value} and no ontology terms, so nothing can be under it.",
                code="query.wrong_operator",
            )
        self._require_prefix(field, term)
        # A high term has thousands below it; the list need hold only those that occur.
        present, below = self._present.values(self._dataset, field), self._ontologies.descendants(term)
        replaced = self._ontologies.former(present)
        former = (ids for current, ids in replaced.items() if current in below)
        return OneOf(name, tuple(sorted((below & present).union(*former))))

    def _literal(self, field: Field, value: Scalar) -> Scalar:
        """The value if the field can be compared with it; of a term, the id that counts today."""
        if not _fits(field.type, value):
            raise InvalidQuery(
                f"{self._named(field)} holds {field.type.value}: compare it with {_EXAMPLES[field.type]}, "
                f"not with {_shown(value)}.",
                code="query.wrong_type",
            )
        if not isinstance(value, str):
            return value
        if field.type is FieldType.TERM:
            prefix = self._require_prefix(field, value)
            return self._ontologies.resolve(value) if self._ontologies.version(prefix) else value
        return self._text(field, value)

    def _text(self, field: Field, value: str) -> str:
        if field.values and value not in field.values:
            hint = nearest(value, field.values) or list(field.values[:_LISTED])
            more = " ..." if len(hint) < len(field.values) else ""
            raise InvalidQuery(
                f"{self._named(field)} is never {_shown(value)}; it is one of: {', '.join(hint)}{more}.",
                code="query.unknown_value",
            )
        if not value.isprintable():
            raise InvalidQuery(f"The text beside {self._named(field)} is not printable.", code="query.invalid_value")
        return value

    def _require_prefix(self, field: Field, term: str) -> str:
        prefix = term.partition(":")[0]
        if not CURIE.match(term) or prefix not in field.ontologies:
            raise InvalidQuery(
                f"{self._named(field)} holds terms of {' or '.join(field.ontologies)}, and {_shown(term)} is none.",
                code="query.wrong_type",
            )
        return prefix

    def _named(self, field: Field) -> str:
        return f"{self._dataset.name}.{field.name}"


def _fits(kind: FieldType, value: Scalar) -> bool:
    match kind:
        case FieldType.TEXT | FieldType.TERM:
            return isinstance(value, str)
        case FieldType.BOOLEAN:
            return isinstance(value, bool)
        case FieldType.DATE:
            return isinstance(value, datetime.date)
        case FieldType.INTEGER | FieldType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Scalar) -> str:
    return repr(value[:40]) if isinstance(value, str) else str(value)
