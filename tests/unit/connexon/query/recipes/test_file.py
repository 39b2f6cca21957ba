"""Recipes as YAML: what is written is what is trained, and a mistake is shown at its line."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from connexon.conditions import where
from connexon.errors import ConnexonError, InvalidQuery
from connexon.identity.keys import center_id
from connexon.learning import wire_recipe
from connexon.learning.recipe import (
    BoostedTrees,
    FeatureSet,
    FieldFeature,
    Linear,
    LocalWork,
    Logistic,
    Model,
    Multinomial,
    Perceptron,
    Recipe,
    Stopping,
    Strategy,
    Target,
    TargetClass,
    TrainingPrivacy,
)
from connexon.query.recipes import file as recipe_file
from connexon.query.recipes import text as recipe_text
from connexon.query.recipes.file import RecipeFile, RecipeUnreadable

RECIPES = sorted((Path(__file__).parents[5] / "docs" / "recipes").glob("*.yaml"))
SMALL = """\
name: niche-score
dataset: differentiation_runs
target: {field: success, classes: {failed: [false], succeeded: [true]}}
features:
  - vessel
  - dataset: timepoints
    key: attribute
    keys: [ph, glucose]
    value: value
    where: "day <= 3"
    log2: true
model:
  kind: logistic
  learning_rate: 0.5
