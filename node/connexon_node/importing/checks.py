"""What must hold of every row, as SQL made from the dictionary: a condition that is true where the row is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from connexon_node.data.dictionary import Dataset, Field, FieldType
from connexon_node.importing.numbers import no_number, number
from connexon_node.importing.sql import quoted, text
from connexon_node.importing.unreadable import is_marked

TERM_LOCAL = "[A-Za-z0-9_.-]{1,64}"
INTEGER = r"[+-]?\d{1,18}(\.0+)?"
THOUSANDS = r"[+-]?[1-9]\d{0,2}\.000"
"""Whole numbers that are either one or a thousand."""
ERRORS = ("#REF!", "#N/A", "#DIV/0!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!")
"""What spreadsheets write where a formula has no value."""
DATE = r"\d{4}-\d{2}-\d{2}"
FIRST_DAY = "1900-01-01"
"""Of no earlier day is there anything to tell: such a date is one whose year was cut short."""
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")
_DUCKDB_TYPES = {
    FieldType.TEXT: "VARCHAR",
    FieldType.TERM: "VARCHAR",
    FieldType.INTEGER: "BIGINT",
    FieldType.NUMBER: "DOUBLE",
    FieldType.BOOLEAN: "BOOLEAN",
    FieldType.DATE: "DATE",
}


@dataclass(frozen=True)
class Check:
    """A condition on table `staged` that is true where `field` is wrong for `reason`. A warning stops nothing.

    `alone`: the condition is of the field's own value, whatever else is in the row or in others.
    """

    field: str
    reason: str
    wrong: str
    warns: bool = False
    alone: bool = True


def checks_of(dataset: Dataset) -> Iterator[Check]:
    """Every check that needs only the row itself, and those for values that may occur once only."""
    for field in dataset.fields:
        column = quoted(field.name)
        if field.required:
            yield Check(field.name, "is missing", f"{column} IS NULL")
        for reason, wrong, warns in _of_value(field, "piece" if field.many else column):
            condition = f"len(list_filter({pieces(column)}, lambda piece: {wrong})) > 0" if field.many else wrong
            yield Check(field.name, reason, f"{column} IS NOT NULL AND ({condition})", warns)
        if field.unique:
            twice = f"SELECT {column} FROM staged WHERE {column} IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
            yield Check(field.name, "occurs more than once", f"{column} IN ({twice})", alone=False)
    for earlier, later in dataset.in_order:
        first, second = (f"TRY_CAST({quoted(name)} AS DATE)" for name in (earlier, later))
        yield Check(later, f"is before {earlier}", f"{second} < {first}", alone=False)
    for lower, upper in dataset.no_more_than:
        first, second = (number(quoted(name)) for name in (lower, upper))
        yield Check(lower, f"is more than {upper}", f"{first} > {second}", alone=False)


def with_refusals(checks: Iterable[Check], reasons: Mapping[str, str]) -> Iterator[Check]:
    """The checks, and for each field with a reason that no value is marked; of a marked value nothing else is said."""
    for check in checks:
        if check.field in reasons:
            yield replace(check, wrong=f"NOT {is_marked(quoted(check.field))} AND ({check.wrong})")
        else:
            yield check
    for field, reason in reasons.items():
        yield Check(field, reason, is_marked(quoted(field)))


def typed(field: Field, renamed: dict[str, str]) -> str:
    """SQL for the value of a right row in the field's own type; `renamed` maps terms to the ids that count today."""
    column = quoted(field.name)
    if field.many:
        value = f"list_distinct(list_transform({pieces(column)}, lambda piece: {_one(field, 'piece', renamed)}))"
        return f"list_sort({value})"
    return _one(field, column, renamed)


def pieces(column: str) -> str:
    """SQL for the several values of a field, trimmed, as a list."""
    return f"list_filter(list_transform(string_split({column}, ';'), lambda x: trim(x)), lambda x: x <> '')"


