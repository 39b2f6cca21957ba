"""Parties are upgraded one by one: neighbours in version work together, others are told who must upgrade."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import connexon
from deploy.local.federation import LocalFederation
from deploy.local.processes import Service, until
from tests.support.altered import other_version


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
    with _environment(federation.centers["lyon"].service, dict(other_version(tmp_path, 1, 1, says_more=True))):
        federation.start("lyon")
        answer = _ask_lyon(federation)
        assert [part.status.value for part in answer.centers] == ["released"]
        assert answer.rows == before.rows
    federation.start("lyon")


def test_a_hub_one_minor_version_newer_serves_the_nodes_that_are_there(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation = shared_federation
    with _environment(federation.hub, dict(other_version(tmp_path, 1, 1))):
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
    for major, minor in ((1, 2), (2, 0)):
        sentence = f"The node speaks version {major}.{minor} and the hub 1.0"
        with _environment(lyon.service, dict(other_version(tmp_path / f"{major}.{minor}", major, minor))):
            lyon.service.start()
            until(lambda sentence=sentence: sentence in lyon.service.tail(200), "the node to be told")  # type: ignore[misc]
            said = lyon.service.tail(20)
            assert "link.version_unsupported" in said
            assert "The hub must be upgraded." in said
            until(lambda: "lyon" not in federation.attached(), "the hub to note that the former node has gone")
    assert "link.version_unsupported" in {event["code"] for event in federation.hub_json("status")["events"]}
    federation.start("lyon")