rounds: 10
"""


def changed(before: str, after: str) -> str:
    assert before in SMALL
    return SMALL.replace(before, after)


def test_a_small_recipe_means_what_it_says() -> None:
    assert recipe_file.read(SMALL) == RecipeFile(
        recipe=Recipe(
            name="niche-score",
            target=Target("success", (TargetClass("failed", (False,)), TargetClass("succeeded", (True,)))),
            features=(
                FieldFeature("vessel"),
                FeatureSet("timepoints", "attribute", ("ph", "glucose"), "value", where.parse("day <= 3"), log2=True),
            ),
            model=Logistic(LocalWork(0.5)),
            rounds=10,
        ),
        dataset="differentiation_runs",
    )


def test_every_part_has_its_place() -> None:
    file = recipe_file.read(
        SMALL
        + "where: started_on >= 2020-01-01\nstrategy: {name: FedProx, options: {proximal_mu: 1e-2}}\n"
        + "privacy: exact\nstop: {metric: auc, patience: 3, minimum_change: 0.001}\n"
        + "evaluate: {held_out: 0.2, held_out_centers: [oslo]}\ncenters: [kyoto, lyon, oslo]\n"
        + "minimum_centers: 3\nround_seconds: 30\nseed: 7\npurpose: disease=MONDO:0005180\nproject: P-17\n"
        + "ethics_approval: EC 7\ncommercial: true\n"
    )
    recipe = file.recipe
    assert file.filter == where.parse("started_on >= 2020-01-01")
    assert recipe.strategy == Strategy("FedProx", {"proximal_mu": 0.01})
    assert recipe.stopping == Stopping("auc", 3, 0.001)
    assert (recipe.held_out, recipe.held_out_centers) == (0.2, ("oslo",))
    assert file.centers == ("kyoto", "lyon", "oslo")
    assert (recipe.minimum_centers, recipe.round_seconds, recipe.seed) == (3, 30.0, 7)
    assert (file.purpose, file.project, file.ethics_approval, file.commercial) == (
        *("disease=MONDO:0005180", "P-17", "EC 7"),
        True,
    )


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (
            "{kind: multinomial, learning_rate: 1, epochs: 3, batch: 32, l2: 0.1}",
            Multinomial(LocalWork(1.0, 3, 32), 0.1),
        ),
        ("{kind: perceptron, hidden: [16, 8], learning_rate: 0.1}", Perceptron((16, 8), LocalWork(0.1))),
        ("{kind: boosted_trees, depth: 3}", BoostedTrees(depth=3)),
    ],
)
def test_each_model_is_read(text: str, model: object) -> None:
    body, _, rest = SMALL.partition("model:\n")
    file = recipe_file.read(f"{body}model: {text}\n{rest[rest.index('rounds') :]}privacy: exact\n")
    assert file.recipe.model == model
    assert file.recipe.strategy.name == ("FedXgbBagging" if isinstance(model, BoostedTrees) else "FedAvg")


def test_noise_is_asked_for_unless_updates_are_to_be_exact() -> None:
    assert recipe_file.read(SMALL).recipe.privacy == TrainingPrivacy() == TrainingPrivacy(1.5, 1e-6, 1.0)
    assert recipe_file.read(SMALL + "privacy: {epsilon: 0.5}\n").recipe.privacy == TrainingPrivacy(0.5, 1e-6, 1.0)
    file = recipe_file.read(SMALL + "privacy: {epsilon: 2, delta: 1e-5, clip: 0.5}\n")
    assert file.recipe.privacy == TrainingPrivacy(2.0, 1e-5, 0.5)
    assert recipe_file.read(SMALL + "privacy: exact\n").recipe.privacy is None
    with pytest.raises(RecipeUnreadable, match="Known: exact"):
        recipe_file.read(SMALL + "privacy: none\n")


def test_where_a_number_is_predicted_errors_are_as_large_as_a_quarter_of_its_range() -> None:
    text = (
        SMALL[: SMALL.index("target:")]
        + "target: {field: yield_1e6, range: [0, 50]}\n"
        + SMALL[SMALL.index("features:") :]
    )
    linear = recipe_file.read(text.replace("kind: logistic", "kind: linear")).recipe
    assert linear.target.range == (0.0, 50.0)
    assert linear.privacy == TrainingPrivacy(clip=12.5)


def test_ranges_and_values_are_told_beside_a_feature() -> None:
    feature = "  - field: seed_density_1e6_ml\n    range: [0.1, 2]\n  - {field: vessel, values: [plate, spinner]}\n"
    body = SMALL.replace("  - vessel\n", feature, 1)
    assert recipe_file.read(body).recipe.features[:2] == (
        FieldFeature("seed_density_1e6_ml", (0.1, 2.0)),
        FieldFeature("vessel", values=("plate", "spinner")),
    )
    with pytest.raises(RecipeUnreadable, match="the lower one first"):
        recipe_file.read(body.replace("[0.1, 2]", "[2, 0.1]"))


def test_texts_are_those_of_the_file_also_where_yaml_1_1_would_see_a_boolean() -> None:
    file = recipe_file.read(changed("[ph, glucose]", "[NO, ON, 1e5, 007, '12']"))
    assert isinstance(file.recipe.features[1], FeatureSet)
    assert file.recipe.features[1].keys == ("NO", "ON", "1e5", "007", "12")
    listed = recipe_file.read(changed("{failed: [false], succeeded: [true]}", "[no, yes]"))
    assert listed.recipe.target.classes == (TargetClass("no", ("no",)), TargetClass("yes", ("yes",)))


def test_the_same_parts_in_python_are_the_same_recipe() -> None:
    assert recipe_file.of_mapping(yaml.safe_load(SMALL)) == recipe_file.read(SMALL)
    with pytest.raises(RecipeUnreadable):
        recipe_file.of_mapping({"name": object()})


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("    key: attribute\n", "    ky: attribute\n", 7, "Did you mean 'key'"),
        ("    key: attribute\n", "", 6, "'key' is missing in features[2]"),
        ("learning_rate: 0.5", "learning_rate: 0", 14, "model.learning_rate: allowed is a number above 0"),
        ("  learning_rate: 0.5\n", "", 13, "'learning_rate' is missing"),
        ("kind: logistic", "kind: logstic", 13, "Did you mean 'logistic'"),
        ("kind: logistic", "kind: linear", 3, "target.classes: allowed is none"),
        ("day <= 3", "day =< 3", 10, "Expected here"),
        ("rounds: 10", "rounds: ten", 15, "a whole number"),
        ("rounds: 10", "rounds: 0", 15, "rounds: allowed is a whole number from 1 to 1000"),
        ("rounds: 10", "rounds: 10\nrounds: 11", 16, "stands here twice"),
        ("rounds: 10", "rounds: !!python/name:os.system 3", 15, "Tags"),
        ("rounds: 10", "rounds: 10\nevaluate: {held_out: 0.9}", 16, "evaluate.held_out"),
        ("rounds: 10", "rounds: 10\nstop: {metric: auc, patience: 0}", 16, "stop.patience"),
        ("rounds: 10", "rounds: 10\nstrategy: FedAg", 16, "Did you mean 'FedAvg'"),
        ("rounds: 10", "rounds: 10\npurpose: helth", 16, "Did you mean 'health'"),
        ("rounds: 10", "rounds: 10\ncenters: [Kyoto]", 16, "is not a center id"),
        ("rounds: 10", "rounds: 10\ncommercial: maybe", 16, "true or false"),
        ("name: niche-score", "name: Niche Score", 1, "lower-case letters"),
        ("  - vessel", "\t- vessel", 5, "tab"),
        ("  - vessel", "  - Vessel Type", 5, "not the name of a field"),
        ("  - vessel", "  - success", 5, "not the target itself"),
        ("[ph, glucose]", "{ph: 1}", 8, "a list"),
        ("[ph, glucose]", "[[ph], glucose]", 8, "a single value"),
        ("{failed: [false], succeeded: [true]}", "{failed: [false]}", 3, "2 to 100"),
    ],
)
def test_a_mistake_is_shown_at_its_line(before: str, after: str, line: int, words: str) -> None:
    with pytest.raises(RecipeUnreadable) as refused:
        recipe_file.read(changed(before, after), "mine.yaml")
    assert words in refused.value.public
    assert f"mine.yaml, line {line}:" in refused.value.public
    assert "^" in refused.value.public


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "[1, 2]", "just text", "&a [*a]", "[" * 5_000, "a: b: c", "\x00", "- a\nb"]
)
def test_what_is_no_recipe_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(RecipeUnreadable):
        recipe_file.read(text)


def test_a_file_that_is_not_there_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(RecipeUnreadable, match="--example"):
        recipe_file.load(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_worked_recipes_are_right(path: Path) -> None:
    file = recipe_file.load(path)
    assert file.recipe.name == path.stem
    assert file.purpose
    assert recipe_file.read(recipe_text.to_text(file)) == file


def test_there_are_worked_recipes() -> None:
    assert len(RECIPES) == 2


def test_the_example_names_every_part_there_is() -> None:
    example = recipe_file.example()
    file = recipe_file.read(example, "example.yaml")
    assert recipe_file.read(recipe_text.to_text(file)) == file
    for part in recipe_file.PARTS:
        assert f"{part}:" in example or part in ("ethics_approval", "commercial"), part
    # What is commented out is right, too.
    more = example.replace("# centers:", "centers:")
    more = more.replace("# project:", "project:").replace("  # held_out_centers", "  held_out_centers")
    assert recipe_file.read(more[more.index("name: diff") :]).recipe.privacy == file.recipe.privacy
    exact = more[: more.index("privacy:\n")] + "privacy: exact\n" + more[more.index("evaluate:\n") :]
    exact = exact.replace("# stop:", "stop:").replace("#   ", "  ")
    read = recipe_file.read(exact[exact.index("name: diff") :]).recipe
    assert (read.privacy, read.stopping) == (None, Stopping("loss", 5, 0.0001))


texts = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
names = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts | st.dates()
numbers = st.floats(1e-6, 0.5)
work = st.builds(LocalWork, numbers, st.integers(1, 5), st.integers(0, 64))
ranges = st.none() | st.tuples(st.floats(-9, 0), st.floats(0.5, 9))
values = st.lists(texts, max_size=3, unique=True).map(tuple)
features = st.builds(FieldFeature, names.map("a_{}".format), ranges, values) | st.builds(
    FeatureSet,
    dataset=names,
    key=names,
    keys=st.lists(texts, min_size=1, max_size=4, unique=True).map(tuple),
    value=names,
    filter=st.none() | st.just(where.parse("day <= 3 and not marker in ('A', 'B')")),
    log2=st.booleans(),
    range=ranges,
)
classes = st.lists(st.tuples(texts, scalars), min_size=2, max_size=3, unique_by=(lambda o: o[0], lambda o: repr(o[1])))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    kind = draw(st.sampled_from(["linear", "multinomial", "perceptron", "trees"]))
    model = {
        "linear": st.builds(Linear, work, numbers),
        "multinomial": st.builds(Multinomial, work, numbers),
        "perceptron": st.builds(Perceptron, st.lists(st.integers(1, 64), min_size=1, max_size=3).map(tuple), work),
        "trees": st.builds(BoostedTrees, st.integers(1, 5), st.integers(1, 5), numbers, numbers),
    }[kind]
    found = draw(classes) if kind in ("multinomial", "perceptron") else []
    return Recipe(
        name=draw(st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)),
        target=Target(draw(names.map("b_{}".format)), tuple(TargetClass(name, (value,)) for name, value in found)),
        features=tuple(draw(st.lists(features, min_size=1, max_size=3, unique_by=repr))),
        model=cast("Model", draw(model)),
        rounds=draw(st.integers(1, 1000)),
        strategy=Strategy("FedXgbCyclic")
        if kind == "trees"
        else draw(st.sampled_from([Strategy(), Strategy("FedAdam", {"eta": 0.25})])),
        held_out=draw(st.just(0.0) | numbers),
        stopping=draw(st.none() | st.builds(Stopping, st.just("loss"), st.integers(1, 9), numbers)),
        privacy=draw(st.sampled_from([None, TrainingPrivacy(), TrainingPrivacy(0.5, 1e-5, 2.0)])),
        held_out_centers=draw(st.sampled_from([(), (center_id("oslo"),)])),
        round_seconds=draw(st.floats(1, 1000)),
        seed=draw(st.integers(0, 2**60)),
    )


@given(recipes(), texts, st.sampled_from(["", "health"]), st.booleans())
def test_what_is_written_is_read_back(recipe: Recipe, project: str, purpose: str, commercial: bool) -> None:
    file = RecipeFile(
        recipe, "runs", where.parse("a = 'it''s'"), (center_id("lyon"),), purpose, project, "", commercial
    )
    try:
        wire_recipe.from_bytes(wire_recipe.to_bytes(recipe))
    except InvalidQuery:
        return  # a value that cannot be sent
    assert recipe_file.read(recipe_text.to_text(file)) == file


@given(st.data())
def test_a_spoilt_recipe_is_refused_and_crashes_nothing(data: st.DataObject) -> None:
    text = list(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(
            st.sampled_from(":-[]{}'\"&*!#|>\n\t x0") | st.characters()
        )
    with contextlib.suppress(RecipeUnreadable):
        assert dataclasses.is_dataclass(recipe_file.read("".join(text)))


def test_every_refusal_is_of_the_one_kind() -> None:
    assert issubclass(RecipeUnreadable, ConnexonError)
    assert RecipeUnreadable("x").code == "recipe.unreadable"


@pytest.mark.parametrize("text", ["name: &a x\nother: *a\n", "name: [" + "&a x, " * 40_000 + "]", "*a"])
def test_anchors_and_aliases_are_refused_before_they_multiply(text: str) -> None:
    with pytest.raises(RecipeUnreadable) as caught:
        recipe_file.read(text)
    assert "& and *" in caught.value.public
    assert "line 1" in caught.value.public
