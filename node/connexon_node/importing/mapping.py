"""The mapping file: how a center's own columns, units, codes and dates become the dictionary's. TOML, strictly read."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import duckdb
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from connexon_node.data.dictionary import Dataset, nearest
from connexon_node.data.dictionary import Field as DictionaryField
from connexon_node.importing import units
from connexon_node.importing.ages import OLDEST, age_range_sql
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.headers import UNNAMED
from connexon_node.importing.numbers import no_number, number, with_point
from connexon_node.importing.sources import FileFormat
from connexon_node.importing.sql import quoted, text

_DAY_PARTS = {"year": "Yy", "month": "mbB", "day": "d"}
"""What makes a day, and the letters that stand for each part; a day of the year (%j) stands for month and day."""


def _whole_day(form: str) -> str:
    """The form itself, where it names all that makes a day: DuckDB would make up the rest, 1900 where no year is."""
    letters = "".join(re.findall("%-?(.)", form)).replace("j", "md")
    lacking = [part for part, any_of in _DAY_PARTS.items() if not set(letters) & set(any_of)]
    if form and lacking:
        raise ValueError(
            f"{form!r} names no {' and no '.join(lacking)}, so it tells no day. Write it like %d.%m.%Y; where the file "
            "itself has no more, exclude the column"
        )
    _require_understood(f"try_strptime('', {text(form)})", form)
    return form


def _known_pattern(pattern: str) -> str:
    _require_understood(f"regexp_matches('', {text(pattern)})", pattern)
    return pattern


def _require_understood(sql: str, written: str) -> None:
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SELECT {sql}")
    except duckdb.Error as error:
        reason = str(error).splitlines()[0].removeprefix("Invalid Input Error: ")
        raise ValueError(f"{written!r} is not understood: {reason}") from error


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Column(_Part):
    """Where one field of the dictionary comes from. The steps are taken in the order in which they stand here."""

    source: str | list[str] = Field(default=[], alias="from", description="the column, or several to join")
    combine: Literal["all", "present", "first"] = Field(
        default="all",
        description="of several columns: all, and nothing where one has no value; those present; or the first that has",
    )
    join: str = Field(default="", description="what is put between several columns")
    constant: str | bool | int | float | None = Field(default=None, description="the same in every row")
    numbered: bool = Field(default=False, description="the number of the row, from 1, where a file has no ids")
    missing: list[str] = Field(default=[], description="words that mean that there is no value, beside those of all")
    pattern: Annotated[str, AfterValidator(_known_pattern)] = Field(
        default="", description="regular expression (RE2) whose first group is the value"
    )
    split: str = Field(default="", description="what parts several values")
    part: int = Field(default=0, ge=0, description="which part counts, from 1; 0: all, for fields of several values")
    values: dict[str, str] = Field(default={}, description="the center's codes and what they mean; '' means missing")
    date: Annotated[str, AfterValidator(_whole_day)] = Field(
        default="", description="how days are written, such as %d.%m.%Y, or %d.%m.%y for two digits"
    )
    decimal: Annotated[str, Field(pattern=r"^[.,]$")] = "."
    """What parts decimals in texts. Beside a comma, points may group thousands; a text such as 1.5 is then refused."""
    unit: str = Field(default="", description="the unit that the file is in; converted to the dictionary's")
    ages: bool = Field(default=False, description="ages in years, or in the unit; kept as ranges of five years")
    prefix: str = Field(default="", description="put before the value")
    default: str | bool | int | float | None = Field(
        default=None, description="the value, in the dictionary's words, of rows that have none"
    )
    note: str = Field(default="", description="for people: why it is so")

    @property
    def sources(self) -> list[str]:
        """The columns of the file that it reads."""
        return [self.source] if isinstance(self.source, str) else self.source


class Variants(_Part):
    """For VCF and BCF. `samples` names, for a sample of the file, the sample at the center; others are left out."""

    assembly: str = ""
    samples: dict[str, str] = {}
    keep_failed: bool = Field(default=False, description="load calls that failed a filter like those that passed")


class Matrix(_Part):
    """For wide matrices: features in rows, samples in columns."""

    feature: str = Field(default="", description="column with the feature's accession")
    gene: str = Field(default="", description="column with the gene's symbol")
    samples: dict[str, str] = Field(default={}, description="column of the file = sample at the center")
    zero_is_not_detected: bool = True
    comment: str = Field(default="#", description="rows whose first value begins so are left out")
    skip: list[str] = Field(default=[], description="rows whose accession is this are left out")


class Cells(_Part):
    """For AnnData."""

    kind: Annotated[str, Field(pattern=r"^(counts|log2CPM|log2TPM)$")] = "counts"
    layer: str = Field(default="", description="layer instead of X")
    sample: str = Field(default="", description="column of obs with the sample; empty: each observation is a sample")
    cell_type: str = Field(default="", description="column of obs with the cell type, for single cells")
    gene: str = Field(default="", description="column of var with the Ensembl id; empty: var's index")
    symbol: str = Field(default="", description="column of var with the gene's symbol")
    samples: dict[str, str] = Field(default={}, description="sample, or 'sample|cell type', = sample at the center")
    minimum_cells: int = Field(default=10, ge=1, description="smaller groups are left out")


class Study(_Part):
    """For SDTM."""

    demographics: str = Field(default="dm.csv", description="file with the subjects' day 0, beside this one")
    trial: str = Field(default="", description="id of the trial at the center")
    endpoint: str = Field(default="death", description="for survival: the event")
    event_terms: list[str] = Field(default=["DEATH"], description="DSDECOD that are the event")


class Mapping(_Part):
    """A whole mapping file. Without one, columns have the dictionary's names."""

    dataset: str = ""
    format: FileFormat | None = None
    encoding: str = ""
    sheet: str = ""
    header_row: int = Field(default=0, ge=0, le=1_000, description="line with the names of the columns, from 1")
    missing: list[str] = Field(default=[], description="words that mean that there is no value, in every column")
    exclude: list[str] = Field(default=[], description="columns that are not read; '' stands for those without a name")
    distinct: bool = Field(default=False, description="rows that say the same, or nothing of this dataset, count once")
    rows: dict[str, list[str]] = Field(
        default={}, description="column of the file = the values whose rows are read; '' is no value"
    )
    columns: dict[str, Column] = {}
    vcf: Variants = Variants()
    matrix: Matrix = Matrix()
    h5ad: Cells = Cells()
    sdtm: Study = Study()

    def excludes(self, name: str) -> bool:
        """Whether a column of the file is not read."""
        return name in self.exclude or ("" in self.exclude and UNNAMED.fullmatch(name) is not None)

    def reads(self, name: str) -> bool:
        """Whether a field is made of a column of the file."""
        return any(name in column.sources for column in self.columns.values())


