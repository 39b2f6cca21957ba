"""The release of a task's result: what of an update, a summary or an evaluation may leave, rule by rule.

enough donors -> how many, as a count of them would leave -> of the action: finite, clipped, noisy; or each sum for
itself -> the records that leave, written anew. What is not named here stays: the records of local work also say on whom
they rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from sqlalchemy import Connection

from connexon.clock import now_ms
from connexon.learning import records
from connexon.learning.clipping import clipped
from connexon.learning.moments import Moments
from connexon.learning.preprocessing import MAXIMUM_CATEGORIES, Summary
from connexon.learning.recipe import BoostedTrees, LocalWork, PrivacySide, Recipe, TrainingPrivacy
from connexon.link import parcel_files
from connexon.v1 import answer_pb2
from connexon_node.pipeline.values import Computed, Released, Worked
from connexon_node.privacy import Account, Charge, Share, rho_of
from connexon_node.privacy.noise import Noise
from connexon_node.release import rules
from connexon_node.release.decision import TOO_FEW, UnknownShape
from connexon_node.release.disclosure import ReleaseControl
from connexon_node.release.dominance import may_leave
from connexon_node.settings import TrainingSection

LARGEST, DOMINANT, NEAR = 2, 85.0, 10.0
"""Of a sum: the two largest donors have at most 85 % of it, and none can work another out to within 10 %."""
Arrays = Mapping[str, NDArray[Any]]


class UpdateRelease:
    """Lets the results of tasks out. Thread-safe."""

    def __init__(self, control: ReleaseControl, section: TrainingSection, account: Callable[[], Account]) -> None:
        """`account` is the one in force, from which noisy updates are paid."""
        self._control = control
        self._section = section
        self._account = account

    @property
    def minimum(self) -> int:
        """The fewest donors an update may rest on."""
        return max(self._control.in_force.minimum_donors, self._section.minimum_donors)

    def too_few(self, computed: Computed) -> Released | None:
        """What leaves of a task with too few donors, or none at all; None where there are enough to work on."""
        weighed = self._control.weigh(computed)
        if weighed.answer.status == answer_pb2.ANSWER_STATUS_RELEASED:
            return None
        return _withheld(computed, weighed.answer)

    def protect(self, worked: Worked) -> Released:
        """What may leave of a task's result. Raises RecordsRefused where a number is not finite."""
        weighed = self._control.weigh(worked.computed)
        found = records.read(worked.records)
        action, people = worked.order.action, _whole(found.metric_records["behind"], "donors")
        least = self._control.in_force.minimum_donors if action == "evaluate" else self.minimum
        # Where every number needs noise, those that have none stay.
        silent = self._control.training_in_force.noise and action == "evaluate"
        if weighed.answer.status != answer_pb2.ANSWER_STATUS_RELEASED or people < least or silent:
            return _withheld(worked.computed, weighed.answer)
        match action:
            case "train":
                return self._update(worked, weighed, found)
            case "evaluate":
                if not self._loss_may_leave(worked.order.recipe, found):
                    return _withheld(worked.computed, weighed.answer)
                return self._released(worked, weighed, self._evaluation(worked.order.recipe, weighed, found))
            case "query.summary":
                return self._released(worked, weighed, self._summary(found, weighed.answer.task.examples))
            case _:
                raise UnknownShape("The center does not know how to release such a result, so it does not leave.")

    def _update(self, worked: Worked, weighed: Released, found: RecordDict) -> Released:
        recipe = worked.order.recipe
        records.require_finite(found)
        given = found.array_records["arrays"]
        loss = _six_digits(found.metric_records["metrics"]["loss"])
        if isinstance(recipe.model, BoostedTrees) and _whole(found.metric_records["behind"], "fewest") < self.minimum:
            return _withheld(worked.computed, weighed.answer)
        if recipe.privacy is None:
            metrics: dict[str, int | float] = {"num-examples": weighed.answer.task.examples, "loss": loss}
            return self._released(worked, weighed, _content(given, metrics))
        rho = rho_of(recipe.privacy.epsilon, recipe.privacy.delta) / recipe.rounds
        start = _arrays(records.read(worked.order.parcel).array_records["arrays"])
        if recipe.privacy.side is PrivacySide.CENTER:
            people = max(1.0, weighed.answer.task.donors * (1 - recipe.held_out))
            new: Arrays = noisy_step(recipe, recipe.privacy, start, _arrays(given), rho=rho, people=people)
            # The loss of these very rows has no noise on it, so it stays.
            loss = 0.0
        else:
            new = clipped(start, _arrays(given), recipe.privacy.clip)
        # Every center weighs the same: how many rows it has is nothing that noise hides.
        content = _content(_record(new), {"num-examples": 1, "loss": loss})
        return self._released(worked, weighed, content, rho=rho, pay=functools.partial(self._pay, worked, rho))

    def _pay(self, worked: Worked, rho: float, connection: Connection) -> None:
        asked = worked.order.asked
        charge = Charge(Share.MODELS, rho, researcher=asked.researcher.id, project=asked.question.purpose.project)
        query_id, task = asked.question.query_id, str(worked.order.task)
        self._account().charge(connection, charge, query_id=query_id, task=task, at_ms=now_ms())

    def _evaluation(self, recipe: Recipe, weighed: Released, found: RecordDict) -> RecordDict:
        """The same keys from every center; what too few donors stand behind is 0."""
        section = self._control.in_force
        behind = found.metric_records["behind"]
        rounded = functools.partial(rules.rounded, to=section.round_to)
        # Never more than the rows that stand for all: a number that sticks may be lower than the rows of today.
        told: dict[str, int | float] = {
            "num-examples": min(rounded(_whole(behind, "rows")), weighed.answer.task.examples)
        }
        told |= {name: _six_digits(value) for name, value in found.metric_records["metrics"].items()}
        if len(recipe.target.classes) == 2:
            both = [_whole(behind, f"rows-{place}") for place in (0, 1)]
            numbers = [rounded(one) if one else 0 for one in both]
            if any(0 < _whole(behind, f"donors-{place}") < section.minimum_donors for place in (0, 1)):
                told |= dict.fromkeys(("auc", "auc-pairs", "auc-variance", "mean-predicted", "mean-observed"), 0.0)
            else:
                told |= {
                    "auc-pairs": float(numbers[0] * numbers[1]),
                    "mean-observed": numbers[1] / max(1, sum(numbers)),
                }
        return RecordDict({"metrics": MetricRecord(cast("Any", told))})

    def _summary(self, found: RecordDict, examples: int) -> RecordDict:
        """Each column's moments, where all that follows from them may leave, and categories that enough donors have."""
        summary = Summary.from_records(found)
        each = found.array_records["each"]["parts"].numpy()
        noisy = self._control.training_in_force.noise
        shown = [not noisy and self._may_leave(each[:, :, one]) for one in range(len(summary.kinds))]
        categories = {}
        for column, kind in enumerate(summary.kinds):
            config = found.config_records.get(f"each-{column}")
            if kind == "category" and config is not None and not noisy:
                categories[column] = _common(config, self._control.in_force.minimum_donors)
        moments = tuple(one if may else Moments() for one, may in zip(summary.moments, shown, strict=True))
        return Summary(summary.kinds, moments, categories, examples).to_records()

    def _loss_may_leave(self, recipe: Recipe, found: RecordDict) -> bool:
        """A squared error has no bound: one donor far off could be worked out from the mean. Classes tell less."""
        if recipe.classifies:
            return True
        each = found.array_records["each"]["loss"].numpy()
        return not each.any() or self._nobody_stands_out(each)

    def _may_leave(self, parts: NDArray[numpy.float64]) -> bool:
        """`parts` [4, donors]: what each donor adds to count, sum, sum of squares and squared deviations."""
        counted, *sums, deviations = parts
        if numpy.count_nonzero(counted) < self._control.in_force.minimum_donors:
            return False
        # Nobody stands out of values that are all alike. Of others, squares alone would not show who does where all are
        # large: of twenty values of 100,000 and one of 100,001 the spread tells that one.
        tell = (counted, *sums, deviations) if deviations.any() else (counted, *sums)
        return all(self._nobody_stands_out(one) for one in tell)

    def _nobody_stands_out(self, each: NDArray[numpy.float64]) -> bool:
        """Whether a sum may leave by what each donor adds to it; where the minimum is one donor, any may show."""
        minimum = self._control.in_force.minimum_donors
        if minimum == 1:
            return bool(numpy.isfinite(each).all())
        return may_leave(each, minimum=minimum, largest=LARGEST, dominant=DOMINANT, near=NEAR)

    def _released(
        self,
        worked: Worked,
        weighed: Released,
        content: RecordDict,
        *,
        rho: float = 0.0,
        pay: Callable[[Connection], None] | None = None,
    ) -> Released:
        """Write what leaves beside what local work wrote."""
        path = worked.records.path.parent / str(worked.order.task)
        parcel_files.write(path, b"", records.to_pieces(content))
        parcel = parcel_files.read(path)
        answer = answer_pb2.Answer()
        answer.CopyFrom(weighed.answer)
        answer.task.records_sha256, answer.task.records_size = parcel.records_sha256(), parcel.records_size
        answer.task.examples = _whole(content.metric_records["metrics"], "num-examples")
        answer.task.rho = rho
        if self._control.training_in_force.noise:
            answer.task.ClearField("donors")

        def commit(connection: Connection) -> None:
            if weighed.commit is not None:
                weighed.commit(connection)
            if pay is not None:
                pay(connection)

        return Released(worked.computed, answer, commit, parcel)


