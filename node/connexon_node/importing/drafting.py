"""Draft a mapping file by looking at a file: nearest names, units, codes, dates, words for missing. It asks nothing."""

from __future__ import annotations

import datetime
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any as Connection

import duckdb

from connexon_node.data.dictionary import Dataset, Dictionary, Field, FieldType, patterns
from connexon_node.importing import formats, units
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import matrix
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.numbers import GROUPED
from connexon_node.importing.pseudonymity import identifying
from connexon_node.importing.reader.protocol import Drafted, DraftMapping
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.similarity import matched, meanings, nearest_dataset, unit_in
from connexon_node.importing.sources import File, FileFormat, format_of, inspect, plain_text
from connexon_node.importing.sql import quoted

LOOKED_AT = 5_000
"""Rows looked at; values that come later are not in the draft, and then meet the dictionary's checks."""
CODES = 60
"""Codes of one column that are listed."""
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%b-%Y", "%d %B %Y", "%Y%m%d", "%d-%m-%Y")
_SHORT_DATES = ("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d", "%d-%b-%y", "%y%m%d", "%d-%m-%y", "%y-%m-%d")
_MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", "--", ".", "#N/A", "n.d.", "k.A.")
_MATRICES = {"protein_abundance": patterns.UNIPROT, "expression": patterns.ENSEMBL, "methylation": patterns.PROBE}


@dataclass(frozen=True)
class Looked:
    """What a look at a table showed: its columns, and of each the different values that are not empty.

    The values of the columns `typed` are numbers in the file and no texts.
    """

    names: tuple[str, ...]
    values: dict[str, list[str]]
    typed: frozenset[str]


def draft(file: Path, dictionary: Dictionary, *, dataset: str = "", mapping: Mapping, named: FileFormat | None) -> str:
    """A mapping file, as TOML with comments. `mapping` holds the encoding and sheet. Raises FileRefused, NotFound."""
    from connexon_node.importing.reader.process import Reader  # the reader, which is here too, does without

    kind = format_of(file, named)
    with tempfile.TemporaryDirectory() as scratch:
        return Reader(Path(scratch)).draft(file, kind, mapping, dictionary, dataset)


def drafted(job: DraftMapping, connection: Connection) -> Drafted:
    """The reader's part of it."""
    return Drafted(text=_drafted(job, connection))


def _drafted(job: DraftMapping, connection: Connection) -> str:
    file, kind, dataset = job.file, job.file_format, job.dataset
    wanted = job.dictionary.dataset(dataset) if dataset else None
    if kind is FileFormat.VCF:
        return _variants(file)
    if kind is FileFormat.H5AD:
        return _cells(file)
    if kind is FileFormat.PHENOPACKETS:
        return _head("donors", kind, file) + _PACKETS
    looked, shape = _look(job, connection)
    if kind is FileFormat.SDTM or {"STUDYID", "DOMAIN", "USUBJID"} <= set(looked.names):
        return _sdtm(file, looked)
    if kind is FileFormat.MATRIX or (shape and wanted is None) or (shape and wanted and wanted.name == shape):
        return _matrix(file, looked, shape or dataset or "protein_abundance")
    chosen = wanted or nearest_dataset(looked.names, job.dictionary.datasets)
    return _table(file, kind, looked, chosen, job.mapping, guessed=wanted is None)


def _look(job: DraftMapping, connection: Connection) -> tuple[Looked, str]:
    """The columns and values of a table, and the dataset whose wide matrix it looks like."""
    file, kind, mapping, here = job.file, job.file_format, job.mapping, Path()
    tabular = FileFormat.TSV if kind is FileFormat.MATRIX and file.name.endswith(".tsv") else kind
    tabular = FileFormat.CSV if tabular in (FileFormat.MATRIX, FileFormat.SDTM) else tabular
    source = inspect(file.path, tabular, mapping.encoding, name=file.name)
    reading = Reading(source, here, connection, job.dictionary.datasets[0], mapping, plain_text(source, here))
    try:
        relation = formats.open_relation(reading)
        columns = ", ".join(f"{relation.texts.get(name, quoted(name))} AS {quoted(name)}" for name in relation.names)
        connection.execute(f"CREATE TABLE looked AS SELECT {columns} FROM {relation.table} LIMIT {LOOKED_AT}")
    except duckdb.Error as error:
        if reading.failures:
            raise reading.failures[0] from error
        raise FileRefused(f"{file.name} cannot be read: {str(error).splitlines()[0][:200]}") from error
    values = {name: _distinct(connection, name) for name in relation.names}
    typed = frozenset(relation.names if kind is FileFormat.EXCEL else _typed(connection, relation))
    return Looked(relation.names, values, typed), _shape(relation.names, values)


