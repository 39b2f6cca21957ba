"""What a dictionary is made of: datasets, fields, and the path from a row to the donor whose consent covers it."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from connexon.errors import InvalidQuery, NotFound

DONORS = "donors"
"""The dataset whose rows are the donors themselves."""
KEY = "id"
"""The field that names a row, in every dataset."""


class Sensitivity(Enum):
    """How far data may be seen: public, controlled, or restricted (leaves only as an aggregate)."""

    PUBLIC = "public"
    CONTROLLED = "controlled"
    RESTRICTED = "restricted"

    @property
    def needs(self) -> str:
        """The least that a researcher needs to count such data, as the federation's access rules have it."""
        if self is Sensitivity.PUBLIC:
            return "an accredited role"
        return "the role researcher, clinician, data-scientist, student or steward"


class FieldType(Enum):
    """What a field holds; `value` is how the catalog names it."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TERM = "term"

    @property
    def ordered(self) -> bool:
        """Whether smaller and greater mean something."""
        return self in (FieldType.INTEGER, FieldType.NUMBER, FieldType.DATE)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a text must look. Patterns are RE2 and match the whole text.

    `usual` is a stricter pattern that earns a warning only, where what is customary is not a rule. `ends_in_date`
    asks that the last eight digits are a day that exists. `few` says that values repeat, so that grouping by them
    makes sense.
    """

    what: str
    pattern: str
    usual: str = ""
    ends_in_date: bool = False
    few: bool = False


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column. `title` is one line for people; `unit` is UCUM; `many` holds several values, written with ';'.

    `references` names the dataset whose ids the field holds. An identifying field is never offered to researchers;
    of another, values that match the pattern `identifying_values` are not. `ungrouped`: counting by it makes no sense.

    `coded`: on disk the value is an integer, and a file of codes beside the rows says which (see
    connexon_node.data.generations.codes_of). `alias_of` names the coded field that this is another name of: it is kept
    with that one's codes and in no row.
    """

    name: str
    type: FieldType
    title: str
    unit: str = ""
    ontologies: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    form: Form | None = None
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    unique: bool = False
    many: bool = False
    identifying: bool = False
    references: str = ""
    identifying_values: str = ""
    ungrouped: bool = False
    coded: bool = False
    alias_of: str = ""

    @property
    def relation(self) -> str:
        """What a filter calls the row that the field points to; empty for a field that points nowhere."""
        return self.name.removesuffix("_id") if self.references else ""

    @property
    def groupable(self) -> bool:
        """Whether counts by this field make sense: few values, none of which points at a person."""
        if self.identifying or self.many or self.ungrouped or self.coded or self.alias_of:
            return False
        if self.type is FieldType.TEXT:
            return bool(self.values) or (self.form is not None and self.form.few)
        return self.type in (FieldType.TERM, FieldType.BOOLEAN, FieldType.INTEGER)

    @property
    def domain(self) -> tuple[str | bool | None, ...] | None:
        """Every value that a row may have here, missing included; None where they are not few and fixed."""
        missing = () if self.required else (None,)
        if self.type is FieldType.BOOLEAN:
            return (False, True, *missing)
        return (*self.values, *missing) if self.values else None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One table. `donor_through` are the fields that lead to the row's donor, directly or through another dataset.

    Every row must have at least one of them, and those it has must lead to the same donor. Rows of a dataset that is
    not `personal` belong to no donor: they need no consent, and a question about them cannot look into personal data.
    `introduces_donors`: an import may bring donors that the center did not know. `in_order` lists pairs of date
    fields of which the first must not be after the second, `no_more_than` the same for numbers. `sorted_by` orders
    the rows on disk. `once` names fields that, by what they mean, are the same together in no two rows of a dataset
    without ids; where it is empty, rows may be equal. `equal_rows`: so many are so common that nobody needs to look.
    Where numbers have noise, a donor counts in `groups_per_donor` groups of an answer at most, or with
    `records_per_donor` records; 0: records of it are not counted with noise, since donors have too many.
    """

    name: str
    title: str
    sensitivity: Sensitivity
    fields: tuple[Field, ...]
    group: str
    donor_through: tuple[str, ...] = ()
    personal: bool = True
    one_row_per_donor: bool = False
    introduces_donors: bool = False
    in_order: tuple[tuple[str, str], ...] = ()
    no_more_than: tuple[tuple[str, str], ...] = ()
    sorted_by: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    equal_rows: int = 1
    groups_per_donor: int = 3
    records_per_donor: int = 0

    @functools.cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all fields, in order."""
        return tuple(self._by_name)

    @property
    def stored(self) -> tuple[Field, ...]:
        """The fields that rows have on disk."""
        return tuple(field for field in self.fields if not field.alias_of)

    @property
    def coded(self) -> tuple[Field, ...]:
        """The fields that rows hold as integer codes."""
        return tuple(field for field in self.fields if field.coded)

    def aliases(self, field: Field) -> tuple[Field, ...]:
        """The fields that are other names of a coded one."""
        return tuple(other for other in self.fields if other.alias_of == field.name)

    @property
    def offered(self) -> tuple[Field, ...]:
        """The fields that researchers may ask about."""
        return tuple(field for field in self.fields if not field.identifying)

    def field(self, name: str) -> Field:
        """The field of that name, offered or not. Raises InvalidQuery that names the nearest ones."""
        found = self._by_name.get(name)
        if found is None:
            offered = [field.name for field in self.offered]
            hint = f"Did you mean {' or '.join(near)}?" if (near := nearest(name, offered)) else _listed(offered)
            raise InvalidQuery(f"{self.name} has no field {name!r}. {hint}", code="field.not_offered")
        return found

    def offered_field(self, name: str) -> Field:
        """The field of that name if researchers may ask about it. Raises InvalidQuery."""
        field = self.field(name)
        if field.identifying:
            raise InvalidQuery(
                f"{self.name}.{name} identifies donors or lines, so it cannot be asked about.",
                code="field.identifying",
            )
        return field


@dataclass(frozen=True)
class Dictionary:
    """Every dataset of one version."""

    version: str
    datasets: tuple[Dataset, ...]

    def __post_init__(self) -> None:
        for dataset in self.datasets:
            self._check(dataset)

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name. Raises NotFound."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        raise not_offered(name)

    def named(self, name: str) -> Dataset:
        """The dataset that a steward names. Raises NotFound, with the names that look like it."""
        for dataset in self.datasets:
            if dataset.name == name:
                return dataset
        near = nearest(name.lower(), [dataset.name for dataset in self.datasets])
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        raise NotFound(
            f"The dictionary has no dataset {name!r}. {meant}All are listed by: connexon-node dictionary",
            code="dataset.unknown",
        )

    def parents(self, dataset: Dataset) -> tuple[Dataset, ...]:
        """The datasets through which rows find their donor; none where a row names the donor itself, or has none."""
        if dataset.introduces_donors:
            return ()
        return tuple(self.dataset(dataset.field(name).references) for name in dataset.donor_through)

    def children(self, dataset: Dataset) -> tuple[Dataset, ...]:
        """The datasets whose rows find their donors through this one."""
        return tuple(other for other in self.datasets if dataset in self.parents(other))

    @functools.cached_property
    def reached(self) -> Mapping[str, frozenset[str]]:
        """The datasets that rows of each point to, directly or through others; itself where a way leads back."""
        direct = {one.name: {field.references for field in one.fields if field.references} for one in self.datasets}
        reached = {name: set(found) for name, found in direct.items()}
        for _ in self.datasets:
            for found in reached.values():
                found.update(*(direct[name] for name in tuple(found)))
        return {name: frozenset(found) for name, found in reached.items()}

    def _check(self, dataset: Dataset) -> None:
        names = [field.name for field in dataset.fields]
        pairs = (*dataset.in_order, *dataset.no_more_than)
        named = {*dataset.donor_through, *dataset.sorted_by, *dataset.once, *(name for pair in pairs for name in pair)}
        if len(set(names)) != len(names) or not named <= set(names):
            raise ValueError(f"the dictionary's {dataset.name} names a field twice or one that it lacks")
        if dataset.once and not {*dataset.sorted_by, names[0]} <= set(dataset.once):
            raise ValueError(f"rows of {dataset.name} that are the same in what occurs once would not lie together")
        for field in dataset.fields:
            self._check_field(dataset, field)
        if dataset.personal != bool(dataset.donor_through):
            raise ValueError(f"{dataset.name}: personal data, and only personal data, leads to a donor")
        for name in () if dataset.introduces_donors else dataset.donor_through:
            through = dataset.field(name)
            if not through.references or not self.dataset(through.references).personal:
                raise ValueError(f"no path leads from {dataset.name} to a donor")

    def _check_field(self, dataset: Dataset, field: Field) -> None:
        if field.references and KEY not in self.dataset(field.references).names:
            raise ValueError(f"{dataset.name}.{field.name} refers to rows that have no {KEY}")
        if field.relation and (field.relation in dataset.names or not field.identifying):
            raise ValueError(f"{dataset.name}.{field.name} is offered, or its relation has the name of a field")
        if (field.type is FieldType.TERM) != bool(field.ontologies):
            raise ValueError(f"{dataset.name}.{field.name}: terms, and only terms, have ontologies")
        if field.alias_of and not dataset.field(field.alias_of).coded:
            raise ValueError(f"{dataset.name}.{field.name} is another name of a field that has no codes")


def not_offered(name: str) -> NotFound:
    """What to raise for a dataset that is unknown, not imported, or forbidden: they look alike."""
    return NotFound(
        f"This center does not offer a dataset {name!r}; the catalog shows what it offers.", code="dataset.not_offered"
    )


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of the known names that look like `name`."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def _listed(names: list[str]) -> str:
    return f"It has: {', '.join(names)}."
