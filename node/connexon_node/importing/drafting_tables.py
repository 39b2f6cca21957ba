"""Drafts for tables: which column is which field, in which unit, and what its codes mean; and what only people know.

Lines with `# ?` are for a person to decide; the rest says why it was guessed.
"""

from __future__ import annotations

import datetime
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from connexon_node.data.dictionary import KEY, Dataset, Dictionary, Field, FieldType
from connexon_node.importing import units
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.headers import UNNAMED
from connexon_node.importing.mapping import Mapping as ColumnMapping
from connexon_node.importing.numbers import GROUPED
from connexon_node.importing.pseudonymity import identifying
from connexon_node.importing.similarity import Guess, guessed, is_staff, meanings, unit_in
from connexon_node.importing.sources import File, FileFormat

CODES = 60
"""Codes of one column that are listed."""
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%b-%Y", "%d %B %Y", "%Y%m%d", "%d-%m-%Y")
_SHORT_DATES = ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%b-%y", "%y%m%d", "%d-%m-%y", "%y-%m-%d")
MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", "--", ".", "#N/A", "n.d.", "k.A.")
Labels = dict[str, dict[str, str]]
"""By ontology, the terms of its labels as similarity.label_key writes them."""


@dataclass(frozen=True)
class Looked:
    """What a look at a table showed: its columns, and of each the different values that are not empty.

    The values of the columns `typed` are numbers in the file and no texts.
    """

    names: tuple[str, ...]
    values: dict[str, list[str]]
    typed: frozenset[str]


@dataclass(frozen=True)
class Table:
    """A table, what was seen of it, and how it is read."""

    file: File
    kind: FileFormat
    looked: Looked
    mapping: ColumnMapping
    labels: Labels


def drafts(table: Table, dataset: Dataset, dictionary: Dictionary, *, guessed: bool) -> dict[str, str]:
    """The mapping of a dataset, after those of the datasets whose rows repeat in the same table."""
    looked, people = table.looked, _people(table, dataset)
    fields = _fields(table, dataset, [name for name in looked.names if name not in people])
    if guessed and not fields:
        raise FileRefused(f"No dataset has columns like those of {table.file.name}; say which with --dataset.")
    found: list[tuple[Dataset, dict[str, Guess]]] = [(dataset, fields)]
    if guessed:
        child = _child(table, dataset, fields, dictionary)
        if child is not None:
            return drafts(table, child, dictionary, guessed=True)
        spare = [name for name in looked.names if name not in people and name not in _columns(fields)]
        _add_parents(table, dataset, fields, spare, dictionary, found)
    together = len(found) > 1
    return {one.name: _text(table, one, own, guessed=guessed, together=together) for one, own in reversed(found)}


def _child(table: Table, dataset: Dataset, fields: Mapping[str, Guess], dictionary: Dictionary) -> Dataset | None:
    """The dataset that points to this one and whose own ids the table has beside: a row per vial is no row per lot."""
    spare = [name for name in table.looked.names if name not in _columns(fields)]
    for child in dictionary.datasets:
        if child == dataset or not any(field.references == dataset.name for field in child.fields):
            continue
        own = _fields(table, child, spare)
        if KEY in own and len(own) > 1 and KEY in {field.name for field in child.fields}:
            return child
    return None


def _add_parents(
    table: Table,
    dataset: Dataset,
    fields: Mapping[str, Guess],
    spare: list[str],
    dictionary: Dictionary,
    found: list[tuple[Dataset, dict[str, Guess]]],
) -> None:
    """Find the datasets that rows point to and that the table tells of too, as a row per vial does of its lot."""
    for field in dataset.fields:
        pointer = fields.get(field.name)
        name = field.references or ("donors" if field.name == "donor_id" else "")
        if pointer is None or not name or name in {one.name for one, _ in found}:
            continue
        parent = dictionary.dataset(name)
        own = _fields(table, parent, spare)
        own.pop(KEY, None)
        if not own:
            continue
        own[KEY] = Guess(pointer.column, pointer.score, f"{dataset.name} point to it")
        found.append((parent, own))
        rest = [column for column in spare if column not in _columns(own)]
        _add_parents(table, parent, own, rest, dictionary, found)


def _columns(fields: Mapping[str, Guess]) -> set[str]:
    return {guess.column for guess in fields.values()}


def _people(table: Table, dataset: Dataset) -> dict[str, str]:
    """The columns that tell of persons, and what; a line's own name is nobody's."""
    told = {}
    for name in table.looked.names:
        kind = identifying(name)
        values = table.looked.values[name]
        if is_staff(name):
            told[name] = "members of staff"
        elif kind and name not in dataset.names and not guessed([name], dataset, {name: values}):
            told[name] = kind
    return told


def _fields(table: Table, dataset: Dataset, columns: Sequence[str]) -> dict[str, Guess]:
    return guessed(columns, dataset, table.looked.values)


