"""What every engine must do: the same expressions give the same results, under the same consent, within limits."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.analyses.spec import Analysis
from connexon.clock import MINUTE, now_ms
from connexon.conditions import where
from connexon.conditions.filters import Compare, Filter, Operator
from connexon.errors import Refused, Unavailable
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.engine import SqlEngine, open_engine
from connexon_node.engine.limits import TooLong
from connexon_node.pipeline.values import CellTable, Computed, Interrupted, Offer, TrainingTable, Work
from connexon_node.settings import EngineSection
from tests.support import spark
from tests.support.center import SmallCenter, ask
from tests.unit.node.engine.test_joins import TABLES
from tests.unit.node.training.test_rows import training

MEMORY = "600MB"
ENGINES = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]
ENDLESS = {
    "duckdb": "SELECT count(*) FROM range(10_000_000_000) AS a, range(10_000) AS b WHERE a.range % 7 = b.range % 3",
    "spark": "SELECT count(*) FROM range(10000000000) AS a, range(10000) AS b WHERE a.id % 7 = b.id % 3",
}
TOO_BIG = {
    "duckdb": "SELECT list(range) FROM range(300_000_000)",
    # Small tasks: what grows too big is the result, not a worker.
    "spark": "SELECT id, id * 7919 % 1000003 AS other FROM range(0, 100000000, 1, 400)",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[spark.SparkCluster]:
    reason = spark.why_not()
    if reason:
        pytest.skip(reason)
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    made = spark.SparkCluster(tmp_path_factory.mktemp("cluster") / "spark")
    yield made
    made.close()


@pytest.fixture(scope="module")
def science(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    """Few rows of many datasets."""
    center = SmallCenter(tmp_path_factory.mktemp("science"))
    for dataset, rows in TABLES.items():
        center.load_rows(dataset, rows)
    yield center
    center.close()


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    """Many donors, lines and lots, with much that is missing."""
    center = SmallCenter(tmp_path_factory.mktemp("bank"))
    center.load_sample(60)
    yield center
    center.close()


def engine_of(kind: str, center: SmallCenter, request: pytest.FixtureRequest, *, seconds: float = 120) -> SqlEngine:
    master = request.getfixturevalue("cluster").url if kind == "spark" else ""
    limits = EngineSection(kind=kind, spark_master=master, memory=MEMORY, seconds=seconds)
    return open_engine(center.generations, center.ledger, center.ontologies, DICTIONARY, limits, center.editions)


@pytest.fixture(scope="module")
def engines(request: pytest.FixtureRequest, science: SmallCenter, bank: SmallCenter) -> Iterator[dict[str, SqlEngine]]:
    """Spark over both centers."""
    made = {name: engine_of("spark", center, request) for name, center in (("science", science), ("bank", bank))}
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(kind: str, bank: SmallCenter, request: pytest.FixtureRequest) -> Iterator[SqlEngine]:
    if kind == "spark":
        yield request.getfixturevalue("engines")["bank"]
    else:
        made = engine_of(kind, bank, request)
        yield made
        made.close()


def some_work() -> Work:
    return Work(deadline_ms=now_ms() + 5 * MINUTE)


def comparable(computed: Computed) -> object:
    """The result without the order of its groups, with the donors behind each."""
    shape = computed.shape
    if isinstance(shape, CellTable):
        return shape.by, {cell.key: (cell.records, cell.donors, _sorted(cell.behind)) for cell in shape.cells}
    assert isinstance(shape, Offer)
    return {reach.dataset: (reach.records, reach.donors, _sorted(reach.behind)) for reach in shape.reaches}


def _sorted(donors: object) -> object:
    return donors if donors is None else sorted(int(one) for one in donors)  # type: ignore[attr-defined]


def total(engine: SqlEngine, center: SmallCenter, dataset: str, condition: Filter | None = None) -> int:
    shape = engine.run(ask(dataset, condition), center.cohort(), some_work()).shape
    assert isinstance(shape, CellTable)
    return shape.cells[0].records


EXPRESSIONS: list[tuple[str, str, str, Analysis]] = [
    ("bank", "donors", "", Count()),
    ("bank", "donors", "", Count(("sex", "ancestry_term"))),
    ("bank", "donors", "not (primary_disease_term = 'MONDO:0005180')", Count()),
    ("bank", "donors", "primary_disease_term is missing or sex = 'male'", Count(("eligibility",))),
    ("bank", "donors", "primary_disease_term under 'MONDO:0005071'", Count(("primary_disease_term",))),
    ("bank", "donors", "phenotype_terms = 'HP:0001300' or phenotype_terms is missing", Count()),
    ("bank", "donors", "not (phenotype_terms in ('HP:0001300', 'HP:0001337'))", Count()),
    ("bank", "donors", "country_iso2 in ('DE', 'FR', 'JP') and not (sex = 'female')", Count(("country_iso2",))),
    ("bank", "cell_lines", "derived_on between 2015-01-01 and 2020-12-31", Count(("type",))),
    ("bank", "cell_lines", "derived_on < 2016-05-01 or not (derived_on >= 2019-01-01)", Count()),
    ("bank", "cell_lines", "xeno_free = true", Count(("gmp",))),
    ("bank", "cell_lines", "not (xeno_free = false and gmp = true)", Count(("grade", "xeno_free"))),
    ("bank", "lots", "passage_no > 10.5 and passage_no <= 40", Count(("bank_level", "status"))),
    ("bank", "lots", "passage_no between 5 and 20 and passage_no != 7", Count()),
    ("bank", "lots", "cells_per_vial_1e6 > 1.5 or cells_per_vial_1e6 is missing", Count()),
    ("bank", "", "", Describe()),
    ("science", "lots", "donor.sex = 'female'", Count(("cell_line.grade", "bank_level"))),
    ("science", "samples", "cell_line.grade = 'clinical'", Count()),
    ("science", "cell_lines", "has karyotype_findings (change = 'gain' and clone_pct > 10)", Count(("donor.sex",))),
    ("science", "lots", "not has cell_line.karyotype_findings (change = 'gain')", Count()),
    ("science", "expression", "gene_symbol = 'POU5F1' and value > 3", Count(("sample.cell_type_term",))),
    ("science", "cell_lines", "descends_from('TESTi001-A')", Count()),
    ("science", "subjects", "has treatments (batch.protocol.code = 'SOP-1')", Count(("arm",))),
    ("science", "donors", "has expression (gene_symbol = 'POU5F1' and value > 3)", Count(("sex",))),
    ("science", "protocols", "", Count()),
    ("science", "", "", Describe()),
]


@pytest.mark.spark
@pytest.mark.parametrize(("where_from", "dataset", "text", "analysis"), EXPRESSIONS)
def test_an_expression_gives_the_same_on_both_engines(
    engines: dict[str, SqlEngine],
    request: pytest.FixtureRequest,
    where_from: str,
    dataset: str,
    text: str,
    analysis: Analysis,
) -> None:
    center: SmallCenter = request.getfixturevalue(where_from)
    question = ask(dataset, where.parse(text) if text else None, analysis)
    on_spark, on_duckdb = (
        engine.run(question, center.cohort(), some_work()) for engine in (engines[where_from], center.engine)
    )
    assert comparable(on_spark) == comparable(on_duckdb)
    assert on_spark.generations == on_duckdb.generations
    assert (on_spark.population is None) == (on_duckdb.population is None)
    if on_spark.population is not None:
        assert _sorted(on_spark.population) == _sorted(on_duckdb.population)


@pytest.mark.spark
def test_the_rows_of_a_recipe_are_the_same_on_both_engines(engines: dict[str, SqlEngine], science: SmallCenter) -> None:
    on_spark, on_duckdb = (
        engine.training_table(training(), science.cohort(), some_work())
        for engine in (engines["science"], science.engine)
    )
    assert on_spark.generations == on_duckdb.generations
    ours, theirs = on_spark.shape, on_duckdb.shape
    assert isinstance(ours, TrainingTable)
    assert isinstance(theirs, TrainingTable)
    assert ours.donors.tolist() == theirs.donors.tolist()
    assert ours.target.tolist() == theirs.target.tolist()
    assert ours.numbers == pytest.approx(theirs.numbers, nan_ok=True)
    assert {place: (codes.tolist(), values) for place, (codes, values) in ours.texts.items()} == {
        place: (codes.tolist(), values) for place, (codes, values) in theirs.texts.items()
    }


@pytest.mark.parametrize("text", ["it's", 'say "so"', "back\\slash", "\\'", "${spark.app.name}", "`x`", "--", "é", "%"])
def test_a_text_is_a_text(engine: SqlEngine, bank: SmallCenter, text: str) -> None:
    assert total(engine, bank, "donors", Compare("country_iso2", Operator.EQUAL, text)) == 0


def test_a_cohort_counts_its_own_donors_and_a_withdrawal_counts_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    center = SmallCenter(tmp_path / kind)
    center.load_sample(20)
    engine = engine_of(kind, center, request)
    try:
        standing = center.ledger.snapshot()
        for profile in (*sorted(center.ledger.profiles())[:3], 0, 99_999):
            shape = engine.run(ask("donors"), center.cohort(frozenset({profile})), some_work()).shape
            assert isinstance(shape, CellTable)
            assert shape.cells[0].records == (int((standing.profiles == profile).sum()) if profile else 0)
        before = total(engine, center, "donors")
        assert before == int((standing.profiles > 0).sum())
        number = int(standing.donors[standing.profiles > 0][0])
        (donor,) = [row["id"] for row in center.rows("donors") if row["_donor"] == number]
        center.ledger.withdraw(str(donor), by="steward", on=date(2026, 1, 1))
        assert total(engine, center, "donors") == before - 1
    finally:
        engine.close()
        center.close()


def test_questions_at_the_same_time_count_each_their_own_donors(engine: SqlEngine, bank: SmallCenter) -> None:
    cohorts = [bank.cohort(frozenset({profile})) for profile in sorted(bank.ledger.profiles())[:3]]
    expected = [bank.compute(ask("donors"), cohort).shape for cohort in cohorts]
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda n: engine.run(ask("donors"), cohorts[n % 3], some_work()).shape, range(6))
    for number, shape in enumerate(found):
        wanted = expected[number % 3]
        assert isinstance(shape, CellTable)
        assert isinstance(wanted, CellTable)
        assert shape.cells == wanted.cells


def test_no_row_is_reached_before_somebody_is_permitted(kind: str, engine: SqlEngine, bank: SmallCenter) -> None:
    assert total(engine, bank, "donors") > 0  # sessions are used again, permissions not
    quote = '"' if kind == "duckdb" else "`"
    sql = f"SELECT count(*) AS n FROM {quote}donors_000001{quote} WHERE is_permitted(_donor)"
    if kind == "spark":
        with pytest.raises(Unavailable) as caught, engine.session(some_work()) as session:
            session.fetch(sql)
        assert "is_permitted" in str(caught.value.__cause__)
    else:
        with engine.session(some_work()) as session:
            assert session.fetch(sql).column(0).to_pylist() == [0]


def test_a_query_that_takes_too_long_is_stopped_and_says_so(
    kind: str, bank: SmallCenter, request: pytest.FixtureRequest
) -> None:
    engine = engine_of(kind, bank, request, seconds=5)
    try:
        with pytest.raises(TooLong) as caught, engine.session(some_work()) as session:
            session.fetch(ENDLESS[kind])
        assert caught.value.code == "query.time_limit"
    finally:
        if kind == "duckdb":
            engine.close()


def test_a_cancelled_query_is_stopped(kind: str, engine: SqlEngine) -> None:
    work, begun = some_work(), threading.Event()

    def run() -> None:
        with engine.session(work) as session:
            begun.set()
            session.fetch(ENDLESS[kind])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        assert begun.wait(60)
        work.cancel()
        with pytest.raises(Interrupted):
            running.result(60)


def test_a_query_beyond_the_memory_limit_is_refused_and_the_next_one_answered(
    kind: str, engine: SqlEngine, bank: SmallCenter
) -> None:
    with pytest.raises(Refused) as caught, engine.session(some_work()) as session:
        session.fetch(TOO_BIG[kind])
    assert caught.value.code == "query.memory_limit"
    assert total(engine, bank, "donors") > 0


def test_damaged_data_is_a_failure_and_not_a_zero(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    center = SmallCenter(tmp_path / kind)
    center.load_sample(5)
    engine = engine_of(kind, center, request)
    try:
        generation = center.generations.current("lots")
        assert generation is not None
        generation.parts[0].write_bytes(b"PAR1 not any more PAR1")
        with pytest.raises(Unavailable) as caught:
            total(engine, center, "lots")
        assert caught.value.code == "engine.failed"
        assert str(center.folder) not in caught.value.public
        assert total(engine, center, "donors") > 0
    finally:
        engine.close()
        center.close()
