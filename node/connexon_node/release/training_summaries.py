"""Summaries that left with exact updates: what each donor added, so that the next one can be held against them.

Two sums over cohorts that differ are a third sum, over those who are in one of them: nobody may stand out of that
(`dominance.may_differ`), however many donors it is of.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from sqlalchemy import Connection, select, update

from connexon.learning.preprocessing import Kind
from connexon.learning.recipe import FeatureSet, Recipe
from connexon.service.database import Database
from connexon_node.pipeline.held_out import held_out
from connexon_node.pipeline.values import ReleaseMoved, TrainingTable
from connexon_node.release.tables import TrainingCohortRow

MAXIMUM_KEPT = 4_000_000
"""Numbers that are kept of one summary; a larger one tells no moments, and its recipe needs ranges."""
_COHORTS = TrainingCohortRow.metadata.tables[str(TrainingCohortRow.__tablename__)]


@dataclass(frozen=True)
class Told:
    """What each donor added to the sums of each column: `parts` [sums, donors, columns], `donors` in rising order."""

    names: tuple[str, ...]
    donors: NDArray[numpy.int32]
    parts: NDArray[numpy.float64]

    @classmethod
    def of(cls, recipe: Recipe, table: TrainingTable, kinds: Sequence[Kind], parts: NDArray[numpy.float64]) -> Told:
        """Of the donors who are not kept apart, as local work numbers them: in the order of their own numbers."""
        apart = held_out(table.donors, recipe.held_out, recipe.seed)
        names = [name for feature in recipe.features for name in _what(feature)]
        columns = [place for place, kind in enumerate(kinds) if kind == "number"]
        whole = numpy.full(len(kinds), "", dtype=object)
        whole[columns] = [names[place] for place in columns]
        return cls(tuple(whole), numpy.unique(table.donors[~apart]), parts)

    def only(self, shown: Sequence[bool]) -> Told:
        """The columns that left."""
        places = [place for place, one in enumerate(shown) if one]
        return Told(tuple(self.names[place] for place in places), self.donors, self.parts[:, :, places])

    def beside(self, other: Told, column: int) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]] | None:
        """This column's sums here and there, [sums, donors of either]; None where it was not told there."""
        if self.names[column] not in other.names:
            return None
        everybody = numpy.union1d(self.donors, other.donors)
        there = other.parts[:, :, other.names.index(self.names[column])]
        pair = []
        for donors, parts in ((self.donors, self.parts[:, :, column]), (other.donors, there)):
            wide = numpy.zeros((len(parts), len(everybody)))
            wide[:, numpy.searchsorted(everybody, donors)] = parts
            pair.append(wide)
        return pair[0], pair[1]

    def to_bytes(self) -> bytes:
        """As it is kept."""
        kept = io.BytesIO()
        names = numpy.frombuffer(json.dumps(self.names).encode(), dtype=numpy.uint8)
        numpy.savez_compressed(kept, allow_pickle=False, names=names, donors=self.donors, parts=self.parts)
        return kept.getvalue()

    @classmethod
    def from_bytes(cls, kept: bytes) -> Told:
        """The inverse of `to_bytes`."""
        with numpy.load(io.BytesIO(kept), allow_pickle=False) as arrays:
            return cls(tuple(json.loads(arrays["names"].tobytes())), arrays["donors"], arrays["parts"])


class TrainingSummaries:
    """The summaries that this center has let out with exact updates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def earlier(self) -> list[Told]:
        """Those of earlier runs, once each where they are the same."""
        with self._database.reading() as connection:
            return [Told.from_bytes(kept) for kept in _kept(connection)]

    def keep(self, run: str, told: Told, seen: int, connection: Connection) -> None:
        """Within the sealing transaction. Raises ReleaseMoved where there are others than the `seen` earlier ones."""
        if len(_kept(connection)) != seen:
            raise ReleaseMoved("Another summary has left meanwhile.")
        mine = update(_COHORTS).where(_COHORTS.c.run_id == run)
        connection.execute(mine.values(summary=told.to_bytes() if told.names else b""))


def _kept(connection: Connection) -> set[bytes]:
    query = select(_COHORTS.c.summary).where(_COHORTS.c.summary != b"")
    return {bytes(kept) for (kept,) in connection.execute(query)}


def _what(feature: object) -> list[str]:
    """What a column is of, by its field or its set and key, whatever its conditions: those are the same in all runs."""
    if isinstance(feature, FeatureSet):
        return [f"{feature.dataset}.{feature.value}[{feature.key}={key}]" for key in feature.keys]
    return [str(feature.field)]  # type: ignore[attr-defined]  # the other kind of feature
