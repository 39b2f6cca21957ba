"""Which generations go, and that none goes while a query reads it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connexon.clock import DAY
from connexon.errors import Conflict
from connexon_node import settings
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.data.generations import Generation, sole_lease
from connexon_node.data.retention import collect, due
from connexon_node.editions import Editions
from connexon_node.engine import DuckEngine
from connexon_node.folder import NodeFolder
from connexon_node.pipeline.values import CellTable, Work
from connexon_node.settings import DataSection, EngineSection, HubSection
from tests.support.center import SmallCenter, ask

NONE_KEPT = DataSection(keep_generations=1, keep_days=0)
HUB = HubSection(
    federation="alliance", center="lyon", link_address="h:1", public_address="h:2", root_fingerprint="0" * 64
)
DONORS = [{"id": f"D{number}", "sex": "female" if number % 3 else "male"} for number in range(30)]


@pytest.fixture
def center(tmp_path: Path) -> Iterator[SmallCenter]:
    folder = tmp_path / "node"
    made = SmallCenter(folder)
    (folder / "node.toml").write_text(settings.template(HUB) + "keep_generations = 1\nkeep_days = 0\n")
    NodeFolder(folder).make()
    made.load_rows("donors", DONORS)
    consents = [{"id": f"C{one['id']}", "donor_id": one["id"], "obtained_on": "2026-01-01"} for one in DONORS]
    made.load_rows(
        "consents",
        [
            {**one, "status": "active", "duo_permission": "DUO:0000042", "form_version": "1", "scope": "research"}
            for one in consents
        ],
    )
    yield made
    made.close()


def generation(dataset: str, number: int, days_ago: float, *, removed: bool = False) -> Generation:
    return Generation(
        dataset=dataset,
        number=number,
        rows=1,
        donors=1,
        last_donor=1,
        bytes=1,
        dictionary_version="1",
        manifest_sha256="",
        source="x.csv",
        source_sha256="",
        imported_by="steward",
        imported_at_ms=int(1_000 * DAY - days_ago * DAY),
        retired_at_ms=None,
        removed_at_ms=1 if removed else None,
        path=Path("/nowhere") / dataset / f"{number:06d}",
    )


def numbers(
    history: list[Generation], *, keep: int, days: int, edition: dict[str, int] | None = None
) -> list[tuple[str, int]]:
    rules = DataSection(keep_generations=keep, keep_days=days)
    return [(one.dataset, one.number) for one in due(history, rules, at_ms=1_000 * DAY, edition=edition or {})]


def test_a_generation_goes_when_it_is_neither_among_the_newest_nor_recently_replaced() -> None:
    history = [generation("donors", number, days) for number, days in ((1, 90), (2, 60), (3, 20), (4, 1))]
    # The second was replaced 20 days ago, the first 60.
    assert numbers(history, keep=1, days=30) == [("donors", 1)]
    assert numbers(history, keep=1, days=20) == [("donors", 1), ("donors", 2)]
    assert numbers(history, keep=3, days=0) == [("donors", 1)]
    assert numbers(history, keep=4, days=0) == []
    assert numbers(history, keep=1, days=0) == [("donors", 1), ("donors", 2), ("donors", 3)]


def test_what_the_edition_in_force_is_made_of_stays() -> None:
    history = [generation("donors", number, days) for number, days in ((1, 90), (2, 60), (3, 20), (4, 1))]
    assert numbers(history, keep=1, days=0, edition={"donors": 2, "lots": 1}) == [("donors", 1), ("donors", 3)]


def test_the_newest_of_each_dataset_always_stays() -> None:
    history = [generation("donors", 1, 900), generation("lots", 1, 900), generation("lots", 2, 800)]
    assert numbers(history, keep=1, days=0) == [("lots", 1)]


def test_what_was_removed_is_not_due_again() -> None:
    history = [generation("lots", 1, 900, removed=True), generation("lots", 2, 800)]
    assert numbers(history, keep=1, days=0) == []


def gc(center: SmallCenter) -> dict[str, list[dict[str, object]]]:
    """The command, as a process of its own."""
    command = [sys.executable, "-c", "import connexon.entry; connexon.entry.node()", "gc", "--json"]
    done = subprocess.run([*command, "--dir", str(center.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return found


def left(center: SmallCenter) -> list[str]:
    return sorted(path.name for path in (center.folder / "data" / "donors").iterdir())


class Parked(DuckEngine):
    """The engine, whose sessions wait with open cursors until they may go on."""

    def __init__(self, center: SmallCenter) -> None:
        limits = EngineSection(memory="500MB")
        super().__init__(center.generations, center.ledger, center.ontologies, DICTIONARY, limits, center.editions)
        self.reached, self.go_on = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def session(self, work: Work) -> Iterator[object]:  # type: ignore[override]  # DuckDB's session as it is
        with super().session(work) as session:
            self.reached.set()
            assert self.go_on.wait(60)
            yield session


def test_a_generation_that_a_running_query_reads_stays_until_the_query_is_done(center: SmallCenter) -> None:
    expected = center.count("donors")
    center.engine.close()
    parked = center.engine = Parked(center)
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(center.count, "donors")
        assert parked.reached.wait(60)
        center.load_rows("donors", DONORS)
        assert [one["number"] for one in gc(center)["in_use"]] == [1]
        assert left(center) == ["000001", "000002"]
        parked.go_on.set()
        assert counting.result(60) == expected
    assert [one["number"] for one in gc(center)["removed"]] == [1]
    assert left(center) == ["000002"]
    assert center.count("donors") == expected


def test_queries_go_on_while_generations_come_and_go(center: SmallCenter) -> None:
    expected = center.count("donors")
    done = threading.Event()

    def ask_on() -> set[int]:
        seen = set()
        while not done.is_set():
            shape = center.compute(ask("donors")).shape
            assert isinstance(shape, CellTable)
            seen.add(shape.cells[0].records)
        return seen

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask_on) for _ in range(3)]
        try:
            for _ in range(5):
                center.load_rows("donors", DONORS)
                collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=False)
        finally:
            done.set()
        assert {records for one in asking for records in one.result()} == {expected}
    collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=False)
    assert left(center) == ["000006"]


def test_the_engine_forgets_removed_generations(center: SmallCenter) -> None:
    center.count("donors")
    center.load_rows("donors", DONORS)
    collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=False)
    center.count("donors")
    views = center.engine._duckdb.cursor().execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    assert ("donors_000001",) not in views
    assert ("donors_000002",) in views


def test_a_dry_run_removes_nothing_and_the_record_of_an_import_outlives_its_files(center: SmallCenter) -> None:
    center.load_rows("donors", DONORS)
    assert [
        one.number for one in collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=True).removed
    ] == [1]
    assert left(center) == ["000001", "000002"]
    assert [
        one.number for one in collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=False).removed
    ] == [1]
    assert [(one.number, one.removed_at_ms is not None) for one in center.generations.history("donors")] == [
        (1, True),
        (2, False),
    ]
    center.load_rows("donors", DONORS)
    assert left(center) == ["000002", "000003"], "numbers are never given twice"


@pytest.mark.parametrize("dies_at", ["pathlib.Path.rename", "shutil.rmtree"])
def test_the_next_collection_ends_what_a_killed_one_began(center: SmallCenter, dies_at: str) -> None:
    expected = center.count("donors")
    center.load_rows("donors", DONORS)
    module, name = dies_at.rsplit(".", 1)
    program = (
        f"import os, pathlib, shutil, connexon.entry; {module}.{name} = lambda *a, **k: os._exit(9); "
        "connexon.entry.node()"
    )
    command = [sys.executable, "-c", program, "gc", "--dir", str(center.folder)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 9
    assert center.generations.history("donors")[0].removed_at_ms is not None
    assert left(center) != ["000002"]
    assert center.count("donors") == expected
    assert [
        one.number for one in collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=False).removed
    ] == [1]
    assert left(center) == ["000002"]


def test_the_newest_generation_cannot_be_removed(center: SmallCenter) -> None:
    newest = center.generations.current("donors")
    assert newest is not None
    with pytest.raises(Conflict):
        center.generations.remove(newest)
    assert center.count("donors") == len(DONORS)


def test_nothing_is_removed_while_an_import_is_under_way(center: SmallCenter) -> None:
    with center.generations.drafting("donors"), pytest.raises(Conflict) as caught:
        collect(center.generations, Editions(center.database), NONE_KEPT, dry_run=False)
    assert caught.value.code == "import.under_way"


def test_a_generation_that_goes_between_the_look_and_the_lease_is_looked_up_again(center: SmallCenter) -> None:
    before = center.generations.all_current()
    center.load_rows("donors", DONORS)
    with contextlib.ExitStack() as mine, center.generations.held() as current:
        assert current["donors"].number == 2
        assert sole_lease(before["donors"], mine)
        assert not sole_lease(current["donors"], mine)