_PARTS: dict[str, type[BaseModel]] = {
    "columns": Column,
    "vcf": Variants,
    "matrix": Matrix,
    "h5ad": Cells,
    "sdtm": Study,
}
_NO_YEAR = "TIMESTAMP '0999-12-31'"
"""The last moment whose year has fewer than four digits."""
_GROUP, _NO_GROUP = re.compile(r"\((?!\?)|\(\?P?<\w"), re.compile(r"\\.|\[\^?\]?[^\]]*\]")
"""A group of a regular expression that is kept, and what looks like one: escaped letters and sets of them."""
_LONG = 5_000
"""Letters of SQL from which repeating it costs more than a name for it, for which DuckDB makes a list of each value."""
PLAIN = Mapping()
"""No mapping: the file speaks as the dictionary does."""


@dataclass(frozen=True)
class Written:
    """How the columns of a file are written; see relation.Relation."""

    texts: dict[str, str]
    numbers: dict[str, str]


def load(path: Path) -> Mapping:
    """Read a mapping file. Raises FileRefused that names the place."""
    try:
        return Mapping.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _refused(f"{path.name} is no TOML: {error}.") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        told = _unknown(problem["loc"]) if problem["type"] == "extra_forbidden" else problem["msg"]
        raise _refused(f"{path.name}: {where}: {told.removeprefix('Value error, ')}.") from error


def _unknown(place: tuple[int | str, ...]) -> str:
    """What to say of a name that a mapping file does not know."""
    part: type[BaseModel] = _PARTS[str(place[0])] if len(place) > 1 else Mapping
    known = [one.alias or name for name, one in part.model_fields.items()]
    near = nearest(str(place[-1]), known)
    hint = f"the nearest is {near[0]}" if near else f"known are {', '.join(known)}"
    return f"there is no such setting; {hint}"


def require_dataset(mapping: Mapping, dataset: Dataset) -> None:
    """Raise FileRefused where the mapping was written for another dataset."""
    if mapping.dataset and mapping.dataset != dataset.name:
        raise _refused(f"The mapping is for {mapping.dataset}, not for {dataset.name}.")


def read_columns(mapping: Mapping, names: Sequence[str]) -> list[str]:
    """The columns of the file that are not left out."""
    return [name for name in names if not mapping.excludes(name)]


def without_unused(mapping: Mapping, dataset: Dataset, names: Sequence[str]) -> Mapping:
    """The mapping that also excludes what a format offers and the dataset does not want."""
    used = {source for column in mapping.columns.values() for source in column.sources} | set(mapping.rows)
    spare = [name for name in names if name not in dataset.names and name not in used]
    return mapping.model_copy(update={"exclude": [*mapping.exclude, *spare]})