def _text(table: Table, dataset: Dataset, fields: dict[str, Guess], *, guessed: bool, together: bool) -> str:
    looked, file = table.looked, table.file
    people = {
        name: told
        for name in looked.names
        if name not in _columns(fields) and (told := "members of staff" if is_staff(name) else identifying(name))
    }
    spare = [name for name in looked.names if name not in _columns(fields) and name not in people]
    missing = [word for word in MISSING if any(word in values for values in looked.values.values())]
    lines = [head(dataset.name, table.kind, file)]
    if guessed:
        lines.append("# The dataset was guessed from the names of the columns; say --dataset if it is another.\n")
    for name in ("encoding", "sheet", "header_row"):
        if value := getattr(table.mapping, name):
            lines.append(f"{name} = {json.dumps(value)}\n")
    if together:
        lines.append("# Rows repeat what is said of one of these: they count once.\ndistinct = true\n")
    lines.append("# Words that mean that there is no value.\n")
    lines.append(f"missing = {listed(missing)}\n\n")
    lines.append(excluded(people, spare))
    for field in dataset.fields:
        if field.name in fields:
            lines.append(_column(field, fields[field.name], looked, missing, table.labels))
        elif field.name == "lot_no" and KEY in fields:
            own = Guess(fields[KEY].column, 1.0, "the same as the id")
            lines.append(_column(field, own, looked, missing, table.labels))
        elif field.required:
            lines.append(_lacking(field, dataset, fields))
    return "".join(lines)


def excluded(people: dict[str, str], spare: Sequence[str]) -> str:
    """The columns that are not read, with why."""
    lines = [
        "# Columns that are not read. Those that tell of persons must stay here, or leave the file.\n",
        "exclude = [\n",
    ]
    lines += [f"    {json.dumps(name, ensure_ascii=False)},  # looks like {told}\n" for name, told in people.items()]
    unnamed = [name for name in spare if UNNAMED.fullmatch(name)]
    lines += ['    "",  # columns without a name, such as the row names of R\n'] if unnamed else []
    lines += [
        f"    {json.dumps(name, ensure_ascii=False)},  # no field looks like it\n"
        for name in spare
        if name not in unnamed
    ]
    return "".join([*lines, "]\n"])


def _column(field: Field, guess: Guess, looked: Looked, missing: Sequence[str], labels: Labels) -> str:
    column = guess.column
    told = [value for value in looked.values[column] if value not in missing]
    lines = [f"\n# {field.title}{f' ({field.unit})' if field.unit else ''}\n", f"[columns.{field.name}]\n"]
    unsure = guess.score < _SURE and "values look like" not in guess.why
    why = f"  # {'? ' if unsure else ''}{guess.why}" if guess.why else ""
    lines.append(f"from = {json.dumps(column, ensure_ascii=False)}{why}\n")
    if _are_ages(field, told):
        return "".join([*lines, *_ages(column, told)])
    if field.unit and (unit := unit_in(column)):
        known = units.conversion(unit, field.unit) is not None
        lines.append(f"{'' if known else '# '}unit = {json.dumps(unit, ensure_ascii=False)}\n")
        lines += [] if known else [f"# ? There is no way known from {unit} to {field.unit}.\n"]
    if field.type is FieldType.DATE:
        lines += _dates(told)
    if field.type in (FieldType.NUMBER, FieldType.INTEGER) and column not in looked.typed:
        lines += decimals(told)
    if field.many and (mark := next((m for m in ("|", ",", "/") if any(m in value for value in told)), "")):
        lines.append(f"split = {json.dumps(mark)}\n")
        told = sorted({part.strip() for value in told for part in value.split(mark)})
    return "".join([*lines, *_codes(field, told, labels)])


_SURE = 0.85
"""From this likeness on a person need not look at a guess."""


def _are_ages(field: Field, told: Sequence[str]) -> bool:
    ranges = "0-4" in field.values and "90+" in field.values
    return ranges and share(told, lambda value: re.fullmatch(r"\d{1,3}([.,]\d+)?", value)) > 0.5


def _ages(column: str, told: Sequence[str]) -> list[str]:
    unit = unit_in(column)
    lines = ["ages = true\n", *([f"unit = {json.dumps(unit)}\n"] if unit and units.ucum(unit) != "a" else [])]
    if any("," in value for value in told):
        lines.append('decimal = ","\n')
    others = [value for value in told if not re.fullmatch(r"\d{1,3}([.,]\d+)?", value)]
    if others:
        lines.append(f"missing = {listed(others[:CODES])}  # ? these are no ages\n")
    return lines


