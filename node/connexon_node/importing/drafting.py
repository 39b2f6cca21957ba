"""Draft a mapping file by looking at a file: nearest names, units, codes, dates, words for missing. It asks nothing."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any as Connection

import duckdb

from connexon_node.data.dictionary import Dictionary, patterns
from connexon_node.importing import drafting_tables as tables
from connexon_node.importing import formats, headers
from connexon_node.importing.drafting_tables import (
    MISSING,
    Labels,
    Looked,
    decimals,
    excluded,
    head,
    is_number,
    listed,
    same,
    share,
)
from connexon_node.importing.errors import FileRefused
from connexon_node.importing.formats import matrix
from connexon_node.importing.mapping import Mapping
from connexon_node.importing.pseudonymity import identifying
from connexon_node.importing.reader.protocol import Drafted, DraftMapping
from connexon_node.importing.relation import Reading, Relation
from connexon_node.importing.similarity import nearest_dataset
from connexon_node.importing.sources import File, FileFormat, begun, format_of, inspect, plain_text
from connexon_node.importing.sql import quoted

LOOKED_AT = 5_000
"""Rows looked at; values that come later are not in the draft, and then meet the dictionary's checks."""
_MATRICES = {"protein_abundance": patterns.UNIPROT, "expression": patterns.ENSEMBL, "methylation": patterns.PROBE}


def draft(
    file: Path,
    dictionary: Dictionary,
    *,
    dataset: str = "",
    mapping: Mapping,
    named: FileFormat | None,
    labels: Labels | None = None,
) -> dict[str, str]:
    """Mapping files by dataset, as TOML with comments: several where the file holds several datasets, parents first.

    `mapping` holds the encoding and sheet, `labels` the terms of the center's ontologies by label (see
    similarity.label_key). Raises FileRefused, NotFound.
    """
    from connexon_node.importing.reader.process import Reader  # the reader, which is here too, does without

    kind = format_of(file, named)
    with tempfile.TemporaryDirectory() as scratch:
        return Reader(Path(scratch)).draft(file, kind, mapping, dictionary, dataset, labels or {})


def drafted(job: DraftMapping, connection: Connection) -> Drafted:
    """The reader's part of it."""
    texts = _drafted(job, connection)
    return Drafted(texts=texts if isinstance(texts, dict) else {"": texts})


def _drafted(job: DraftMapping, connection: Connection) -> str | dict[str, str]:
    file, kind, dataset = job.file, job.file_format, job.dataset
    wanted = job.dictionary.dataset(dataset) if dataset else None
    if kind is FileFormat.VCF:
        return _variants(file)
    if kind is FileFormat.H5AD:
        return _cells(file)
    if kind is FileFormat.PHENOPACKETS:
        return head("donors", kind, file) + _PACKETS
    looked, shape, mapping = _look(job, connection)
    if kind is FileFormat.SDTM or {"STUDYID", "DOMAIN", "USUBJID"} <= set(looked.names):
        return _sdtm(file, looked)
    if kind is FileFormat.MATRIX or (shape and wanted is None) or (shape and wanted and wanted.name == shape):
        return _matrix(file, looked, shape or dataset or "protein_abundance")
    chosen = wanted or nearest_dataset(looked.names, job.dictionary.datasets)
    table = tables.Table(file, kind, looked, mapping, job.labels)
    return tables.drafts(table, chosen, job.dictionary, guessed=wanted is None)


def _look(job: DraftMapping, connection: Connection) -> tuple[Looked, str, Mapping]:
    """The columns and values of a table, the dataset whose wide matrix it looks like, and the mapping to read it."""
    file, kind, mapping, here = job.file, job.file_format, job.mapping, Path()
    tabular = FileFormat.TSV if kind is FileFormat.MATRIX and file.name.endswith(".tsv") else kind
    tabular = FileFormat.CSV if tabular in (FileFormat.MATRIX, FileFormat.SDTM) else tabular
    source = inspect(file.path, tabular, mapping.encoding, name=file.name)
    plain = plain_text(source, here)
    if not mapping.header_row and (row := _header_row(job, plain)) > 1:
        mapping = mapping.model_copy(update={"header_row": row})
    begun_at, before = begun(plain, source, mapping.header_row, here)
    reading = Reading(source, here, connection, job.dictionary.datasets[0], mapping, begun_at, before=before)
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
    return Looked(relation.names, values, typed), _shape(relation.names, values), mapping


def _header_row(job: DraftMapping, plain: Path) -> int:
    """The line at which the header seems to stand."""
    if job.file_format in (FileFormat.CSV, FileFormat.TSV):
        if headers.lines_before(plain, 0):
            return 0
        return headers.likely_line(plain, tabs=job.file_format is FileFormat.TSV)
    if job.file_format is FileFormat.EXCEL:
        from connexon_node.importing.formats import excel

        return excel.likely_header_row(job.file.path, job.mapping.sheet, job.file.name)
    return 0


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
    numeric = len([name for name in names[1:] if share(values[name], is_number) > 0.9])
    if len(names) < 4 or numeric < 0.6 * (len(names) - 1):
        return ""
    return next((one for one, form in _MATRICES.items() if share(first, re.compile(form.pattern).fullmatch) > 0.5), "")


def _matrix(file: File, looked: Looked, dataset: str) -> str:
    samples = [name for name in looked.names[1:] if share(looked.values[name], is_number) > 0.9]
    spare = [name for name in looked.names[1:] if name not in samples]
    counts = [name for name in samples if re.match(r"(?i)n[A-Z_ ]|count|number|total|length|score|p_?val", name)]
    samples = [name for name in samples if name not in counts]
    value = matrix.FIELDS[dataset][1] if dataset in matrix.FIELDS else ""
    written = decimals([one for name in samples for one in looked.values[name] if one not in MISSING])
    lines = [
        head(dataset, FileFormat.MATRIX, file),
        '# The same file makes the samples themselves: copy this file, write dataset = "samples", and say of each\n'
        '# column its lot under [columns.lot_id] with from = "column" and values, and kind as a constant.\n',
        f"missing = {listed([word for word in MISSING if any(word in v for v in looked.values.values())])}\n",
        excluded({}, [*spare, *counts]),
        *([f'\n[columns.{value}]\nfrom = "{value}"\n', *written] if value and written else []),
        "\n[matrix]\n",
        f"feature = {json.dumps(looked.names[0], ensure_ascii=False)}\n",
        '# Column with gene symbols, where there is one.\n# gene = ""\n',
        "zero_is_not_detected = true\n\n# Column of the file = sample at the center.\n[matrix.samples]\n",
    ]
    return "".join([*lines, *(same(name) for name in samples)])


def _variants(file: File) -> str:
    from connexon_node.importing.formats import vcf

    header = vcf.header(file.path, file.name)
    found = sorted(vcf.header_assemblies(header))
    told = (
        f"assembly = {json.dumps(found[0])}  # as the header says\n" if len(found) == 1 else '# assembly = "GRCh38"\n'
    )
    names = "".join(same(name) for name in vcf.sample_names(file.path, file.name))
    return (
        f"{head('variants', FileFormat.VCF, file)}\n[vcf]\n{told}"
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
        f"{head('expression', FileFormat.H5AD, file)}\n[h5ad]\n# counts are added up and become log2CPM; "
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
        f"{head(dataset, FileFormat.SDTM, file)}\n{excluded(people, [])}\n[sdtm]\n"
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