def expressions(
    mapping: Mapping, dataset: Dataset, names: Sequence[str], written: Written, file: str
) -> dict[str, str]:
    """For each field that the file fills, the SQL of its value as text. Raises FileRefused where names do not fit."""
    _require_known(mapping, dataset, names, file)
    used = {source for column in mapping.columns.values() for source in column.sources} | set(mapping.rows)
    made = {}
    for field in dataset.fields:
        column = mapping.columns.get(field.name)
        if column is None and field.name in names and field.name not in used and not mapping.excludes(field.name):
            column = Column(source=field.name)
        if column is not None:
            made[field.name] = expression(column, field, mapping.missing, written)
    left = [name for name in names if name not in used and name not in made and not mapping.excludes(name)]
    if left and UNNAMED.fullmatch(left[0]):
        raise FileRefused(
            f"{file}: {left[0].strip('()')} has no name. Write the file without row names or an index, or leave the "
            'column out: exclude = [""] in a mapping file does; connexon-node map drafts one.',
            code="import.columns",
        )
    if left:
        near = nearest(left[0], dataset.names)
        hint = f"Is it {near[0]}?" if near else f"{dataset.name} has: {', '.join(dataset.names)}."
        raise FileRefused(
            f"{file} has a column {left[0][:60]!r} that {dataset.name} does not know. {hint} A mapping file can rename "
            "or exclude it; connexon-node map drafts one.",
            code="import.columns",
        )
    return made


def row_filters(mapping: Mapping, names: Sequence[str], written: Written, file: str) -> tuple[tuple[str, str], ...]:
    """Conditions on rows that the mapping leaves out, each with a note. Raises FileRefused of an unknown column."""
    made = []
    for name, wanted in mapping.rows.items():
        _require_column(name, names, "The row filter of the mapping", file)
        value = _trimmed(written.texts.get(name, quoted(name)), name)
        listed = ", ".join(map(text, filter(None, wanted)))
        kept = [f"{value} IN ({listed})"] if listed else []
        kept += [f"{value} IS NULL"] if "" in wanted else []
        if not kept:
            raise _refused(f"The row filter of the mapping names no value of {name!r}.")
        note = f"rows were left out: their {name!r} is none of the values that the mapping reads"
        made.append((f"NOT coalesce({' OR '.join(kept)}, false)", note))
    return tuple(made)


def refusals(mapping: Mapping) -> dict[str, str]:
    """By field, why the steps of its column refuse a value; fields whose steps take every value are left out."""
    reasons = {}
    for name, column in mapping.columns.items():
        if column.ages:
            reasons[name] = f"is no age from 0 to {OLDEST} years"
        elif column.decimal == ",":
            reasons[name] = "has a point that groups no thousands, where the mapping says that decimals have commas"
    return reasons


def _require_known(mapping: Mapping, dataset: Dataset, names: Sequence[str], file: str) -> None:
    for name, column in mapping.columns.items():
        if name not in dataset.names:
            near = nearest(name, dataset.names)
            raise _refused(
                f"The mapping fills {name!r}, which {dataset.name} has not. {f'Is it {near[0]}?' if near else ''}"
            )
        if [bool(column.sources), column.constant is not None, column.numbered].count(True) != 1:
            raise _refused(f"The mapping of {name} needs one of from, constant and numbered.")
        if column.part and not column.split:
            raise _refused(f"The mapping of {name} names a part, and not what parts the value: add split.")
        for source in column.sources:
            _require_column(source, names, f"The mapping of {name}", file)
            if mapping.excludes(source):
                raise _refused(f"The mapping excludes the column {source!r} that {name} is made of.")


def _require_column(source: str, names: Sequence[str], what: str, file: str) -> None:
    if source not in names:
        plain = {one.casefold(): one for one in names}
        near = nearest(source.casefold(), plain)
        hint = f"Is it {plain[near[0]]!r}?" if near else ""
        raise _refused(f"{what} reads a column {source!r} that {file} has not. {hint}")


def _trimmed(value: str, column: str) -> str:
    """A column's text without spaces around it, nothing for an empty one."""
    slow = f"nullif(trim({value}), '')"
    if value != quoted(column):
        return slow
    # DuckDB's trim looks at every letter. Most texts are plain ASCII that begins and ends with no space.
    plain = f"{value} >= '!' AND NOT suffix({value}, ' ') AND strlen({value}) = length({value})"
    return f"CASE WHEN {plain} THEN {value} ELSE {slow} END"


