"""The consent ledger: every event that ever was, what it adds up to per donor, and the epoch that grows with it.

INVARIANT: a writer holds the lock of the one row of consent_counters for its whole transaction, and every event
moves the epoch in that same transaction. So whoever reads the epoch knows which events have been.
"""

from __future__ import annotations

import datetime
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy
import sqlalchemy
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, and_, bindparam, select

from connexon.clock import now_ms, to_datetime
from connexon.clock_check import ClockCheck, TrustedClock
from connexon.errors import InvalidQuery, Refused
from connexon.service.database import Database
from connexon_node.consent import donor_state
from connexon_node.consent.batch import Batch, known_number, numbers_in, standings_of
from connexon_node.consent.donor_state import Status
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.consent.tables import DonorNumber
from connexon_node.recovery.journal import AMENDED, WITHDRAWN, Journal

LOG = logging.getLogger("connexon.node")
CHUNK = 20_000
"""Donors looked at together: bounds memory."""
REPORTED = 1_000
"""Donor ids kept of those whose consents contradict each other; all are counted."""

_TABLES = DonorNumber.metadata.tables
_NUMBERS = _TABLES["donor_numbers"]
_PROFILES = _TABLES["consent_profiles"]
_EVENTS = _TABLES["consent_events"]
_CONSENTS = _TABLES["donor_consents"]
_COUNTERS = _TABLES["consent_counters"]
_EPOCH = select(_COUNTERS.c.epoch)
_PROFILES_AFTER = select(_PROFILES.c.number, _PROFILES.c.profile).where(_PROFILES.c.number > bindparam("above"))


@dataclass(frozen=True)
class ConsentSnapshot:
    """Donors and the profile in force for each (0: none), both int32 and of one length, as of `epoch`."""

    epoch: int
    donors: NDArray[numpy.int32]
    profiles: NDArray[numpy.int32]


@dataclass(frozen=True)
class RecordOutcome:
    """What a bulk record came to. `contradicted` names up to REPORTED donors whose newest consents disagree."""

    epoch: int
    records: int
    changed: int
    contradictions: int
    contradicted: tuple[str, ...]


@dataclass(frozen=True)
class DonorStanding:
    """One donor's consent as it stands. `profile` is the newest one recorded; `in_force` says whether it counts."""

    donor_id: str
    number: int
    status: Status
    profile_number: int
    profile: ConsentProfile | None
    obtained_on: str
    withdrawn_on: str
    expires_on: str = ""

    @property
    def in_force(self) -> bool:
        """Whether the donor may be counted where the profile permits."""
        return self.status is Status.IN_FORCE


@dataclass(frozen=True)
class Event:
    """One line of a donor's history."""

    sequence: int
    epoch: int
    kind: str
    profile_number: int
    profile: ConsentProfile | None
    effective_on: str
    at_ms: int
    by: str
    source: str
    because: str


class ClockDoubted(Refused):
    """Consents may have come to their end, and which day it is is in doubt."""

    code = "consent.clock_doubted"

    def __init__(self) -> None:
        super().__init__(
            "The center's clock and the hub's differ, so it cannot tell which consents have ended, and answers nothing "
            "about persons until one of them is set right. Ask again later."
        )


