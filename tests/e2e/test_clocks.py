"""Clocks that jump forward and back, with real processes: nothing that cannot be undone is done by them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

import connexon
from deploy.local.federation import LocalFederation
from deploy.local.processes import LauncherError, until
from tests.e2e.conftest import Maker
from tests.support.altered import moved_clock
from tests.support.state import rows

AHEAD = 400 * 86_400


def _network(federation: LocalFederation) -> connexon.Network:
    return connexon.connect(federation.researchers["ada"].home)


def _ask(network: connexon.Network, *, wait: float = 60) -> connexon.Answer:
    study = network.study(purpose="health", centers=["lyon"], wait=wait)
    return study.dataset("donors").count(kind="granted")


def test_a_node_whose_clock_was_ahead_has_ended_no_consent_and_removed_nothing(
    make_federation: Maker, tmp_path: Path
) -> None:
    federation = make_federation("lyon")
    lyon, network = federation.centers["lyon"], _network(federation)
    donor = rows(lyon.folder, "select donor_id from donor_numbers order by number")[0][0]
    today = datetime.datetime.now(datetime.UTC).date()
    lyon.command(
        *("consent", "record", donor, "--permission", "DUO:0000042", "--form-version", "v9"),
        *("--obtained-on", today.isoformat(), "--expires-on", (today + datetime.timedelta(days=100)).isoformat()),
    )
    before = _ask(network).rows
    kept = rows(lyon.folder, "select query_id from inbox")
    lyon.service.stop()

    moved = tmp_path / "moved"
    moved.write_text(str(AHEAD))
    lyon.service.environment = moved_clock(tmp_path / "clock", moved)
    federation.start("lyon")
    problem = until(lambda: lyon.command_json("status")["clock_problem"], "lyon to see that its clock is ahead")
    assert "ahead of the other side's" in problem
    assert "No consent is ended" in " ".join(lyon.command("status").split())
    shown = next(one for one in federation.hub_json("status")["centers"] if one["center"] == "lyon")
    assert round(shown["clock_offset_ms"] / 1000 / 86_400) == -400
    assert "clock.differs" in {event["code"] for event in federation.hub_json("status")["events"]}
    refused = _ask(network, wait=20).center("lyon")
    assert refused.status.value != "released"

    moved.unlink()
    lyon.service.stop()
    federation.start("lyon")
    until(lambda: not lyon.command_json("status")["clock_problem"], "the clocks to agree")
    assert lyon.command_json("consent", "show", donor)["status"] == "in_force"
    assert set(kept) <= set(rows(lyon.folder, "select query_id from inbox"))
    assert _ask(network).rows == before


def test_a_hub_whose_clock_was_ahead_has_forgotten_neither_answers_nor_who_was_revoked(
    make_federation: Maker, tmp_path: Path
) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]
    answer = _ask(_network(federation))
    eve = federation.accredit("eve", home="lyon")
    lyon.command("revoke", "eve", "--yes")
    hub = federation.hub_folder
    until(lambda: rows(hub, "select subject from revocations"), "the hub to hear of it")

    moved = tmp_path / "moved"
    moved.write_text(str(AHEAD))
    federation.hub.stop()
    federation.hub.environment = moved_clock(tmp_path / "clock", moved)
    federation.start_hub()
    # By the hub's clock every certificate has run out: it lets nobody in, and has nobody to compare itself with.
    until(lambda: "lyon refused to attach" in federation.hub.tail(200), "the hub to refuse lyon")
    moved.unlink()
    federation.hub.stop()
    federation.hub.environment = {}
    federation.start_hub()
    federation.wait_attached("lyon")
    assert rows(hub, "select subject from revocations") == [("eve",)]
    again = _network(federation).result(answer.query_id, wait=20)
    assert again.rows == answer.rows
    with pytest.raises(LauncherError, match="revoked"):
        eve.command("count", "donors", "--purpose", "health")