def expression(column: Column, field: DictionaryField, missing: Sequence[str], written: Written) -> str:
    """The SQL of a field's value as text, made by the steps of its column. Raises FileRefused."""
    if column.constant is not None:
        return text(_written(column.constant))
    if column.numbered:
        return f"{text(column.prefix)} || (row_number() OVER ())"
    words = [*missing, *column.missing]
    pieces = [_without(words, _trimmed(written.texts.get(name, quoted(name)), name)) for name in column.sources]
    value = pieces[0] if len(pieces) == 1 else _combined(pieces, column, words, many=field.many)
    if column.pattern:
        # What does not match stays as it is and meets the dictionary's checks: it must not become a missing value.
        group = 1 if _GROUP.search(_NO_GROUP.sub("", column.pattern)) else 0
        value = f"coalesce(nullif(regexp_extract({value}, {text(column.pattern)}, {group}), ''), {value})"
    if column.split:
        parts = f"string_split({value}, {text(column.split)})"
        value = f"trim(({parts})[{column.part}])" if column.part else f"array_to_string({parts}, ';')"
    if column.values:
        value = _recoded(value, column.values, many=field.many)
    if column.date:
        value = _dated(value, column.date)
    if column.decimal == ",":
        # A cell that is a number in its file (Excel, Parquet, JSON) has no comma, however texts beside it are written.
        typed = written.numbers.get(column.sources[0], "") if len(column.sources) == 1 else ""
        pointed = _named(value, with_point)
        value = f"CASE WHEN {typed} THEN {value} ELSE {pointed} END" if typed else pointed
    if column.unit:
        conversion = _conversion(column.unit, field)
        value = _named(value, lambda number: _converted(number, conversion))
    if column.ages:
        told = [meaning for meaning in column.values.values() if meaning in field.values]
        value = _named(value, lambda years: age_range_sql(years, told))
    made = (
        f"nullif({text(column.prefix)} || {value}, {text(column.prefix)})" if column.prefix else f"nullif({value}, '')"
    )
    return made if column.default is None else f"coalesce({made}, {text(_written(column.default))})"


def _named(value: str, step: Callable[[str], str]) -> str:
    """The step on a value, which gets a name where it is long: each step repeats it, and what is repeated in it."""
    return step(value) if len(value) < _LONG else f"list_transform([{value}], lambda named: {step('named')})[1]"


def _without(words: Sequence[str], value: str) -> str:
    return f"CASE WHEN {value} IN ({', '.join(map(text, words))}) THEN NULL ELSE {value} END" if words else value


def _written(value: str | bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _combined(pieces: Sequence[str], column: Column, words: Sequence[str], *, many: bool) -> str:
    """The pieces as one value; see Column.combine. Of fields of several values, those that are there."""
    if column.combine == "first":
        return f"coalesce({', '.join(pieces)})"
    if many or column.combine == "present":
        return f"nullif(concat_ws({text(column.join)}, {', '.join(pieces)}), '')"
    return _without(words, f" || {text(column.join)} || ".join(f"({piece})" for piece in pieces))


def _dated(value: str, form: str) -> str:
    moment = f"try_strptime({value}, {text(form)})"
    if "%Y" in form:
        # DuckDB reads the 24 of 05.03.24 as the year 24. A value that is not read meets the dictionary's checks.
        moment = f"nullif(greatest({moment}, {_NO_YEAR}), {_NO_YEAR})"
    return f"coalesce(strftime({moment}, '%Y-%m-%d'), {value})"


def _recoded(value: str, codes: dict[str, str], *, many: bool) -> str:
    one = "trim(code)" if many else value
    cases = " ".join(f"WHEN {text(code)} THEN {text(meaning)}" for code, meaning in codes.items())
    recoded = f"CASE {one} {cases} ELSE {one} END"
    if not many:
        return recoded
    return f"array_to_string(list_transform(string_split({value}, ';'), lambda code: {recoded}), ';')"


def _conversion(unit: str, field: DictionaryField) -> units.Conversion:
    conversion = units.conversion(unit, field.unit)
    if not field.unit or conversion is None:
        raise _refused(f"{field.name} is in {field.unit or 'no unit'}; there is no way from {unit!r} to it.")
    return conversion


def _converted(value: str, conversion: units.Conversion) -> str:
    if conversion == units.Conversion(1.0):
        return value
    # Twelve digits: more than any measurement has, fewer than the noise of binary fractions.
    converted = f"format('{{:.12g}}', {number(value)} * {conversion.factor!r} + {conversion.offset!r})"
    return f"CASE WHEN {no_number(value)} THEN {value} ELSE {converted} END"


def _refused(reason: str) -> FileRefused:
    return FileRefused(reason.strip(), code="import.mapping")
