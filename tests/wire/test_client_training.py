"""Training from the researcher's side against a hub on a real socket: runs, models, and a hub that cheats."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pytest
from numpy.typing import NDArray

import connexon
from connexon.analyses.train import Train
from connexon.client.center_answer import Status
from connexon.client.home import Home
from connexon.client.network import Network
from connexon.client.training import model_proof
from connexon.client.training.model import Model, load_model
from connexon.client.training.model_proof import ModelRefused
from connexon.client.training.prediction import RowsUnfit, encoded
from connexon.client.training.run import Run, RunState
from connexon.errors import InvalidQuery, Misconfigured, NotFound, Refused, Unavailable
from connexon.identity.keys import CenterId, SigningKey
from connexon.learning import models as plain_models
from connexon.learning.preprocessing import Column, Preprocessing
from connexon.learning.recipe import FieldFeature, TrainingPrivacy
from connexon.query.recipes import file as recipe_file
from connexon.query.recipes.file import RecipeUnreadable
from connexon.query.signed import Asked
from connexon.v1 import answer_pb2, models_pb2, research_pb2
from connexon.zcdp import rho_of
from tests.support.client_hub import CENTERS, Federation, keep_catalog, logged_in, no_answer
from tests.support.training_hub import COLUMNS, RECIPE, Made, TrainingHub, arrays, enrolled, report

KYOTO, LYON, OSLO = CENTERS
FILE = recipe_file.read(RECIPE)
PRIVACY = TrainingPrivacy(epsilon=2.0, delta=1e-5, clip=1.0)
SPENT: dict[str, Any] = {"epsilon": 2, "delta": 1e-5, "clip": 1, "rho": rho_of(2.0, 1e-5)}


@pytest.fixture
def hub() -> Iterator[TrainingHub]:
    hub = TrainingHub(Federation())
    yield hub
    hub.stop()


@pytest.fixture
def home(hub: TrainingHub, tmp_path: Path) -> Home:
    return logged_in(hub, tmp_path / "home")


@pytest.fixture
def network(home: Home) -> Iterator[Network]:
    with connexon.connect(home) as network:
        yield network


@pytest.fixture
def run(network: Network) -> Run:
    return network.train(FILE, wait=20)


class TestRuns:
    def test_a_recipe_becomes_a_signed_question_a_run_and_a_model(self, hub: TrainingHub, network: Network) -> None:
        seen: list[tuple[RunState, int]] = []
        run = network.train(FILE, wait=20, on_progress=lambda run: seen.append((run.state, len(run.rounds))))
        asked, _ = hub.asked[run.id]
        assert asked.question.analysis == Train(FILE.recipe)
        assert (asked.question.dataset, asked.question.filter) == (FILE.dataset, FILE.filter)
        assert (asked.question.purpose.research, asked.question.purpose.project) == (("DUO:0000037",), "P-1")
        assert run.state is RunState.FINISHED
        assert [one.number for one in run.rounds] == [1, 2, 3]
        assert [one.took_part for one in run.rounds] == [CENTERS] * 3
        assert run.metrics["loss"] == pytest.approx(0.21)
        assert run.rounds[2].spread["loss"] == pytest.approx((0.2, 0.22))
        assert [part.result.donors for part in run.enrolment.centers] == [40, 41, 42]
        assert run.enrolment.totals == [{"centers": 3, "donors": 123, "at_least": False}]
        # The first news is told before anything is sent, so that whoever is interrupted knows the id.
        assert seen[0] == (RunState.GATHERING, 0)
        assert seen[-1] == (RunState.FINISHED, 3)
        assert run.model.id == "niche-score/1"

    def test_a_mapping_and_a_file_are_recipes_too_and_arguments_go_before_them(
        self, hub: TrainingHub, network: Network, tmp_path: Path
    ) -> None:
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE)
        run = network.train(str(path), purpose="methods", project="P-2", centers=["kyoto", "oslo"], wait=20)
        question = hub.asked[run.id][0].question
        assert question.centers == (KYOTO, OSLO)
        assert (question.purpose.research, question.purpose.project) == (("DUO:0000031",), "P-2")
        import yaml

        # PyYAML reads days as days; the recipe takes them as text.
        again = network.train(yaml.safe_load(RECIPE), wait=20)
        assert again.recipe == FILE.recipe
        with pytest.raises(RecipeUnreadable):
            network.train(tmp_path / "none.yaml")

    def test_who_does_not_take_part_is_named_with_the_reason(self, hub: TrainingHub, network: Network) -> None:
        def some(asked: Asked) -> Iterator[research_pb2.Update]:
            yield hub.answered(enrolled(asked, KYOTO, None))
            yield hub.answered(no_answer(asked, LYON, "REFUSED", "consent.not_covered", "No donor agreed.", "gru"))
            yield hub.answered(no_answer(asked, OSLO, "AWAITING_STEWARD", "approval.waiting", "The steward has it."))

        def failing(query_id: str) -> Iterator[models_pb2.RunStatus]:
            reason = answer_pb2.Reason(code="run.too_few_centers", message="1 center takes part; 2 are wanted.")
            yield hub.status(query_id, "FAILED", reason=reason)

        hub.script, hub.statuses = some, failing
        run = network.train(FILE, wait=20)
        assert run.state is RunState.FAILED
        assert (run.code, run.message) == ("run.too_few_centers", "1 center takes part; 2 are wanted.")
        assert [part.status for part in run.enrolment.centers] == [
            *(Status.RELEASED, Status.REFUSED, Status.AWAITING_STEWARD)
        ]
        assert run.enrolment.totals == [{"centers": 1, "donors": None, "at_least": True}]
        with pytest.raises(NotFound, match="run is failed"):
            _ = run.model
        assert "takes part" in str(run)
        assert "No donor agreed" in str(run)

    def test_waiting_ends_and_the_run_is_come_back_to(self, hub: TrainingHub, network: Network) -> None:
        may_end = threading.Event()

        def slowly(query_id: str) -> Iterator[models_pb2.RunStatus]:
            yield hub.status(query_id, "RUNNING", report(1, {"kyoto": 0.5, "lyon": 0.4}, missing={"oslo": "task.late"}))
            may_end.wait(30)
            yield from list(hub.three_rounds(query_id))[-1:]

        hub.statuses = slowly
        run = network.train(FILE, wait=1)
        assert (run.state, len(run.rounds)) == (RunState.RUNNING, 1)
        assert run.rounds[0].took_part == (KYOTO, LYON)
        assert "oslo was missing in round 1" in str(run)
        may_end.set()
        assert run.wait(20) is run
        assert run.state is RunState.FINISHED
        back = network.run(run.id, wait=20)
        assert (back.id, back.recipe) == (run.id, FILE.recipe)
        assert back.state is RunState.FINISHED

    def test_a_look_does_not_wait(self, hub: TrainingHub, network: Network) -> None:
        hub.statuses = lambda query_id: iter([hub.status(query_id, "RUNNING")])
        run = network.train(FILE, wait=0)
        assert run.state is RunState.RUNNING
        assert True not in hub.run_calls
        assert network.run(run.id).state is RunState.RUNNING
        assert True not in hub.run_calls

    def test_a_broken_connection_is_taken_up_again(self, hub: TrainingHub, network: Network) -> None:
        hub.fail_runs = [Unavailable("Not now."), Unavailable("Not now.")]
        run = network.train(FILE, wait=20)
        assert run.state is RunState.FINISHED
        assert len(run.rounds) == 3

    def test_cancelling_ends_the_run(self, hub: TrainingHub, network: Network) -> None:
        hub.statuses = lambda query_id: iter(
            [hub.status(query_id, "CANCELLED" if query_id in hub.cancelled else "RUNNING")]
        )
        run = network.train(FILE, wait=0)
        assert run.cancel() is run
        assert hub.cancelled == [run.id]
        assert run.state is RunState.CANCELLED

    def test_a_question_that_trains_nothing_is_no_run(self, hub: TrainingHub, network: Network) -> None:
        hub.script = hub.everyone_counts
        answer = network.study(purpose="health").dataset("cell_lines").count()
        with pytest.raises(InvalidQuery, match=f"connexon result {answer.query_id}"):
            network.run(answer.query_id)
        with pytest.raises(NotFound):
            network.run("0b7c2f0e-5a1f-4a43-9f0e-5d2a6d1f3b11")

    def test_another_runs_status_is_not_believed(self, hub: TrainingHub, network: Network) -> None:
        hub.statuses = lambda query_id: iter([hub.status("another", "RUNNING")])
        with pytest.raises(Refused) as refused:
            network.train(FILE, wait=5)
        assert refused.value.code == "run.swapped"

    def test_a_slip_in_a_field_is_caught_before_anything_is_sent(
        self, hub: TrainingHub, home: Home, network: Network
    ) -> None:
        fields = ["success", "vessel", "seed_density_1e6_ml", "started_on"]
        keep_catalog(home, {"differentiation_runs": fields, "timepoints": ["attribute", "value", "day"]})
        for wrong in ("- vesel", "dataset: timepoint", "key: atribute"):
            right = {
                "- vesel": "- vessel",
                "dataset: timepoint": "dataset: timepoints",
                "key: atribute": "key: attribute",
            }
            with pytest.raises(NotFound, match="Did you mean"):
                network.train(recipe_file.read(RECIPE.replace(right[wrong], wrong)), wait=0)
        assert hub.asks == []
        network.train(FILE, wait=0)
        assert len(hub.asks) == 1


Spoil = Callable[[Made], object]


def _swap_query(made: Made) -> None:
    made.statement.query_sha256 = bytes(32)


def _stranger_takes_part(made: Made) -> None:
    made.statement.rounds[0].parts.add(center_id="boston", took_part=True)


def _sign_by_another(made: Made) -> None:
    made.keys = {**made.keys, LYON: SigningKey.generate()}


def _of_another_run(made: Made) -> None:
    made.answers[1].task.task_id = "0b7c2f0e-5a1f-4a43-9f0e-5d2a6d1f3b11.5"


def _only_enrolled(made: Made) -> None:
    made.answers[1].ClearField("task")
    made.answers[1].enrolment.SetInParent()


def _refused(made: Made) -> None:
    made.answers[1].status = answer_pb2.ANSWER_STATUS_REFUSED


def _to_another_question(made: Made) -> None:
    made.answers[1].query_sha256 = bytes(32)


def _claim_privacy(made: Made) -> None:
    made.statement.privacy.CopyFrom(models_pb2.PrivacySpent(epsilon=1, delta=1e-5, clip=1, rho=0.1))


def _another_researcher(made: Made) -> None:
    made.statement.researcher_id = "lyon/eve"


def _tampered_query(made: Made) -> None:
    made.query.signature = bytes(64)


class TestModels:
    def test_a_model_predicts_what_its_arrays_say(self, run: Run) -> None:
        model = run.model
        assert model.proved
        assert model.columns == tuple(column.name for column in COLUMNS)
        rows: dict[str, Any] = {
            "vessel": ["plate", None, "spinner"],
            "seed_density_1e6_ml": [0.7, None, 0.5],
            model.columns[2]: [3.1, 3.0, None],
            model.columns[3]: [1.0, 2.0, 2.5],
        }
        expected = plain_models.predict(FILE.recipe, arrays(), Preprocessing(COLUMNS).encode(rows))
        assert model.predict(rows).tolist() == expected.tolist()

    def test_a_category_is_the_same_however_a_table_writes_it(self) -> None:
        column = Column("phase", "category", categories=("1", "2"))
        recipe = dataclasses.replace(FILE.recipe, features=(FieldFeature("phase"),))
        expected = [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
        for values in (["2 ", None, "1"], pandas.Series([2, None, 1]), [2, None, 1], [2.0, math.nan, 1.0]):
            frame = pandas.DataFrame({"phase": values})
            assert encoded(Preprocessing((column,)), recipe, frame).tolist() == expected

    def test_every_kind_of_table_gives_the_same(self, run: Run) -> None:
        model = run.model
        rows: dict[str, Any] = {
            "vessel": ["plate", None],
            "seed_density_1e6_ml": [0.7, None],
            "ph": [7.2, 7.4],
            "glucose": [5.5, None],
            "id": ["a", "b"],
        }
        expected = model.predict(rows)
        log2 = [numpy.log2(1 + one) if one else None for one in (5.5, None)]
        named = {**rows, model.columns[3]: log2}
        del named["glucose"]
        same: list[object] = [
            pandas.DataFrame(rows),
            polars.DataFrame(rows),
            pyarrow.table(rows),
            {name: [None if one is None else str(one) for one in values] for name, values in rows.items()},
            named,
            {
                **{name: rows[name] for name in rows if name != "ph"},
                "timepoints.value[attribute=ph; day <= 3]": rows["ph"],
            },
        ]
        for table in same:
            assert model.predict(table).tolist() == pytest.approx(expected.tolist()), type(table)
        one = model.predict({"vessel": "plate", "seed_density_1e6_ml": 0.7, "ph": 7.2, "glucose": 5.5})
        assert one.tolist() == pytest.approx(expected[:1].tolist())

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"vessel": None}, "no column 'vessel'"),
            ({"vessel": ["Plate"]}, "one of flask, plate; the first row that has any has 'Plate'"),
            ({"ph": ["7,2"]}, "row 1 has '7,2'"),
            ({"ph": [-3.0]}, "as it was measured"),
            ({"ph": [1.0, 2.0]}, "different numbers of rows"),
        ],
    )
    def test_rows_that_do_not_fit_are_refused_with_the_place(
        self, run: Run, change: dict[str, object], words: str
    ) -> None:
        rows = {"vessel": ["plate"], "seed_density_1e6_ml": [0.7], "ph": [7.2], "glucose": [5.5], **change}
        with pytest.raises(RowsUnfit, match=words):
            run.model.predict({name: values for name, values in rows.items() if values is not None})
        with pytest.raises(RowsUnfit):
            run.model.predict([1, 2, 3])

    def test_a_card_says_what_it_is_how_good_and_of_whose_data(self, hub: TrainingHub, network: Network) -> None:
        asked = dataclasses.replace(FILE, recipe=dataclasses.replace(FILE.recipe, privacy=PRIVACY))
        run = network.train(asked, wait=20)
        made = hub.make(run.id, version=2)
        made.flags.append(
            models_pb2.ModelFlag(code="consent.withdrawn", message="A donor withdrew.", center_id="lyon", at_ms=1)
        )
        made.statement.privacy.CopyFrom(models_pb2.PrivacySpent(**SPENT))
        made.statement.held_out["boston"].metrics["auc"] = 0.71
        model = network.model(hub.publish(run.id, made))
        card = model.card()
        for words in (
            *(
                "# niche-score/2",
                "consent.withdrawn",
                "Predicts `success` as failed or succeeded",
                "started_on >= 2020",
            ),
            *(
                "| lyon | 40 | 3 | cell\\_lines 3 | 1 | ab12 |",
                "for all that left a center: updates, metrics and the number of donors",
                f"ρ = {SPENT['rho']:.4f} was charged to each center's account, which is ε = 2 at δ = 1e-05",
                "was clipped at 1, and each center added the noise",
                "| boston | 0.71 |",
                "20% of each center's donors",
            ),
            *("model.predict", "kind: logistic", run.id, "purpose health"),
        ):
            assert words in card or words == "model.predict", words
        assert network.train(model.recipe_file, wait=0).recipe == asked.recipe
        assert recipe_file.read(model.recipe_text()) == model.recipe_file

    def test_a_card_tells_of_a_column_that_is_not_used(self, hub: TrainingHub, network: Network) -> None:
        run = network.train(FILE, wait=20)
        made = hub.make(run.id)
        columns = (COLUMNS[0], dataclasses.replace(COLUMNS[1], mean=0.0, sd=1.0, used=False), *COLUMNS[2:])
        made.statement.preprocessing = Preprocessing(columns).to_json()
        card = network.model(hub.publish(run.id, made)).card()
        assert "| seed\\_density\\_1e6\\_ml | number | not used: no center told its scale |" in card

    def test_what_is_saved_is_read_back_the_same(self, run: Run, home: Home, tmp_path: Path) -> None:
        model = run.model
        folder = model.save(tmp_path / "model")
        assert sorted(path.name for path in folder.iterdir()) == ["card.md", "model.safetensors", "statement.connexon"]
        again = load_model(folder, home=home)
        assert again.proved
        assert again.to_json() == model.to_json()
        rows = {"vessel": ["plate"], "seed_density_1e6_ml": [0.7], "ph": [7.2], "glucose": [5.5]}
        assert again.predict(rows).tolist() == model.predict(rows).tolist()
        with pytest.raises(Misconfigured, match="new folder"):
            model.save(folder)
        from safetensors.numpy import load_file

        assert load_file(folder / "model.safetensors")["coefficients"].tolist() == arrays()["coefficients"].tolist()

    def test_a_saved_model_without_a_roster_is_read_and_says_that_it_is_not_proved(
        self, run: Run, tmp_path: Path
    ) -> None:
        folder = run.model.save(tmp_path / "model")
        model = load_model(folder, home=Home(tmp_path / "nobody"))
        assert not model.proved
        assert "Not proved" in model.card()

    def test_a_saved_model_that_was_changed_is_refused(self, run: Run, home: Home, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        folder = run.model.save(tmp_path / "model")
        values = load_file(folder / "model.safetensors")
        values["intercept"] = values["intercept"] + 1
        save_file(values, folder / "model.safetensors")
        with pytest.raises(ModelRefused) as refused:
            load_model(folder, home=Home(tmp_path / "nobody"))
        assert refused.value.code == "model.bad_arrays"
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelRefused):
            load_model(folder, home=home)
        with pytest.raises(Misconfigured, match="model export"):
            load_model(tmp_path)

    def test_the_hubs_models_are_listed(self, run: Run, network: Network) -> None:
        (one,) = network.models()
        assert (one.id, one.query_id, one.rounds, one.centers) == ("niche-score/1", run.id, 3, CENTERS)
        with pytest.raises(NotFound, match="connexon models"):
            network.model("niche score")
        with pytest.raises(NotFound):
            network.model("niche-score/9")

    @pytest.mark.parametrize(
        ("spoil", "code"),
        [
            (lambda made: setattr(made.statement, "federation", "others"), "model.other_federation"),
            (lambda made: setattr(made.statement, "model_id", "niche-score/7"), "model.swapped"),
            (lambda made: setattr(made.statement, "model_id", "cell-score/1"), "model.other_query"),
            (_swap_query, "model.other_query"),
            (_another_researcher, "model.bad_query"),
            (_tampered_query, "model.bad_query"),
            (lambda made: made.answers.pop(), "model.unsigned_part"),
            (lambda made: made.answers.append(made.answers[0]), "model.bad_answer"),
            (_stranger_takes_part, "model.unsigned_part"),
            (_sign_by_another, "model.bad_answer"),
            (_of_another_run, "model.bad_answer"),
            (_only_enrolled, "model.bad_answer"),
            (_refused, "model.bad_answer"),
            (_to_another_question, "model.bad_answer"),
            (lambda made: setattr(made.statement.parts[0], "rounds", 4), "model.overstated"),
            (lambda made: setattr(made.statement.parts[0], "donors", 400), "model.overstated"),
            (lambda made: made.answers[0].task.ClearField("donors"), "model.overstated"),
            (lambda made: setattr(made.statement.parts[0].provenance, "policy_version", "x"), "model.overstated"),
            (_claim_privacy, "model.overstated"),
            (lambda made: made.statement.rounds.extend([report(4, {"kyoto": 0.1})]), "model.overstated"),
            (lambda made: setattr(made, "data", made.data[:-8] + bytes(8)), "model.bad_arrays"),
            (lambda made: setattr(made, "data", made.data + bytes(8)), "model.bad_arrays"),
            (lambda made: setattr(made, "data", b""), "model.bad_arrays"),
        ],
    )
    def test_a_hub_that_cheats_is_refused_with_the_reason(
        self, hub: TrainingHub, network: Network, spoil: Spoil, code: str
    ) -> None:
        run = network.train(FILE, wait=20)
        made = hub.make(run.id)
        spoil(made)
        hub.models["niche-score/1"] = (made.sign(hub.federation), made.data)
        with pytest.raises(ModelRefused) as refused:
            network.model("niche-score/1")
        assert refused.value.code == code

    @pytest.mark.parametrize(
        "claimed",
        [
            None,
            {"epsilon": 0.1},
            {"delta": 1e-9},
            {"clip": 0.5},
            {"rho": 0.01},
        ],
    )
    def test_other_privacy_than_was_asked_for_is_not_believed(
        self, hub: TrainingHub, network: Network, claimed: dict[str, Any] | None
    ) -> None:
        asked = dataclasses.replace(FILE, recipe=dataclasses.replace(FILE.recipe, privacy=PRIVACY))
        run = network.train(asked, wait=20)
        made = hub.make(run.id)
        made.statement.privacy.CopyFrom(models_pb2.PrivacySpent(**SPENT))
        assert network.model(hub.publish(run.id, made)).proved
        made.statement.ClearField("privacy")
        if claimed is not None:
            made.statement.privacy.CopyFrom(models_pb2.PrivacySpent(**{**SPENT, **claimed}))
        hub.models["niche-score/1"] = (made.sign(hub.federation), made.data)
        with pytest.raises(ModelRefused) as refused:
            network.model("niche-score/1")
        assert refused.value.code == "model.overstated"

    def test_the_model_of_an_earlier_run_is_not_taken_for_this_ones(self, hub: TrainingHub, network: Network) -> None:
        network.train(FILE, wait=20)
        earlier = hub.models["niche-score/1"]
        run = network.train(FILE, wait=20)
        assert run.model.proved
        hub.models["niche-score/1"] = earlier
        assert network.model("niche-score/1").proved
        with pytest.raises(ModelRefused) as refused:
            _ = run.model
        assert refused.value.code == "model.swapped"

    def test_a_statement_that_the_hub_did_not_sign_is_refused(
        self, hub: TrainingHub, run: Run, network: Network
    ) -> None:
        signed, data = hub.models["niche-score/1"]
        for spoilt in (
            models_pb2.SignedModel(payload=signed.payload, signature=b"", query=signed.query, answers=signed.answers),
            hub.make(run.id).sign(Federation()),
        ):
            hub.models["niche-score/1"] = (spoilt, data)
            with pytest.raises(ModelRefused) as refused:
                network.model("niche-score/1")
            assert refused.value.code in ("model.bad_signature", "model.bad_answer")

    def test_an_answer_without_its_receipt_is_refused(self, hub: TrainingHub, run: Run, network: Network) -> None:
        signed, data = hub.models["niche-score/1"]
        signed.answers[2].ClearField("receipt")
        hub.models["niche-score/1"] = (signed, data)
        with pytest.raises(ModelRefused, match="oslo"):
            network.model("niche-score/1")

    def test_a_held_out_center_in_the_model_is_refused(self, hub: TrainingHub, network: Network) -> None:
        file = recipe_file.read(RECIPE.replace("held_out: 0.2", "held_out: 0.2, held_out_centers: [oslo]"))
        run = network.train(file, wait=20)
        with pytest.raises(ModelRefused) as refused:
            _ = run.model
        assert refused.value.code == "model.overstated"

    def test_a_model_of_another_question_than_was_asked_here_is_refused(
        self, hub: TrainingHub, home: Home, run: Run, network: Network
    ) -> None:
        home.remember(run.id, 1, b"another question")
        (path,) = [one for one in (home.folder / "queries").iterdir() if one.name.startswith("000000000000001")]
        for one in (home.folder / "queries").iterdir():
            if one != path:
                one.unlink()
        with pytest.raises(ModelRefused) as refused:
            network.model("niche-score/1")
        assert refused.value.code == "model.other_query"


def test_trees_are_saved_as_xgboost_itself_reads_them(
    hub: TrainingHub, network: Network, home: Home, tmp_path: Path
) -> None:
    import xgboost

    random = numpy.random.default_rng(1)
    inputs = random.normal(size=(80, 5))
    matrix = xgboost.DMatrix(inputs, label=(inputs[:, 1] > 0).astype(float))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "base_score": 0.5}, matrix, 3)
    trees: NDArray[numpy.uint8] = numpy.frombuffer(bytes(booster.save_raw("json")), dtype=numpy.uint8)
    file = recipe_file.read(RECIPE.replace("kind: logistic, learning_rate: 0.5, l2: 0.01", "kind: boosted_trees"))
    hub.statuses = lambda query_id: iter([hub.status(query_id, "RUNNING")])
    run = network.train(file, wait=0)
    model = network.model(hub.publish(run.id, hub.make(run.id, values={"0": trees})))
    folder = model.save(tmp_path / "trees")
    assert xgboost.Booster(model_file=str(folder / "model.json")).num_boosted_rounds() == 3
    rows = {"vessel": ["plate"], "seed_density_1e6_ml": [0.7], "ph": [7.2], "glucose": [5.5]}
    assert load_model(folder, home=home).predict(rows).tolist() == model.predict(rows).tolist()
    assert 0 < model.predict(rows)[0] < 1


def test_a_spoilt_statement_crashes_nothing(hub: TrainingHub, run: Run, network: Network) -> None:
    signed, _ = hub.models["niche-score/1"]
    data = signed.SerializeToString()
    random = numpy.random.default_rng(3)
    for _ in range(300):
        spoilt = bytearray(data)
        spoilt[random.integers(len(spoilt))] = random.integers(256)
        try:
            proved = model_proof.verify(model_proof.read(bytes(spoilt)), network.roster)
        except ModelRefused:
            continue
        # What is not signed may change: nothing but flags, and bytes that mean the same.
        assert proved.statement == models_pb2.ModelStatement.FromString(signed.payload)


def test_only_a_proved_model_is_a_model(run: Run) -> None:
    assert isinstance(run.model, Model)
    assert CenterId("kyoto") in {part.center for part in run.model.parts}
