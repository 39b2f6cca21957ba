"""The release of a task's result: what of an update, a summary or an evaluation may leave, rule by rule.

With noise: what was paid for when the center took part, and nothing that any number decides. Exact, by a grant: the
same donors as when the run began -> enough of them -> how many, as a count of them would leave -> of the action: finite
and rounded; or each sum for itself -> the records that leave, written anew. What is not named here stays: the records
of local work also say on whom they rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from sqlalchemy import Connection

from connexon.errors import Refused
from connexon.learning import records
from connexon.learning.metrics import NOISE_SCALE, NOISY_CORRECT, NOISY_DONORS, NOISY_LOSS
from connexon.learning.moments import Moments
from connexon.learning.preprocessing import Summary
from connexon.learning.recipe import MAXIMUM_CATEGORIES, BoostedTrees, Recipe
from connexon.link import parcel_files
from connexon.link.parcel_files import ParcelFile
from connexon.v1 import answer_pb2, query_pb2
from connexon_node.analyses.scales import told_beforehand
from connexon_node.data.dictionary import Dictionary
from connexon_node.pipeline.values import Computed, Ordered, Released, TrainingTable, Worked
from connexon_node.privacy.training import TrainingPrice, noisy_step
from connexon_node.release import rules
from connexon_node.release.decision import TOO_FEW
from connexon_node.release.disclosure import ReleaseControl
from connexon_node.release.dominance import may_differ, may_leave
from connexon_node.release.measures import UnknownShape
from connexon_node.release.training_summaries import MAXIMUM_KEPT, Told
from connexon_node.settings import TrainingSection

LARGEST, DOMINANT, NEAR = 2, 85.0, 10.0
"""Of a sum: the two largest donors have at most 85 % of it, and none can work another out to within 10 %."""
Arrays = Mapping[str, NDArray[Any]]


class EditionEnded(Refused):
    """A task of a run that began with another edition of the data."""

    code = "training.edition_ended"


class UpdateRelease:
    """Lets the results of tasks out. Thread-safe."""

    def __init__(self, control: ReleaseControl, section: TrainingSection, dictionary: Dictionary) -> None:
        self._control = control
        self._section = section
        self._dictionary = dictionary

    @property
    def minimum(self) -> int:
        """The fewest donors an exact update may rest on."""
        return max(self._control.in_force.minimum_donors, self._section.minimum_donors)

    def before_work(self, order: Ordered, computed: Computed, folder: Path) -> Released | None:
        """What leaves without any work on rows; None where there is some to be done. Its records go into `folder`.

        With noise: the summary, which is known beforehand. Exact: that there are too few donors, or none. Raises
        Refused where the run may not go on.
        """
        if order.recipe.privacy is not None:
            self._require_edition(order, computed)
            if order.action != "query.summary":
                return None
            told = replace(told_beforehand(order.asked.question, self._dictionary), examples=self._weight(order))
            return self._noisy(order, computed, folder, told.to_records(), rho=0.0)
        self._control.require_same(computed)
        weighed = self._control.weigh(computed)
        if weighed.answer.status == answer_pb2.ANSWER_STATUS_RELEASED:
            return None
        return _withheld(computed, weighed.answer)

    def protect(self, worked: Worked) -> Released:
        """What may leave of a task's result. Raises RecordsRefused where a number is not finite."""
        found = records.read(worked.records)
        if worked.order.recipe.privacy is not None:
            return self._with_noise(worked, found)
        weighed = self._control.weigh(worked.computed)
        action, people = worked.order.action, _whole(found.metric_records["behind"], "donors")
        least = self._control.in_force.minimum_donors if action == "evaluate" else self.minimum
        if weighed.answer.status != answer_pb2.ANSWER_STATUS_RELEASED or people < least:
            return _withheld(worked.computed, weighed.answer)
        match action:
            case "train":
                return self._update(worked, weighed, found)
            case "evaluate":
                if not self._loss_may_leave(worked.order.recipe, found):
                    return _withheld(worked.computed, weighed.answer)
                return self._released(worked, weighed, self._evaluation(worked.order.recipe, weighed, found))
            case "query.summary":
                return self._summary(worked, weighed, found)
            case _:
                raise UnknownShape

    def _require_edition(self, order: Ordered, computed: Computed) -> None:
        if order.enrolled.protection.edition != computed.edition:
            raise EditionEnded(
                "The center has opened another edition of its data since the run began; start it anew.",
            )

    def _weight(self, order: Ordered) -> int:
        """By how many donors the center counts: from the noisy number that it told when it took part."""
        return TrainingPrice.of(order.recipe).weight(order.enrolled.enrolment.donors)

    def _with_noise(self, worked: Worked, found: RecordDict) -> Released:
        """INVARIANT: nothing here looks at how many donors there are, or whether a number is large or small."""
        order, recipe = worked.order, worked.order.recipe
        price, weight, folder = TrainingPrice.of(recipe), self._weight(order), worked.records.path.parent
        if order.action == "evaluate":
            sums, scale = price.noisy_evaluation(found.array_records["each"]["sums"].numpy())
            names = (NOISY_DONORS, NOISY_LOSS, NOISY_CORRECT)
            told: dict[str, Any] = {"num-examples": weight, **dict(zip(names, sums.tolist(), strict=False))}
            content = RecordDict({"metrics": MetricRecord({**told, NOISE_SCALE: scale})})
            return self._noisy(order, worked.computed, folder, content, rho=price.evaluation)
        if order.action != "train":
            raise UnknownShape
        start = _arrays(records.read(order.parcel).array_records["arrays"])
        people = weight * (1 - recipe.held_out)
        new = noisy_step(recipe, price, start, _arrays(found.array_records["arrays"]), people=people)
        # The loss of these very rows has no noise on it, so it stays.
        content = _content(_record(new), {"num-examples": weight, "loss": 0.0})
        return self._noisy(order, worked.computed, folder, content, rho=price.update)

    def _noisy(self, order: Ordered, computed: Computed, folder: Path, content: RecordDict, *, rho: float) -> Released:
        answer, parcel = self._control.begin(computed), _written(order, folder, content)
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        answer.protection.kind, answer.protection.edition = query_pb2.NUMBER_KIND_PRIVATE, computed.edition
        answer.task.records_sha256, answer.task.records_size = parcel.records_sha256(), parcel.records_size
        answer.task.examples, answer.task.rho = self._weight(order), rho
        return Released(computed, answer, None, parcel)

    def _update(self, worked: Worked, weighed: Released, found: RecordDict) -> Released:
        recipe = worked.order.recipe
        records.require_finite(found)
        given = found.array_records["arrays"]
        loss = _six_digits(found.metric_records["metrics"]["loss"])
        if isinstance(recipe.model, BoostedTrees):
            if _whole(found.metric_records["behind"], "fewest") < self.minimum:
                return _withheld(worked.computed, weighed.answer)
        else:
            given = _record({name: six_digits(values) for name, values in _arrays(given).items()})
        metrics: dict[str, int | float] = {"num-examples": weighed.answer.task.examples, "loss": loss}
        return self._released(worked, weighed, _content(given, metrics))

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

    def _summary(self, worked: Worked, weighed: Released, found: RecordDict) -> Released:
        """Each column's moments, where all that follows from them may leave, and categories that enough donors have."""
        summary, examples = Summary.from_records(found), weighed.answer.task.examples
        each = found.array_records["each"]["parts"].numpy()
        assert isinstance(worked.computed.shape, TrainingTable)
        told = Told.of(worked.order.recipe, worked.computed.shape, summary.kinds, each)
        earlier = self._control.summaries.earlier()
        small = each.size <= MAXIMUM_KEPT
        categories = {}
        moments = [Moments()] * len(summary.kinds)
        for column, kind in enumerate(summary.kinds):
            config = found.config_records.get(f"each-{column}")
            if kind == "category" and config is not None:
                categories[column] = _common(config, self._control.in_force.minimum_donors)
            elif small and self._may_leave(each[:, :, column]) and self._may_be_known(told, column, earlier):
                moments[column] = _rounded(summary.moments[column])
        shown = [bool(one.count) for one in moments]
        content = Summary(summary.kinds, tuple(moments), categories, examples).to_records()
        run = worked.order.task.run
        keep = functools.partial(self._control.summaries.keep, run, told.only(shown), len(earlier))
        return self._released(worked, weighed, content, keep=keep)

    def _may_be_known(self, told: Told, column: int, earlier: Sequence[Told]) -> bool:
        """Whether nobody stands out of what this column's sums and earlier ones of it differ by."""
        return all(
            self._may_differ(one, other)
            for before in earlier
            for sums in [told.beside(before, column)]
            if sums is not None
            # Squared deviations, the last, are from each cohort's own mean, and follow from the others.
            for one, other in zip(sums[0][:-1], sums[1][:-1], strict=True)
        )

    def _may_differ(self, one: NDArray[numpy.float64], other: NDArray[numpy.float64]) -> bool:
        minimum = self._control.in_force.minimum_donors
        if minimum == 1:
            return True
        return may_differ(one, other, minimum=minimum, largest=LARGEST, dominant=DOMINANT, near=NEAR)

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
        keep: Callable[[Connection], None] | None = None,
    ) -> Released:
        """Write what leaves beside what local work wrote. `keep` writes what must be remembered of it."""
        parcel = _written(worked.order, worked.records.path.parent, content)
        answer = answer_pb2.Answer()
        answer.CopyFrom(weighed.answer)
        answer.task.records_sha256, answer.task.records_size = parcel.records_sha256(), parcel.records_size
        answer.task.examples = _whole(content.metric_records["metrics"], "num-examples")

        def commit(connection: Connection) -> None:
            self._control.require_same(worked.computed, connection)
            if weighed.commit is not None:
                weighed.commit(connection)
            if keep is not None:
                keep(connection)

        return Released(worked.computed, answer, commit, parcel)


def six_digits(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers with six significant digits each: more would tell rows apart that nobody needs told apart."""
    wide = values.astype(numpy.float64)
    with numpy.errstate(divide="ignore"):
        size = numpy.floor(numpy.log10(numpy.abs(wide), where=wide != 0, out=numpy.zeros_like(wide)))
    unit = 10.0 ** (size - 5)
    return numpy.asarray(numpy.round(wide / unit) * unit, dtype=values.dtype)


def _rounded(moments: Moments) -> Moments:
    return Moments(moments.count, _six_digits(moments.mean), _six_digits(moments.squared_deviations))


def _written(order: Ordered, folder: Path, content: RecordDict) -> ParcelFile:
    path = folder / str(order.task)
    parcel_files.write(path, b"", records.to_pieces(content))
    return parcel_files.read(path)


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
