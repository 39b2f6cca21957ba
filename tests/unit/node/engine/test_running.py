"""Consent, generations, limits and closedness of the running engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import duckdb
import pytest

from connexon.analyses.count import Count
from connexon.analyses.describe import Describe
from connexon.clock import MINUTE, now_ms
from connexon.conditions.filters import Compare, Operator
from connexon.errors import NotFound, Refused, Unavailable
from connexon_node.engine.limits import Places, TooLong, Watch
from connexon_node.pipeline.values import CellTable, Interrupted, Offer, Work
from connexon_node.settings import EngineSection
from tests.support.center import SmallCenter, ask

ENDLESS = "SELECT count(*) FROM range(10_000_000_000) AS a, range(10_000) AS b WHERE a.range % 7 = b.range % 3"


@pytest.fixture
def center(tmp_path: Path) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path / "node")
    made.load_sample(40)
    yield made
    made.close()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_withdrawn_donor_disappears_from_counts(center: SmallCenter) -> None:
    before = center.count("donors")
    snapshot = center.ledger.snapshot()
    number = int(snapshot.donors[snapshot.profiles > 0][0])
    (donor,) = [row["id"] for row in center.rows("donors") if row["_donor"] == number]
    center.ledger.withdraw(str(donor), by="steward", on=date(2026, 1, 1))
    assert center.count("donors") == before - 1


def test_donors_without_consent_are_never_counted(center: SmallCenter) -> None:
    in_force = int((center.ledger.snapshot().profiles > 0).sum())
    assert 0 < center.count("donors") == in_force < len(center.rows("donors"))


def test_profile_zero_in_a_cohort_permits_nobody(center: SmallCenter) -> None:
    assert center.count("donors", cohort=center.cohort(frozenset({0}))) == 0
    assert center.count("donors", cohort=center.cohort(frozenset())) == 0
    assert center.count("donors", cohort=center.cohort(frozenset({99_999}))) == 0


def test_the_same_question_of_two_purposes_counts_each_its_own_donors(center: SmallCenter) -> None:
    profiles = sorted(center.ledger.profiles())
    each = [center.count("donors", cohort=center.cohort(frozenset({profile}))) for profile in profiles]
    assert sum(each) == center.count("donors")
    assert len(set(each)) > 1


def test_donors_imported_after_the_last_consent_are_not_counted(center: SmallCenter) -> None:
    before = center.count("donors")
    rows = [{"id": row["id"], "sex": row["sex"]} for row in center.rows("donors")]
    center.load_rows("donors", [*rows, *({"id": f"NEW-{number}", "sex": "male"} for number in range(50))])
    assert len(center.rows("donors")) == len(rows) + 50
    assert center.count("donors") == before


def test_an_import_is_seen_with_the_next_query_and_named_in_the_answer(center: SmallCenter) -> None:
    assert center.compute(ask("donors")).generations == {"donors": 1}
    rows = [{"id": row["id"], "sex": "female"} for row in center.rows("donors")]
    center.load_rows("donors", rows)
    computed = center.compute(ask("donors", Compare("sex", Operator.EQUAL, "male")))
    assert computed.generations == {"donors": 2}
    assert isinstance(computed.shape, CellTable)
    assert computed.shape.cells[0].records == 0


def test_queries_go_on_while_generations_switch(center: SmallCenter) -> None:
    rows = [{"id": row["id"], "sex": row["sex"]} for row in center.rows("donors")]
    expected = center.count("donors")
    done = threading.Event()

    def ask_on() -> set[tuple[int, int]]:
        seen = set()
        while not done.is_set():
            computed = center.compute(ask("donors"))
            assert isinstance(computed.shape, CellTable)
            seen.add((computed.generations["donors"], computed.shape.cells[0].records))
        return seen

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask_on) for _ in range(3)]
        for _ in range(4):
            center.load_rows("donors", rows)
        done.set()
        seen = set().union(*(one.result() for one in asking))
    assert {records for _generation, records in seen} == {expected}
    assert center.compute(ask("donors")).generations == {"donors": 5}


def test_a_dataset_that_was_not_imported_looks_like_one_that_does_not_exist(tmp_path: Path) -> None:
    empty = SmallCenter(tmp_path / "empty")
    refusals = []
    for name in ("donors", "unicorns"):
        with pytest.raises(NotFound) as caught:
            empty.compute(ask(name))
        refusals.append((caught.value.code, caught.value.public.replace(name, "...")))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] == "dataset.not_offered"
    assert empty.compute(ask("", analysis=Describe())).shape == Offer(())
    empty.close()


def test_describe_covers_every_dataset_or_the_one_named(center: SmallCenter) -> None:
    shape = center.compute(ask("", analysis=Describe())).shape
    assert isinstance(shape, Offer)
    assert [reach.dataset for reach in shape.reaches] == ["donors", "consents", "cell_lines", "lots"]
    reached = {reach.dataset: reach for reach in shape.reaches}
    assert reached["donors"].records == reached["donors"].donors == center.count("donors")
    assert reached["lots"].records == center.count("lots") > reached["lots"].donors > 0
    one = center.compute(ask("lots", analysis=Describe())).shape
    assert one == Offer((reached["lots"],))


def test_a_cancelled_query_is_interrupted(center: SmallCenter) -> None:
    work = Work(deadline_ms=now_ms() + 10 * MINUTE)
    cursor = center.engine._duckdb.cursor()
    begun = threading.Event()

    def run() -> None:
        with Watch().stopping(cursor.interrupt, work, 600) as why:
            begun.set()
            try:
                cursor.execute(ENDLESS).fetchall()
            except duckdb.InterruptException:
                why()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        begun.wait(20)
        work.cancel()
        with pytest.raises(Interrupted):
            running.result(20)


def test_a_query_that_takes_too_long_is_interrupted_and_says_so(center: SmallCenter) -> None:
    work = Work(deadline_ms=now_ms() + 10 * MINUTE)
    cursor = center.engine._duckdb.cursor()
    with pytest.raises(TooLong) as caught, Watch().stopping(cursor.interrupt, work, 0.2) as why:
        try:
            cursor.execute(ENDLESS).fetchall()
        except duckdb.InterruptException:
            why()
    assert caught.value.code == "query.time_limit"


def test_the_time_limit_holds_for_real_questions(tmp_path: Path) -> None:
    slow = SmallCenter(tmp_path / "slow", limits=EngineSection(memory="500MB", seconds=0.000001))
    slow.load_sample(2_000)
    with pytest.raises(TooLong):
        # A quick question may be over before anybody looks at the time.
        for _ in range(2_000):
            slow.compute(ask("lots", analysis=Count(("bank_level", "status"))))
    slow.close()


def test_a_query_beyond_the_memory_limit_is_refused_and_the_next_one_answered(tmp_path: Path) -> None:
    small = SmallCenter(tmp_path / "small", limits=EngineSection(memory="20MB"))
    small.load_sample(100)
    work = Work(deadline_ms=now_ms() + MINUTE)
    with pytest.raises(Refused) as caught, small.engine._cursor(work) as cursor:
        cursor.execute("SELECT list(range) FROM range(100_000_000)").fetchall()
    assert caught.value.code == "query.memory_limit"
    assert small.count("donors") > 0
    small.close()


def test_work_that_is_over_before_a_place_is_free_gives_up_waiting() -> None:
    places = Places(1)
    first, second = (Work(deadline_ms=now_ms() + MINUTE) for _ in range(2))
    with places.taken(first), ThreadPoolExecutor(1) as pool:

        def take() -> None:
            with places.taken(second):
                raise AssertionError("the place was taken")

        waiting = pool.submit(take)
        second.cancel()
        with pytest.raises(Interrupted):
            waiting.result(20)
    with places.taken(Work(deadline_ms=now_ms() + MINUTE)):
        pass


def test_an_expired_question_is_not_computed(center: SmallCenter) -> None:
    with pytest.raises(Interrupted) as caught:
        center.compute(ask("donors"), work=Work(deadline_ms=now_ms() - 1))
    assert caught.value.code == "query.expired"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('{outside}/secret.txt')",
        "COPY (SELECT 1) TO '{outside}/out.csv'",
        "ATTACH '{outside}/other.db'",
        "SET enable_external_access = true",
        "SET memory_limit = '99GB'",
        "INSTALL httpfs",
        "LOAD httpfs",
    ],
)
def test_duckdb_reaches_nothing_outside_the_data_folder(center: SmallCenter, tmp_path: Path, statement: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(duckdb.Error):
        center.engine._duckdb.cursor().execute(statement.format(outside=tmp_path))


def test_damaged_data_is_a_failure_and_not_a_zero(center: SmallCenter) -> None:
    generation = center.generations.current("lots")
    assert generation is not None
    generation.parts[0].write_bytes(b"PAR1 not any more PAR1")
    with pytest.raises(Unavailable) as caught:
        center.count("lots")
    assert caught.value.code == "engine.failed"
    assert str(center.folder) not in caught.value.public


def test_many_threads_get_the_same_answers(center: SmallCenter) -> None:
    questions = [ask(name, analysis=Count(by)) for name, by in (("donors", ("sex",)), ("lots", ("bank_level",)))]
    expected = [center.compute(question).shape for question in questions]
    assert isinstance(expected[0], CellTable)
    with ThreadPoolExecutor(8) as pool:
        for index, shape in enumerate(pool.map(lambda n: center.compute(questions[n % 2]).shape, range(80))):
            assert isinstance(shape, CellTable)
            wanted = expected[index % 2]
            assert isinstance(wanted, CellTable)
            assert set(shape.cells) == set(wanted.cells)
