"""The record of generations, on every database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.errors import Conflict
from connexon.service.database import Database
from connexon_node.data.generations import Contents, Damaged, Generations
from connexon_node.state import open_state

CONTENTS = Contents(
    rows=3,
    donors=2,
    last_donor=7,
    dictionary_version="1.0",
    source="donors.csv",
    source_sha256="0" * 64,
    imported_by="steward",
)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_state(database_url)
    yield opened
    opened.close()


@pytest.fixture
def generations(database: Database, tmp_path: Path) -> Generations:
    return Generations(database, tmp_path / "data")


def publish(generations: Generations, dataset: str, data: bytes = b"rows", retire: tuple[str, ...] = ()) -> None:
    with generations.drafting(dataset) as draft:
        (draft.folder / "part-000.parquet").write_bytes(data)
        generations.publish(draft, CONTENTS, retire=retire)


class TestGenerations:
    def test_nothing_is_in_force_before_the_first_import(self, generations: Generations) -> None:
        assert generations.current("donors") is None
        assert generations.all_current() == {}
        assert generations.history() == ()

    def test_the_newest_generation_is_in_force_and_the_old_remain(self, generations: Generations) -> None:
        publish(generations, "donors", b"one")
        publish(generations, "donors", b"two!")
        publish(generations, "lots")
        current = generations.current("donors")
        assert current is not None
        assert (current.number, current.rows, current.donors, current.last_donor, current.bytes) == (2, 3, 2, 7, 4)
        assert (current.source, current.imported_by, current.dictionary_version) == ("donors.csv", "steward", "1.0")
        assert [(one.dataset, one.number) for one in generations.history()] == [
            ("donors", 1),
            ("donors", 2),
            ("lots", 1),
        ]
        assert [one.parts[0].read_bytes() for one in generations.history("donors")] == [b"one", b"two!"]
        assert set(generations.all_current()) == {"donors", "lots"}

    def test_a_retired_dataset_is_not_offered_until_its_next_generation(self, generations: Generations) -> None:
        publish(generations, "lots")
        publish(generations, "cell_lines", retire=("lots",))
        assert set(generations.all_current()) == {"cell_lines"}
        publish(generations, "lots")
        current = generations.current("lots")
        assert current is not None
        assert current.number == 2

    def test_a_draft_that_is_not_published_leaves_nothing(self, generations: Generations, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError), generations.drafting("donors") as draft:
            (draft.folder / "part-000.parquet").write_bytes(b"rows")
            raise RuntimeError
        assert list((tmp_path / "data" / "donors").iterdir()) == []
        assert generations.current("donors") is None

    def test_a_switch_that_fails_leaves_the_old_generation_in_force(
        self, generations: Generations, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(generations, "donors", b"one")

        def broken() -> None:
            raise RuntimeError("the database went away")

        with pytest.raises(RuntimeError), generations.drafting("donors") as draft:
            (draft.folder / "part-000.parquet").write_bytes(b"two")
            monkeypatch.setattr(database, "writing", broken)
            generations.publish(draft, CONTENTS)
        monkeypatch.undo()
        current = generations.current("donors")
        assert current is not None
        assert current.parts[0].read_bytes() == b"one"
        publish(generations, "donors", b"three")
        assert [one.parts[0].read_bytes() for one in generations.history()] == [b"one", b"three"]

    def test_what_a_crash_left_is_cleared_by_the_next_import(self, generations: Generations, tmp_path: Path) -> None:
        publish(generations, "donors", b"one")
        for orphan in ("000002", ".draft", ".scratch"):
            (tmp_path / "data" / "donors" / orphan).mkdir()
            (tmp_path / "data" / "donors" / orphan / "part-000.parquet").write_bytes(b"half")
        publish(generations, "donors", b"two")
        assert sorted(path.name for path in (tmp_path / "data" / "donors").iterdir()) == ["000001", "000002"]
        current = generations.current("donors")
        assert current is not None
        assert current.parts[0].read_bytes() == b"two"

    def test_two_imports_at_once_are_one_too_many(self, generations: Generations) -> None:
        with generations.drafting("donors"):
            with pytest.raises(Conflict) as caught, generations.drafting("lots"):
                pass
            assert caught.value.code == "import.under_way"
        publish(generations, "lots")

    def test_checksums_find_every_kind_of_damage(self, generations: Generations) -> None:
        publish(generations, "donors", b"rows")
        current = generations.current("donors")
        assert current is not None
        generations.verify(current)
        part, manifest = current.parts[0], current.path / "manifest.json"
        written = manifest.read_text()
        for damage in (
            lambda: part.write_bytes(b"Rows"),
            part.unlink,
            lambda: part.with_name("part-001.parquet").write_bytes(b""),
            lambda: manifest.write_text(written.replace("steward", "someone")),
            manifest.unlink,
        ):
            damage()
            with pytest.raises(Damaged):
                generations.verify(current)
            shutil.rmtree(current.path)
            current.path.mkdir()
            part.write_bytes(b"rows")
            manifest.write_text(written)
            generations.verify(current)


def test_a_killed_import_leaves_the_old_generation_and_the_lock_free(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    database = open_state(url)
    generations = Generations(database, tmp_path / "data")
    publish(generations, "donors", b"one")
    script = (
        "import sys, time; from pathlib import Path; from connexon_node.state import open_state\n"
        "from connexon_node.data.generations import Generations\n"
        f"with Generations(open_state({url!r}), Path({str(tmp_path / 'data')!r})).drafting('donors') as draft:\n"
        "    (draft.folder / 'part-000.parquet').write_bytes(b'half'); print('drafting', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "drafting\n"
        with pytest.raises(Conflict):
            publish(generations, "donors", b"two")
        os.kill(process.pid, signal.SIGKILL)
    publish(generations, "donors", b"two")
    assert [one.parts[0].read_bytes() for one in generations.history()] == [b"one", b"two"]
    database.close()
