"""The consent ledger keeps its promises on every database."""

from __future__ import annotations

import datetime
import itertools
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from connexon.errors import InvalidQuery, NotFound
from connexon.service.database import Database
from connexon_node.consent.donor_state import Status
from connexon_node.consent.ledger import CHUNK, Ledger
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.state import open_state

GENERAL = ConsentProfile.parse("DUO:0000042")
HEALTH = ConsentProfile.parse("DUO:0000006")
MARCH, APRIL, MAY = (datetime.date(2026, month, 1) for month in (3, 4, 5))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


def consent(
    donor: str = "D1",
    profile: ConsentProfile = GENERAL,
    on: datetime.date = MARCH,
    *,
    withdrawn_on: datetime.date | None = None,
    expired: bool = False,
) -> ConsentRecord:
    return ConsentRecord(donor, profile, on, withdrawn_on, expired)


def in_force(ledger: Ledger) -> dict[int, int]:
    snapshot = ledger.snapshot()
    return dict(zip(snapshot.donors.tolist(), snapshot.profiles.tolist(), strict=True))


def test_donors_get_dense_numbers_that_stay(ledger: Ledger) -> None:
    assert ledger.number_donors(["B", "A", "B"]).tolist() == [1, 2, 1]
    assert ledger.number_donors(["C", "A"]).tolist() == [3, 2]
    assert ledger.number_donors([]).tolist() == []
    assert ledger.epoch() == 0


def test_a_recorded_consent_is_in_force(ledger: Ledger) -> None:
    standing = ledger.record(consent(), by="steward")
    assert (standing.status, standing.profile, standing.obtained_on) == (Status.IN_FORCE, GENERAL, "2026-03-01")
    assert in_force(ledger) == {standing.number: standing.profile_number}


def test_every_event_moves_the_epoch_and_nothing_else_does(ledger: Ledger) -> None:
    ledger.record(consent(), by="steward")
    assert ledger.epoch() == 1
    ledger.record(consent(), by="steward")
    assert ledger.epoch() == 1
    ledger.withdraw("D1", by="steward", on=APRIL)
    assert ledger.epoch() == 2
    ledger.withdraw("D1", by="steward", on=APRIL)
    assert ledger.epoch() == 2


def test_the_epoch_is_read_in_the_transaction_of_the_reader(ledger: Ledger, database: Database) -> None:
    with database.reading() as connection:
        before = ledger.epoch(connection)
        ledger.record(consent(), by="steward")
        assert ledger.epoch(connection) == before
    assert ledger.epoch() == before + 1


def test_a_transaction_that_fails_leaves_neither_event_nor_epoch(ledger: Ledger) -> None:
    def broken() -> Iterator[ConsentRecord]:
        yield from (consent(f"D{number}") for number in range(CHUNK + 1))
        raise OSError("the file ends in the middle")

    with pytest.raises(OSError, match="in the middle"):
        ledger.record_many(broken(), by="steward", source="file")
    assert ledger.epoch() == 0
    assert in_force(ledger) == {}


def test_the_newest_consent_decides_whatever_order_they_come_in(ledger: Ledger) -> None:
    for number, order in enumerate(itertools.permutations([MARCH, APRIL, MAY])):
        donor = f"D{number}"
        profiles = {MARCH: GENERAL, APRIL: GENERAL, MAY: HEALTH}
        ledger.record_many([consent(donor, profiles[day], day) for day in order], by="steward", source="file")
        assert ledger.standing(donor).profile == HEALTH


def test_two_consents_of_one_day_that_differ_deny_and_are_reported(ledger: Ledger) -> None:
    outcome = ledger.record_many([consent(), consent(profile=HEALTH), consent("D2")], by="steward", source="file")
    assert (outcome.contradictions, outcome.contradicted) == (1, ("D1",))
    assert ledger.standing("D1").status is Status.CONTRADICTED
    assert in_force(ledger)[1] == 0
    assert in_force(ledger)[2] > 0


