"""One model over three centers: real processes, TLS, signatures, policy, consent, audit, durable at every end.

Beside it the same rows, recipe and Flower strategy on an in-process Grid: what is left of a difference is the network.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import connexon
from connexon.learning.recipe import Recipe
from connexon.query.recipes import file as recipe_file
from deploy.local.federation import LocalFederation
from tests.bench.figures import Report, timed

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict

    from connexon_node.training.client_app import Work

CENTERS = ("kyoto", "lyon", "boston")
DONORS = 400
TABLES = ("donors", "consents", "protocols", "cell_lines", "lots", "differentiation_runs", "timepoints")
SMALL = {
    "name": "bench-small",
    "dataset": "differentiation_runs",
    "target": {"field": "success", "classes": {"failed": [False], "succeeded": [True]}},
    "features": [
        "target_cell_term",
        "seed_density_1e6_ml",
        {"dataset": "timepoints", "key": "marker", "keys": ["FOXA2", "MNX1", "TNNT2", "OCT4"], "value": "value"},
    ],
    "model": {"kind": "logistic", "learning_rate": 1.0, "l2": 0.001},
    "rounds": 10,
    "privacy": "exact",
    "evaluate": {"held_out": 0.3},
    "minimum_centers": 3,
    "purpose": "health",
}


def measure(report: Report, *, quick: bool) -> None:
    """A small model, one of 10 MB, one of 100 MB, and what counting costs meanwhile."""
    with tempfile.TemporaryDirectory() as folder, LocalFederation(Path(folder)) as federation:
        network = _network(federation, Path(folder))
        _small(report, network, runs=2 if quick else 7)
        _counting(report, network, runs=20 if quick else 100)
        if importlib.util.find_spec("torch") is None:
            report.facts["training, 10 MB and 100 MB"] = "not measured: PyTorch is not installed"
            return
        _large(report, network, runs=1 if quick else 3)
        if not quick:
            _memory(report, network, federation.hub.pid)


def _small(report: Report, network: connexon.Network, *, runs: int) -> None:
    file = recipe_file.of_mapping(SMALL)
    report.add("training, small model, first run", timed(lambda: _train(network, SMALL), 1, warm_up=0))
    seconds = timed(lambda: _train(network, SMALL), runs)
    local = timed(lambda: _locally(file.recipe), runs)
    report.add(
        "training, small model, 10 rounds, 3 centers",
        seconds,
        budget="2 s beyond local compute",
        note=f"local compute {statistics.median(local):.2f} s",
    )
    report.facts["training, Flower's own deployment (recorded)"] = "177 s; NVFLARE 35 to 72 s"


def _counting(report: Report, network: connexon.Network, *, runs: int) -> None:
    lines = network.study(purpose="health").dataset("cell_lines")

    def count() -> None:
        answer = lines.where("type = 'iPSC'").count(by=["disease_term"])
        assert answer.complete, answer.to_json()

    alone = report.add("count, nothing trains", timed(count, runs, warm_up=10))
    with _always_training(network):
        together = report.add("count, while a model trains", timed(count, runs), budget="2 x nothing trains")
    report.facts["count, while a model trains, ratio of medians"] = f"{together.median / alone.median:.2f}"


def _large(report: Report, network: connexon.Network, *, runs: int) -> None:
    recipe = _perceptron("bench-10mb", 1_600, rounds=5)
    seconds = timed(lambda: _train(network, recipe), runs)
    local = timed(lambda: _locally(recipe_file.of_mapping(recipe).recipe), runs)
    ratio = statistics.median(seconds) / statistics.median(local)
    report.add(
        "training, 10 MB model, 5 rounds, 3 centers",
        seconds,
        budget="1.5 x in-process Grid",
        note=f"in-process Grid {statistics.median(local):.2f} s, ratio {ratio:.2f}",
    )


def _memory(report: Report, network: connexon.Network, hub: int) -> None:
    peak = Peak(psutil.Process(hub))
    before = peak.now()
    with peak.watching():
        started = time.perf_counter()
        _train(network, _perceptron("bench-100mb", 5_100, rounds=2))
        seconds = time.perf_counter() - started
    grown = (peak.most - before) / 2**20
    report.add("training, 100 MB model, 2 rounds, 3 centers", [seconds])
    report.facts["training, 100 MB model, memory of the hub and its processes"] = (
        f"grew by {grown:.0f} MB, {grown / 99.4:.1f} x the model's 99.4 MB; budget 4 x"
    )


@dataclass
class Peak:
    """Memory of a process and its children, shared pages counted once."""

    process: psutil.Process
    most: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def now(self) -> int:
        """Bytes at this moment."""
        found = 0
        for one in (self.process, *self.process.children(recursive=True)):
            try:
                found += one.memory_full_info().pss
            except psutil.Error:
                continue
        return found

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep the most while the block runs."""

        def watch() -> None:
            while not self._over.wait(0.02):
                self.most = max(self.most, self.now())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


