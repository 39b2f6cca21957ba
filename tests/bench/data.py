"""Omics by the million beside the same work straight in DuckDB: one feature by cell type, joins, and imports.

The omics rows are laid down as an import leaves them (integer codes, sorted by feature, in a published generation);
the importer is measured by itself on a smaller file.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any as Connection

import duckdb
import numpy
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from connexon.analyses.count import Count
from connexon.conditions import where
from connexon_node.data.generations import Contents, Generation
from connexon_node.importing import ImportOptions
from connexon_node.pipeline.values import CellTable
from connexon_node.settings import EngineSection
from tests.bench.engine import beside
from tests.bench.figures import Report, timed
from tests.support.center import SmallCenter, ask

SAMPLES = 5_000
CELL_TYPES = ("CL:0000540", "CL:0000127", "CL:0000700", "CL:0000100", "CL:0002248", "CL:0000746", "CL:0000182")
ROW_GROUP = 122_880
FEATURE = "ENSG00000000777"
LIMITS = EngineSection(memory="4GB", threads=2)
Groups = set[tuple[object, ...]]


def measure(report: Report, *, quick: bool) -> None:
    """Questions over omics rows, then imports."""
    donors, features, runs = (5_000, 1_000, 10) if quick else (1_000_000, 20_000, 25)
    with tempfile.TemporaryDirectory() as folder:
        center = SmallCenter(Path(folder) / "node", limits=LIMITS)
        try:
            center.load_sample(donors)
            _load_samples(center)
            generation = _lay_down(center, features)
            size = f"{generation.rows:,} omics rows ({generation.bytes / 2**20:,.0f} MB)"
            _ask(report, center, size, runs)
            _import_csv(report, center, 200_000 if quick else 10_000_000)
            _import_vcf(report, center, 20_000 if quick else 1_000_000)
        finally:
            center.close()


def _load_samples(center: SmallCenter) -> None:
    lots = current(center, "lots")
    (found,) = [duckdb.execute("SELECT id FROM read_parquet(?) ORDER BY id", [parts(lots)]).fetchall()]
    rows = [
        {
            "id": f"S{number:05d}",
            "lot_id": found[number * len(found) // SAMPLES][0],
            "kind": "rna",
            "cell_type_term": CELL_TYPES[number % len(CELL_TYPES)],
        }
        for number in range(SAMPLES)
    ]
    assert center.load_rows("samples", rows, retire=True).generation is not None


def _lay_down(center: SmallCenter, features: int) -> Generation:
    """SAMPLES x features rows of expression."""
    samples = current(center, "samples")
    with center.generations.drafting("expression") as draft, duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute(
            "CREATE TABLE sample AS SELECT (row_number() OVER (ORDER BY id) - 1)::INTEGER AS code, id AS value, _donor "
            "FROM read_parquet(?)",
            [parts(samples)],
        )
        connection.execute(f"COPY (SELECT code, value FROM sample) TO '{draft.codes_of('sample_id')}' (FORMAT parquet)")
        connection.execute(
            f"COPY (SELECT range::INTEGER AS code, printf('ENSG%011d', range) AS value, 'GENE' || range AS gene_symbol "
            f"FROM range({features})) TO '{draft.codes_of('ensembl_id')}' (FORMAT parquet)"
        )
        owners = connection.execute("SELECT _donor FROM sample ORDER BY _donor, code").fetchnumpy()["_donor"]
        codes = connection.execute("SELECT code FROM sample ORDER BY _donor, code").fetchnumpy()["code"]
        _write(draft.folder / "part-000.parquet", features, numpy.asarray(owners), numpy.asarray(codes))
        donors, last = connection.execute("SELECT count(DISTINCT _donor), max(_donor) FROM sample").fetchall()[0]
        contents = Contents(
            rows=features * SAMPLES,
            donors=donors,
            last_donor=last,
            dictionary_version="bench",
            source="bench",
            source_sha256="0" * 64,
            imported_by="bench",
        )
        return center.generations.publish(draft, contents)


def _write(part: Path, features: int, owners: NDArray[numpy.int32], codes: NDArray[numpy.int32]) -> None:
    """One row for each feature and sample, sorted by feature, then donor, as the importer does."""
    random, at_once = numpy.random.default_rng(1), 200
    unit = pyarrow.array(["log2TPM"]).dictionary_encode()
    writer = None
    for first in range(0, features, at_once):
        count = at_once * len(codes)
        values = numpy.round(random.gamma(2.0, 2.0, count), 3)
        table = pyarrow.table(
            {
                "_donor": numpy.tile(owners, at_once),
                "sample_id": numpy.tile(codes, at_once),
                "ensembl_id": numpy.repeat(numpy.arange(first, first + at_once, dtype=numpy.int32), len(codes)),
                "value": values,
                "unit": unit.take(pyarrow.array(numpy.zeros(count, dtype=numpy.int32))).cast(pyarrow.string()),
            }
        )
        writer = writer or pyarrow.parquet.ParquetWriter(part, table.schema, compression="snappy")
        writer.write_table(table, row_group_size=ROW_GROUP)
    assert writer is not None
    writer.close()


def _ask(report: Report, center: SmallCenter, size: str, runs: int) -> None:
    with duckdb.connect() as connection:
        _lay_out(connection, center)
        _beside(
            report,
            f"one feature by cell type, {size}",
            lambda: _asked(center, "expression", f"ensembl_id = '{FEATURE}'", "sample.cell_type_term"),
            lambda: _straight(connection, ONE_FEATURE),
            runs,
            budget="150 ms",
        )
        lines = current(center, "cell_lines").rows
        _beside(
            report,
            f"lines of {lines:,} with a feature above 6, {size}",
            lambda: _asked(
                center,
                "cell_lines",
                f"type = 'iPSC' and has expression (ensembl_id = '{FEATURE}' and value > 6)",
                "grade",
            ),
            lambda: _straight(connection, LINES_WITH),
            runs,
            budget="1.3 x DuckDB + 10 ms",
        )


ONE_FEATURE = f"""
    SELECT s.cell_type_term, count(*) FROM expression e JOIN samples s ON s.id = e.sample
    JOIN consent ON consent.donor = e._donor WHERE e.feature = '{FEATURE}' GROUP BY ALL
