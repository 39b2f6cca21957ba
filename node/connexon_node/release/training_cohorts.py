"""Trainings with exact updates, held against each other: what differs between two of them rests on enough donors, too.

Two updates over rows that differ by one donor differ by that donor's part. Whether rows do, must not show either: if
the same rows were let through and nearly the same ones refused, the refusal would tell. So words decide wherever they
can:

1. under one grant, rows of a dataset are selected by the same words in all runs: conditions, target, who is kept apart;
2. a feature set is the mean over rows selected by the same words in all runs of an edition, and is in a recipe once;
3. where words differ, so must the donors, by as many as the minimum: the same donors are refused like nearly the same;
4. where words are the same, donors are the same, or so many have come and gone. Who withdraws ends exact updates here
   until then, also in the middle of a run.

What the recipe does with these rows, which model, how many rounds, is free, for as many runs as the center allows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from pyroaring import BitMap
from sqlalchemy import Connection, func, insert, select

from connexon.clock import now_ms
from connexon.errors import Refused
from connexon.learning.recipe import FeatureSet
from connexon.query.question import Question
from connexon.service.database import Database
from connexon_node.pipeline.values import Computed, Participation, TrainingTable
from connexon_node.privacy.normal_form import canonical
from connexon_node.release.grants import Grant
from connexon_node.release.private_training import recipe_of
from connexon_node.release.tables import TrainingCohortRow

_COHORTS = TrainingCohortRow.metadata.tables[str(TrainingCohortRow.__tablename__)]


class CohortRefused(Refused):
    """Exact updates that would tell, with earlier ones, of fewer donors than the minimum."""

    code = "training.too_alike"


@dataclass(frozen=True)
class TrainingCohort:
    """What becomes known with a run that has exact updates."""

    run_id: str
    grant_id: str
    project: str
    dataset: str
    edition: int
    words: bytes
    sets: str
    bitmap: bytes


class TrainingCohorts:
    """The runs with exact updates of this center. `minimum` donors must differ; with 1, nothing is compared."""

    def __init__(self, database: Database, minimum: int, runs_per_project: int) -> None:
        self._database = database
        self._minimum = minimum
        self._runs = runs_per_project

    def required(self, computed: Computed, grant: Grant, connection: Connection | None = None) -> TrainingCohort:
        """What a run would make known, where it may be. Raises CohortRefused, or Refused for one run too many."""
        if connection is None:
            with self._database.reading() as own:
                return self.required(computed, grant, own)
        assert isinstance(computed.shape, Participation)
        question = computed.cohort.permit.asked.question
        found = TrainingCohort(
            run_id=question.query_id,
            grant_id=grant.id,
            project=question.purpose.project,
            dataset=question.dataset,
            edition=computed.edition,
            words=words_of(question),
            sets=json.dumps(sets_of(question)),
            bitmap=_bitmap(computed.shape.cell.behind).serialize(),
        )
        self._require_few(connection, found)
        if self._minimum > 1:
            _require_once(question)
            self._require_words(connection, found)
            self._require_apart(connection, found)
        return found

    def require_same(self, computed: Computed, connection: Connection | None = None) -> None:
        """For a task of a run: raise CohortRefused where its donors are not those who were there when it began."""
        if connection is None:
            with self._database.reading() as own:
                return self.require_same(computed, own)
        assert isinstance(computed.shape, TrainingTable)
        run = computed.cohort.permit.asked.question.query_id
        begun = connection.execute(select(_COHORTS).where(_COHORTS.c.run_id == run)).one_or_none()
        if begun is None or begun.edition != computed.edition:
            raise CohortRefused(
                "The center's data is of another edition than when the run began; start it anew.",
                code="training.edition_ended",
            )
        changed = len(BitMap.deserialize(bytes(begun.bitmap)) ^ _bitmap(computed.shape.donors))
        if self._minimum > 1 and changed:
            raise _moved()
        return None

    def write(self, connection: Connection, cohort: TrainingCohort) -> None:
        """Within the sealing transaction."""
        connection.execute(insert(_COHORTS), {**vars(cohort), "summary": b"", "at_ms": now_ms()})

    def _require_few(self, connection: Connection, found: TrainingCohort) -> None:
        same = (_COHORTS.c.project == found.project) & (_COHORTS.c.edition == found.edition)
        if connection.execute(select(func.count()).select_from(_COHORTS).where(same)).scalar_one() >= self._runs:
            raise CohortRefused(
                f"This center gives exact updates to {self._runs} runs of a project at most, of one edition of its "
                "data; ask with noise, or wait for the next edition.",
                code="training.too_many_runs",
            )

    def _require_words(self, connection: Connection, found: TrainingCohort) -> None:
        """By words alone: nothing is read of rows."""
        mine = (_COHORTS.c.grant_id == found.grant_id) & (_COHORTS.c.dataset == found.dataset)
        earlier = mine & (_COHORTS.c.edition == found.edition) & (_COHORTS.c.words != found.words)
        if connection.execute(select(_COHORTS.c.run_id).where(earlier).limit(1)).first() is not None:
            raise CohortRefused(
                "Under one grant, exact updates are of the same rows in every run: keep conditions, target, classes, "
                "purpose and what is kept apart as they were in your first run. Ask with noise for others.",
                code="training.other_rows",
            )
        sets = [tuple(one) for one in json.loads(found.sets)]
        known: dict[str, set[str]] = {}
        query = select(_COHORTS.c.sets).where(_COHORTS.c.edition == found.edition).distinct()
        for (text,) in connection.execute(query):
            for name, condition in json.loads(text):
                known.setdefault(name, set()).add(condition)
        if any(condition not in known.get(name, {condition}) for name, condition in sets):
            raise CohortRefused(
                "With exact updates a feature set has the same condition in all runs at this center, and this one has "
                "another than an earlier run's. Ask with noise for another.",
                code="training.other_rows",
            )

    def _require_apart(self, connection: Connection, found: TrainingCohort) -> None:
        here = BitMap.deserialize(found.bitmap)
        for row in connection.execute(select(_COHORTS.c.words, _COHORTS.c.bitmap)):
            changed = len(here ^ BitMap.deserialize(bytes(row.bitmap)))
            if bytes(row.words) == found.words and 0 < changed < self._minimum:
                raise _moved()
            if bytes(row.words) != found.words and changed < self._minimum:
                raise CohortRefused(
                    "These rows are of the same donors as those of an earlier training with exact updates, or of "
                    "nearly the same: the center does not say which. Select rows as that one did, or ask with noise."
                )


def words_of(question: Question) -> bytes:
    """A digest of all words that say which rows there are, what is predicted of them, and whose consent counts."""
    recipe, purpose = recipe_of(question), question.purpose
    same = {
        "dataset": question.dataset,
        "filter": canonical(question.filter),
        "target": recipe.target.field,
        "classes": [[repr(value) for value in one.values] for one in recipe.target.classes],
        "held_out": [recipe.held_out, recipe.seed if recipe.held_out else 0, *sorted(recipe.held_out_centers)],
        "purpose": [sorted(purpose.research), purpose.disease, purpose.commercial_use],
    }
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).digest()


def sets_of(question: Question) -> list[tuple[str, str]]:
    """The feature sets of a recipe: dataset, key and value, each with the words that select its rows."""
    return [
        (f"{one.dataset}.{one.value} by {one.key}", json.dumps(canonical(one.filter)))
        for one in recipe_of(question).features
        if isinstance(one, FeatureSet)
    ]


def _require_once(question: Question) -> None:
    """Raise CohortRefused for two inputs of the same values: with other conditions they may differ by one donor's."""
    keys = [
        (one.dataset, one.value, one.key, key)
        for one in recipe_of(question).features
        if isinstance(one, FeatureSet)
        for key in one.keys
    ]
    if len(set(keys)) < len(keys):
        raise CohortRefused(
            "With exact updates a key of a feature set is in a recipe once, whatever its condition. Ask with noise for "
            "both.",
            code="training.other_rows",
        )


def _moved() -> CohortRefused:
    return CohortRefused(
        "Consents have changed since an earlier training with exact updates of the same rows, of too few donors to "
        "hide who: exact updates end here until more have. Ask with noise.",
        code="training.cohort_moved",
    )


def _bitmap(donors: Iterable[int] | NDArray[numpy.int32] | None) -> BitMap:
    if donors is None:
        raise CohortRefused("The center cannot tell which donors stand behind this.", code="release.unknown_result")
    return BitMap(numpy.unique(numpy.asarray(donors)).astype(numpy.uint32))
