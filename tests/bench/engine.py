"""A filtered, consented count over a million donors by the node's engine, beside the same SQL straight in DuckDB."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any as Connection

import duckdb
import pyarrow

from connexon.analyses.count import Count
from connexon.conditions.filters import All, Compare, Operator, Under
from connexon.query.question import Question
from connexon_node.data.generations import Generation
from connexon_node.pipeline.values import CellTable, Cohort
from connexon_node.settings import EngineSection
from tests.bench.figures import Report, timed
from tests.support.center import SmallCenter, ask

DISEASE = "MONDO:0005071"
"""Nervous system disorder: much of the sample's diseases lie under it."""
LIMITS = EngineSection(memory="2GB", threads=2)
BUDGET = "1.3 x DuckDB + 10 ms"


def measure(report: Report, *, quick: bool) -> None:
    """The same count as a new question and as one asked before, beside DuckDB with and without the consent."""
    donors, runs = (100_000, 15) if quick else (1_000_000, 40)
    with tempfile.TemporaryDirectory() as folder:
        center = SmallCenter(Path(folder) / "node", limits=LIMITS)
        try:
            [seconds] = timed(lambda: center.load_sample(donors), 1, warm_up=0)
            report.facts[f"sample and import of {donors:,} donors, their consents, lines and lots"] = f"{seconds:.0f} s"
            _count(report, center, f"count, {donors:,} donors", runs)
        finally:
            center.close()


def beside(report: Report, name: str, ours: Sequence[float], plain: Sequence[float]) -> None:
    """Tell how a median compares with DuckDB's and with the budget."""
    our_ms, plain_ms = statistics.median(ours) * 1e3, statistics.median(plain) * 1e3
    report.facts[name] = (
        f"{our_ms / plain_ms:.2f} x DuckDB's median ({our_ms:.1f} ms; the budget {BUDGET} is {1.3 * plain_ms + 10:.1f})"
    )


def _count(report: Report, center: SmallCenter, name: str, runs: int) -> None:
    generation = center.generations.current("donors")
    assert generation is not None
    # Half of the profiles: a purpose that some consents cover and others do not.
    cohort = center.cohort(frozenset(sorted(center.ledger.profiles())[::2]))
    numbers = iter(range(1_000_000))
    timings: dict[str, list[float]] = {kind: [] for kind in ("consent", "none", "known", "new")}

    def ours(country: str = "X") -> set[tuple[object, ...]]:
        shape = center.compute(_question(country), cohort).shape
        assert isinstance(shape, CellTable)
        return {(*cell.key, cell.records) for cell in shape.cells}

    with duckdb.connect(":memory:") as connection:
        _lay_out(connection, center, cohort, generation)
        terms = sorted(center.ontologies.descendants(DISEASE))

        def plain(consented: bool) -> set[tuple[object, ...]]:
            return set(connection.execute(_sql(consented), [terms]).fetchall())

        assert ours() == plain(True), "both count the same"
        for _ in range(runs):  # in turns, so that a slow minute of the machine falls on all alike
            timings["consent"] += timed(lambda: plain(True), 1, warm_up=0)
            timings["none"] += timed(lambda: plain(False), 1, warm_up=0)
            timings["known"] += timed(ours, 1, warm_up=0)
            timings["new"] += timed(lambda: ours(f"X{next(numbers)}"), 1, warm_up=0)
    report.add(f"{name}, DuckDB joined with consent", timings["consent"], note="for comparison")
    report.add(f"{name}, DuckDB without consent", timings["none"], note="for comparison")
    report.add(f"{name}, engine, same question", timings["known"], budget=BUDGET)
    report.add(f"{name}, engine, new questions", timings["new"], budget=BUDGET)
    for kind, words in (("known", "same question"), ("new", "new questions")):
        beside(report, f"{name}, {words}, beside DuckDB joined with consent", timings[kind], timings["consent"])
        beside(report, f"{name}, {words}, beside DuckDB without consent", timings[kind], timings["none"])


def _question(country: str) -> Question:
    where = All((Under("primary_disease_term", DISEASE), Compare("country_iso2", Operator.NOT_EQUAL, country)))
    return ask("donors", where, Count(("sex",)))


def _lay_out(connection: Connection, center: SmallCenter, cohort: Cohort, generation: Generation) -> None:
    """The same data for DuckDB alone: the Parquet files, and the donors that may be counted as a table in memory."""
    connection.execute(f"SET threads = {LIMITS.threads}")
    connection.execute("SET parquet_metadata_cache = true")
    parts = [str(part) for part in generation.parts]
    connection.execute(f"CREATE VIEW donors AS SELECT * FROM read_parquet({parts!r})")
    snapshot = center.ledger.snapshot()
    held = pyarrow.table({"donor": snapshot.donors, "profile": snapshot.profiles})
    connection.register("held", held)
    connection.execute("CREATE TABLE consent AS SELECT * FROM held WHERE profile > 0")
    connection.execute("CREATE TABLE permitted (profile INTEGER)")
    connection.executemany("INSERT INTO permitted VALUES (?)", [[number] for number in cohort.profiles])


def _sql(consented: bool) -> str:
    consent = "JOIN consent ON consent.donor = donors._donor JOIN permitted USING (profile)" if consented else ""
    return f"""
        SELECT sex, count(*) FROM donors {consent}
        WHERE primary_disease_term IN (SELECT unnest(?)) AND country_iso2 <> 'X' GROUP BY sex
    """
