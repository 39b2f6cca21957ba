"""The release step: counts with 100 cells beside 10,000 earlier cohorts over 100,000 donors, and with noise."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
from numpy.typing import NDArray

from connexon.analyses.count import Count
from connexon.identity.credential import NOTHING_REVOKED
from connexon.identity.roster import Roster
from connexon.query import signed
from connexon.service.database import Database
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.pipeline.values import Cell, CellTable, Cohort, Computed, Permit
from connexon_node.release import ReleaseControl
from connexon_node.settings import PrivacySection, ReleaseSection
from connexon_node.state import open_state
from tests.bench.figures import Report
from tests.support.center import ask, exactly, granted, permit
from tests.support.federation import HEALTH, Asker, new_federation

DONORS = 100_000
CELLS = 100
EARLIER = 10_000
NOISY = ((100, "p95 5 ms"), (350, "p95 5 ms"), (2_000, ""), (20_000, ""))
"""Cells of tables with noise, up to the most that there may be, and what we hold ourselves to."""


def measure(report: Report, *, quick: bool) -> None:
    """New tables over random selections, once the ledger holds EARLIER cohorts; one again; then more are sealed."""
    random = numpy.random.default_rng(7)
    earlier, runs = (1_000, 10) if quick else (EARLIER, 100)
    with tempfile.TemporaryDirectory() as folder:
        database = open_state(f"sqlite:///{Path(folder) / 'state.db'}")
        step = granted(ReleaseSection(minimum_donors=5, round_to=5), database)
        population = numpy.arange(1, DONORS + 1, dtype=numpy.int32)
        tables = _tables(random, population)
        while _known(step) < earlier:
            released = step.protect(next(tables))
            assert released.commit is not None
            with database.writing() as connection:
                released.commit(connection)
        deciding, committing, catching_up = [], [], []
        report.facts["release, earlier cohorts"] = _known(step)
        for _ in range(runs):  # none of these becomes known: each is compared with as many
            computed = next(tables)
            started = time.perf_counter()
            step.protect(computed)
            deciding.append(time.perf_counter() - started)
        released = step.protect(computed)
        assert released.commit is not None
        with database.writing() as connection:
            released.commit(connection)
        step.catch_up()
        again = []
        for _ in range(runs):
            started = time.perf_counter()
            step.protect(computed)
            again.append(time.perf_counter() - started)
        for _ in range(runs):
            released = step.protect(next(tables))
            assert released.commit is not None
            with database.writing() as connection:
                started = time.perf_counter()
                released.commit(connection)
                committing.append(time.perf_counter() - started)
            started = time.perf_counter()
            step.catch_up()
            catching_up.append(time.perf_counter() - started)
        for cells, budget in NOISY:
            noisy = _tables(random, population, cells)
            _measure_noise(report, database, noisy, cells, budget, runs=max(5, runs * CELLS // max(CELLS, cells)))
        database.close()
    name = f"release, {CELLS} cells, {earlier:,} earlier cohorts"
    report.add(f"{name}: new table", deciding, budget="p95 5 ms", note="compared with everything known")
    report.add(f"{name}: the same again", again, budget="p95 5 ms")
    report.add(f"{name}: written down", committing, note="within the sealing transaction")
    report.add(f"{name}: read back", catching_up, note="once the answer is on its way")


def _measure_noise(
    report: Report, database: Database, tables: Iterator[Computed], cells: int, budget: str, *, runs: int
) -> None:
    """The same tables with noise: each a question of its own, then the last again."""
    much = PrivacySection(
        lifetime=100, year=100, tables=0, questions=100, researcher=100, models=0, delta=1e-9, delta_of_year=1e-4
    )
    step = ReleaseControl(ReleaseSection(), DICTIONARY, database, privacy=much)
    federation = new_federation()
    asker, roster = federation.researcher(), federation.roster()
    deciding, committing, again = [], [], []
    for number in range(runs):
        computed = _noisily(next(tables), asker, roster, f"{cells}-{number}")
        started = time.perf_counter()
        released = step.protect(computed)
        deciding.append(time.perf_counter() - started)
        assert released.commit is not None
        with database.writing() as connection:
            started = time.perf_counter()
            released.commit(connection)
            committing.append(time.perf_counter() - started)
    for _ in range(runs):
        started = time.perf_counter()
        step.protect(computed)
        again.append(time.perf_counter() - started)
    name = f"release with noise, {cells:,} cells"
    report.add(f"{name}: new table", deciding, budget=budget, note="bounded, drawn by OpenDP")
    report.add(f"{name}: the same again", again, note="as it was drawn")
    report.add(f"{name}: paid and kept", committing, note="within the sealing transaction")


def _noisily(computed: Computed, asker: Asker, roster: Roster, name: str) -> Computed:
    """The same table as another question: one for another project, at the same price."""
    purpose = replace(HEALTH, project=f"project-{name}")
    question = asker.question(["kyoto"], Count(("country_iso2",)), dataset="donors", purpose=purpose)
    asked = signed.verify_query(asker.sign(question), roster, NOTHING_REVOKED)
    cohort = replace(computed.cohort, permit=replace(computed.cohort.permit, asked=asked))
    return replace(computed, cohort=cohort, edition=1)


def _known(step: ReleaseControl) -> int:
    return len(step._exact.ledger.known().cohorts.all)


def _tables(random: numpy.random.Generator, population: NDArray[numpy.int32], cells: int = CELLS) -> Iterator[Computed]:
    """Tables by one field of so many values over a random selection, as engines give them."""
    while True:
        chosen = population[random.random(population.size) < random.uniform(0.05, 1.0)]
        group = random.integers(0, cells, chosen.size)
        order = numpy.argsort(group, kind="stable")
        bounds = numpy.searchsorted(group[order], numpy.arange(cells + 1))
        groups = tuple(
            Cell((f"{number}",), part.size, part.size, part)
            for number in range(cells)
            if (part := chosen[order[bounds[number] : bounds[number + 1]]]).size
        )
        question = ask("donors", analysis=exactly("country_iso2"))
        cohort = Cohort(permit=_permit(question), profiles=frozenset({1}), epoch=1)
        table = CellTable(("country_iso2",), groups)
        yield Computed(cohort, table, {"donors": 1}, DICTIONARY.version, population)


def _permit(question: object) -> Permit:
    return permit(question)  # type: ignore[arg-type]