def _one(field: Field, value: str, renamed: dict[str, str]) -> str:
    if field.type is FieldType.BOOLEAN:
        return f"lower({value}) IN ({', '.join(map(text, TRUE))})"
    if field.type is FieldType.INTEGER:
        return f"CAST(regexp_replace({value}, '\\.0+$', '') AS BIGINT)"
    if field.type is FieldType.TERM and renamed:
        cases = " ".join(f"WHEN {text(old)} THEN {text(new)}" for old, new in sorted(renamed.items()))
        return f"CASE {value} {cases} ELSE {value} END"
    return f"CAST({value} AS {_DUCKDB_TYPES[field.type]})"


def _of_value(field: Field, value: str) -> Iterator[tuple[str, str, bool]]:
    """Reason, condition on one value that is not missing, and whether it only warns."""
    yield from _of_type(field, value)
    if field.values:
        yield f"is none of {_listed(field.values)}", f"{value} NOT IN ({', '.join(map(text, field.values))})", False
    if field.form is not None:
        form, whole = field.form, f"regexp_full_match({value}, {text(field.form.pattern)})"
        yield f"is not {form.what}", f"NOT {whole}", False
        if form.ends_in_date:
            day = f"TRY_STRPTIME(right({value}, 8), '%Y%m%d')"
            yield "does not end in a date that exists", f"{whole} AND {day} IS NULL", False
        if form.usual:
            usual = f"regexp_full_match({value}, {text(form.usual)})"
            yield f"is unusual for {form.what}", f"{whole} AND NOT {usual}", True
    read = number(value)
    if field.minimum is not None:
        yield f"is less than {field.minimum:g}", f"isfinite({read}) AND {read} < {field.minimum!r}", False
    if field.maximum is not None:
        yield f"is more than {field.maximum:g}", f"isfinite({read}) AND {read} > {field.maximum!r}", False


def _of_type(field: Field, value: str) -> Iterator[tuple[str, str, bool]]:
    if field.type is FieldType.TEXT and not field.values and (field.form is None or _admits_errors(field)):
        errors = f"starts_with({value}, '#') AND {value} IN ({', '.join(map(text, ERRORS))})"
        yield "is an error of a spreadsheet and no value", errors, False
    match field.type:
        case FieldType.INTEGER:
            yield "is not a whole number", f"NOT regexp_full_match({value}, {text(INTEGER)})", False
            thousands = f"suffix({value}, '.000') AND regexp_full_match({value}, {text(THOUSANDS)})"
            yield "may be ones or thousands: write it without point, or decimal in the mapping", thousands, False
        case FieldType.NUMBER:
            yield "is not a number such as 1.5", no_number(value), False
        case FieldType.BOOLEAN:
            known = ", ".join(map(text, TRUE + FALSE))
            yield "is not true or false", f"lower({value}) NOT IN ({known})", False
        case FieldType.DATE:
            form = f"regexp_full_match({value}, {text(DATE)})"
            yield "is not a date such as 2026-01-31", f"NOT {form} OR TRY_CAST({value} AS DATE) IS NULL", False
            early = f"CASE WHEN {value} < {text(FIRST_DAY)} THEN {form} ELSE false END"
            yield f"is before {FIRST_DAY}: write the year with its four digits", early, False
        case FieldType.TERM:
            prefixes = "|".join(field.ontologies)
            curie = text(f"({prefixes}):{TERM_LOCAL}")
            yield f"is not a term of {' or '.join(field.ontologies)}", f"NOT regexp_full_match({value}, {curie})", False
        case FieldType.TEXT:
            if field.form is None and not field.values:
                yield "holds control characters", f"regexp_matches({value}, '[\\x00-\\x1f\\x7f]')", False


def _admits_errors(field: Field) -> bool:
    return field.form is not None and re.fullmatch(field.form.pattern, ERRORS[0]) is not None


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(values[:12]) + (" ..." if len(values) > 12 else "")
