"""connexon-hub doctor: what is in order, and what it says of a hub that is broken in one place."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.federation import LocalFederation
from deploy.local.processes import command, run
from tests.support.in_process import commands_in_process


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[LocalFederation]:
    with LocalFederation(tmp_path) as made:
        with commands_in_process():
            made.make_hub()
            made.join_center("lyon")
            made.sign_roster()
            made.start()
        yield made


def found(federation: LocalFederation, *, works: bool) -> dict[str, tuple[str, str]]:
    told: Any = json.loads(
        run(["connexon-hub", "doctor", "--dir", str(federation.hub_folder), "--json"], accept=(0 if works else 1,))
    )
    assert told["ok"] is works
    return {one["check"]: (one["state"], one["message"]) for one in told["checks"]}


def test_a_hub_in_order_is_told_so_and_a_center_that_is_away_is_only_noted(federation: LocalFederation) -> None:
    assert Path(command("connexon-hub")).exists()
    seen = found(federation, works=True)
    assert {state for state, _ in seen.values()} == {"good"}
    assert seen["centers"][1] == "All 1 are here."
    federation.centers["lyon"].service.stop()
    assert found(federation, works=True)["centers"] == ("note", "0 of 1 are here; away: lyon.")


def test_what_is_broken_is_named(federation: LocalFederation) -> None:
    # A hub that stands still answers nobody, whatever its process looks like.
    assert federation.hub.process is not None
    federation.hub.process.send_signal(signal.SIGSTOP)
    try:
        seen = found(federation, works=False)
    finally:
        federation.hub.process.send_signal(signal.SIGCONT)
    assert seen["process"][0] == "good"
    assert seen["public port"][0] == "broken"
    assert seen["link port"][0] == "broken"
    federation.centers["lyon"].service.stop()
    federation.hub.stop()
    assert found(federation, works=False)["process"][0] == "broken"
    state = federation.hub_folder / "state.db"
    with sqlite3.connect(state) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        size = connection.execute("pragma page_size").fetchone()[0]
    with state.open("r+b") as file:
        for page in range(3, 40):
            file.seek(page * size + 8)
            file.write(b"\xff" * 64)
    broken = found(federation, works=False)
    assert broken["database"][0] == "broken"
