"""The hub's witness on SQLite and PostgreSQL: logs only grow, contradictions are kept, old heads thin out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from connexon.clock import DAY, HOUR, MINUTE, now_ms
from connexon.identity.keys import CenterId, SigningKey
from connexon.service.database import Database
from connexon.transparency import receipt
from connexon.v1 import log_pb2
from connexon_hub.health.log_witness import EVERY_MINUTE_MS, Growth, Judgement, WitnessStore
from connexon_hub.state import open_state
from tests.support.receipts import SmallLog

KYOTO, LYON = CenterId("kyoto"), CenterId("lyon")


class Desk:
    """The store, and a center's log that it witnesses; a minute passes with every head."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = WitnessStore(database)
        self.key = SigningKey.generate()
        self.log = SmallLog(KYOTO, self.key)
        self.now = now_ms() // HOUR * HOUR

    def tell(self, growth: log_pb2.LogGrowth, *, passed: int = MINUTE) -> Judgement:
        self.now += passed
        head = receipt.read_head(growth.head, center=KYOTO, keys=[self.key.public])
        told = Growth(head, growth.head, growth.since, tuple(growth.proof), self.now)
        with self.database.writing() as connection:
            (judgement,) = self.store.take(connection, [told])
        return judgement

    def grow(self, records: int, *, passed: int = MINUTE) -> Judgement:
        since = len(self.log.leaves)
        self.log.grow(records)
        return self.tell(self.log.growth(since), passed=passed)

    def sizes(self) -> list[int]:
        return [size_of(head) for head in self.store.page(KYOTO)]


def size_of(witnessed: log_pb2.WitnessedHead) -> int:
    return log_pb2.TreeHead.FromString(witnessed.head.payload).size


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    database = open_state(database_url)
    yield Desk(database)
    database.close()


def test_a_log_that_grows_is_witnessed_head_by_head(desk: Desk) -> None:
    assert not desk.store.newest(KYOTO).HasField("head")
    for records in (3, 1, 7, 20):
        judgement = desk.grow(records)
        assert judgement.contradiction == ""
        assert judgement.newest == desk.store.newest(KYOTO)
        assert size_of(judgement.newest) == len(desk.log.leaves)
        assert judgement.newest.received_at_ms == desk.now
    assert desk.sizes() == [31, 11, 4, 3]
    assert [size_of(head) for head in desk.store.page(KYOTO, below=11)] == [4, 3]
    assert desk.store.page(LYON) == []


def test_the_same_head_again_changes_nothing(desk: Desk) -> None:
    desk.grow(5)
    before = desk.store.newest(KYOTO)
    assert desk.tell(desk.log.growth(5)) == Judgement(before)
    assert desk.tell(desk.log.growth(0, 5)) == Judgement(before)


def test_growth_told_from_another_head_is_asked_for_again(desk: Desk) -> None:
    desk.grow(5)
    desk.log.grow(4)
    assert size_of(desk.tell(desk.log.growth(3)).newest) == 5
    assert size_of(desk.tell(desk.log.growth(0)).newest) == 5
    assert desk.sizes() == [5]
    assert size_of(desk.tell(desk.log.growth(5)).newest) == 9


@pytest.mark.parametrize(("size", "words"), [(4, "shrank from 9"), (9, "two different logs"), (12, "does not begin")])
def test_a_log_that_was_put_back_or_rewritten_contradicts_itself(desk: Desk, size: int, words: str) -> None:
    desk.grow(9)
    other = SmallLog(KYOTO, desk.key)
    other.add(b"\1" * 32, b"another")
    other.grow(size - 1)
    judgement = desk.tell(other.growth(min(9, size)))
    assert words in judgement.contradiction
    assert judgement.first
    assert size_of(judgement.newest) == 9
    assert desk.sizes() == [9]
    seen = desk.store.seen()["kyoto"]
    assert (seen.size, seen.contradicted_ms) == (9, desk.now)
    again = desk.tell(other.growth(min(9, size)))
    assert (again.contradiction, again.first) == (judgement.contradiction, False)
    assert desk.store.seen()["kyoto"] == seen


def test_a_proof_with_a_wrong_hash_is_a_contradiction_and_an_honest_one_still_counts(desk: Desk) -> None:
    desk.grow(6)
    desk.log.grow(5)
    growth = desk.log.growth(6)
    growth.proof[0] = bytes(32)
    assert desk.tell(growth).contradiction
    assert desk.tell(desk.log.growth(6)).contradiction == ""
    assert desk.sizes() == [11, 6]


def test_one_head_a_minute_is_kept(desk: Desk) -> None:
    desk.grow(1)
    for _ in range(5):
        desk.grow(1, passed=MINUTE // 10)
    assert desk.sizes() == [6]
    desk.grow(1)
    assert desk.sizes() == [7, 6]


def test_of_old_heads_one_an_hour_is_kept_and_the_newest_always(desk: Desk) -> None:
    for _ in range(10):
        desk.grow(1, passed=20 * MINUTE)
    with desk.database.writing() as connection:
        assert desk.store.thin(connection, [desk.now]) == [0]
        (gone,) = desk.store.thin(connection, [desk.now + EVERY_MINUTE_MS + DAY])
    # Heads at 20, 40 | 60, 80, 100 | 120, 140, 160 | 180, 200 minutes: the last of each hour.
    assert desk.sizes() == [10, 8, 5, 2]
    assert gone == 6
    assert desk.grow(3).contradiction == ""
