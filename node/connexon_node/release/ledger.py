"""The release ledger: known cohorts in the state database, and in memory for comparing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from pyroaring import BitMap
from sqlalchemy import Connection, bindparam, func, insert, select

from connexon.clock import now_ms
from connexon.service.database import Database
from connexon_node.release.donor_multiset import PLANE, Counted, Donors, Sketches, at_most_each, to_array
from connexon_node.release.known_outside import KnownOutside
from connexon_node.release.released_cohorts import Known, KnownCohorts
from connexon_node.release.tables import ReleasedCohort, ReleaseSecret

_COHORTS = ReleasedCohort.metadata.tables["released_cohorts"]
_SECRET = ReleaseSecret.metadata.tables["release_secret"]
_NEWER = (
    select(*(_COHORTS.c[name] for name in ("id", "donors", "records", "value", "bitmap")))
    .where(_COHORTS.c.id > bindparam("last"))
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
        self.sketches = Sketches(max(64, 16 * minimum))
        self._outside = KnownOutside(minimum, self.sketches.width)
        self._last = 0
        self._own: dict[int, tuple[bytes, Known]] = {}
        """What this process wrote last, by row: read back as it was, it need not be worked out again."""
        self._written = False

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

    def known(self, connection: Connection | None = None) -> KnownOutside:
        """All that is known as the database has it now, in the caller's transaction where given."""
        if connection is not None:
            self._refresh(self._outside.cohorts, connection)
            return self._outside
        with self._database.reading() as own:
            self._refresh(self._outside.cohorts, own)
        return self._outside

    def catch_up(self) -> None:
        """Read back what this process wrote."""
        if self._written:
            self.known()

    def _refresh(self, known: KnownCohorts, connection: Connection) -> None:
        rows = connection.execute(_NEWER, {"last": self._last}).all()
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            found = [self._own_of(row.id, row.bitmap) for row in chunk]
            others = [
                BitMap.deserialize(bytes(row.bitmap)) for row, own in zip(chunk, found, strict=True) if own is None
            ]
            sketches = self.sketches.of([_behind(bitmap) for bitmap in others]) if others else ()
            # Donors may have had more records when another process counted them than they have now.
            known.heaviest = max(known.heaviest, *map(at_most_each, others), 1)
            worked_out = zip(others, sketches, strict=True)
            sources = [next(worked_out) if own is None else (own.bitmap, own.sketch) for own in found]
            known.add(
                [
                    Known(bitmap, row.donors, row.records, row.value, sketch)
                    for row, (bitmap, sketch) in zip(chunk, sources, strict=True)
                ]
            )
        if rows:
            self._last, self._written = rows[-1].id, False

    def _own_of(self, row: int, bitmap: bytes) -> Known | None:
        """What this process wrote, where the row has its bitmap."""
        written, own = self._own.pop(row, (b"", None))
        return own if written == bitmap else None

    def write(self, connection: Connection, dataset: str, query_id: str, new: Sequence[Known]) -> None:
        """Write down what becomes known, within the sealing transaction."""
        if not new:
            return
        last = connection.execute(select(func.max(_COHORTS.c.id))).scalar_one() or 0
        moment = now_ms()
        written = [one.bitmap.serialize() for one in new]
        rows = [
            {
                "id": number,
                "dataset": dataset,
                "query_id": query_id,
                "donors": one.donors,
                "records": one.records,
                "value": one.value,
                "bitmap": bitmap,
                "at_ms": moment,
            }
            for number, (one, bitmap) in enumerate(zip(new, written, strict=True), start=last + 1)
        ]
        connection.execute(insert(_COHORTS), rows)
        self._own = dict(enumerate(zip(written, new, strict=True), start=last + 1))
        self._written = True

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