def decimals(told: Sequence[str]) -> list[str]:
    """How decimals are written."""
    commas = [value for value in told if "," in value]
    if commas and all(re.fullmatch(r"[^,]*(,\d{3})+", value) for value in commas):
        return ['# decimal = ","  # ? do commas part decimals here, or thousands? Take those out of the file\n']
    points = [value for value in told if "." in value]
    if points and not commas and all(re.fullmatch(GROUPED, value) for value in points):
        one = points[0]
        return [f'# decimal = ","  # ? is {one} here {one.replace(".", "")}, with points between thousands?\n']
    return ['decimal = ","\n'] if commas and share(told, is_number) > 0.9 else []


def _codes(field: Field, told: Sequence[str], labels: Labels) -> list[str]:
    codes = meanings(told[:CODES], field, labels)
    if not codes:
        return []
    allowed = f"Terms of {' or '.join(field.ontologies)}" if field.ontologies else f"Allowed: {', '.join(field.values)}"
    if field.type is FieldType.BOOLEAN:
        allowed = "Allowed: yes, no"
    elif field.form is not None and not field.values:
        allowed = f"Write {field.form.what}"
    open_codes = [code for code, meaning in codes.items() if meaning == "?"]
    asks = " Replace every ?, or write '' for missing." if open_codes else ""
    lines = [f"# {allowed}.{asks}\n", f"[columns.{field.name}.values]\n"]
    return lines + [
        f"{json.dumps(code, ensure_ascii=False)} = {json.dumps(meaning)}{'  # ?' if meaning == '?' else ''}\n"
        for code, meaning in codes.items()
    ]


def _dates(told: Sequence[str]) -> list[str]:
    if not told or all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) for value in told):
        return []
    fit = [form for form in _DATES if all(_is_date(value, form) for value in told)]
    if fit:
        also = f"  # ? or {' or '.join(fit[1:])}: see which" if len(fit) > 1 else ""
        return [f"date = {json.dumps(fit[0])}{also}\n"]
    short = [form for form in _SHORT_DATES if all(_is_date(value, form) for value in told)]
    if short:
        return [
            f"# date = {json.dumps(short[0])}  # ? years have two digits: 68 would become 2068, and 69 1969\n",
            *(f"# date = {json.dumps(form)}  # ? or so\n" for form in short[1:]),
        ]
    return ['# date = "%d.%m.%Y"  # ? how days are written here was not found\n']


def _is_date(value: str, form: str) -> bool:
    if "%Y" in form and not re.search(r"(?<!\d)\d{4}(\d{4})?(?!\d)", value):
        return False  # Python would read 241112 as a day of the year 2411
    try:
        datetime.datetime.strptime(value, form)  # noqa: DTZ007 - a day has no time zone
    except ValueError:
        return False
    return True


def _lacking(field: Field, dataset: Dataset, fields: Mapping[str, Guess]) -> str:
    lines = [f"\n# ? Required, and no column looks like it: {field.title}\n"]
    if field.name == KEY and dataset.name == "lots" and "lot_no" in fields:
        column = json.dumps(fields["lot_no"].column, ensure_ascii=False)
        return "".join([*lines, f"[columns.{field.name}]\nfrom = {column}  # ? if lot numbers are unique here\n"])
    if field.name == KEY and not dataset.introduces_donors:
        prefix = json.dumps("".join(word[0] for word in dataset.name.split("_")).upper() + "-")
        numbered = f"numbered = true  # ? rows have no id of their own: they are numbered\nprefix = {prefix}\n"
        return "".join([*lines, f"[columns.{field.name}]\n{numbered}"])
    allowed = f"  # one of {', '.join(field.values)}" if field.values else ""
    return "".join([*lines, f'# [columns.{field.name}]\n# from = "..."  # or: constant = "..."{allowed}\n'])


def share(values: Sequence[str], holds: Callable[[str], object]) -> float:
    """The share of values of which something holds."""
    return sum(1 for value in values if holds(value)) / len(values) if values else 0.0


def is_number(value: str) -> bool:
    """Whether a text is a number as people write them, or a word for none."""
    return value in MISSING or bool(re.fullmatch(r"[+-]?(\d*[.,]?\d+([eE][+-]?\d+)?|\d{1,3}(\.\d{3})+(,\d+)?)", value))


def head(dataset: str, kind: FileFormat, file: File) -> str:
    """The lines that each draft begins with."""
    return (
        f"# How {file.name} becomes {dataset}. Drafted by connexon-node map: read it, mend it, then try\n"
        f"#   connexon-node import DIR {dataset} {shlex.quote(file.name)} --mapping THIS --dry-run\n"
        f"dataset = {json.dumps(dataset)}\nformat = {json.dumps(kind.value)}\n"
    )


def same(name: str) -> str:
    """A line that gives a name to itself."""
    return f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(name, ensure_ascii=False)}\n"


def listed(words: Sequence[str]) -> str:
    """A list in TOML."""
    return json.dumps(list(words), ensure_ascii=False)