@contextmanager
def _always_training(network: connexon.Network) -> Iterator[None]:
    over = threading.Event()

    def train() -> None:
        while not over.is_set():
            _train(network, {**SMALL, "name": "bench-background", "rounds": 50})

    thread = threading.Thread(target=train)
    thread.start()
    try:
        time.sleep(1)
        yield
    finally:
        over.set()
        thread.join()


def _train(network: connexon.Network, recipe: dict[str, Any]) -> None:
    run = network.train(recipe)
    assert run.model_id, f"{run}"


def _perceptron(name: str, width: int, *, rounds: int) -> dict[str, Any]:
    model = {"kind": "perceptron", "hidden": [width, width], "learning_rate": 0.01, "epochs": 5, "batch": 32}
    return {**SMALL, "name": name, "model": model, "rounds": rounds}


def _locally(recipe: Recipe) -> None:
    """The same strategy in this process, over the same rows that the centers have."""
    from flwr.app import Array, ArrayRecord, ConfigRecord
    from flwr.serverapp.strategy import FedAvg

    from connexon.learning import flower, models
    from connexon.learning.preprocessing import Summary, fit
    from tests.support.local_grid import LocalGrid

    flower.identify()
    works = {seed: _work(recipe, seed) for seed in range(100, 100 + len(CENTERS))}
    summaries = [Summary.from_records(work.summary()) for work in works.values()]
    fitted = fit(recipe, summaries)
    config = {"preprocessing": fitted.to_json()}
    initial = models.initial_arrays(recipe, fitted)
    centers = len(CENTERS)
    with flower.quiet():
        FedAvg(min_train_nodes=centers, min_evaluate_nodes=centers, min_available_nodes=centers).start(
            LocalGrid({number: _center(work) for number, work in works.items()}),
            ArrayRecord({name: Array(values) for name, values in initial.items()}),
            num_rounds=recipe.rounds,
            train_config=ConfigRecord(dict(config)),
            evaluate_config=ConfigRecord(dict(config)),
        )


def _center(work: Work) -> Callable[[Message], RecordDict]:
    """What a node replies."""
    from connexon_node.training.client_app import BEHIND

    def reply(message: Message) -> RecordDict:
        step = work.train if message.metadata.message_type == "train" else work.evaluate
        done = step(message.content)
        done.metric_records["metrics"]["num-examples"] = int(done.metric_records[BEHIND]["rows"])  # type: ignore[arg-type]
        del done[BEHIND]
        return done

    return reply


def _work(recipe: Recipe, seed: int) -> Work:
    """The work that a node does, over rows of the same number and shape."""
    import numpy

    from connexon.learning.preprocessing import names_of
    from connexon_node.training.client_app import Work
    from connexon_node.training.rows import Rows

    random, count = numpy.random.default_rng(seed), DONORS
    names = names_of(recipe)
    columns: dict[str, Any] = {name: random.normal(size=count) for name in names}
    columns[names[0]] = random.choice(numpy.array(["CL:1", "CL:2", "CL:3"], dtype=object), count)
    rows = Rows(
        names=names,
        kinds=tuple("number" if number else "category" for number in range(len(names))),
        donors=numpy.arange(count, dtype=numpy.int32),
        target=(random.random(count) < 0.5).astype(numpy.float64),
        held_out=random.random(count) < 0.3,
        columns=columns,
    )
    return Work(recipe, rows, 1, split=True)


def _network(federation: LocalFederation, folder: Path) -> connexon.Network:
    federation.make_hub()
    for seed, name in enumerate(CENTERS):
        center = federation.join_center(name)
        center.command("ontology", "add", "--demo")
        center.set("training", runs_per_project=1_000_000)
        out = folder / f"sample-{name}"
        center.command(
            *("sample", "--donors", str(DONORS), "--seed", str(seed + 1), "--center", name),
            *("--features", "1", "--out", str(out)),
        )
        for table in TABLES:
            center.import_file(table, out / f"{table}.parquet")
    federation.sign_roster()
    federation.start()
    ada = federation.accredit("ada", home=CENTERS[0])
    for center in federation.centers.values():
        center.command("edition", "open")
    federation.grant_exact(ada, training=True)
    return connexon.connect(ada.home)