class Ledger:
    """Consent of every donor of this node, durable, with its whole history."""

    def __init__(self, database: Database, journal: Journal | None = None, clock: ClockCheck | None = None) -> None:
        """Use the node's state database, whose tables are up to date.

        `journal`: where withdrawals and amendments are noted outside it; whoever makes such has one. `clock`: by which
        consents end for good; the machine's where none is given.
        """
        self._clock = clock or TrustedClock()
        self._database = database
        self._journal = journal

    def epoch(self, connection: Connection | None = None) -> int:
        """The number that grows with every consent event; read in the transaction of `connection` where given."""
        if connection is not None:
            return int(connection.execute(_EPOCH).scalar_one())
        with self._database.reading() as own:
            return int(own.execute(_EPOCH).scalar_one())

    def newest_event_ms(self, *, apart_from: str) -> int:
        """When the newest event was written that is not of this source; 0 where there is none."""
        newest = select(sqlalchemy.func.max(_EVENTS.c.at_ms)).where(_EVENTS.c.source != apart_from)
        with self._database.reading() as connection:
            return int(connection.execute(newest).scalar_one() or 0)

    def changed_since(self, connection: Connection, epoch: int) -> int:
        """How many donors' consent has changed after `epoch`."""
        changed = select(sqlalchemy.func.count()).select_from(_CONSENTS).where(_CONSENTS.c.epoch > epoch)
        return int(connection.execute(changed).scalar_one())

    def number_donors(self, donor_ids: Sequence[str]) -> NDArray[numpy.int32]:
        """The numbers (int32, from 1) of donors, in their order; a donor seen for the first time gets the next one."""
        numbers = numpy.empty(len(donor_ids), dtype=numpy.int32)
        for start in range(0, len(donor_ids), CHUNK):
            chunk = donor_ids[start : start + CHUNK]
            with self._database.reading() as connection:
                known = numbers_in(connection, chunk)
            if any(donor not in known for donor in chunk):
                with self._writing(by="", source="") as batch:
                    known = batch.numbers_of(chunk)
            numbers[start : start + len(chunk)] = [known[donor] for donor in chunk]
        return numbers

    def snapshot(self) -> ConsentSnapshot:
        """Every donor with a consent or a withdrawal, and the profile in force."""
        return self.changes(-1)

    def changes(self, since_epoch: int) -> ConsentSnapshot:
        """The donors whose consent changed after that epoch, with the profile now in force."""
        query = select(_CONSENTS.c.donor, _CONSENTS.c.profile).where(_CONSENTS.c.epoch > since_epoch)
        with self._database.reading() as connection:
            epoch = self.epoch(connection)
            rows = connection.execute(query).yield_per(CHUNK)
            pairs = numpy.fromiter(itertools.chain.from_iterable(rows), dtype=numpy.int32).reshape(-1, 2)
        return ConsentSnapshot(epoch, numpy.ascontiguousarray(pairs[:, 0]), numpy.ascontiguousarray(pairs[:, 1]))

    def profiles(self, numbers: Iterable[int] | None = None) -> dict[int, ConsentProfile]:
        """Consent profiles by number: those named, or all."""
        query = select(_PROFILES.c.number, _PROFILES.c.profile).order_by(_PROFILES.c.number)
        if numbers is not None:
            query = query.where(_PROFILES.c.number.in_(list(numbers)))
        with self._database.reading() as connection:
            return {number: ConsentProfile.from_json(written) for number, written in connection.execute(query)}

    def profiles_after(self, number: int) -> tuple[int, dict[int, ConsentProfile]]:
        """The present epoch, and the profiles numbered above `number`, as of that epoch or later."""
        with self._database.reading() as connection:
            epoch, rows = self.epoch(connection), connection.execute(_PROFILES_AFTER, {"above": number})
            return epoch, {new: ConsentProfile.from_json(written) for new, written in rows}

    def donors_by_profile(self) -> dict[int, int]:
        """How many donors have each profile in force; 0 stands for those with none in force."""
        query = select(_CONSENTS.c.profile, sqlalchemy.func.count()).group_by(_CONSENTS.c.profile)
        with self._database.reading() as connection:
            return dict(connection.execute(query).all())

    def donors_by_status(self) -> dict[Status, int]:
        """How many donors stand where."""
        query = select(
            _CONSENTS.c.newest,
            (_CONSENTS.c.withdrawn_on != "") & (_CONSENTS.c.withdrawn_on >= _CONSENTS.c.obtained_on),
            sqlalchemy.func.count(),
        ).group_by(sqlalchemy.literal_column("1"), sqlalchemy.literal_column("2"))
        counts: dict[Status, int] = {}
        with self._database.reading() as connection:
            for newest, is_withdrawn, count in connection.execute(query):
                status = Status.WITHDRAWN if is_withdrawn else Status(newest)
                counts[status] = counts.get(status, 0) + count
        return counts

    def standing(self, donor_id: str) -> DonorStanding:
        """One donor's consent. Raises NotFound where the donor was never seen."""
        with self._database.reading() as connection:
            number = known_number(connection, donor_id)
            now = standings_of(connection, [number]).get(number, donor_state.NEVER)
        return DonorStanding(
            donor_id=donor_id,
            number=number,
            status=now.status,
            profile_number=now.latest_profile,
            profile=self.profiles([now.latest_profile]).get(now.latest_profile),
            obtained_on=now.obtained_on,
            withdrawn_on=now.withdrawn_on,
            expires_on=now.expires_on,
        )

    def history(self, donor_id: str) -> tuple[Event, ...]:
        """All that happened to one donor's consent, oldest first. Raises NotFound."""
        columns = ("sequence", "epoch", "kind", "profile", "effective_on", "at_ms", "by", "source", "because")
        with self._database.reading() as connection:
            number = known_number(connection, donor_id)
            query = select(*(_EVENTS.c[name] for name in columns)).where(_EVENTS.c.donor == number)
            rows = connection.execute(query.order_by(_EVENTS.c.sequence)).mappings().all()
        profiles = self.profiles({row["profile"] for row in rows})
        return tuple(
            Event(
                **{name: row[name] for name in columns if name != "profile"},
                profile_number=row["profile"],
                profile=profiles.get(row["profile"]),
            )
            for row in rows
        )

    def record_many(self, records: Iterable[ConsentRecord], *, by: str, source: str) -> RecordOutcome:
        """Record consents in one transaction, in bounded memory; only a donor whose standing changes has an event."""
        total = 0
        contradicted: dict[str, None] = {}
        contradictions = 0
        with self._writing(by=by, source=source) as batch:
            for chunk in _chunks(records):
                total += len(chunk)
                disagreeing = batch.record(chunk)
                contradictions += len(disagreeing)
                contradicted.update(dict.fromkeys(disagreeing[: REPORTED - len(contradicted)]))
            self._withdraw_again(batch, batch.new)
        self._remember(WITHDRAWN, batch, batch.withdrawn)
        epoch = batch.epoch if batch.written else batch.epoch_before
        return RecordOutcome(epoch, total, batch.written, contradictions, tuple(contradicted))

    def record(self, record: ConsentRecord, *, by: str, source: str = "steward") -> DonorStanding:
        """Record one consent and return where the donor stands now."""
        self.record_many([record], by=by, source=source)
        return self.standing(record.donor_id)

    def amend(
        self,
        donor_id: str,
        profile: ConsentProfile,
        *,
        by: str,
        because: str,
        obtained_on: datetime.date | None = None,
        expires_on: datetime.date | Literal["never"] | None = None,
    ) -> DonorStanding:
        """Set a donor's newest consent right. A withdrawn consent cannot be amended: the donor must consent anew.

        Day and end stay as they were where none is given.
        Raises NotFound, or InvalidQuery where there is nothing to amend.
        """
        with self._writing(by=by, source="steward") as batch:
            number = known_number(batch.connection, donor_id)
            now = standings_of(batch.connection, [number]).get(number, donor_state.NEVER)
            if now.status in (Status.NONE, Status.WITHDRAWN):
                state = "has no consent on record" if now.status is Status.NONE else "has withdrawn"
                raise InvalidQuery(
                    f"{donor_id} {state}, so there is nothing to amend; a new consent is recorded with consent record.",
                    code="consent.nothing_to_amend",
                )
            day = obtained_on.isoformat() if obtained_on else now.obtained_on
            end = None if expires_on is None else "" if expires_on == "never" else expires_on.isoformat()
            after = donor_state.amended(now, batch.profile_number(profile), day, expires_on=end)
            if after != now:
                batch.note(number, "amended", after.latest_profile, day, because)
                batch.put({number: after})
        self._remember(AMENDED, batch, [(donor_id, day)])
        return self.standing(donor_id)

    def withdraw(self, donor_id: str, *, by: str, on: datetime.date | None = None, because: str = "") -> DonorStanding:
        """Withdraw a donor's consent from that day on, for good until a later consent; without a day, as it stands.

        Raises NotFound, and InvalidQuery where the newest consent is of a later day, so that it would go on to count.
        """
        with self._writing(by=by, source="steward") as batch:
            number = known_number(batch.connection, donor_id)
            now = standings_of(batch.connection, [number]).get(number, donor_state.NEVER)
            # Days differ by where one stands, and may be mistyped: who withdraws means what is in force.
            day = on.isoformat() if on else max(to_datetime(now_ms()).date().isoformat(), now.obtained_on)
            after = donor_state.withdrawn(now, day)
            if after.status is not Status.WITHDRAWN:
                raise InvalidQuery(
                    f"The newest consent of {donor_id} is of {now.obtained_on}, after that day, so it would go on to "
                    "count; withdraw it without --on, or from a later day.",
                    code="consent.withdrawn_before",
                )
            if after != now:
                batch.note(number, "withdrawn", now.latest_profile, day, because)
                batch.put({number: after})
        # Also where nothing changed: it may be entered again because the first time could not be noted.
        self._remember(WITHDRAWN, batch, [(donor_id, day)])
        return self.standing(donor_id)

    def withdraw_again(self, *, by: str, source: str) -> list[str]:
        """Enter the journal's withdrawals again where the ledger has forgotten them; the donors concerned."""
        with self._writing(by=by, source=source) as batch:
            donors = batch.connection.execute(select(_NUMBERS.c.donor_id).order_by(_NUMBERS.c.number)).scalars().all()
            entered = self._withdraw_again(batch, donors)
        self._remember(WITHDRAWN, batch, entered)
        return [donor for donor, _ in entered]

    def _withdraw_again(self, batch: Batch, donors: Sequence[str]) -> list[tuple[str, str]]:
        """What the journal says of these donors, in the transaction of `batch`; whom it concerned, and the days."""
        days = self._journal.withdrawals() if self._journal is not None and donors else {}
        if self._journal is None or not days:
            return []
        named = ((donor, days.get(self._journal.name(donor), "")) for donor in donors)
        gone = {donor: day for donor, day in named if day}
        entered = []
        for chunk in _pages(list(gone)):
            numbers = numbers_in(batch.connection, chunk)
            standings = standings_of(batch.connection, numbers.values())
            changed = {}
            for donor in chunk:
                number = numbers[donor]
                now = standings.get(number, donor_state.NEVER)
                after = donor_state.withdrawn(now, gone[donor])
                if after != now:
                    batch.note(number, "withdrawn", now.latest_profile, gone[donor], "by the journal of withdrawals")
                    changed[number] = after
                    entered.append((donor, gone[donor]))
            batch.put(changed)
        return entered

    def _remember(self, kind: str, batch: Batch, donors: Sequence[tuple[str, str]]) -> None:
        if self._journal is not None:
            self._journal.note(kind, donors, epoch=batch.epoch if batch.written else batch.epoch_before)

    def expire(self, day: datetime.date) -> int:
        """Let the consents end whose own end has come by `day`, UTC: an event for each. Returns how many.

        May be called at any time and by anybody: an end that has been written is not written again. Raises ClockDoubted
        where some may have ended and the clock is in doubt.
        """
        doubt = self._clock.doubt
        latest = max(day, to_datetime(self._clock.latest_ms()).date()) if doubt else day
        if not self._is_due(latest):
            return 0
        if doubt:
            LOG.warning("consents that may have ended are not ended: %s", doubt)
            raise ClockDoubted
        with self._writing(by="the consent's own term", source="time") as batch:
            query = select(_CONSENTS.c.donor).where(_due(day)).order_by(_CONSENTS.c.donor)
            donors = list(batch.connection.execute(query).scalars())
            for start in range(0, len(donors), CHUNK):
                standings = standings_of(batch.connection, donors[start : start + CHUNK])
                for donor, now in standings.items():
                    batch.note(donor, Status.EXPIRED.value, now.latest_profile, now.expires_on)
                batch.put({donor: donor_state.ended(now) for donor, now in standings.items()})
        return len(donors)

    def _is_due(self, day: datetime.date) -> bool:
        with self._database.reading() as connection:
            return connection.execute(select(_CONSENTS.c.donor).where(_due(day)).limit(1)).first() is not None

    @contextmanager
    def _writing(self, *, by: str, source: str) -> Iterator[Batch]:
        with self._database.writing() as connection:
            names = ("epoch", "last_event", "last_donor", "last_profile")
            held = select(*(_COUNTERS.c[name] for name in names)).with_for_update()
            batch = Batch(connection, by, source, now_ms(), *connection.execute(held).one())
            yield batch
            connection.execute(
                _COUNTERS.update().values(
                    epoch=batch.epoch if batch.written else batch.epoch_before,
                    last_event=batch.last_event,
                    last_donor=batch.last_donor,
                    last_profile=batch.last_profile,
                )
            )


def _due(day: datetime.date) -> ColumnElement[bool]:
    """Consents in force by themselves whose end has come; ends are ISO dates, which compare as text."""
    ends = _CONSENTS.c.expires_on
    return and_(ends != "", ends <= day.isoformat(), _CONSENTS.c.newest == Status.IN_FORCE.value)


def _pages(donors: Sequence[str]) -> Iterator[Sequence[str]]:
    return (donors[start : start + CHUNK] for start in range(0, len(donors), CHUNK))


def _chunks(records: Iterable[ConsentRecord]) -> Iterator[list[ConsentRecord]]:
    remaining = iter(records)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        yield chunk
