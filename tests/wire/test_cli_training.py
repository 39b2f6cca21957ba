"""Training from the command line: real runs of the command against a hub on a real socket."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from connexon import cli
from connexon.analyses.train import Train
from connexon.client.home import Home
from connexon.query.recipes import file as recipe_file
from connexon.v1 import answer_pb2, models_pb2
from tests.support.client_hub import Federation, logged_in
from tests.support.command_line import Run, runner
from tests.support.documented import assert_same_shape, documented
from tests.support.training_hub import RECIPE, TrainingHub, report

COMMAND = str(Path(sys.executable).with_name("connexon"))
ROWS = "id,vessel,seed_density_1e6_ml,ph,glucose\nR1,plate,0.7,7.2,5.5\nR2,,,7.4,\n"


@pytest.fixture
def hub() -> Iterator[TrainingHub]:
    hub = TrainingHub(Federation())
    yield hub
    hub.stop()


@pytest.fixture(autouse=True)
def home(hub: TrainingHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    home = logged_in(hub, tmp_path / "home")
    monkeypatch.setenv("CONNEXON_HOME", str(home.folder))
    return home


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(cli.main, "connexon", 60, monkeypatch, capsys)


def test_the_example_is_a_recipe_that_trains(hub: TrainingHub, run: Run, tmp_path: Path) -> None:
    shown = run("train", "--example")
    assert shown.status == 0
    path = tmp_path / "example.yaml"
    path.write_text(shown.out)
    hub.statuses = lambda query_id: iter([hub.status(query_id, "RUNNING")])
    assert run("train", str(path), "--wait", "0").status == 3
    (asked, _) = next(iter(hub.asked.values()))
    assert isinstance(asked.question.analysis, Train)
    assert asked.question.analysis.recipe == recipe_file.read(shown.out).recipe


def test_training_shows_its_rounds_and_where_the_model_is(run: Run, recipe: str) -> None:
    ran = run("train", recipe)
    assert ran.status == 0, ran.err
    said = " ".join(ran.out.split())
    assert "connexon model show niche-score/1" in said
    assert "takes part with 40 donors" in said
    assert "0.2100" in said
    assert "loss █" in said
    assert [line for line in ran.out.splitlines() if len(line) > 60] == []


def test_a_run_as_json_has_the_documented_shape(run: Run, recipe: str) -> None:
    ran = run("train", recipe, "--json")
    assert ran.status == 0, ran.err
    assert_same_shape(_told(ran.document), _told(documented("connexon.run/1")))
    query_id = ran.document["query_id"]
    answer = run("result", query_id, "--json")
    assert_same_shape(
        {name: answer.document[name] for name in documented("connexon.answer/1 of a training")},
        documented("connexon.answer/1 of a training"),
    )
    pointed = run("result", query_id)
    assert f"connexon run {query_id}" in pointed.said
    listed = run("queries")
    assert "train niche-score on" in " ".join(listed.out.split())
    assert run("queries", "--json").document["queries"][0]["analysis"]["model"] == "niche-score"


def _told(document: Any) -> Any:
    """Without what differs from center to center: metrics by name, and the generations of datasets."""
    if isinstance(document, dict):
        free = ("metrics", "generations", "ontologies", "held_out")
        return {name: {} if name in free else _told(value) for name, value in document.items()}
    return [_told(one) for one in document] if isinstance(document, list) else document


def test_a_run_that_goes_on_is_come_back_to(hub: TrainingHub, run: Run, recipe: str) -> None:
    hub.statuses = lambda query_id: iter([hub.status(query_id, "RUNNING", report(1, {"kyoto": 0.5}))])
    ran = run("train", recipe, "--wait", "0.2")
    assert ran.status == 3
    query_id = hub.asks[0]
    assert f"connexon run {query_id}" in " ".join(ran.out.split())
    assert run("run", query_id, "--wait", "0").status == 3
    hub.statuses = hub.three_rounds
    back = run("run", query_id[:8], "--wait", "20")
    assert back.status == 0
    assert "niche-score/1" in back.out


def test_a_run_that_failed_is_1_and_says_why(hub: TrainingHub, run: Run, recipe: str) -> None:
    reason = answer_pb2.Reason(code="run.too_few_centers", message="1 center takes part; the recipe wants 2.")
    hub.statuses = lambda query_id: iter([hub.status(query_id, "FAILED", reason=reason)])
    ran = run("train", recipe)
    assert ran.status == 1
    assert "run.too_few_centers" in ran.out


def test_ctrl_c_leaves_the_run_going_and_says_how_to_come_back(hub: TrainingHub, recipe: str, home: Home) -> None:
    running = threading.Event()

    def slowly(query_id: str) -> Iterator[models_pb2.RunStatus]:
        yield hub.status(query_id, "RUNNING", report(1, {"kyoto": 0.5}))
        running.set()
        threading.Event().wait(90)

    hub.statuses = slowly
    process = subprocess.Popen(
        [COMMAND, "train", recipe], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert running.wait(60)
    while hub.run_calls.count(True) == 0:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"connexon run {hub.asks[0]}" in said
    assert f"connexon cancel {hub.asks[0]}" in said
    assert hub.cancelled == []


def test_cancel_ends_a_run(hub: TrainingHub, run: Run, recipe: str) -> None:
    hub.statuses = lambda query_id: iter([hub.status(query_id, "RUNNING")])
    run("train", recipe, "--wait", "0")
    assert run("cancel", hub.asks[0]).status == 0
    assert hub.cancelled == [hub.asks[0]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train",), "connexon train --example"),
        (("train", "none.yaml"), "--example > none.yaml"),
        (("run", "0b7c2f0e-5a1f-4a43-9f0e-5d2a6d1f3b11"), "query.not_found"),
        (("model", "show", "nothing"), "connexon models"),
        (("model", "show", "niche-score/4"), "model.not_found"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(run: Run, words: tuple[str, ...], said: str) -> None:
    ran = run(*words)
    assert ran.status == 1
    assert said in ran.said
    assert "Traceback" not in ran.err


def test_a_mistake_in_a_recipe_is_shown_at_its_line_before_anything_is_sent(
    hub: TrainingHub, run: Run, recipe: str
) -> None:
    Path(recipe).write_text(RECIPE.replace("rounds: 3", "round: 3"))
    ran = run("train", recipe)
    assert ran.status == 1
    assert "recipe.yaml, line 10" in ran.said
    assert "Did you mean 'rounds'" in ran.said
    assert hub.asks == []


def test_models_are_listed_shown_and_completed(hub: TrainingHub, run: Run, recipe: str) -> None:
    assert "connexon train --example" in run("models").said
    run("train", recipe)
    signed, data = hub.models["niche-score/1"]
    signed.flags.add(code="consent.withdrawn", message="A donor withdrew.", center_id="lyon", at_ms=1795420535190)
    hub.models["niche-score/1"] = (signed, data)
    listed = run("models")
    assert "niche-score/1" in listed.out
    assert "consent.withdrawn (lyon): A donor withdrew." in " ".join(listed.out.split())
    assert_same_shape(_told(run("models", "--json").document), _told(documented("connexon.models/1")))
    card = run("model", "show", "niche-score/1")
    assert card.out.startswith("# niche-score/1\n")
    document = run("model", "show", "niche-score/1", "--json").document
    assert_same_shape(_told(document), _told(documented("connexon.model/1")))
    assert recipe_file.read(run("model", "recipe", "niche-score/1").out).recipe == recipe_file.read(RECIPE).recipe
    from connexon.cli import completing

    assert completing.models("niche") == ["niche-score/1"]


def test_a_model_is_exported_and_predicts_from_csv_and_parquet(
    hub: TrainingHub, run: Run, recipe: str, tmp_path: Path
) -> None:
    run("train", recipe)
    folder, file, out = tmp_path / "exported", tmp_path / "rows.csv", tmp_path / "out.csv"
    file.write_text(ROWS)
    exported = run("model", "export", "niche-score/1", "--out", str(folder), "--json")
    assert_same_shape(exported.document, documented("connexon.export/1"))
    again = run("model", "export", "niche-score/1", "--out", str(folder))
    assert (again.status, "new folder" in again.said) == (1, True)
    assert run("model", "predict", "niche-score/1", str(file), "--out", str(out)).status == 0
    rows = list(csv.DictReader(out.open()))
    assert [row["id"] for row in rows] == ["R1", "R2"]
    assert list(rows[0]) == ["id", "predicted", "probability_failed", "probability_succeeded"]
    chance = float(rows[0]["probability_succeeded"])
    assert rows[0]["predicted"] == ("succeeded" if chance > 0.5 else "failed")
    table = tmp_path / "rows.parquet"
    parquet.write_table(
        pyarrow.table(
            {
                "id": ["R1", "R2"],
                "vessel": ["plate", None],
                "seed_density_1e6_ml": [0.7, None],
                "ph": [7.2, 7.4],
                "glucose": [5.5, None],
            }
        ),
        table,
    )
    hub.stop()  # from here on nothing is asked of anybody
    local = run("model", "predict", str(folder), str(table), "--json")
    assert_same_shape(local.document, documented("connexon.predictions/1"))
    assert [one["probability_succeeded"] for one in local.document["rows"]] == [
        float(row["probability_succeeded"]) for row in rows
    ]
    printed = run("model", "predict", str(folder), str(file))
    assert printed.out == out.read_text()
    hub.start()


def test_who_predicts_hears_what_came_to_be_known_of_the_model(
    hub: TrainingHub, run: Run, recipe: str, tmp_path: Path
) -> None:
    run("train", recipe)
    file = tmp_path / "rows.csv"
    file.write_text(ROWS)
    before = run("model", "predict", "niche-score/1", str(file))
    assert before.err == ""
    signed, data = hub.models["niche-score/1"]
    signed.flags.add(code="consent.withdrawn", message="A donor withdrew.", center_id="lyon", at_ms=1795420535190)
    hub.models["niche-score/1"] = (signed, data)
    warned = run("model", "predict", "niche-score/1", str(file))
    assert (warned.status, warned.out) == (0, before.out)
    assert "consent.withdrawn (lyon): A donor withdrew." in warned.said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a table"),
        ("id,id\n1,2\n", "not a table"),
        ("id,vessel\n1\n", "not a table"),
        ("id,vessel\nR1,plate\n", "no column 'seed_density_1e6_ml'"),
        ("id,vessel\nR1,plate\n", "see them with connexon model show niche-score/1"),
        ("vessel,seed_density_1e6_ml,ph,glucose\nplate,much,7,5\n", "row 1 has 'much'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_a_sentence(
    run: Run, recipe: str, tmp_path: Path, text: str, said: str
) -> None:
    run("train", recipe)
    file = tmp_path / "rows.csv"
    file.write_text(text)
    ran = run("model", "predict", "niche-score/1", str(file))
    assert ran.status == 1
    assert said in ran.said
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\x00")
    assert "cannot be read" in run("model", "predict", "niche-score/1", str(tmp_path / "photo.csv")).said


BLOCKING = """
import sys
ABSENT = sys.argv[1]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from connexon import cli
sys.argv = ["connexon", *sys.argv[2:]]
cli.main()
"""


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("yaml", ("train", "RECIPE")),
        ("numpy", ("model", "show", "niche-score/1")),
        ("safetensors", ("model", "export", "niche-score/1", "--out", "x")),
    ],
)
def test_a_missing_package_is_said_in_one_sentence(
    run: Run, recipe: str, tmp_path: Path, absent: str, words: tuple[str, ...]
) -> None:
    run("train", recipe)
    command = [sys.executable, "-c", BLOCKING, absent, *(recipe if word == "RECIPE" else word for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "pip install 'connexon[learn]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_json_of_a_run_is_one_document(run: Run, recipe: str) -> None:
    ran = run("train", recipe, "--json")
    assert json.loads(ran.out)["schema"] == "connexon.run/1"
    assert ran.err == ""