"""
LINES_WITH = f"""
    SELECT l.grade, count(*) FROM cell_lines l JOIN consent ON consent.donor = l._donor
    WHERE l.type = 'iPSC' AND l.id IN (
        SELECT lot.cell_line_id FROM expression e JOIN samples s ON s.id = e.sample JOIN lots lot ON lot.id = s.lot_id
        WHERE e.feature = '{FEATURE}' AND e.value > 6
    ) GROUP BY ALL
"""


def _beside(
    report: Report, name: str, ours: Callable[[], Groups], plain: Callable[[], Groups], runs: int, *, budget: str
) -> None:
    assert ours() == plain(), "both count the same"
    our_seconds, plain_seconds = [], []
    for _ in range(runs):  # in turns, so that a slow minute of the machine falls on both
        our_seconds += timed(ours, 1, warm_up=0)
        plain_seconds += timed(plain, 1, warm_up=0)
    report.add(f"{name}, DuckDB", plain_seconds, note="for comparison")
    report.add(f"{name}, engine", our_seconds, budget=budget)
    beside(report, name, our_seconds, plain_seconds)


def _asked(center: SmallCenter, dataset: str, text: str, by: str) -> Groups:
    shape = center.compute(ask(dataset, where.parse(text), Count((by,)))).shape
    assert isinstance(shape, CellTable)
    return {(*cell.key, cell.records) for cell in shape.cells}


def _straight(connection: Connection, sql: str) -> Groups:
    return set(connection.execute(sql).fetchall())


def _lay_out(connection: Connection, center: SmallCenter) -> None:
    """The same files as views for DuckDB alone, and the donors with a consent in force as a table in memory."""
    connection.execute(f"SET threads = {LIMITS.threads}")
    connection.execute("SET parquet_metadata_cache = true")
    for name in ("cell_lines", "lots", "samples"):
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({parts(current(center, name))!r})")
    omics = current(center, "expression")
    for field in ("sample_id", "ensembl_id"):
        connection.execute(f"CREATE TABLE {field} AS SELECT * FROM read_parquet('{omics.codes_of(field)}')")
    connection.execute(
        f"CREATE VIEW expression AS SELECT o._donor, s.value AS sample, f.value AS feature, o.value "
        f"FROM read_parquet({parts(omics)!r}) o JOIN ensembl_id f ON f.code = o.ensembl_id "
        "JOIN sample_id s ON s.code = o.sample_id"
    )
    snapshot = center.ledger.snapshot()
    held = pyarrow.table({"donor": snapshot.donors, "profile": snapshot.profiles})
    connection.register("held", held)
    connection.execute("CREATE TABLE consent AS SELECT donor FROM held WHERE profile > 0")


def _import_csv(report: Report, center: SmallCenter, rows: int) -> None:
    """The importer with every check, beside DuckDB's COPY of the same file with the same types."""
    file, target = center.folder / "expression.csv", center.folder / "copied.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute(
            f"COPY (SELECT printf('S%05d', range % {SAMPLES}) AS sample_id, "
            f"printf('ENSG%011d', range // {SAMPLES}) AS ensembl_id, 'GENE' || (range // {SAMPLES}) AS gene_symbol, "
            f"(hash(range) % 12000) / 1000.0 AS value, 'log2TPM' AS unit FROM range({rows})) TO '{file}' (HEADER)"
        )
        columns = "{'sample_id': 'VARCHAR', 'ensembl_id': 'VARCHAR', 'gene_symbol': 'VARCHAR', 'value': 'DOUBLE', "
        columns += "'unit': 'VARCHAR'}"
        plain = timed(
            lambda: connection.execute(
                f"COPY (SELECT * FROM read_csv('{file}', header=true, auto_detect=false, columns={columns}) "
                f"ORDER BY ensembl_id) TO '{target}' (FORMAT parquet)"
            ),
            2,
            warm_up=0,
        )
    ours = timed(lambda: _imported(center, "expression", file), 1, warm_up=0)
    name = f"import of {rows:,} CSV rows"
    report.add(f"{name}, DuckDB's COPY to sorted Parquet", plain, note="for comparison; no checks, no donors")
    report.add(f"{name}, checked, donors found", ours, budget="2 x DuckDB")
    report.facts[name] = f"{statistics.median(ours) / statistics.median(plain):.2f} x DuckDB's COPY (budget 2 x)"
    file.unlink()


