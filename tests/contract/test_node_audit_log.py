"""The audit log on SQLite and PostgreSQL: what is appended is proved, and whatever is done to the tables is found."""

from __future__ import annotations

import csv
import io
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, text, update

from connexon.clock import now_ms
from connexon.errors import InvalidQuery, Misconfigured, NotFound
from connexon.identity.keys import CenterId, SigningKey
from connexon.service.database import Database
from connexon.transparency import merkle, proof_file, receipt
from connexon.v1 import log_pb2
from connexon_node.audit import AuditLog, AuditRecord, proving, verify
from connexon_node.audit.exporting import ExportFormat, export
from connexon_node.audit.witness import LogContradicted, Witness, kept
from connexon_node.state import open_state
from connexon_node.state.requests import AuditHeadRow, AuditRow
from tests.support.federation import new_federation

AUDIT = AuditRow.__table__  # type: ignore[attr-defined]
HEAD = AuditHeadRow.__table__  # type: ignore[attr-defined]
RECORDS = 13


def record(**changed: object) -> AuditRecord:
    values = {
        "at_ms": now_ms(),
        "query_id": str(uuid.uuid4()),
        "query_sha256": bytes(range(32)),
        "researcher": "lyon/ada",
        "purpose": "disease=MONDO:0005180",
        "dataset": "donors",
        "analysis": "count",
        "status": "released",
        "code": "",
        "rule": "",
        "policy_version": "ab12",
        "duration_ms": 3,
        "result_sha256": bytes(32),
    }
    return AuditRecord(**{**values, **changed})  # type: ignore[arg-type]


def grow(database: Database, records: int) -> AuditLog:
    log = AuditLog(database)
    with database.writing() as connection:
        for _ in range(records):
            log.append(connection, record())
    return log


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_state(database_url)
    yield database
    database.close()


@pytest.fixture
def log(database: Database) -> AuditLog:
    return grow(database, RECORDS)


def faults(database: Database, witnessed: dict[int, bytes] | None = None) -> list[tuple[int, str]]:
    return [(fault.sequence, fault.code) for fault in verify(database, witnessed=witnessed).faults]


