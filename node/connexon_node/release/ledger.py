"""The release ledger: known cohorts in the state database, and in memory for comparing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from pyroaring import BitMap
from sqlalchemy import Connection, bindparam, func, insert, select

from connexon.clock import now_ms
from connexon.database import Database
from connexon_node.release.counted import PLANE, Counted, Donors, Sketch, Sketches, to_array
from connexon_node.release.known import Known, KnownCohorts
from connexon_node.release.tables import ReleasedCohort, ReleaseSecret

_COHORTS = ReleasedCohort.metadata.tables["released_cohorts"]
_SECRET = ReleaseSecret.metadata.tables["release_secret"]
_NEWER = (
    select(*(_COHORTS.c[name] for name in ("id", "donors", "records", "value", "bitmap")))
    .where(_COHORTS.c.dataset == bindparam("dataset"), _COHORTS.c.id > bindparam("last"))
    .order_by(_COHORTS.c.id)
)
_CHUNK = 1_000


class ReleaseLedger:
    """Every cohort that was released, for all researchers together. Not thread-safe: ReleaseControl's lock guards it.

    INVARIANT: the database is the truth. Memory only ever has what `_refresh` read from it.
    """

    def __init__(self, database: Database, minimum: int) -> None:
        self._database = database
        self._minimum = minimum
        # Wide enough that few donors seldom share a compartment.
        self.sketches = Sketches(max(16, 4 * minimum))
        self._known: dict[str, KnownCohorts] = {}
        self._last: dict[str, int] = {}
        self._own: dict[int, Known] = {}
        """What this process wrote last, by row: read back as it was, it need not be worked out again."""

    def sizes(self) -> dict[str, int]:
        """How many cohorts are known of each dataset."""
        query = select(_COHORTS.c.dataset, func.count().label("cohorts")).group_by(_COHORTS.c.dataset)
        with self._database.reading() as connection:
            return {row.dataset: row.cohorts for row in connection.execute(query.order_by(_COHORTS.c.dataset))}

    def secret(self) -> bytes:
        """The key of random rounding."""
        with self._database.reading() as connection:
            return bytes(connection.execute(select(_SECRET.c.secret)).scalar_one())

    def counted(self, groups: Sequence[Donors], donors: Sequence[int]) -> list[Counted]:
        """The cohorts of these donors of records, with how many of them are distinct."""
        if not groups:
            return []
        sketches = self.sketches.of(groups)
        return [Counted(behind, many, sketch) for behind, many, sketch in zip(groups, donors, sketches, strict=True)]

    def known(self, dataset: str, connection: Connection | None = None) -> KnownCohorts:
        """The known cohorts of a dataset as the database has them now, in the caller's transaction where given."""
        known = self._known.setdefault(dataset, KnownCohorts(self._minimum, self.sketches.width))
        if connection is not None:
            self._refresh(dataset, known, connection)
            return known
        with self._database.reading() as own:
            self._refresh(dataset, known, own)
        return known

    def _refresh(self, dataset: str, known: KnownCohorts, connection: Connection) -> None:
        rows = connection.execute(_NEWER, {"dataset": dataset, "last": self._last.get(dataset, 0)}).all()
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            bitmaps = [BitMap.deserialize(bytes(row.bitmap)) for row in chunk]
            own = [self._sketch_of_own(row.id, bitmap) for row, bitmap in zip(chunk, bitmaps, strict=True)]
            others = [_behind(bitmap) for bitmap, sketch in zip(bitmaps, own, strict=True) if sketch is None]
            worked_out = iter(self.sketches.of(others) if others else ())
            sketches = [next(worked_out) if sketch is None else sketch for sketch in own]
            known.add(
                [
                    Known(bitmap, row.donors, row.records, row.value, sketch)
                    for row, bitmap, sketch in zip(chunk, bitmaps, sketches, strict=True)
                ]
            )
        if rows:
            self._last[dataset] = rows[-1].id

    def _sketch_of_own(self, row: int, bitmap: BitMap) -> Sketch | None:
        one = self._own.pop(row, None)
        return one.sketch if one is not None and one.bitmap == bitmap else None

    def write(self, connection: Connection, dataset: str, query_id: str, new: Sequence[Known]) -> None:
        """Write down what becomes known, within the sealing transaction."""
        if not new:
            return
        last = connection.execute(select(func.max(_COHORTS.c.id))).scalar_one() or 0
        moment = now_ms()
        rows = [
            {
                "id": number,
                "dataset": dataset,
                "query_id": query_id,
                "donors": one.donors,
                "records": one.records,
                "value": one.value,
                "bitmap": one.bitmap.serialize(),
                "at_ms": moment,
            }
            for number, one in enumerate(new, start=last + 1)
        ]
        connection.execute(insert(_COHORTS), rows)
        self._own = dict(enumerate(new, start=last + 1))

    def counting(self, donor: int) -> list[tuple[str, str, int]]:
        """Dataset, query id and time of every release whose cohort counted this donor number, oldest first."""
        query = select(_COHORTS.c.dataset, _COHORTS.c.query_id, _COHORTS.c.at_ms, _COHORTS.c.bitmap)
        found: dict[tuple[str, str, int], None] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query.order_by(_COHORTS.c.id)).yield_per(_CHUNK):
                bitmap = BitMap.deserialize(bytes(row.bitmap))
                if any(donor | place << PLANE in bitmap for place in range(32 - PLANE)):
                    found[row.dataset, row.query_id, row.at_ms] = None
        return list(found)


def _behind(bitmap: BitMap) -> Donors:
    values = to_array(bitmap)
    donors = (values & ((1 << PLANE) - 1)).astype(numpy.int32)
    places = values >> PLANE
    return donors if not places.any() else numpy.repeat(donors, 1 << places)