def _import_vcf(report: Report, center: SmallCenter, records: int) -> None:
    file = center.folder / "calls.vcf"
    with file.open("w", newline="") as opened:
        opened.write("##fileformat=VCFv4.2\n##reference=GRCh38\n##contig=<ID=chr1,assembly=GRCh38>\n")
        opened.write('##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n')
        writer = csv.writer(opened, delimiter="\t", lineterminator="\n")
        writer.writerow(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "S00001"])
        writer.writerows(
            ["chr1", number * 200 + 1, ".", "ACGT"[number % 4], "CGTA"[number % 4], "50", "PASS", ".", "GT", "0/1"]
            for number in range(records)
        )
    started = time.perf_counter()
    _imported(center, "variants", file, assembly="GRCh38")
    seconds = time.perf_counter() - started
    report.facts[f"import of {records:,} variants from VCF"] = (
        f"{records / seconds:,.0f} variants a second (budget 200,000)"
    )


def _imported(center: SmallCenter, dataset: str, file: Path, *, assembly: str = "") -> None:
    options = ImportOptions(by="bench", retire_dependents=True, assembly=assembly)
    outcome = center.importer.run(dataset, file, options)
    assert outcome.generation is not None, outcome.problems


def current(center: SmallCenter, dataset: str) -> Generation:
    """The generation in force."""
    generation = center.generations.current(dataset)
    assert generation is not None
    return generation


def parts(generation: Generation) -> list[str]:
    """Its files, as DuckDB reads them."""
    return [str(part) for part in generation.parts]
