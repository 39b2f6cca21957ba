"""First-ask tables of simulated centers: how accurate they are at rho 0.444, and how long making them takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from connexon_node.privacy.first_ask import Frame, Plan, Precision, Table, count, for_display, plan, reconstruct
from connexon_node.privacy.first_ask import measure as draw
from tests.bench.figures import Report, timed
from tests.support.first_ask import coded_center, shipped_frame

RHO = 0.444
RHOS = (0.32, RHO, 0.64)
SIZES = (500, 5_000)
SHOWN_FROM = 5
Z = 1.959964
Tables = Mapping[Table, NDArray[numpy.float64]]


@dataclass(frozen=True)
class Quality:
    """Of the cells of pairs. `false`: the share of cells of 0 or 1 that show; `shown`: that of cells of 10 or more."""

    rmse: float
    false: float
    shown: float
    within: float
    bias: float

    def __str__(self) -> str:
        rates = f"false {self.false:.1%}, shown {self.shown:.1%}, within 10 {self.within:.1%}"
        return f"rmse {self.rmse:.2f}, {rates}, bias {self.bias:+.2f}"


def measure(report: Report, *, quick: bool) -> None:
    """Widths by rho, quality by size of center, and seconds of each step."""
    frame = shipped_frame()
    cells = sum(frame.cells(table) for table in frame.tables)
    report.facts["first-ask tables"] = f"{len(frame.tables)} with {cells:,} cells"
    for rho in RHOS:
        report.facts[f"first-ask half-width at rho {rho}"] = _widths(frame, rho)
    for donors in SIZES:
        _measure_quality(report, frame, donors, centers=2 if quick else 10)
    made = plan(frame, rho=RHO)
    precision, codes = Precision(frame, made), coded_center(frame, SIZES[-1], seed=1)
    measured, _ = draw(frame, made, codes)
    estimates = reconstruct(precision, measured)
    runs = 3 if quick else 20
    report.add("first-ask: plan", timed(lambda: plan(frame, rho=RHO), runs), budget="50 ms")
    report.add("first-ask: count and draw, 5,000 donors", timed(lambda: draw(frame, made, codes), runs))
    report.add("first-ask: reconstruct", timed(lambda: reconstruct(precision, measured), runs))
    report.add("first-ask: display copy", timed(lambda: for_display(estimates, frame.tables), runs), budget="500 ms")


def _widths(frame: Frame, rho: float) -> str:
    even = math.sqrt(len(frame.tables) / (2 * rho))
    independent = Z * even
    equal, planned = (
        max(_width(precision, table) for table in frame.tables)
        for precision in (
            Precision(frame, Plan(dict.fromkeys(frame.tables, even))),
            Precision(frame, plan(frame, rho=rho)),
        )
    )
    return f"independent {independent:.1f}, equal sigma {equal:.1f}, planned {planned:.1f}"


def _width(precision: Precision, table: Table) -> float:
    variance = precision.variance(table)
    assert variance is not None
    return Z * math.sqrt(variance)


def _measure_quality(report: Report, frame: Frame, donors: int, *, centers: int) -> None:
    made = plan(frame, rho=RHO)
    even = Plan(dict.fromkeys(frame.tables, math.sqrt(len(frame.tables) / (2 * RHO))))
    precision, pairs = Precision(frame, made), [table for table in frame.tables if len(table) == 2]
    exact: list[Tables] = []
    found: dict[str, list[Tables]] = {"independent": [], "closed form": [], "display copy": []}
    for seed in range(centers):
        codes = coded_center(frame, donors, seed)
        exact.append({table: count(frame, table, codes).astype(float) for table in pairs})
        found["independent"].append(draw(frame, even, codes)[0])  # type: ignore[arg-type] # whole numbers
        estimates = reconstruct(precision, draw(frame, made, codes)[0])
        tables = {table: estimates.table(table) for table in pairs}
        found["closed form"].append({table: cells for table, cells in tables.items() if cells is not None})
        found["display copy"].append(for_display(estimates, pairs))
    for name, tried in found.items():
        report.facts[f"first-ask pairs, {donors:,} donors, {name}"] = str(_quality(exact, tried, pairs))


def _quality(exact: Sequence[Tables], found: Sequence[Tables], tables: Sequence[Table]) -> Quality:
    truth, given = (
        numpy.concatenate([center[table].ravel() for center in centers for table in tables])
        for centers in (exact, found)
    )
    error, shown = given - truth, numpy.rint(given) >= SHOWN_FROM
    return Quality(
        rmse=float(numpy.sqrt((error**2).mean())),
        false=float(shown[truth <= 1].mean()),
        shown=float(shown[truth >= 10].mean()),
        within=float((numpy.abs(numpy.rint(given) - truth) <= 10).mean()),
        bias=float(error.mean()),
    )