def test_an_amendment_settles_a_contradiction_also_when_the_file_comes_again(ledger: Ledger) -> None:
    file = [consent(), consent(profile=HEALTH)]
    ledger.record_many(file, by="steward", source="file")
    assert ledger.amend("D1", HEALTH, by="steward", because="the paper form says so").profile == HEALTH
    again = ledger.record_many(file, by="steward", source="file")
    assert (again.changed, again.contradictions) == (0, 0)
    assert ledger.standing("D1").status is Status.IN_FORCE


def test_after_an_amendment_a_third_version_of_that_day_contradicts_it(ledger: Ledger) -> None:
    ledger.record(consent(), by="steward")
    ledger.amend("D1", HEALTH, by="steward", because="typing error")
    ledger.record(consent(profile=ConsentProfile.parse("DUO:0000011")), by="steward")
    assert ledger.standing("D1").status is Status.CONTRADICTED


def test_a_withdrawal_stops_the_consent_and_stays_in_the_history(ledger: Ledger) -> None:
    ledger.record(consent(), by="import", source="file")
    standing = ledger.withdraw("D1", by="steward", on=APRIL, because="a letter")
    assert (standing.status, standing.in_force) == (Status.WITHDRAWN, False)
    assert in_force(ledger) == {1: 0}
    told = [(event.kind, event.effective_on, event.by, event.because) for event in ledger.history("D1")]
    assert told == [("recorded", "2026-03-01", "import", ""), ("withdrawn", "2026-04-01", "steward", "a letter")]


@pytest.mark.parametrize("on", [MARCH, APRIL], ids=["before", "the same day"])
def test_a_withdrawal_is_not_undone_by_a_consent_from_before_it(ledger: Ledger, on: datetime.date) -> None:
    ledger.record(consent(), by="steward")
    ledger.withdraw("D1", by="steward", on=APRIL)
    ledger.record_many([consent(on=on), consent(on=on, profile=HEALTH)], by="steward", source="the old file again")
    assert ledger.standing("D1").status is Status.WITHDRAWN
    assert in_force(ledger) == {1: 0}


def test_a_consent_given_after_the_withdrawal_counts(ledger: Ledger) -> None:
    ledger.record(consent(), by="steward")
    ledger.withdraw("D1", by="steward", on=APRIL)
    assert ledger.record(consent(on=MAY, profile=HEALTH), by="steward").profile == HEALTH
    assert ledger.standing("D1").in_force


def test_a_withdrawal_that_is_recorded_before_any_consent_counts(ledger: Ledger) -> None:
    ledger.number_donors(["D1"])
    ledger.withdraw("D1", by="steward", on=APRIL)
    ledger.record(consent(on=MARCH), by="steward")
    assert ledger.standing("D1").status is Status.WITHDRAWN


def test_a_file_brings_withdrawals_and_expiries(ledger: Ledger) -> None:
    of_one_day = consent("D4", withdrawn_on=MARCH)
    ledger.record_many(
        [consent(withdrawn_on=APRIL), consent("D2", expired=True), consent("D3"), of_one_day],
        by="steward",
        source="file",
    )
    assert [ledger.standing(donor).status for donor in ("D1", "D2", "D3", "D4")] == [
        Status.WITHDRAWN,
        Status.EXPIRED,
        Status.IN_FORCE,
        Status.WITHDRAWN,
    ]
    counts = ledger.donors_by_status()
    assert counts == {Status.WITHDRAWN: 2, Status.EXPIRED: 1, Status.IN_FORCE: 1}


def test_what_is_imported_again_is_no_event(ledger: Ledger) -> None:
    file = [consent(f"D{number}") for number in range(50)]
    first = ledger.record_many(file, by="steward", source="file")
    again = ledger.record_many(file, by="steward", source="file")
    assert (first.records, first.changed, again.changed, again.epoch) == (50, 50, 0, first.epoch)
    assert len(ledger.history("D7")) == 1


def test_changes_tell_only_what_moved_since(ledger: Ledger) -> None:
    ledger.record_many([consent("D1"), consent("D2"), consent("D3")], by="steward", source="file")
    since = ledger.epoch()
    ledger.withdraw("D2", by="steward", on=APRIL)
    changes = ledger.changes(since)
    assert (changes.epoch, changes.donors.tolist(), changes.profiles.tolist()) == (since + 1, [2], [0])
    assert ledger.changes(changes.epoch).donors.tolist() == []
    assert changes.donors.dtype == changes.profiles.dtype == "int32"


