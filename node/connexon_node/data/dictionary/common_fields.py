"""Fields that many datasets have, so that they read the same everywhere."""

from __future__ import annotations

from connexon_node.data.dictionary import patterns
from connexon_node.data.dictionary.model import KEY, Field, FieldType, Form


def key(title: str) -> Field:
    """The row's own identifier at the center."""
    return Field(
        name=KEY,
        type=FieldType.TEXT,
        title=title,
        form=patterns.PSEUDONYM,
        required=True,
        unique=True,
        identifying=True,
    )


def reference(name: str, to: str, title: str, *, required: bool = False, coded: bool = False) -> Field:
    """A field that holds the id of a row of dataset `to`. Filters follow it by its name without `_id`."""
    return Field(
        name=name,
        type=FieldType.TEXT,
        title=title,
        references=to,
        required=required,
        identifying=True,
        coded=coded,
    )


def choice(name: str, title: str, *values: str, required: bool = False) -> Field:
    """One of a few values."""
    return Field(name=name, type=FieldType.TEXT, title=title, values=values, required=required)


def line(
    name: str, title: str, *, required: bool = False, identifying: bool = False, form: Form = patterns.LINE
) -> Field:
    """One line of text."""
    return Field(name=name, type=FieldType.TEXT, title=title, form=form, required=required, identifying=identifying)


def code(name: str, title: str, *, required: bool = False) -> Field:
    """A short code that repeats, so that counting by it makes sense."""
    return Field(name=name, type=FieldType.TEXT, title=title, form=patterns.CODE, required=required)


def term(name: str, title: str, *ontologies: str, required: bool = False) -> Field:
    """A term of one of the ontologies."""
    return Field(name=name, type=FieldType.TERM, title=title, ontologies=ontologies, required=required)


def whole(
    name: str,
    title: str,
    unit: str = "",
    *,
    low: float | None = 0,
    high: float | None = None,
    required: bool = False,
    ungrouped: bool = False,
) -> Field:
    """A whole number with its UCUM unit and range."""
    return Field(
        name=name,
        type=FieldType.INTEGER,
        title=title,
        unit=unit,
        minimum=low,
        maximum=high,
        required=required,
        ungrouped=ungrouped,
    )


def number(
    name: str,
    title: str,
    unit: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    required: bool = False,
) -> Field:
    """A number with its UCUM unit and range."""
    return Field(name=name, type=FieldType.NUMBER, title=title, unit=unit, minimum=low, maximum=high, required=required)


def percent(name: str, title: str) -> Field:
    """A share, from 0 to 100."""
    return number(name, title, "%", low=0, high=100)


def date(name: str, title: str, *, required: bool = False) -> Field:
    """A calendar day. Clinical datasets have days from day 0 instead."""
    return Field(name=name, type=FieldType.DATE, title=title, required=required)


def study_day(name: str, title: str, *, required: bool = False) -> Field:
    """Days from the subject's day 0."""
    return whole(name, title, "d", low=-3_650, high=36_500, required=required, ungrouped=True)


def flag(name: str, title: str, *, required: bool = False) -> Field:
    """True or false."""
    return Field(name=name, type=FieldType.BOOLEAN, title=title, required=required)


def unit(title: str, name: str = "unit") -> Field:
    """The UCUM unit of a value in the same row."""
    return Field(name=name, type=FieldType.TEXT, title=title, form=patterns.UNIT)
