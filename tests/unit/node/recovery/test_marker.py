"""The marker and the journal beside the keys: what they keep, and what a power cut leaves of them."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection

from connexon.clock import DAY, now_ms
from connexon.clock_check import ClockCheck
from connexon.identity.keys import SigningKey
from connexon.query.signed import parcel_sha256
from connexon.service.database import Database
from connexon_node.audit import AuditLog, AuditRecord
from connexon_node.consent.ledger import ClockDoubted, Ledger
from connexon_node.consent.profile import ConsentProfile, ConsentRecord
from connexon_node.folder import NodeFolder
from connexon_node.privacy import Share
from connexon_node.recovery import StateOlder, marker
from connexon_node.recovery.bringing_back import write_charge
from connexon_node.recovery.journal import AMENDED, WITHDRAWN, Journal
from connexon_node.recovery.marker import Marker
from connexon_node.state import open_state

TODAY = datetime.datetime.now(datetime.UTC).date()


class Node:
    """A folder with a database that can be copied and put back."""

    def __init__(self, root: Path) -> None:
        self.folder = NodeFolder(root)
        self.folder.make()
        self.database = open_state(self.folder.default_state_url)
        self.marker = Marker(self.folder, self.database)

    def answer(self, *, rho: float = 0.0) -> int:
        with self.database.writing() as connection:
            if rho:
                write_charge(connection, Share.QUESTIONS, rho, 0.0, "q")
            return _append(self.database, connection)


def _append(database: Database, connection: Connection) -> int:
    digest = parcel_sha256(b"")
    record = AuditRecord(
        at_ms=now_ms(),
        query_id="q",
        query_sha256=digest,
        researcher="",
        purpose="",
        dataset="",
        analysis="",
        status="released",
        code="",
        rule="",
        policy_version="",
        duration_ms=0,
        result_sha256=digest,
    )
    return AuditLog(database).append(connection, record).sequence


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node")


def test_it_knows_how_far_the_log_had_come_and_what_was_charged(node: Node) -> None:
    assert marker.read(node.folder) is None
    node.marker.reach(node.answer(rho=0.25))
    node.marker.reach(node.answer(rho=0.5))
    mark = marker.read(node.folder)
    assert mark is not None
    assert (mark.size, mark.spent) == (2, {"questions": 0.75})
    assert mark.root == AuditLog(node.database).root_at(2)


def test_an_older_database_is_told_from_a_newer_one(node: Node, tmp_path: Path) -> None:
    node.answer()
    copy = (node.folder.root / "copy.db").resolve()
    node.database.back_up(copy)
    node.marker.reach(node.answer())
    older = Marker(node.folder, Database.sqlite(copy))
    with pytest.raises(StateOlder):
        older.touch()
    # The node itself, whose state is the newer one, goes on.
    node.marker.reach(node.answer())
    older.reset()
    mark = marker.read(node.folder)
    assert mark is not None
    assert mark.size == 1


def test_what_was_charged_alone_makes_a_copy_older(node: Node) -> None:
    copy = (node.folder.root / "copy.db").resolve()
    node.database.back_up(copy)
    with node.database.writing() as connection:
        write_charge(connection, Share.TABLES, 0.1, 0.0, "edition 1")
    node.marker.touch()
    with pytest.raises(StateOlder):
        Marker(node.folder, Database.sqlite(copy)).touch()


@pytest.mark.parametrize("spoiled", [0, 1024])
def test_a_slot_that_a_power_cut_spoiled_leaves_the_other(node: Node, spoiled: int) -> None:
    for _ in range(3):
        node.marker.reach(node.answer())
    path = node.folder.keys / marker.FILE
    with path.open("r+b") as file:
        file.seek(spoiled + 20)
        file.write(b"\xff" * 8)
    mark = marker.read(node.folder)
    assert mark is not None
    # The third is in the second slot.
    assert mark.size == (2 if spoiled else 3)


def test_marking_costs_about_one_write_to_disk(node: Node) -> None:
    sizes = [node.answer() for _ in range(20)]
    began = time.perf_counter()
    for size in sizes:
        node.marker.reach(size)
    # All of them were covered by the first.
    assert time.perf_counter() - began < 1
    assert marker.read(node.folder).number == 1  # it is there


def test_the_journal_enters_a_withdrawal_again_and_names_nobody(node: Node) -> None:
    journal = Journal(node.folder, SigningKey.generate())
    ledger = Ledger(node.database, journal)
    profile = ConsentProfile.parse("DUO:0000042", [], form_version="v1", scope="")
    for donor in ("D-0001", "D-0002"):
        ledger.record(ConsentRecord(donor, profile, TODAY - datetime.timedelta(days=9)), by="steward")
    copy = (node.folder.root / "copy.db").resolve()
    node.database.back_up(copy)
    ledger.withdraw("D-0001", by="steward")
    ledger.amend("D-0002", profile, by="steward", because="typing error")
    assert [entry.kind for entry in journal.entries()] == [WITHDRAWN, AMENDED]
    assert b"D-0001" not in (node.folder.keys / "withdrawals.log").read_bytes()

    restored = Ledger(Database.sqlite(copy), journal)
    assert journal.epoch() > restored.epoch()
    assert restored.standing("D-0001").in_force
    assert restored.withdraw_again(by="steward", source="recovery") == ["D-0001"]
    assert not restored.standing("D-0001").in_force
    assert restored.standing("D-0002").in_force
    assert restored.withdraw_again(by="steward", source="recovery") == []
    journal.close(epoch=restored.epoch())
    assert journal.epoch() <= restored.epoch()


def test_a_withdrawal_counts_also_where_the_donor_comes_again_with_an_import(node: Node) -> None:
    journal = Journal(node.folder, SigningKey.generate())
    journal.note(WITHDRAWN, [("D-0001", TODAY.isoformat())], epoch=0)
    ledger = Ledger(node.database, journal)
    profile = ConsentProfile.parse("DUO:0000042", [], form_version="v1", scope="")
    day = TODAY - datetime.timedelta(days=9)
    ledger.record_many([ConsentRecord(donor, profile, day) for donor in ("D-0001", "D-0002")], by="s", source="file")
    assert not ledger.standing("D-0001").in_force
    assert ledger.standing("D-0002").in_force


def test_half_a_line_does_not_spoil_the_next(node: Node) -> None:
    journal = Journal(node.folder, SigningKey.generate())
    journal.note(WITHDRAWN, [("D-0001", "2026-01-01")], epoch=1)
    path = node.folder.keys / "withdrawals.log"
    os.truncate(path, path.stat().st_size - 10)
    journal.note(WITHDRAWN, [("D-0002", "2026-01-02")], epoch=2)
    assert journal.withdrawals() == {journal.name("D-0002"): "2026-01-02"}


def test_a_doubted_clock_ends_no_consent_and_says_so(node: Node) -> None:
    wall = [now_ms()]
    clock = ClockCheck(wall=lambda: wall[0], steady=lambda: 0)
    ledger = Ledger(node.database, clock=clock)
    profile = ConsentProfile.parse("DUO:0000042", [], form_version="v1", scope="")
    end = TODAY + datetime.timedelta(days=100)
    ledger.record(ConsentRecord("D-0001", profile, TODAY, expires_on=end), by="steward")
    clock.compare("hub", wall[0])
    wall[0] += 400 * DAY
    with pytest.raises(ClockDoubted):
        ledger.expire(end + datetime.timedelta(days=300))
    wall[0] -= 400 * DAY
    assert ledger.standing("D-0001").in_force
    assert ledger.expire(TODAY) == 0
    # Behind, it cannot know either: by the hub's clock the end has come.
    clock.compare("hub", wall[0] + 400 * DAY)
    with pytest.raises(ClockDoubted):
        ledger.expire(TODAY)