def _distinct(connection: Connection, name: str) -> list[str]:
    column = f"trim({quoted(name)})"
    found = connection.execute(
        f"SELECT {column}, count(*) FROM looked WHERE {column} <> '' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {LOOKED_AT}"
    ).fetchall()
    return [str(value) for value, _count in found]


def _typed(connection: Connection, relation: Relation) -> list[str]:
    """The columns of which every value is a number in the file, where the format tells numbers and texts apart."""
    if not relation.numbers:
        return []
    each = ", ".join(
        f"bool_and({holds}) FILTER (WHERE {relation.texts.get(name, quoted(name))} IS NOT NULL)"
        for name, holds in relation.numbers.items()
    )
    (found,) = connection.execute(f"SELECT {each} FROM {relation.table}").fetchall()
    return [name for name, holds in zip(relation.numbers, found, strict=True) if holds]


def _shape(names: Sequence[str], values: dict[str, list[str]]) -> str:
    """The dataset whose wide matrix this is: accessions first, then mostly numbers."""
    first = [re.sub(r"\.\d+$", "", value) for value in values[names[0]][:200]]
    numeric = len([name for name in names[1:] if _share(values[name], _is_number) > 0.9])
    if len(names) < 4 or numeric < 0.6 * (len(names) - 1):
        return ""
    return next((one for one, form in _MATRICES.items() if _share(first, re.compile(form.pattern).fullmatch) > 0.5), "")


def _share(values: Sequence[str], holds: Callable[[str], object]) -> float:
    return sum(1 for value in values if holds(value)) / len(values) if values else 0.0


def _is_number(value: str) -> bool:
    return value in _MISSING or bool(re.fullmatch(r"[+-]?(\d*[.,]?\d+([eE][+-]?\d+)?|\d{1,3}(\.\d{3})+(,\d+)?)", value))


def _table(file: File, kind: FileFormat, looked: Looked, dataset: Dataset, mapping: Mapping, *, guessed: bool) -> str:
    people = {name: told for name in looked.names if name not in dataset.names and (told := identifying(name))}
    fields = matched([name for name in looked.names if name not in people], dataset)
    if guessed and not fields:
        raise FileRefused(f"No dataset has columns like those of {file.name}; say which with --dataset.")
    spare = [name for name in looked.names if name not in fields.values() and name not in people]
    missing = [word for word in _MISSING if any(word in values for values in looked.values.values())]
    lines = [_head(dataset.name, kind, file)]
    if guessed:
        lines.append("# The dataset was guessed from the names of the columns; say --dataset if it is another.\n")
    for name, value in (("encoding", mapping.encoding), ("sheet", mapping.sheet)):
        if value:
            lines.append(f"{name} = {json.dumps(value)}\n")
    lines.append("# Words that mean that there is no value.\n")
    lines.append(f"missing = {_list(missing)}\n\n")
    lines.append(_excluded(people, spare))
    for field in dataset.fields:
        if field.name in fields:
            lines.append(_column(field, fields[field.name], looked, missing))
    lines += [_lacking(field) for field in dataset.fields if field.required and field.name not in fields]
    return "".join(lines)


def _excluded(people: dict[str, str], spare: Sequence[str]) -> str:
    lines = [
        "# Columns that are not read. Those that tell of persons must stay here, or leave the file.\n",
        "exclude = [\n",
    ]
    lines += [f"    {json.dumps(name, ensure_ascii=False)},  # looks like {told}\n" for name, told in people.items()]
    lines += [f"    {json.dumps(name, ensure_ascii=False)},  # no field looks like it\n" for name in spare]
    return "".join([*lines, "]\n"])


