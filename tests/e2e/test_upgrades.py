"""Parties are upgraded one by one: neighbours in version work together, others are told who must upgrade."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import connexon
from connexon.link import frames
from deploy.local.federation import LocalFederation
from deploy.local.processes import LauncherError, Service, until
from tests.e2e.conftest import Maker
from tests.support.altered import other_version, without_revocations
from tests.support.state import rows

MAJOR, MINOR = frames.PROTOCOL.major, frames.PROTOCOL.minor


@contextmanager
def _environment(service: Service, environment: dict[str, str]) -> Iterator[None]:
    service.stop()
    service.environment = environment
    try:
        yield
    finally:
        service.stop()
        service.environment = {}


def _ask_lyon(federation: LocalFederation) -> connexon.Answer:
    network = connexon.connect(federation.researchers["ada"].home)
    lines = network.study(purpose="health", centers=["lyon"], wait=30).dataset("cell_lines")
    return lines.count(by="type", kind="granted")


def test_a_node_one_minor_version_newer_answers_and_may_say_more(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation = shared_federation
    before = _ask_lyon(federation)
    with _environment(
        federation.centers["lyon"].service, dict(other_version(tmp_path, MAJOR, MINOR + 1, says_more=True))
    ):
        federation.start("lyon")
        answer = _ask_lyon(federation)
        assert [part.status.value for part in answer.centers] == ["released"]
        assert answer.rows == before.rows
    federation.start("lyon")


def test_a_hub_one_minor_version_newer_serves_the_nodes_that_are_there(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation = shared_federation
    with _environment(federation.hub, dict(other_version(tmp_path, MAJOR, MINOR + 1))):
        federation.start_hub()
        federation.wait_attached("lyon", "kyoto")
        assert [part.status.value for part in _ask_lyon(federation).centers] == ["released"]
    federation.start_hub()
    federation.wait_attached("lyon", "kyoto")


def test_a_node_further_apart_is_refused_and_told_who_must_upgrade(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation = shared_federation
    lyon = federation.centers["lyon"]
    for major, minor in ((MAJOR, MINOR + 2), (MAJOR + 1, 0)):
        sentence = f"The node speaks version {major}.{minor} and the hub {frames.PROTOCOL}"
        with _environment(lyon.service, dict(other_version(tmp_path / f"{major}.{minor}", major, minor))):
            lyon.service.start()
            until(lambda sentence=sentence: sentence in lyon.service.tail(200), "the node to be told")  # type: ignore[misc]
            said = lyon.service.tail(20)
            assert "link.version_unsupported" in said
            assert "The hub must be upgraded." in said
            until(lambda: "lyon" not in federation.attached(), "the hub to note that the former node has gone")
    assert "link.version_unsupported" in {event["code"] for event in federation.hub_json("status")["events"]}
    federation.start("lyon")


def test_a_node_beside_a_hub_one_minor_version_older_stays_on_the_network_after_a_revocation(
    make_federation: Maker, tmp_path: Path
) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]
    with _environment(federation.hub, dict(without_revocations(tmp_path))):
        federation.start_hub()
        federation.accredit("eve", home="lyon")
        lyon.command("revoke", "eve", "--yes")
        until(lambda: "it is not told" in lyon.service.tail(200), "the node to see that the hub cannot be told")
        assert [part.status.value for part in _ask_lyon(federation).centers] == ["released"]
        assert lyon.says_attached
    # A newer hub hears of it at once.
    federation.start_hub()
    until(lambda: rows(federation.hub_folder, "select subject from revocations"), "the hub to hear of it")


def test_only_serving_and_upgrading_change_the_tables(make_federation: Maker) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]
    lyon.service.stop()
    newest = rows(lyon.folder, "select version_num from alembic_version")
    with closing(sqlite3.connect(lyon.folder / "state.db")) as state, state:
        state.execute("update alembic_version set version_num = '0022_exact_training'")
        # As the newest migration found them.
        state.execute("drop table granted_cohorts")
    with pytest.raises(LauncherError, match="connexon-node upgrade"):
        lyon.command("status")
    assert rows(lyon.folder, "select version_num from alembic_version") == [("0022_exact_training",)]
    lyon.command("upgrade")
    assert rows(lyon.folder, "select version_num from alembic_version") == newest
    [copy] = lyon.folder.glob("state-0022_exact_training-*.db")
    with closing(sqlite3.connect(copy)) as kept:
        assert kept.execute("select version_num from alembic_version").fetchall() == [("0022_exact_training",)]
    lyon.command("status")
