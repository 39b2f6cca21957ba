"""The costliest questions that are accepted: how long the query of each takes to write, and how long others wait."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from connexon.analyses.count import Count
from connexon.clock import MINUTE, now_ms
from connexon.conditions import cost
from connexon.conditions.filters import All, Any, Between, Compare, Filter, Has, OneOf, Operator
from connexon.identity.keys import center_id
from connexon.query import wire_question
from connexon.query.question import Question
from connexon_node.delivery.turns import Turns
from connexon_node.pipeline.values import Work
from tests.bench.figures import Report
from tests.support.center import SmallCenter, ask
from tests.unit.node.engine.test_joins import TABLES

WORKERS = 4
FAR = Count(("sample.lot.cell_line.grade", "sample.lot.protocol.code", "sample.run.protocol.kind", "donor.sex"))
NEAR = Count(("donor.sex", "cell_line.donor.ancestry_term", "protocol.kind", "cell_line.grade"))


def measure(report: Report, *, quick: bool) -> None:
    """Questions at the bounds, none of them asked before; then one more while a hundred of another's wait."""
    runs = 3 if quick else 20
    with tempfile.TemporaryDirectory() as folder:
        center = SmallCenter(Path(folder))
        for dataset, rows in TABLES.items():
            center.load_rows(dataset, rows)
        for name in costly(0):
            seconds = []
            for run in range(runs):
                question = costly(run + 1)[name]
                wire_question.from_bytes(wire_question.to_bytes(replace(question, centers=(center_id("lyon"),))))
                started = time.perf_counter()
                center.compute(question)
                seconds.append(time.perf_counter() - started)
            report.add(f"costliest: {name}", seconds, note="written and run, over few rows")
        alone = [_honest(center, run) for run in range(runs)]
        report.add("an honest question, alone", alone)
        beside = [_beside(center, run, runs) for run in range(3 if quick else 10)]
        report.add("an honest question, beside 100 of the costliest of another", beside, budget="+ <= 200 ms each")
        center.close()


def costly(salt: float) -> dict[str, Question]:
    """Questions at the bounds; another salt, other questions."""

    def less(field: str, number: float) -> Filter:
        return Compare(field, Operator.LESS, number + salt / 1e4)

    rest = cost.MAXIMUM_CONDITIONS - 1
    filled = tuple(
        Has("karyotype_findings", All(tuple(less("clone_pct", n + part / 9) for part in range(3))))
        for n in range(cost.MAXIMUM_HAS)
    )
    plain = tuple(Has("karyotype_findings", less("clone_pct", n)) for n in range(cost.MAXIMUM_HAS))
    deep = tuple(
        Has(
            "cell_lines",
            Has("lots", Has("karyotype_findings", All(tuple(less("clone_pct", n + part / 99) for part in range(15))))),
        )
        for n in range(3)
    )
    each = cost.MAXIMUM_VALUES // rest
    lists = tuple(OneOf("passage_no", tuple(n * 100.0 + one + salt / 1e4 for one in range(each))) for n in range(rest))
    return {
        "ranges": ask("lots", Any(tuple(Between("passage_no", n + salt / 1e4, n + 1.0) for n in range(rest)))),
        "lists": ask("lots", Any(lists)),
        "has of one relation": ask("lots", Any(filled)),
        "has, groups and comparisons": ask("lots", Any((*plain, *(less("passage_no", n) for n in range(39)))), NEAR),
        "has inside has": ask("donors", Any(deep)),
        "groups far away": ask("expression", Any(tuple(less("value", n) for n in range(rest))), FAR),
    }


def _honest(center: SmallCenter, salt: float) -> float:
    condition = Compare("passage_no", Operator.GREATER, time.perf_counter() + salt)
    started = time.perf_counter()
    center.compute(ask("lots", condition))
    return time.perf_counter() - started


def _beside(center: SmallCenter, run: int, earlier: int) -> float:
    """Seconds from asking to the answer, in the node's turns, with another's hundred questions waiting already."""
    turns: Turns[tuple[str, Question]] = Turns(most_of_one=WORKERS - 1)
    kinds = list(costly(0))
    for number in range(100):
        salt = 1000.0 + earlier + run * 100 + number
        turns.put("mallory", ("mallory", costly(salt)[kinds[number % len(kinds)]]))
    answered, stop = threading.Event(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            item = turns.take()
            if item is None:
                time.sleep(0.001)
                continue
            owner, question = item
            center.engine.run(question, center.cohort(), Work(deadline_ms=now_ms() + MINUTE))
            turns.done(owner)
            if owner == "ada":
                answered.set()

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    time.sleep(0.2)
    started = time.perf_counter()
    turns.put("ada", ("ada", ask("lots", Compare("passage_no", Operator.GREATER, started))))
    answered.wait(60)
    seconds = time.perf_counter() - started
    stop.set()
    for worker in workers:
        worker.join()
    return seconds
