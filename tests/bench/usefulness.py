"""How useful private numbers are: thirty usual questions to 1, 3 and 10 centers, by the product's own path.

Answers are computed, drawn, sealed, read and added up as a researcher's are; the exact numbers stand beside them. Each
center is simulated and opens an edition.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from connexon.analyses.count import Count, Counts, CountSpec
from connexon.analyses.spec import Kind, Unit
from connexon.conditions.filters import Scalar
from connexon.identity.keys import CenterId
from connexon.query.question import Question
from connexon.safe_text import shown as text
from connexon_node.data.synthetic import Scope
from connexon_node.editions.opening import requesters
from connexon_node.editions.told import STANDING
from connexon_node.pipeline.values import CellTable, Cohort, Uncomputed
from connexon_node.release.first_ask import OTHER
from connexon_node.settings import PrivacySection
from tests.bench.figures import Report
from tests.support.editions import EditionCenter
from tests.support.usual_questions import FROM_TABLES, usual_questions

SIZES, CENTERS = (500, 5_000), (1, 3, 10)
TEN = 10
"""Donors at each center, so that a group should show."""
SHOWN_FROM = 5
MUCH = PrivacySection(lifetime=100, year=25, tables=0.46, questions=24, researcher=24, models=0, delta_of_year=1e-4)
YEAR = PrivacySection()
Key = tuple[Scalar | None, ...]


@dataclass(frozen=True)
class Asked:
    """One center's answer to one question: what leaves, what is exact, and what it cost."""

    counts: Counts
    exact: Mapping[Key, int]
    rho: float


@dataclass(frozen=True)
class Cell:
    """One group over all centers; `open_names`: it shows from a threshold on."""

    question: int
    exact: int
    told: int
    width: int
    readable: bool
    open_names: bool


def measure(report: Report, *, quick: bool) -> None:
    """Figures by size and number of centers, as facts of the report."""
    for donors in SIZES[:1] if quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            numbers = CENTERS[:1] if quick else CENTERS
            centers = [_center(Path(folder) / str(seed), donors, seed) for seed in range(max(numbers))]
            for many in numbers:
                name = f"usefulness, {donors:,} donors, {many} center{'s' if many > 1 else ''}"
                report.facts[name] = _figures(centers, many)
            for center in centers:
                center.close()


def _center(folder: Path, donors: int, seed: int) -> EditionCenter:
    center = EditionCenter(folder, privacy=MUCH)
    center.load_sample(donors, seed, scope=Scope.WHOLE)
    center.open()
    return center


def _figures(centers: Sequence[EditionCenter], many: int) -> str:
    cells, costs = list[Cell](), 0.0
    for number in range(len(usual_questions(centers[0]))):
        asked = {}
        for place, center in enumerate(centers[:many]):
            asked[CenterId(f"c{place}")] = _ask(center, usual_questions(center)[number], f"one-of-{many}")
        cells += _cells(number, asked, usual_questions(centers[0])[number])
        costs += asked[CenterId("c0")].rho
    return _told(cells, costs, many)


def _ask(center: EditionCenter, question: Question, project: str) -> Asked:
    """The project makes it a question of its own, with noise of its own; tables are one draw for all."""
    question = replace(question, purpose=replace(question.purpose, project=project))
    assert isinstance(question.analysis, Count)
    computed = center._computed(question)
    if isinstance(computed.shape, Uncomputed):
        exactly = replace(question, analysis=Count(question.analysis.by, Unit.RECORDS, Kind.GRANTED))
        standing = center.consent.standing(STANDING, requesters(center.federation.roster()))
        cohort = Cohort(computed.cohort.permit, standing.profiles, standing.epoch)
        computed = center.compute(exactly, cohort)
    assert isinstance(computed.shape, CellTable)
    exact = {cell.key: cell.donors for cell in computed.shape.cells}
    answer = center.answer(question)
    noise = answer.protection.noise
    counts = CountSpec().read(question.analysis, answer) if answer.HasField("count") else None
    if counts is None:
        counts = Counts({}, True, Kind.PRIVATE)
    return Asked(counts, _as_told(exact, counts), noise.charged)


def _as_told(exact: Mapping[Key, int], counts: Counts) -> Mapping[Key, int]:
    """Exact groups by the names that tables know: others together."""
    if not any(OTHER in key for key in counts.cells):
        return exact
    found: dict[Key, int] = {}
    for key, number in exact.items():
        known = key if key in counts.cells else tuple(OTHER if isinstance(one, str) else one for one in key)
        found[known] = found.get(known, 0) + number
    return found


def _cells(number: int, asked: Mapping[CenterId, Asked], question: Question) -> list[Cell]:
    assert isinstance(question.analysis, Count)
    answered = {name: one.counts for name, one in asked.items() if one.counts.noise is not None}
    combined = CountSpec().combine(question.analysis, answered, silent=len(asked) - len(answered))
    by = question.analysis.by
    shown = {row[: len(by)] for row in combined.sheets[0].rows} if combined.sheets else set()
    told = {tuple(one[field] for field in by): one for one in combined.totals}
    open_names = any(one.counts.withheld for one in asked.values())
    made = []
    for key in {*told, *(key for one in asked.values() for key in one.exact)}:
        exact = sum(one.exact.get(key, 0) for one in asked.values())
        one = told.get(key)
        readable = one is not None and tuple(text(value) for value in key) in shown
        count, width = (one["count"], one["plus_minus"]) if one else (0, 0)
        made.append(Cell(number, exact, count, width, readable, open_names))
    return made


def _told(cells: Sequence[Cell], costs: float, centers: int) -> str:
    tables = [one for one in cells if one.question < len(FROM_TABLES)]
    charged = [one for one in cells if one.question >= len(FROM_TABLES)]
    large, answered = [one for one in cells if one.exact >= TEN * centers], [one for one in cells if one.width]
    named = [one for one in large if not one.open_names]
    errors: dict[int, list[float]] = {}
    for one in large:
        if one.width:
            errors.setdefault(one.question, []).append(abs(one.told - one.exact) / one.exact)
    error = numpy.mean([numpy.median(each) for each in errors.values()])
    parts = [
        f"tables within {max(one.width for one in tables)}",
        f"others within {max(one.width for one in charged)}",
        f"held {numpy.mean([abs(one.told - one.exact) <= one.width for one in answered]):.1%}",
        f"error of groups of ten or more a center {error:.1%}",
        f"of these shown {numpy.mean([one.readable for one in large]):.1%}",
        f"with known names {numpy.mean([one.readable for one in named]):.1%}",
        f"from {SHOWN_FROM} on {numpy.mean([one.told >= SHOWN_FROM for one in named]):.1%}",
        f"false groups {sum(one.readable and one.exact <= 1 for one in cells)}",
        f"from {SHOWN_FROM} on {sum(one.told >= SHOWN_FROM and one.exact <= 1 for one in cells)}",
        f"set costs {costs:.3f}, {YEAR.questions / costs:.2f} sets a year",
    ]
    return ", ".join(parts)
