"""Figures of a measurement: medians and 95th percentiles, how noisy the machine is, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured thing. `seconds` are single runs; `budget` is what we hold ourselves to, in the same words."""

    name: str
    seconds: tuple[float, ...]
    budget: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """Seconds; the largest where there are fewer than twenty runs."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]


@dataclass
class Report:
    """All figures of one run."""

    figures: list[Figure] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, seconds: list[float], *, budget: str = "", note: str = "") -> Figure:
        """Keep a figure."""
        figure = Figure(name, tuple(seconds), budget, note)
        self.figures.append(figure)
        return figure

    def print(self) -> None:
        """Show the table."""
        table = Table(title="Connexon bench", title_justify="left")
        for column in ("what", "runs", "median ms", "p95 ms", "budget", "note"):
            table.add_column(column, justify="right" if column in ("runs", "median ms", "p95 ms") else "left")
        for figure in self.figures:
            row = (figure.name, str(len(figure.seconds)), f"{figure.median * 1e3:.1f}", f"{figure.p95 * 1e3:.1f}")
            table.add_row(*row, figure.budget, figure.note)
        console = Console(width=150)
        console.print(table)
        for name, value in self.facts.items():
            console.print(f"{name}: {value}", highlight=False)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        figures = [{**asdict(figure), "median": figure.median, "p95": figure.p95} for figure in self.figures]
        path.write_text(json.dumps({"schema": "connexon.bench/1", "facts": self.facts, "figures": figures}, indent=1))


def timed(work: Callable[[], Any], runs: int, *, warm_up: int = 1) -> list[float]:
    """Seconds of `runs` runs of `work`, after some that do not count."""
    for _ in range(warm_up):
        work()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def machine() -> dict[str, Any]:
    """What the figures were taken on, and how steady it was: a fixed loop's median and p95."""
    loop = Figure("loop", tuple(timed(lambda: sum(range(300_000)), 40)))
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
        "steadiness": f"a fixed loop takes {loop.median * 1e3:.2f} ms, p95 {loop.p95 * 1e3:.2f} ms",
    }
