"""A researcher leaves, comes back, or thinks better of it, while DuckDB computes at the center."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.local.federation import LocalFederation, Researcher
from deploy.local.processes import command, until
from tests.support.altered import slow_while_there

COUNT = ("count", "cell_lines", "--purpose", "health", "--centers", "lyon")


@pytest.fixture
def busy(shared_federation: LocalFederation, tmp_path: Path) -> Iterator[tuple[LocalFederation, Path]]:
    """The shared federation with years of work for Lyon's DuckDB in every question, while the file is there.

    One question runs at a time, so that one that goes on after its end is seen: it keeps the next from its place.
    """
    lyon = shared_federation.centers["lyon"]
    settings = (lyon.folder / "node.toml").read_text()
    work = tmp_path / "work"
    lyon.service.stop()
    lyon.service.environment = slow_while_there(tmp_path / "slow", work)
    lyon.set("engine", concurrent_queries=1, seconds=600)
    try:
        shared_federation.start("lyon")
        work.touch()
        yield shared_federation, work
    finally:
        work.unlink(missing_ok=True)
        lyon.service.stop()
        lyon.service.environment = {}
        (lyon.folder / "node.toml").write_text(settings)
        shared_federation.start("lyon")


def _asked(ada: Researcher) -> set[str]:
    return {query["query_id"] for query in ada.command_json("queries")["queries"]}


def _lyon(ada: Researcher, query_id: str, *, wait: str = "0") -> dict[str, Any]:
    answer = ada.command_json("result", query_id, "--wait", wait, accept=(0, 1, 3))
    part: dict[str, Any] = answer["centers"][0]
    return part


def _ends(ada: Researcher, query_id: str, status: str) -> None:
    until(lambda: _lyon(ada, query_id)["status"] == status, f"{query_id} to be {status}")


def _free_again(federation: LocalFederation, work: Path) -> None:
    """The one place is free: nothing computes any more."""
    work.unlink()
    answer = federation.researchers["ada"].command_json(*COUNT, "--wait", "30")
    assert answer["centers"][0]["status"] == "released"


def _recorded(federation: LocalFederation, query_id: str) -> bool:
    entries = federation.centers["lyon"].command_json("audit", "list")["entries"]
    return any(entry["query_id"] == query_id and entry["status"] == "cancelled" for entry in entries)


def test_ctrl_c_leaves_the_question_running_and_cancel_ends_the_running_computation(
    busy: tuple[LocalFederation, Path],
) -> None:
    federation, work = busy
    ada = federation.researchers["ada"]
    arguments = [command("connexon"), *COUNT]
    before = _asked(ada)
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ada.environment},
        text=True,
    ) as asking:
        (query_id,) = until(lambda: _asked(ada) - before, "the question to be at the hub")
        until(lambda: _lyon(ada, query_id)["code"] == "delivery.computing", "lyon to compute")
        asking.send_signal(signal.SIGINT)
        out, err = asking.communicate(timeout=30)
    assert asking.returncode == 130
    assert out == ""
    assert f"connexon result {query_id}" in err
    assert _lyon(ada, query_id)["code"] == "delivery.computing"

    ada.command("cancel", query_id)
    _ends(ada, query_id, "cancelled")
    until(lambda: _recorded(federation, query_id), "the cancellation in the audit log")
    _free_again(federation, work)


def test_a_questions_deadline_ends_the_running_computation(busy: tuple[LocalFederation, Path]) -> None:
    federation, work = busy
    ada = federation.researchers["ada"]
    asked = ada.command_json(*COUNT, "--expires", "8s", "--wait", "1", accept=(3,))
    until(lambda: _lyon(ada, asked["query_id"])["status"] in ("expired", "too_old"), "the question's time to end")
    _free_again(federation, work)