def noisy_step(
    recipe: Recipe, privacy: TrainingPrivacy, start: Arrays, sums: Arrays, *, rho: float, people: float
) -> dict[str, NDArray[Any]]:
    """One step of gradient descent from noisy sums of clipped gradients, for `rho`; `people` is a released number.

    One donor more or less changes the sums by at most `clip` (Euclidean, all arrays together).
    """
    work = _work(recipe)
    noise = Noise(sensitivity=privacy.clip, rho=rho, whole=False)
    flat = numpy.concatenate([values.astype(numpy.float64).reshape(-1) for values in sums.values()])
    drawn = numpy.array(noise.added(flat.tolist()))
    new, at = {}, 0
    for name, values in sums.items():
        slope = drawn[at : at + values.size].reshape(values.shape) / people
        at += values.size
        if name == "coefficients" or name.endswith(".weight"):
            slope = slope + recipe.model.l2 * start[name]
        new[name] = (start[name] - work.learning_rate * slope).astype(start[name].dtype)
    return new


def _work(recipe: Recipe) -> LocalWork:
    assert not isinstance(recipe.model, BoostedTrees)
    return recipe.model.work


def _common(config: ConfigRecord, minimum: int) -> tuple[str, ...]:
    """The values that enough donors have; of very many the most frequent."""
    values, donors = cast("list[str]", config["values"]), cast("list[int]", config["donors"])
    common = sorted(((-many, value) for value, many in zip(values, donors, strict=True) if many >= minimum))
    return tuple(sorted(value for _, value in common[:MAXIMUM_CATEGORIES]))


def _six_digits(value: object) -> float:
    return float(f"{value:.6g}")


def _whole(record: MetricRecord, name: str) -> int:
    value = record[name]
    assert isinstance(value, int)
    return value


def _arrays(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    return {name: array.numpy() for name, array in record.items()}


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(numpy.ascontiguousarray(values)) for name, values in arrays.items()})


def _content(arrays: ArrayRecord, metrics: dict[str, int | float]) -> RecordDict:
    return RecordDict({"arrays": arrays, "metrics": MetricRecord(cast("Any", metrics))})


def _withheld(computed: Computed, begun: answer_pb2.Answer) -> Released:
    answer = answer_pb2.Answer()
    answer.CopyFrom(begun)
    answer.ClearField("result")
    answer.status = answer_pb2.ANSWER_STATUS_SUPPRESSED
    answer.reason.CopyFrom(TOO_FEW)
    return Released(computed, answer)