def test_profiles_are_shared_and_counted(ledger: Ledger) -> None:
    ledger.record_many(
        [consent("D1"), consent("D2"), consent("D3", HEALTH), consent("D4", withdrawn_on=APRIL)],
        by="steward",
        source="file",
    )
    assert ledger.profiles() == {1: GENERAL, 2: HEALTH}
    assert ledger.donors_by_profile() == {0: 1, 1: 2, 2: 1}


def test_a_withdrawn_consent_cannot_be_amended_back(ledger: Ledger) -> None:
    ledger.record(consent(), by="steward")
    ledger.withdraw("D1", by="steward", on=APRIL)
    with pytest.raises(InvalidQuery) as caught:
        ledger.amend("D1", HEALTH, by="steward", because="no", obtained_on=MAY)
    assert caught.value.code == "consent.nothing_to_amend"


def test_an_unknown_donor_is_not_found(ledger: Ledger) -> None:
    for ask in (ledger.standing, ledger.history, lambda donor: ledger.withdraw(donor, by="steward", on=APRIL)):
        with pytest.raises(NotFound) as caught:
            ask("nobody")
        assert caught.value.code == "consent.unknown_donor"


def test_writers_at_the_same_time_lose_nothing(ledger: Ledger, database_url: str) -> None:
    databases = [Database(database_url) for _ in range(4)]

    def work(number: int) -> None:
        own = Ledger(databases[number])
        for turn in range(10):
            own.number_donors([f"shared{turn}", f"own{number}-{turn}"])
            own.record(consent(f"own{number}-{turn}"), by=str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert ledger.epoch() == 40
    assert len(in_force(ledger)) == 40
    names = [f"shared{turn}" for turn in range(10)] + [f"own{n}-{turn}" for n in range(4) for turn in range(10)]
    assert sorted(ledger.number_donors(names).tolist()) == list(range(1, 51))


def test_history_is_never_rewritten(ledger: Ledger, database: Database) -> None:
    ledger.record(consent(), by="steward")
    with database.reading() as connection:
        first = connection.execute(text("select * from consent_events order by sequence")).all()
    ledger.amend("D1", HEALTH, by="steward", because="typing error")
    ledger.withdraw("D1", by="steward", on=APRIL)
    with database.reading() as connection:
        assert connection.execute(text("select * from consent_events order by sequence")).all()[:1] == first


def test_a_chunk_boundary_changes_nothing(ledger: Ledger) -> None:
    records = [consent(f"D{number}") for number in range(CHUNK - 1)]
    records += [consent("edge"), consent("edge", HEALTH, APRIL), consent("edge", GENERAL, MARCH)]
    outcome = ledger.record_many(iter(records), by="steward", source="file")
    assert (outcome.records, outcome.contradictions) == (CHUNK + 2, 0)
    assert ledger.standing("edge").profile == HEALTH


def test_consents_end_on_their_day_with_an_event_each_written_once(ledger: Ledger) -> None:
    ending = [ConsentRecord(name, GENERAL, MARCH, expires_on=end) for name, end in (("D1", APRIL), ("D2", MAY))]
    ledger.record_many([*ending, consent("D3"), consent("D4", withdrawn_on=MARCH)], by="steward", source="file")
    day = datetime.timedelta(days=1)
    assert ledger.expire(APRIL - day) == 0
    epoch = ledger.epoch()
    assert ledger.expire(APRIL) == 1
    assert ledger.expire(APRIL) == 0
    assert ledger.epoch() == epoch + 1
    assert ledger.changes(epoch).profiles.tolist() == [0]
    event = ledger.history("D1")[-1]
    assert (event.kind, event.effective_on, event.source) == ("expired", "2026-04-01", "time")
    standings = {name: ledger.standing(name) for name in ("D1", "D2", "D3")}
    assert [one.status for one in standings.values()] == [Status.EXPIRED, Status.IN_FORCE, Status.IN_FORCE]
    assert ledger.expire(datetime.date(2030, 1, 1)) == 1


def test_a_later_consent_follows_one_that_ended_and_brings_its_own_end(ledger: Ledger) -> None:
    ledger.record(ConsentRecord("D1", GENERAL, MARCH, expires_on=APRIL), by="steward")
    ledger.expire(APRIL)
    standing = ledger.record(consent(on=MAY), by="steward")
    assert (standing.status, standing.expires_on) == (Status.IN_FORCE, "")
    assert ledger.expire(datetime.date(2030, 1, 1)) == 0


def test_an_end_that_was_wrong_is_set_right(ledger: Ledger) -> None:
    ledger.record(ConsentRecord("D1", GENERAL, MARCH, expires_on=APRIL), by="steward")
    ledger.expire(APRIL)
    standing = ledger.amend("D1", GENERAL, by="steward", because="the form says May", expires_on=MAY)
    assert (standing.status, standing.expires_on) == (Status.IN_FORCE, "2026-05-01")
    assert ledger.expire(APRIL) == 0
    assert ledger.expire(MAY) == 1


def test_a_withdrawal_without_a_day_counts_also_where_the_form_is_of_tomorrow(ledger: Ledger) -> None:
    """A form signed today east of Greenwich may be of tomorrow, UTC."""
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    for day in (tomorrow, datetime.date(2062, 1, 1)):
        ledger.record(consent(on=day), by="steward")
        standing = ledger.withdraw("D1", by="steward")
        assert (standing.status, standing.withdrawn_on) == (Status.WITHDRAWN, day.isoformat())


def test_a_withdrawal_from_a_day_before_the_form_is_not_taken_for_one(ledger: Ledger) -> None:
    ledger.record(consent(on=APRIL), by="steward")
    with pytest.raises(InvalidQuery, match="without --on") as caught:
        ledger.withdraw("D1", by="steward", on=MARCH)
    assert caught.value.code == "consent.withdrawn_before"
    assert ledger.standing("D1").status is Status.IN_FORCE
    assert [event.kind for event in ledger.history("D1")] == ["recorded"]


def test_an_amendment_leaves_the_end_as_it_was(ledger: Ledger) -> None:
    ledger.record(ConsentRecord("D1", GENERAL, MARCH, expires_on=MAY), by="steward")
    standing = ledger.amend("D1", HEALTH, by="steward", because="typing error")
    assert (standing.status, standing.expires_on) == (Status.IN_FORCE, "2026-05-01")
    assert ledger.expire(MAY) == 1
    standing = ledger.amend("D1", GENERAL, by="steward", because="another typing error")
    assert (standing.status, standing.expires_on) == (Status.EXPIRED, "2026-05-01")
    standing = ledger.amend("D1", GENERAL, by="steward", because="the form has no end", expires_on="never")
    assert (standing.status, standing.expires_on) == (Status.IN_FORCE, "")


def test_a_consent_that_a_file_calls_expired_stays_so_when_it_is_amended(ledger: Ledger) -> None:
    ledger.record(consent(expired=True), by="import")
    assert ledger.amend("D1", HEALTH, by="steward", because="typing error").status is Status.EXPIRED


def test_after_an_amendment_the_file_may_still_end_the_consent(ledger: Ledger) -> None:
    for donor, again in (("D1", {"expired": True}), ("D2", {"expires_on": APRIL})):
        ledger.record(ConsentRecord(donor, GENERAL, MARCH), by="import")
        ledger.amend(donor, HEALTH, by="steward", because="typing error")
        ledger.record(ConsentRecord(donor, GENERAL, MARCH, **again), by="import")
        ledger.expire(APRIL)
        standing = ledger.standing(donor)
        assert (standing.status, standing.profile) == (Status.EXPIRED, HEALTH)


def test_a_day_that_was_set_right_stays_when_the_file_comes_again(ledger: Ledger) -> None:
    ledger.record(consent(on=APRIL), by="import")
    ledger.amend("D1", HEALTH, by="steward", because="wrong day, and wrong permission", obtained_on=MARCH)
    standing = ledger.record(consent(on=APRIL), by="import")
    assert (standing.profile, standing.obtained_on) == (HEALTH, "2026-03-01")
    assert ledger.record(consent(on=MAY), by="import").profile == GENERAL
