"""A center loads data while researchers ask: every answer is of one generation or the other, never between."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

import connexon
from deploy.local.federation import LocalFederation
from deploy.local.processes import until


def test_an_import_switches_at_once_under_continuous_questions(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation = shared_federation
    kyoto = federation.centers["kyoto"]
    (whole,) = kyoto.folder.glob("sample*/lots.parquet")
    half = tmp_path / "half.parquet"
    # Lots, since nothing refers to them: half of them makes no other data stand alone.
    duckdb.execute(
        f"copy (select * from read_parquet('{whole}') order by id limit "
        f"(select count(*) // 2 from read_parquet('{whole}'))) to '{half}' (format parquet)"
    )
    # Each answer with how many had come when its question was asked.
    seen: list[tuple[int, int]] = []
    enough = threading.Event()

    def ask() -> None:
        network = connexon.connect(federation.researchers["ada"].home)
        while not enough.is_set():
            asked_after = len(seen)
            lots = network.study(purpose="health", centers=["kyoto"], wait=60).dataset("lots")
            answer = lots.count(unit="records", kind="granted")
            assert [part.status.value for part in answer.centers] == ["released"]
            seen.append((answer.rows[0]["count"], asked_after))

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            until(lambda: len(seen) > 3, "answers from the old generation")
            kyoto.import_file("lots", half)
            during = len(seen)
            until(lambda: len(seen) > during + 4, "answers from the new generation")
        finally:
            enough.set()
        for asker in asking:
            asker.result()
    kyoto.import_file("lots", whole)

    counts = [count for count, _ in seen]
    old, new = counts[0], min(counts)
    assert 0 < new < old
    assert set(counts) == {old, new}
    # Two ask at once: an answer of the old generation may come beside the first of the new one, and no question that
    # was asked later gets it.
    switched = counts.index(new)
    assert {count for count, asked_after in seen if asked_after > switched} == {new}