def _column(field: Field, column: str, looked: Looked, missing: Sequence[str]) -> str:
    told = [value for value in looked.values[column] if value not in missing]
    lines = [f"\n# {field.title}{f' ({field.unit})' if field.unit else ''}\n", f"[columns.{field.name}]\n"]
    lines.append(f"from = {json.dumps(column, ensure_ascii=False)}\n")
    if field.unit and (unit := unit_in(column)):
        known = units.conversion(unit, field.unit) is not None
        lines.append(f"{'' if known else '# '}unit = {json.dumps(unit, ensure_ascii=False)}\n")
        lines += [] if known else [f"# There is no way known from {unit} to {field.unit}.\n"]
    if field.type is FieldType.DATE:
        lines += _dates(told)
    if field.type in (FieldType.NUMBER, FieldType.INTEGER) and column not in looked.typed:
        lines += _decimals(told)
    if field.many and (mark := next((m for m in ("|", ",", "/") if any(m in value for value in told)), "")):
        lines.append(f"split = {json.dumps(mark)}\n")
        told = sorted({part.strip() for value in told for part in value.split(mark)})
    return "".join([*lines, *_codes(field, told)])


def _decimals(told: Sequence[str]) -> list[str]:
    commas = [value for value in told if "," in value]
    if commas and all(re.fullmatch(r"[^,]*(,\d{3})+", value) for value in commas):
        return ['# decimal = ","  # do commas part decimals here, or thousands? Take those out of the file\n']
    points = [value for value in told if "." in value]
    if points and not commas and all(re.fullmatch(GROUPED, value) for value in points):
        one = points[0]
        return [f'# decimal = ","  # is {one} here {one.replace(".", "")}, with points between thousands?\n']
    return ['decimal = ","\n'] if commas and _share(told, _is_number) > 0.9 else []


def _codes(field: Field, told: Sequence[str]) -> list[str]:
    codes = meanings(told[:CODES], field)
    if not codes:
        return []
    allowed = f"Terms of {' or '.join(field.ontologies)}" if field.ontologies else f"Allowed: {', '.join(field.values)}"
    lines = [f"# {allowed}; replace every ?, or write '' for missing.\n"]
    lines.append(f"[columns.{field.name}.values]\n")
    lines += [f"{json.dumps(code, ensure_ascii=False)} = {json.dumps(meaning)}\n" for code, meaning in codes.items()]
    return lines


def _dates(told: Sequence[str]) -> list[str]:
    if not told or all(re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) for value in told):
        return []
    fit = [form for form in _DATES if all(_is_date(value, form) for value in told)]
    if fit:
        also = f"  # or {' or '.join(fit[1:])}: see which" if len(fit) > 1 else ""
        return [f"date = {json.dumps(fit[0])}{also}\n"]
    short = [form for form in _SHORT_DATES if all(_is_date(value, form) for value in told)]
    if short:
        return [
            f"# date = {json.dumps(short[0])}  # years have two digits: 68 would become 2068, and 69 1969\n",
            *(f"# date = {json.dumps(form)}  # or so\n" for form in short[1:]),
        ]
    return ['# date = "%d.%m.%Y"  # how days are written here was not found\n']


def _is_date(value: str, form: str) -> bool:
    if "%Y" in form and not re.search(r"(?<!\d)\d{4}(\d{4})?(?!\d)", value):
        return False  # Python would read 241112 as a day of the year 2411
    try:
        datetime.datetime.strptime(value, form)  # noqa: DTZ007 - a day has no time zone
    except ValueError:
        return False
    return True


def _lacking(field: Field) -> str:
    return (
        f"\n# Required, and no column looks like it: {field.title}\n"
        f'# [columns.{field.name}]\n# from = "..."  # or: constant = "..."\n'
    )


def _matrix(file: File, looked: Looked, dataset: str) -> str:
    samples = [name for name in looked.names[1:] if _share(looked.values[name], _is_number) > 0.9]
    spare = [name for name in looked.names[1:] if name not in samples]
    counts = [name for name in samples if re.match(r"(?i)n[A-Z_ ]|count|number|total|length|score|p_?val", name)]
    samples = [name for name in samples if name not in counts]
    value = matrix.FIELDS[dataset][1] if dataset in matrix.FIELDS else ""
    decimals = _decimals([one for name in samples for one in looked.values[name] if one not in _MISSING])
    lines = [
        _head(dataset, FileFormat.MATRIX, file),
        '# The same file makes the samples themselves: copy this file, write dataset = "samples", and say of each\n'
        '# column its lot under [columns.lot_id] with from = "column" and values, and kind as a constant.\n',
        f"missing = {_list([word for word in _MISSING if any(word in v for v in looked.values.values())])}\n",
        _excluded({}, [*spare, *counts]),
        *([f'\n[columns.{value}]\nfrom = "{value}"\n', *decimals] if value and decimals else []),
        "\n[matrix]\n",
        f"feature = {json.dumps(looked.names[0], ensure_ascii=False)}\n",
        '# Column with gene symbols, where there is one.\n# gene = ""\n',
        "zero_is_not_detected = true\n\n# Column of the file = sample at the center.\n[matrix.samples]\n",
    ]
    return "".join([*lines, *(_same(name) for name in samples)])


