"""Wide matrices: one feature on each line, one sample in each column. They become one row per feature and sample."""

from __future__ import annotations

from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats.delimited import require_once, scan
from connexon_node.importing.mapping import Column, Written, expression
from connexon_node.importing.numbers import no_number, number
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.sources import header_of
from connexon_node.importing.sql import quoted, text

SAMPLES = "samples"
FIELDS = {
    "protein_abundance": ("uniprot", "intensity"),
    "expression": ("ensembl_id", "value"),
    "methylation": ("probe_id", "beta"),
}
"""The dataset's field of the feature, and that of the value."""


def relation(reading: Reading) -> Relation:
    """The matrix as long rows, or its samples where the dataset is `samples`. An empty value makes no row.

    Of protein abundances, 0 means not detected, unless the mapping says otherwise. The steps of the mapping come before
    it is seen whether a value is empty or 0.
    """
    header, delimiter = header_of(reading.plain, reading.source.file_format, reading.source.name)
    require_once(header, reading.source.name)
    samples = _samples(reading, header)
    if reading.dataset.name == SAMPLES:
        rows = ", ".join(f"({text(sample)}, {text(column)})" for column, sample in samples.items())
        return Relation(("id", "column"), f'(VALUES {rows}) AS samples(id, "column")', ready=True)
    if reading.dataset.name not in FIELDS:
        raise FileRefused(
            f"A matrix becomes {', '.join(FIELDS)} or {SAMPLES}, not {reading.dataset.name}.", code="import.unfit"
        )
    return _long(reading, header, scan(reading.plain, header, delimiter), samples)


def _long(reading: Reading, header: list[str], table: str, samples: dict[str, str]) -> Relation:
    options = reading.mapping.matrix
    feature, value = FIELDS[reading.dataset.name]
    column = options.feature or header[0]
    gene = quoted(options.gene) if options.gene else "NULL::VARCHAR"
    skip = [f"NOT starts_with(coalesce(trim(_feature), ''), {text(options.comment)})"] if options.comment else []
    if options.skip:
        skip.append(f"_feature NOT IN ({', '.join(map(text, options.skip))})")
    wanted = ", ".join(quoted(name) for name in samples)
    named = f"{quoted(column)} AS _feature, {gene} AS _gene, {wanted}"
    records = f"SELECT row_number() OVER () + 1 AS _line, {named} FROM {table}"
    kept = f"SELECT * FROM ({records}) WHERE {' AND '.join(skip) or 'true'}"
    names = " ".join(f"WHEN {text(name)} THEN {text(sample)}" for name, sample in samples.items())
    made = {
        "sample_id": f"CASE _column {names} END",
        feature: "regexp_replace(_feature, '\\.\\d+$', '')" if feature == "ensembl_id" else "_feature",
        "gene_symbol": "_gene",
        value: "_value",
    }
    if feature == "uniprot":
        is_zero = f"coalesce(NOT ({no_number('_read')}) AND {number('_read')} = 0, false)"
        zero = is_zero if options.zero_is_not_detected else "false"
        made[value] = f"CASE WHEN {zero} THEN NULL ELSE _value END"
        made["detected"] = f"CASE WHEN {zero} THEN 'false' ELSE 'true' END"
    columns = ", ".join(f"{sql} AS {name}" for name, sql in made.items())
    long = f"UNPIVOT ({kept}) ON {wanted} INTO NAME _column VALUE _value"
    read = f"SELECT *, {_read(reading, value)} AS _read FROM ({long})"
    return Relation(
        tuple(made),
        f"(SELECT {columns}, _line FROM ({read}) WHERE _read IS NOT NULL)",
        line="_line",
        ready=True,
    )


def _read(reading: Reading, value: str) -> str:
    """SQL of a cell as the mapping reads it, by which it is told whether it is empty or zero."""
    mapping = reading.mapping
    column = mapping.columns.get(value)
    if column is None or column.sources != [value]:
        column = Column(source=value)
    of_cell = column.model_copy(update={"source": "_value", "prefix": ""})
    missing = mapping.missing or ["NA", "NaN"]
    return expression(of_cell, reading.dataset.field(value), missing, Written({}, {}))


def _samples(reading: Reading, header: list[str]) -> dict[str, str]:
    options, file = reading.mapping.matrix, reading.source.name
    named = [name for name in (options.feature or header[0], options.gene) if name]
    rest = [name for name in header if name not in named and not reading.mapping.excludes(name)]
    lacking = [name for name in (*named, *options.samples) if name not in header]
    if lacking:
        raise FileRefused(f"{file} has no column {lacking[0]!r} that the mapping names.", code="import.mapping")
    if not options.samples:
        return {name: name for name in rest}
    unknown = [name for name in rest if name not in options.samples]
    if unknown:
        raise FileRefused(
            f"{file} has a column {unknown[0]!r} that is no sample of the mapping; exclude it or name its sample.",
            code="import.columns",
        )
    return dict(options.samples)
