"""The work of a center as Flower knows it: a ClientApp with train, evaluate and query.summary, over rows given to it.

It runs in a process of its own that has the rows and nothing else. What it returns goes to release, not to the hub:
beside what the contract names there is `behind`, which says on whom the numbers rest, and stays inside.
"""

from __future__ import annotations

from typing import Any, cast

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from connexon.learning import forest, models, records
from connexon.learning.clipping import LARGEST_INPUT, LARGEST_WEIGHT
from connexon.learning.moments import Moments, moments_of
from connexon.learning.preprocessing import Preprocessing, Summary
from connexon.learning.recipe import BoostedTrees, Perceptron, Recipe
from connexon.learning.records import ArraySpec, RecordsRefused
from connexon_node.training import evaluation, gradients, screening, trees
from connexon_node.training.rows import Rows

ARRAYS, CONFIG, METRICS, BEHIND, EACH = "arrays", "config", "metrics", "behind", "each"
PARTS = ("count", "sum", "sum of squares", "squared deviations from the mean")
"""What each donor adds to what a summary tells of a number; all four follow from it, so none may rest on few."""
MAXIMUM_TREES = 256 * 1024 * 1024
"""Bytes of a model of trees."""


class TaskRefused(RecordsRefused):
    """A task that asks for what the recipe does not."""

    code = "task.refused"


def client_app(recipe: Recipe, rows: Rows, *, minimum: int, split: bool) -> ClientApp:
    """The app over these rows. No leaf of a tree rests on fewer donors than `minimum`.

    `split`: some donors are kept apart and the model is evaluated on them; otherwise on all.
    """
    app = ClientApp()
    work = Work(recipe, rows, minimum, split=split)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(work.train(message.content), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(work.evaluate(message.content), reply_to=message)

    @app.query("summary")
    def summary(message: Message, context: Context) -> Message:
        return Message(work.summary(), reply_to=message)

    return app


class Work:
    """One recipe over one center's rows."""

    def __init__(self, recipe: Recipe, rows: Rows, minimum: int, *, split: bool) -> None:
        self._recipe = recipe
        self._minimum = minimum
        self._all = rows
        self._fitted = rows.of(~rows.held_out)
        self._apart = rows.of(rows.held_out) if split else rows
        self._encoded: tuple[str, NDArray[Any], NDArray[Any]] | None = None

    def train(self, content: RecordDict) -> RecordDict:
        """The update of one round. Raises TaskRefused."""
        arrays, inputs, _ = self._task(content)
        rows, recipe = self._fitted, self._recipe
        config = content.config_records[CONFIG]
        found = models.scores(recipe, arrays, inputs)
        behind: dict[str, int] = {"donors": rows.donor_count, "rows": len(rows.target)}
        metrics = {"loss": models.loss(recipe, found, rows.target)}
        new: dict[str, NDArray[Any]]
        if isinstance(recipe.model, BoostedTrees):
            new, behind["fewest"] = trees.trained(
                recipe, arrays, inputs, rows.target, rows.donors, minimum=self._minimum
            )
        elif recipe.privacy is not None:
            new = _steps(recipe).clipped_sums(recipe, arrays, inputs, rows.target, rows.donors, recipe.privacy.clip)
        else:
            new = _steps(recipe).trained(
                recipe,
                arrays,
                inputs,
                rows.target,
                round_number=_whole(config, "server-round"),
                proximal=_proximal(recipe, config),
            )
        return _reply(metrics, behind, {ARRAYS: new})

    def evaluate(self, content: RecordDict) -> RecordDict:
        """How the model does on the rows kept apart. Raises TaskRefused."""
        arrays, _, inputs = self._task(content)
        rows, recipe = self._apart, self._recipe
        found = models.scores(recipe, arrays, inputs)
        if recipe.privacy is not None:
            # What follows is for release to add noise to: sums of which each donor adds at most 1.
            sums = evaluation.bounded_sums(recipe, found, rows.target, rows.donors)
            return _reply({}, {"donors": rows.donor_count}, {EACH: {"sums": sums}})
        metrics = evaluation.metrics_of(recipe, found, rows.target)
        behind = {"donors": rows.donor_count, "rows": len(rows.target)}
        for place in range(len(recipe.target.classes)):
            chosen = rows.target == place
            behind[f"donors-{place}"] = int(numpy.unique(rows.donors[chosen]).size)
            behind[f"rows-{place}"] = int(chosen.sum())
        each = numpy.bincount(rows.donors, weights=models.losses(recipe, found, rows.target))
        return _reply(metrics, behind, {EACH: {"loss": each}})

    def summary(self) -> RecordDict:
        """What the preprocessing is fitted from, with each donor's part in every number."""
        rows = self._fitted
        people, who = numpy.unique(rows.donors, return_inverse=True)
        each = numpy.zeros((len(PARTS), len(people), len(rows.names)))
        moments = [Moments()] * len(rows.names)
        categories: dict[str, Any] = {}
        for column, (name, kind) in enumerate(zip(rows.names, rows.kinds, strict=True)):
            if kind == "number":
                known = ~numpy.isnan(rows.columns[name])
                values = rows.columns[name][known]
                found = moments_of(values)
                # Numbers that are too large to be squared have no scale: they are not told of.
                if found.sound:
                    moments[column] = found
                    each[:, :, column] = _parts(values, who[known], len(people), found.mean)
            elif kind == "category":
                categories[str(column)] = _donors_by_value(rows.columns[name], who)
        told = Summary(rows.kinds, tuple(moments), {}, len(rows.target)).to_records()
        told[EACH] = ArrayRecord({"parts": Array(each)})
        for place, counts in categories.items():
            told[f"{EACH}-{place}"] = ConfigRecord({"values": list(counts), "donors": list(counts.values())})
        told[BEHIND] = MetricRecord({"donors": len(people), "rows": len(rows.target)})
        return told

    def _task(self, content: RecordDict) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any]]:
        """The arrays, and the inputs to train on and to evaluate on. Raises TaskRefused."""
        config = content.config_records.get(CONFIG)
        given = content.array_records.get(ARRAYS)
        if config is None or given is None:
            raise TaskRefused("The task lacks its arrays or its config.")
        text = config.get("preprocessing")
        if not isinstance(text, str):
            raise TaskRefused("The task does not say how rows become inputs.")
        if self._encoded is None or self._encoded[0] != text:
            preprocessing = Preprocessing.from_json(text)
            require_of(preprocessing, self._all)
            missing = models.missing_input(self._recipe)
            parts = [preprocessing.encode(rows.columns, missing=missing) for rows in (self._fitted, self._apart)]
            if self._recipe.privacy is not None:
                parts = [numpy.clip(numpy.nan_to_num(one), -LARGEST_INPUT, LARGEST_INPUT) for one in parts]
            elif not isinstance(self._recipe.model, BoostedTrees):
                alone = screening.told_of_few(preprocessing, parts[0], self._fitted.donors, self._minimum)
                for one in parts:
                    one[:, alone] = 0.0
            self._encoded = (text, parts[0], parts[1])
        preprocessing = Preprocessing.from_json(text)
        require_model(self._recipe, preprocessing, given)
        arrays = {name: array.numpy() for name, array in given.items()}
        records.require_finite(content)
        if self._recipe.privacy is not None and any(
            abs(one).max(initial=0) > LARGEST_WEIGHT for one in arrays.values()
        ):
            raise TaskRefused(f"With noise, no weight of a model is beyond {LARGEST_WEIGHT:,.0f}.")
        return arrays, self._encoded[1], self._encoded[2]