def _variants(file: File) -> str:
    from connexon_node.importing.formats import vcf

    header = vcf.header(file.path, file.name)
    found = sorted(vcf.header_assemblies(header))
    told = (
        f"assembly = {json.dumps(found[0])}  # as the header says\n" if len(found) == 1 else '# assembly = "GRCh38"\n'
    )
    names = "".join(_same(name) for name in vcf.sample_names(file.path, file.name))
    return (
        f"{_head('variants', FileFormat.VCF, file)}\n[vcf]\n{told}"
        "# Calls that failed a filter are left out and counted. To load them like those that passed:\n"
        "# keep_failed = true\n\n"
        "# Sample of the file = sample at the center. Samples that are not listed are left out.\n"
        f"[vcf.samples]\n{names}"
    )


def _cells(file: File) -> str:
    from connexon_node.importing.formats import h5ad

    columns, layers = h5ad.contents(file.path, file.name)
    kinds = [name for name in columns if re.search(r"cell_?type|cluster|annotation", name, re.IGNORECASE)]
    samples = [name for name in columns if re.search(r"sample|donor|library|batch|line", name, re.IGNORECASE)]
    counts = [name for name in layers if "count" in name.lower() or "raw" in name.lower()]
    return (
        f"{_head('expression', FileFormat.H5AD, file)}\n[h5ad]\n# counts are added up and become log2CPM; "
        'log2CPM and log2TPM are taken as they are.\nkind = "counts"\n'
        f"# Layers: {', '.join(layers) or 'none'}; empty: X.\nlayer = {json.dumps(counts[0] if counts else '')}\n"
        f"# Columns of obs: {', '.join(columns)}\n"
        "# Empty: every observation is a sample.\n"
        f"sample = {json.dumps(samples[0] if samples else '')}\ncell_type = {json.dumps(kinds[0] if kinds else '')}\n"
        "minimum_cells = 10\n\n# Sample, or 'sample|cell type', = sample at the center.\n[h5ad.samples]\n"
    )


def _sdtm(file: File, looked: Looked) -> str:
    domain = looked.values["DOMAIN"][0].upper() if looked.values.get("DOMAIN") else ""
    dataset = {"DM": "subjects", "AE": "adverse_events", "EX": "treatments", "DS": "survival"}.get(domain, "outcomes")
    people = {name: told for name in looked.names if (told := identifying(name))}
    return (
        f"{_head(dataset, FileFormat.SDTM, file)}\n{_excluded(people, [])}\n[sdtm]\n"
        "# File with RFSTDTC, day 0 of every subject, beside this one.\n"
        'demographics = "dm.csv"\n# Id of the trial at the center, once it is imported.\n# trial = ""\n'
        "# Domains have no CTCAE grade, but a severity: say what it means at your center, if anything.\n"
        '# [columns.grade_ctcae]\n# from = "AESEV"\n# values = { MILD = "1", MODERATE = "2", SEVERE = "3" }\n'
    )


_PACKETS = """
# Diseases of other vocabularies, and what they are in MONDO; replace or add.
# [columns.primary_disease_term]
# from = "primary_disease_term"
# values = { "OMIM:105400" = "MONDO:0004976" }
"""


def _head(dataset: str, kind: FileFormat, file: File) -> str:
    return (
        f"# How {file.name} becomes {dataset}. Drafted by connexon-node map: read it, mend it, then try\n"
        f"#   connexon-node import DIR {dataset} {file.name} --mapping THIS --dry-run\n"
        f"dataset = {json.dumps(dataset)}\nformat = {json.dumps(kind.value)}\n"
    )


def _same(name: str) -> str:
    return f"{json.dumps(name, ensure_ascii=False)} = {json.dumps(name, ensure_ascii=False)}\n"


def _list(words: Sequence[str]) -> str:
    return json.dumps(list(words), ensure_ascii=False)
