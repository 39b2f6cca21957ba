"""One question to three centers: real processes, TLS, signatures, policy, consent, audit, durable at every end."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

import connexon
from deploy.local.federation import AMPLE, LocalFederation
from tests.bench.figures import Report, timed

CENTERS = ("kyoto", "lyon", "boston")
DONORS = 500


def measure(report: Report, *, quick: bool) -> None:
    """The same question again, and questions never asked before, each to all three."""
    runs = 20 if quick else 200
    with tempfile.TemporaryDirectory() as folder, LocalFederation(Path(folder)) as federation:
        network = _network(federation)
        lines = network.study(purpose="health").dataset("cell_lines")

        def same() -> None:
            answer = lines.where("type = 'iPSC'").count(by=["grade"])
            assert len(answer.released) == len(CENTERS), answer.to_json()

        number = iter(range(1_000_000))

        def new(kind: str) -> None:
            since = f"type = 'iPSC' and derived_on >= 20{next(number) % 20 + 10}-01-{_day()}"
            by = "grade" if kind == "private" else "disease_term"
            answer = lines.where(since).count(by=[by], kind=kind)
            assert answer.complete, answer.to_json()
            assert kind != "private" or len(answer.released) == len(CENTERS), answer.to_json()

        def _day() -> str:
            return f"{next(number) % 28 + 1:02d}"

        budget = "p50 25 ms, p95 60 ms"
        report.add("count, 3 centers, same question", timed(same, runs, warm_up=10), budget=budget)
        for kind in ("private", "granted"):
            seconds = timed(lambda kind=kind: new(kind), runs, warm_up=10)  # type: ignore[misc]
            report.add(f"count, 3 centers, new questions, {kind}", seconds, budget=budget)
        report.facts["flower 1.42, query to 3 nodes (recorded)"] = "9.2 s"
        report.facts["count, memory of the hub"] = f"{_memory(federation.hub.pid)} MB"
        report.facts["count, memory of a node"] = f"{_memory(federation.centers['lyon'].service.pid)} MB"
        _together(report, network, runs)


def _together(report: Report, network: connexon.Network, runs: int) -> None:
    """Eight researchers' worth of questions at once: how many a second."""

    def ask(_: int) -> None:
        assert network.study(purpose="health").dataset("donors").count(by=["sex"]).complete

    started = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(runs)))
    seconds = time.perf_counter() - started
    report.facts["count, 8 at once"] = f"{runs / seconds:.0f} questions a second, each to 3 centers"


def _network(federation: LocalFederation) -> connexon.Network:
    federation.make_hub()
    for name in CENTERS:
        center = federation.join_center(name)
        center.set("release", minimum_donors=5, round_to=5)
        center.set("privacy", **AMPLE)
    for seed, name in enumerate(CENTERS):
        center = federation.centers[name]
        center.command("ontology", "add", "--demo")
        center.command("sample", "--donors", str(DONORS), "--seed", str(seed), "--only", "bank", "--import")
    federation.sign_roster()
    federation.start()
    ada = federation.accredit("ada", home=CENTERS[0])
    federation.grant_exact(ada)
    return connexon.connect(ada.home)


def _memory(pid: int) -> int:
    """Resident memory, MB."""
    return int(psutil.Process(pid).memory_info().rss // 2**20)
