"""One writing transaction of the consent ledger: events, and the standings that they lead to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, insert, select

from connexon.errors import NotFound
from connexon_node.consent import donor_state
from connexon_node.consent.bulk import insert_many, where_in
from connexon_node.consent.donor_state import Standing, Status
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.consent.tables import DonorNumber

_TABLES = DonorNumber.metadata.tables
_NUMBERS = _TABLES["donor_numbers"]
_PROFILES = _TABLES["consent_profiles"]
_EVENTS = _TABLES["consent_events"]
_CONSENTS = _TABLES["donor_consents"]
_REPLACE_CONSENT = "on conflict (donor) do update set " + ", ".join(
    f"{column.name} = excluded.{column.name}" for column in _CONSENTS.columns if column.name != "donor"
)


@dataclass
class Batch:
    """One writing transaction's counters and who writes; written back when the transaction ends."""

    connection: Connection
    by: str
    source: str
    at_ms: int
    epoch_before: int
    last_event: int
    last_donor: int
    last_profile: int
    profile_numbers: dict[ConsentProfile, int] = field(default_factory=dict)
    events: list[dict[str, object]] = field(default_factory=list)
    written: int = 0
    new: list[str] = field(default_factory=list)
    """Donors that had no consent before."""
    withdrawn: list[tuple[str, str]] = field(default_factory=list)
    """Donors whose records brought a withdrawal, with its day."""

    @property
    def epoch(self) -> int:
        """That of the events of this transaction."""
        return self.epoch_before + 1

    def note(self, donor: int, kind: str, profile: int, effective_on: str, because: str = "") -> None:
        """Have an event written with the next `put`."""
        self.last_event += 1
        self.written += 1
        self.events.append(
            {
                "sequence": self.last_event,
                "epoch": self.epoch,
                "donor": donor,
                "kind": kind,
                "profile": profile,
                "effective_on": effective_on,
                "at_ms": self.at_ms,
                "by": self.by,
                "source": self.source,
                "because": because,
            }
        )

    def put(self, changed: dict[int, Standing]) -> None:
        """Write the events noted so far and the standings they led to."""
        insert_many(self.connection, _EVENTS, self.events)
        self.events = []
        rows = [
            {
                "donor": donor,
                "profile": now.profile,
                "newest": now.newest.value,
                "latest_profile": now.latest_profile,
                "obtained_on": now.obtained_on,
                "withdrawn_on": now.withdrawn_on,
                "amended": now.amended,
                "epoch": self.epoch,
                "expires_on": now.expires_on,
            }
            for donor, now in changed.items()
        ]
        insert_many(self.connection, _CONSENTS, rows, tail=_REPLACE_CONSENT)

    def record(self, chunk: list[ConsentRecord]) -> list[str]:
        """Fold the records into the donors' standings; returns the donors that contradict themselves by it."""
        numbers = self.numbers_of([record.donor_id for record in chunk])
        standings = standings_of(self.connection, set(numbers.values()))
        self.new += [record.donor_id for record in chunk if numbers[record.donor_id] not in standings]
        changed: dict[int, Standing] = {}
        contradicted = []
        for record in chunk:
            donor = numbers[record.donor_id]
            before = changed.get(donor) or standings.get(donor, donor_state.NEVER)
            profile = self.profile_number(record.profile)
            obtained = record.obtained_on.isoformat()
            known = before.amended and obtained >= before.obtained_on and self._was_recorded(donor, profile, obtained)
            end = record.expires_on.isoformat() if record.expires_on else ""
            after = donor_state.recorded(before, profile, obtained, expired=record.expired, expires_on=end, known=known)
            kind = "recorded"
            if after.newest is not before.newest and after.newest in (Status.CONTRADICTED, Status.EXPIRED):
                kind = after.newest.value
                if after.newest is Status.CONTRADICTED:
                    contradicted.append(record.donor_id)
            if after != before:
                self.note(donor, kind, profile, obtained)
            if record.withdrawn_on is not None:
                then = donor_state.withdrawn(after, record.withdrawn_on.isoformat())
                if then != after:
                    self.note(donor, "withdrawn", profile, record.withdrawn_on.isoformat())
                    self.withdrawn.append((record.donor_id, record.withdrawn_on.isoformat()))
                after = then
            if after != before:
                changed[donor] = after
        self.put(changed)
        return contradicted

    def profile_number(self, profile: ConsentProfile) -> int:
        """The number of a profile; a new one is written down."""
        number = self.profile_numbers.get(profile)
        if number is None:
            written = profile.to_json()
            digest = hashlib.sha256(written.encode()).hexdigest()
            found = self.connection.execute(select(_PROFILES.c.number).where(_PROFILES.c.sha256 == digest)).scalar()
            if found is None:
                self.last_profile += 1
                found = self.last_profile
                row = {"number": found, "sha256": digest, "profile": written}
                self.connection.execute(insert(_PROFILES), row)
            number = self.profile_numbers[profile] = int(found)
        return number

    def numbers_of(self, donor_ids: Sequence[str]) -> dict[str, int]:
        """The donors' numbers; new ones are assigned."""
        known = numbers_in(self.connection, donor_ids)
        unseen = [donor for donor in dict.fromkeys(donor_ids) if donor not in known]
        new = {donor: number for number, donor in enumerate(unseen, start=self.last_donor + 1)}
        insert_many(self.connection, _NUMBERS, [{"number": number, "donor_id": donor} for donor, number in new.items()])
        self.last_donor += len(new)
        known.update(new)
        return known

    def _was_recorded(self, donor: int, profile: int, obtained_on: str) -> bool:
        same = (_EVENTS.c.donor == donor) & (_EVENTS.c.profile == profile) & (_EVENTS.c.effective_on == obtained_on)
        query = select(_EVENTS.c.sequence).where(same & (_EVENTS.c.kind != "withdrawn")).limit(1)
        return self.connection.execute(query).first() is not None


def known_number(connection: Connection, donor_id: str) -> int:
    """A donor's number. Raises NotFound."""
    number = numbers_in(connection, [donor_id]).get(donor_id)
    if number is None:
        raise NotFound(f"No donor {donor_id!r} is known at this node; check the id.", code="consent.unknown_donor")
    return number


def numbers_in(connection: Connection, donor_ids: Sequence[str]) -> dict[str, int]:
    """The numbers of those donors that have one, by id."""
    query, parameters = where_in(
        connection, select(_NUMBERS.c.donor_id, _NUMBERS.c.number), _NUMBERS.c.donor_id, donor_ids
    )
    return dict(connection.execute(query, parameters).all())


def standings_of(connection: Connection, donors: Iterable[int]) -> dict[int, Standing]:
    """How these donors stand, by number; who has no consent is not there."""
    columns = ("donor", "latest_profile", "obtained_on", "newest", "withdrawn_on", "amended", "expires_on")
    query, parameters = where_in(
        connection, select(*(_CONSENTS.c[name] for name in columns)), _CONSENTS.c.donor, list(donors)
    )
    return {
        donor: Standing(latest, obtained, Status(newest), gone, amended, ends)
        for donor, latest, obtained, newest, gone, amended, ends in connection.execute(query, parameters)
    }