class TestGrowing:
    def test_an_empty_log_is_whole(self, database: Database) -> None:
        report = verify(database)
        assert (report.records, report.root, report.faults) == (0, merkle.EMPTY, ())

    def test_every_record_is_proved_when_it_is_written_and_in_every_later_log(self, database: Database) -> None:
        log, roots = AuditLog(database), [merkle.EMPTY]
        for size in range(1, 20):
            written = record()
            with database.writing() as connection:
                proof = log.append(connection, written)
            assert merkle.included(written.leaf, size - 1, size, proof.path, proof.root)
            roots.append(proof.root)
        for sequence in range(1, 20):
            entry, proof = log.prove(sequence)
            assert merkle.included(entry.record.leaf, sequence - 1, 19, proof.path, roots[-1])
            size, root, consistency = log.growth(sequence)
            assert merkle.consistent(sequence, roots[sequence], size, root, consistency)
            assert log.root_at(sequence) == roots[sequence]
        assert faults(database, dict(enumerate(roots))) == []

    def test_what_is_rolled_back_was_never_written(self, database: Database, log: AuditLog) -> None:
        with pytest.raises(RuntimeError), database.writing() as connection:
            log.append(connection, record())
            raise RuntimeError
        assert log.size() == RECORDS
        assert faults(database) == []

    def test_records_are_found_by_query_number_and_time(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            log.append(connection, record(query_id="q", at_ms=now_ms() + 5_000))
            log.append(connection, record(query_id="q", at_ms=now_ms() + 5_000, status="refused"))
        assert [entry.sequence for entry in log.of_query("q")] == [14, 15]
        assert [entry.record.status for entry in log.at(15)] == ["refused"]
        assert [entry.sequence for entry in log.entries(since_ms=now_ms() + 1_000)] == [14, 15]
        assert [entry.sequence for entry in log.entries(limit=2)] == [14, 15]
        assert [entry.sequence for entry in log.all()] == list(range(1, 16))
        with pytest.raises(NotFound):
            proving.find(log, "99")
        with pytest.raises(NotFound):
            proving.find(log, "%" * 8)
        first = log.at(1)
        assert proving.find(log, first[0].record.query_id[:13]) == first
        with pytest.raises(NotFound):
            log.prove(99)


class TestTampering:
    @pytest.mark.parametrize(
        "change",
        [
            {"researcher": "kyoto/eve"},
            {"purpose": "health"},
            {"at_ms": 1},
            {"status": "refused"},
            {"duration_ms": 4},
            {"query_sha256": bytes(32)},
            {"result_sha256": b"\1" * 32},
            {"result_sha256": b""},
            {"query_sha256": bytes(range(20)), "result_sha256": bytes(range(20, 32)) + bytes(32)},
            {"query_sha256": bytes(range(32)) + bytes(32), "result_sha256": b""},
            {"hashes": bytes(32)},
            {"hashes": b""},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_an_altered_record_is_found(self, database: Database, log: AuditLog, change: dict[str, object]) -> None:
        with database.writing() as connection:
            connection.execute(update(AUDIT).where(AUDIT.c.sequence == 7).values(**change))
        assert faults(database)[0] == (7, "altered")

    @pytest.mark.parametrize(
        "change",
        [
            {"researcher": "kyoto/eve"},
            {"result_sha256": b"\1" * 32},
            {"query_sha256": bytes(range(20)), "result_sha256": bytes(range(20, 32)) + bytes(32)},
        ],
        ids=["words", "digest", "moved"],
    )
    def test_an_altered_record_is_not_proved(
        self, database: Database, log: AuditLog, change: dict[str, object]
    ) -> None:
        with database.writing() as connection:
            connection.execute(update(AUDIT).where(AUDIT.c.sequence == 7).values(**change))
        with pytest.raises(Misconfigured, match="Record 7 cannot be proved") as refusal:
            log.prove(7)
        assert refusal.value.code == "audit.damaged"
        assert log.prove(8)[0].sequence == 8

    def test_moving_words_between_fields_is_found(self, database: Database) -> None:
        log = AuditLog(database)
        with database.writing() as connection:
            log.append(connection, record(dataset="donors", analysis="count"))
            moved = update(AUDIT).values(dataset="donor", analysis="scount")
            connection.execute(moved)
        assert faults(database) == [(1, "altered")]

    def test_an_altered_record_with_its_own_new_leaf_is_found(self, database: Database, log: AuditLog) -> None:
        forged = record(researcher="nobody")
        with database.writing() as connection:
            connection.execute(update(AUDIT).where(AUDIT.c.sequence == 7).values(**vars(forged), hashes=forged.leaf))
        assert faults(database)[0] == (8, "rehashed")

    def test_an_altered_inner_hash_is_found(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            row = connection.execute(select(AUDIT.c.hashes).where(AUDIT.c.sequence == 4)).scalar_one()
            changed = bytes(row)[:64] + bytes(32)
            connection.execute(update(AUDIT).where(AUDIT.c.sequence == 4).values(hashes=changed))
        assert (4, "rehashed") in faults(database)

    @pytest.mark.parametrize("gone", [[1], [3, 4], [7], [12]])
    def test_a_removed_record_is_found(self, database: Database, log: AuditLog, gone: list[int]) -> None:
        with database.writing() as connection:
            connection.execute(delete(AUDIT).where(AUDIT.c.sequence.in_(gone)))
        assert faults(database)[0] == (gone[0], "missing")

    def test_a_removed_record_whose_followers_moved_up_is_found(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            connection.execute(delete(AUDIT).where(AUDIT.c.sequence == 3))
            for number in range(4, RECORDS + 1):
                connection.execute(update(AUDIT).where(AUDIT.c.sequence == number).values(sequence=number - 1))
        codes = {code for _, code in faults(database)}
        assert {"rehashed", "cut_off"} <= codes

    def test_exchanged_records_are_found(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            for old, new in ((5, 99), (7, 5), (99, 7)):
                connection.execute(update(AUDIT).where(AUDIT.c.sequence == old).values(sequence=new))
        assert faults(database)[0] == (6, "rehashed")

    @pytest.mark.parametrize("number", [0, -5, 40])
    def test_a_record_put_in_under_another_number_is_found(
        self, database: Database, log: AuditLog, number: int
    ) -> None:
        forged = record()
        with database.writing() as connection:
            connection.execute(AUDIT.insert().values(sequence=number, hashes=forged.leaf, **vars(forged)))
        assert faults(database)

    def test_a_tail_that_was_cut_off_is_found(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            connection.execute(delete(AUDIT).where(AUDIT.c.sequence > 9))
        assert faults(database) == [(10, "cut_off")]

    @pytest.mark.parametrize("change", [{"size": 12}, {"root_sha256": bytes(32)}, {"frontier": bytes(96)}])
    def test_an_altered_head_is_found(self, database: Database, log: AuditLog, change: dict[str, object]) -> None:
        with database.writing() as connection:
            connection.execute(update(HEAD).values(**change))
        assert faults(database) == [(RECORDS, "bad_head")]

    def test_a_lost_head_is_found_and_nothing_more_is_answered(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            connection.execute(delete(HEAD))
        assert faults(database) == [(0, "bad_head")]
        with pytest.raises(Misconfigured) as refusal, database.writing() as connection:
            log.append(connection, record())
        assert refusal.value.code == "audit.no_head"

    def test_of_very_many_faults_some_are_listed_and_all_counted(self, database: Database) -> None:
        grow(database, 120)
        with database.writing() as connection:
            connection.execute(update(AUDIT).values(researcher="nobody"))
        report = verify(database)
        assert (len(report.faults), report.fault_count) == (100, 120)

    def test_a_log_rewritten_whole_fits_together_but_is_not_the_one_witnessed(
        self, database: Database, log: AuditLog
    ) -> None:
        witnessed = {9: log.root_at(9), 13: log.root_at(13)}
        assert faults(database, witnessed) == []
        _empty(database)
        grow(database, RECORDS)
        assert faults(database) == []
        assert faults(database, witnessed) == [(9, "rewritten"), (13, "rewritten")]

    def test_a_log_cut_off_together_with_its_head_is_shorter_than_the_one_witnessed(
        self, database: Database, log: AuditLog
    ) -> None:
        witnessed = {9: log.root_at(9), 13: log.root_at(13)}
        with database.writing() as connection:
            rows = connection.execute(select(AUDIT).where(AUDIT.c.sequence <= 11).order_by(AUDIT.c.sequence)).all()
        entries = [AuditRecord(**{name: row._mapping[name] for name in vars(record())}) for row in rows]
        _empty(database)
        with database.writing() as connection:
            for kept_record in entries:
                log.append(connection, kept_record)
        assert faults(database) == []
        assert faults(database, witnessed) == [(12, "rolled_back")]


class TestWitness:
    @pytest.fixture
    def witness(self, database: Database, log: AuditLog) -> Witness:
        return Witness(database, log, center=CenterId("kyoto"), key=SigningKey.generate())

    def test_growth_is_told_with_a_proof_until_the_hub_has_it(
        self, database: Database, log: AuditLog, witness: Witness
    ) -> None:
        first = witness.growth(0)
        assert first is not None
        assert witness.heard(_witnessed(first)) == RECORDS
        assert witness.growth(RECORDS) is None
        assert kept(database) == {RECORDS: log.root_at(RECORDS)}
        grow(database, 4)
        second = witness.growth(RECORDS)
        assert second is not None
        before, after = (log_pb2.TreeHead.FromString(one.head.payload) for one in (first, second))
        assert second.since == RECORDS
        assert merkle.consistent(RECORDS, before.root_sha256, after.size, after.root_sha256, list(second.proof))

    def test_a_log_that_is_not_the_one_witnessed_is_noticed_and_shown_to_the_hub(
        self, database: Database, witness: Witness
    ) -> None:
        seen = witness.growth(0)
        assert seen is not None
        _empty(database)
        for records in (RECORDS, 2):
            grow(database, records)
            with pytest.raises(LogContradicted) as contradiction:
                witness.heard(_witnessed(seen))
            assert contradiction.value.size == RECORDS
            assert witness.growth(RECORDS) is not None
            _empty(database)

    def test_a_head_that_this_node_never_signed_is_not_believed(self, database: Database, witness: Witness) -> None:
        other = Witness(database, AuditLog(database), center=CenterId("kyoto"), key=SigningKey.generate())
        growth = other.growth(0)
        assert growth is not None
        with pytest.raises(receipt.ReceiptRefused):
            witness.heard(_witnessed(growth))


class TestShowing:
    def test_an_export_has_every_record_and_computes_nothing_in_a_spreadsheet(
        self, database: Database, log: AuditLog
    ) -> None:
        with database.writing() as connection:
            log.append(connection, record(researcher="=cmd()", purpose='two "words", é'))
        lines, table = io.StringIO(), io.StringIO()
        assert export(log.all(), lines, ExportFormat.JSONL) == RECORDS + 1
        assert export(log.all(), table, ExportFormat.CSV) == RECORDS + 1
        documents = [json.loads(line) for line in lines.getvalue().splitlines()]
        rows = list(csv.DictReader(io.StringIO(table.getvalue())))
        assert [int(row["sequence"]) for row in rows] == [one["sequence"] for one in documents] == list(range(1, 15))
        assert (documents[-1]["researcher"], rows[-1]["researcher"]) == ("=cmd()", "'=cmd()")
        assert rows[-1]["purpose"] == 'two "words", é'
        assert documents[0]["query_sha256"] == bytes(range(32)).hex()

    def test_a_proof_file_holds_against_the_roster_and_no_word_of_it_can_be_changed(
        self, database: Database, log: AuditLog
    ) -> None:
        federation = new_federation()
        kyoto, roster = federation.centers["kyoto"], federation.roster()
        proof = proving.prove(log, "7", center=kyoto.id, federation="alliance", key=kyoto.answering)
        proved = proof_file.verify(json.dumps(proof), roster)
        assert (proved.sequence, proved.head.size, proved.record["researcher"]) == (7, RECORDS, "lyon/ada")
        for place, name in _leaves(proof):
            changed = json.loads(json.dumps(proof))
            holder = changed
            for step in place:
                holder = holder[step]
            value = holder[name]
            holder[name] = value + 1 if isinstance(value, int) else value[:-9] + ("x" * 9 if value else "x")
            with pytest.raises(receipt.ReceiptRefused):
                proof_file.verify(json.dumps(changed), roster)

    def test_a_query_id_used_twice_is_proved_by_number(self, database: Database, log: AuditLog) -> None:
        with database.writing() as connection:
            for status in ("released", "refused"):
                log.append(connection, record(query_id="q", status=status))
        kyoto = new_federation().centers["kyoto"]
        with pytest.raises(InvalidQuery, match=r"14 \(released\), 15 \(refused\)") as refusal:
            proving.prove(log, "q", center=kyoto.id, federation="alliance", key=kyoto.answering)
        assert refusal.value.code == "audit.ambiguous"


def test_an_older_copy_of_the_database_file_is_found_by_the_witness_alone(tmp_path: Path) -> None:
    path, copy = tmp_path / "state.db", tmp_path / "copy.db"
    database = open_state(f"sqlite:///{path}")
    grow(database, 20)
    with database.engine.connect() as connection:
        connection.execute(text("pragma wal_checkpoint(truncate)"))
    shutil.copy(path, copy)
    log = grow(database, 5)
    witnessed = {25: log.root_at(25)}
    database.close()
    copy.rename(path)
    restored = open_state(f"sqlite:///{path}")
    assert faults(restored) == []
    assert faults(restored, witnessed) == [(21, "rolled_back")]
    grow(restored, 10)
    assert faults(restored) == []
    assert faults(restored, witnessed) == [(25, "rewritten")]
    with restored.reading() as connection:
        assert connection.execute(select(func.count()).select_from(AUDIT)).scalar_one() == 30
    restored.close()


def _empty(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(delete(AUDIT))
        connection.execute(update(HEAD).values(size=0, root_sha256=merkle.EMPTY, frontier=b""))


def _witnessed(growth: log_pb2.LogGrowth) -> log_pb2.WitnessedHead:
    return log_pb2.WitnessedHead(head=growth.head, received_at_ms=now_ms())


def _leaves(document: object, place: tuple[object, ...] = ()) -> list[tuple[tuple[object, ...], object]]:
    """Where each value of a JSON document stands."""
    inner = enumerate(document) if isinstance(document, list) else document.items()  # type: ignore[attr-defined]
    found: list[tuple[tuple[object, ...], object]] = []
    for name, value in inner:
        found += _leaves(value, (*place, name)) if isinstance(value, (dict, list)) else [(place, name)]
    return found
