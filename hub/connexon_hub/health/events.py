"""What `status` shows: the links of the centers, and events the operator should know of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update

from connexon.service.database import Database
from connexon_hub.state.tables import EVENTS, SESSIONS

KEPT_EVENTS = 10_000
KEPT_ALIKE = 200
"""Events of one center and code: no center may push out what is known of the others."""

_ALIKE = and_(EVENTS.c.center_id == bindparam("center"), EVENTS.c.code == bindparam("of"))
# By count and not by number: those that went before would count too. Where there are fewer, none goes.
_NEWEST = select(EVENTS.c.event_id).order_by(EVENTS.c.event_id.desc()).limit(1)
_FORGET_OLDEST = EVENTS.delete().where(EVENTS.c.event_id <= _NEWEST.offset(KEPT_EVENTS).scalar_subquery())
_FORGET_ALIKE = EVENTS.delete().where(
    _ALIKE, EVENTS.c.event_id <= _NEWEST.where(_ALIKE).offset(KEPT_ALIKE).scalar_subquery()
)


@dataclass(frozen=True)
class SessionRecord:
    """One center's link, as of its last writing. Times in ms since 1970-01-01 UTC; latency is a round trip, ms."""

    center_id: str
    process_id: str
    connected_ms: int
    ended_ms: int | None
    seen_ms: int
    last_answer_ms: int | None
    latency_ms: float | None
    software_version: str
    protocol: str
    dictionary_version: str
    roster_serial: int
    certificate_expires_ms: int
    clock_offset_ms: int | None = None
    """How far the hub's clock was ahead of the center's when it attached."""


@dataclass(frozen=True)
class Event:
    """Something the operator should know of. Never holds rows, questions or keys."""

    at_ms: int
    code: str
    center_id: str = ""
    detail: str = ""


class WatchStore:
    """Sessions and events in the hub's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note_sessions(self, connection: Connection, batches: Sequence[Sequence[SessionRecord]]) -> list[None]:
        """Step: write the state of sessions; the last one of a center stands. A known last answer is kept."""
        latest = {record.center_id: record for batch in batches for record in batch}
        if latest:
            known = set(connection.execute(select(SESSIONS.c.center_id)).scalars())
            self._update(connection, [record for center, record in sorted(latest.items()) if center in known])
            fresh = [vars(record) for center, record in sorted(latest.items()) if center not in known]
            if fresh:
                connection.execute(insert(SESSIONS), fresh)
        return [None] * len(batches)

    def note_events(self, connection: Connection, events: Sequence[Event]) -> list[None]:
        """Step: write events down; the oldest beyond KEPT_EVENTS go, and beyond KEPT_ALIKE of one center and code."""
        connection.execute(insert(EVENTS), [vars(event) for event in events])
        for center, code in sorted({(event.center_id, event.code) for event in events}):
            connection.execute(_FORGET_ALIKE, {"center": center, "of": code})
        connection.execute(_FORGET_OLDEST)
        return [None] * len(events)

    def end_all(self, at_ms: int) -> None:
        """When a hub starts nobody is attached, whatever a killed one left behind."""
        with self._database.writing() as connection:
            connection.execute(update(SESSIONS).where(SESSIONS.c.ended_ms.is_(None)).values(ended_ms=at_ms))

    def sessions(self) -> dict[str, SessionRecord]:
        """The latest link of every center that ever attached."""
        with self._database.reading() as connection:
            rows = connection.execute(select(SESSIONS)).mappings().all()
        return {row["center_id"]: SessionRecord(**row) for row in rows}

    def events(self, limit: int, *, alike: int = KEPT_ALIKE) -> list[Event]:
        """The newest events, newest first; of one center and code the newest `alike`."""
        place = func.row_number().over(
            partition_by=(EVENTS.c.center_id, EVENTS.c.code), order_by=EVENTS.c.event_id.desc()
        )
        placed = select(EVENTS, place.label("place")).subquery()
        newest = (
            select(placed.c.at_ms, placed.c.code, placed.c.center_id, placed.c.detail)
            .where(placed.c.place <= alike)
            .order_by(placed.c.event_id.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [Event(**row) for row in connection.execute(newest).mappings()]

    def _update(self, connection: Connection, records: Sequence[SessionRecord]) -> None:
        if not records:
            return
        names = [name for name in vars(records[0]) if name not in ("center_id", "last_answer_ms")]
        connection.execute(
            update(SESSIONS)
            .where(SESSIONS.c.center_id == bindparam("v_center_id"))
            .values(
                {name: bindparam(f"v_{name}") for name in names}
                | {"last_answer_ms": func.coalesce(bindparam("v_last_answer_ms"), SESSIONS.c.last_answer_ms)}
            ),
            [{f"v_{name}": value for name, value in vars(record).items()} for record in records],
        )
