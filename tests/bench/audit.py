"""The audit log on SQLite: appending durably, verifying whole, and what sealing an answer costs with its receipt."""

from __future__ import annotations

import tempfile
import time
import uuid
from pathlib import Path

from connexon.clock import now_ms
from connexon.service.database import Database
from connexon.v1 import answer_pb2
from connexon_node.audit import AuditLog, AuditRecord, verify
from connexon_node.audit.recorder import SigningRecorder
from connexon_node.state import open_state
from tests.bench.figures import Report, timed
from tests.support.federation import new_federation


def measure(report: Report, *, quick: bool) -> None:
    """A growing log on this machine's disk."""
    records = 20_000 if quick else 100_000
    with tempfile.TemporaryDirectory() as folder:
        database = open_state(f"sqlite:///{Path(folder) / 'state.db'}")
        _fill(database, records)
        _append(report, database, runs=500 if quick else 3_000)
        _seal(report, database, runs=300 if quick else 2_000)
        _verify(report, database)
        log = AuditLog(database)
        size = log.size()
        report.add("audit, proof of one record", timed(lambda: log.prove(size // 3), 100), note=f"of {size} records")
        report.add("audit, consistency proof", timed(lambda: log.growth(size // 3), 100), note=f"of {size} records")
        database.close()


def _record(number: int) -> AuditRecord:
    return AuditRecord(
        at_ms=now_ms(),
        query_id=str(uuid.uuid4()),
        query_sha256=number.to_bytes(32),
        researcher=f"lyon/researcher-{number % 40}",
        purpose="disease=MONDO:0005180",
        dataset="cell_lines",
        analysis="count",
        status="released",
        code="",
        rule="",
        policy_version="0123456789abcdef",
        duration_ms=number % 50,
        result_sha256=number.to_bytes(32),
    )


def _fill(database: Database, records: int) -> None:
    log = AuditLog(database)
    for begin in range(0, records, 10_000):
        with database.writing() as connection:
            for number in range(begin, min(begin + 10_000, records)):
                log.append(connection, _record(number))


def _append(report: Report, database: Database, *, runs: int) -> None:
    log, numbers = AuditLog(database), iter(range(10**9))

    def append() -> None:
        with database.writing() as connection:
            log.append(connection, _record(next(numbers)))

    seconds = timed(append, runs, warm_up=50)
    note = f"{len(seconds) / sum(seconds):.0f} a second, each durable"
    report.add("audit, append", seconds, budget="800 a second", note=note)


def _seal(report: Report, database: Database, *, runs: int) -> None:
    key = new_federation().centers["kyoto"].answering
    recorder = SigningRecorder(database, AuditLog(database), key, epoch=lambda _: 1)

    def seal() -> None:
        answer = answer_pb2.Answer(query_id=str(uuid.uuid4()), center_id="kyoto", query_sha256=bytes(32))
        answer.status = answer_pb2.ANSWER_STATUS_RELEASED
        recorder.seal(None, answer, epoch=1, started_at_ms=now_ms())

    report.add("audit, seal an answer with its receipt", timed(seal, runs, warm_up=50), budget="1.2 ms")


def _verify(report: Report, database: Database) -> None:
    started = time.perf_counter()
    found = verify(database)
    seconds = time.perf_counter() - started
    assert not found.fault_count
    note = f"{found.records / seconds:.0f} records a second"
    report.add("audit, verify the whole log", [seconds], budget="50000 records a second", note=note)