def require_of(preprocessing: Preprocessing, rows: Rows) -> None:
    """Raise TaskRefused where a preprocessing is not of these columns."""
    if [(one.name, one.kind) for one in preprocessing.columns] != list(zip(rows.names, rows.kinds, strict=True)):
        raise TaskRefused("The task's preprocessing has other columns than the recipe.")


def require_model(recipe: Recipe, preprocessing: Preprocessing, given: ArrayRecord) -> None:
    """Raise TaskRefused, or TreesRefused, where arrays are not those of the recipe's model over these inputs."""
    if isinstance(recipe.model, BoostedTrees):
        size = given[models.TREES].shape if list(given) == [models.TREES] else ()
        right = len(size) == 1 and size[0] <= MAXIMUM_TREES and given[models.TREES].dtype == "uint8"
        if right:
            sizes = {"inputs": preprocessing.width, "depth": recipe.model.depth}
            data = given[models.TREES].numpy().tobytes()
            forest.require_sound(data, **sizes, classifies=recipe.classifies)
    else:
        wanted = {
            name: ArraySpec(str(values.dtype), values.shape)
            for name, values in models.initial_arrays(recipe, preprocessing).items()
        }
        right = records.specs(given) == wanted
    if not right:
        raise TaskRefused("The task's arrays are not of the recipe's model.")


def _steps(recipe: Recipe) -> Any:
    if isinstance(recipe.model, Perceptron):
        from connexon_node.training import perceptron

        return perceptron
    return gradients


def _proximal(recipe: Recipe, config: ConfigRecord) -> float:
    """Only what the signed recipe says: the hub's word for it must be the same."""
    mu = float(recipe.strategy.options.get("proximal_mu", 0.0)) if recipe.strategy.name == "FedProx" else 0.0
    told = config.get("proximal-mu", mu)
    if not isinstance(told, int | float) or float(told) != mu:
        raise TaskRefused("The task asks for another proximal term than the recipe.")
    return mu


def _whole(config: ConfigRecord, name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or value < 0:
        raise TaskRefused(f"The task does not say its {name}.")
    return value


def _parts(values: NDArray[Any], who: NDArray[Any], people: int, mean: float) -> NDArray[numpy.float64]:
    """What each donor adds: [PARTS, donors]."""
    added = (numpy.ones_like(values), values, values**2, (values - mean) ** 2)
    return numpy.array([numpy.bincount(who, weights=one, minlength=people) for one in added])


def _donors_by_value(values: NDArray[Any], who: NDArray[Any]) -> dict[str, int]:
    people: dict[str, set[int]] = {}
    for value, donor in zip(values, who, strict=True):
        if value is not None:
            people.setdefault(str(value), set()).add(int(donor))
    return {value: len(donors) for value, donors in people.items()}


def _reply(metrics: dict[str, float], behind: dict[str, int], arrays: dict[str, dict[str, NDArray[Any]]]) -> RecordDict:
    reply = RecordDict()
    for name, named in arrays.items():
        reply[name] = ArrayRecord({key: Array(numpy.ascontiguousarray(values)) for key, values in named.items()})
    reply[METRICS] = MetricRecord(cast("Any", metrics))
    reply[BEHIND] = MetricRecord(cast("Any", behind))
    return reply
