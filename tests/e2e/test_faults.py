"""Bad days, with real processes: whatever dies, no question is lost and none is answered twice."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

import connexon
from connexon.errors import ConnexonError
from connexon.identity.keys import SpiffeId, center_id
from connexon_node import settings
from connexon_node.folder import NodeFolder
from connexon_node.link import renewal
from connexon_node.membership import keys
from connexon_node.membership.keys import NodeKeys
from deploy.local.federation import Center, LocalFederation
from deploy.local.line import Line
from deploy.local.processes import Service, until
from tests.e2e.conftest import Maker
from tests.support.in_process import commands_in_process
from tests.support.state import rows

RELEASED = "released"


def _network(federation: LocalFederation) -> connexon.Network:
    return connexon.connect(federation.researchers["ada"].home)


def _statuses(answer: connexon.Answer) -> dict[str, str]:
    return {center.id: center.status.value for center in answer.centers}


def _ask_lyon(network: connexon.Network, *, wait: float) -> connexon.Answer:
    return network.study(purpose="health", centers=["lyon"], wait=wait).dataset("cell_lines").count(by="type")


def _sealed(center: Center) -> Counter[str]:
    """How often each query stands in the node's audit log."""
    return Counter(query for (query,) in rows(center.folder, "select query_id from audit where query_id != ''"))


def test_a_question_accepted_by_a_hub_that_is_then_killed_is_answered(shared_federation: LocalFederation) -> None:
    federation = shared_federation
    federation.centers["kyoto"].service.stop()
    network = _network(federation)
    answer = network.study(purpose="health", wait=0).dataset("cell_lines").count()
    known = {"lyon": RELEASED, "kyoto": "waiting"}
    until(lambda: _statuses(network.result(answer.query_id, wait=1)) == known, "lyon to answer")

    federation.hub.kill()
    federation.start_hub()
    federation.start("kyoto")

    answer = network.result(answer.query_id, wait=60)
    assert _statuses(answer) == {"lyon": RELEASED, "kyoto": RELEASED}
    for center in federation.centers.values():
        assert _sealed(center)[answer.query_id] == 1


def test_a_node_killed_between_receiving_and_answering_answers_when_it_is_back(
    shared_federation: LocalFederation,
) -> None:
    federation = shared_federation
    lyon = federation.centers["lyon"]
    network = _network(federation)
    asked: list[str] = []

    def ask(_: int) -> str:
        return _ask_lyon(network, wait=0).query_id

    for _ in range(8):
        # More at once than the node can have answered when it dies.
        with ThreadPoolExecutor(8) as pool:
            questions = pool.map(ask, range(40))
            until(lambda: _unanswered(lyon), "questions to be written down at the node")
            lyon.service.kill()
            asked += questions
        caught = _unanswered(lyon)
        federation.start("lyon")
        if caught:
            break
    assert caught, "the node was never killed between receiving and answering"

    results = [network.result(query_id, wait=60) for query_id in asked]
    assert {str(_statuses(result)) for result in results} == {str({"lyon": RELEASED})}
    assert len({str(result.rows) for result in results}) == 1
    assert {_sealed(lyon)[query_id] for query_id in asked} == {1}


def _unanswered(center: Center) -> list[str]:
    """Questions that the node has written down and not answered."""
    return [query for (query,) in rows(center.folder, "select query_id from inbox where not answered")]


def test_killing_nodes_and_hub_at_random_loses_nothing_and_answers_once(shared_federation: LocalFederation) -> None:
    federation = shared_federation
    network = _network(federation)
    asked = []
    for round_number in range(4):
        asked += [network.study(purpose="health", wait=0).dataset("cell_lines").count() for _ in range(8)]
        victim = federation.centers["lyon" if round_number % 2 else "kyoto"]
        victim.service.kill()
        if round_number == 2:
            federation.hub.kill()
            federation.start_hub()
        federation.start(victim.name, wait=False)
    results = [network.result(answer.query_id, wait=60) for answer in asked]
    assert {status for result in results for status in _statuses(result).values()} == {RELEASED}
    assert len({str(result.rows) for result in results}) == 1
    for center in federation.centers.values():
        assert {_sealed(center)[answer.query_id] for answer in asked} == {1}
        assert center.command_json("audit", "verify")["ok"] is True


def test_a_node_killed_around_its_draws_draws_and_charges_each_question_once(make_federation: Maker) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]
    network = _network(federation)
    conditions = [f"donor.age_range_y = '{age}'" for age in ("30-34", "35-39", "40-44", "60-64")]
    asked: dict[str, str] = {}
    killed_at_work = 0

    def ask(number: int) -> tuple[str, str]:
        where = conditions[number % len(conditions)]
        lines = network.study(purpose="health", wait=0).dataset("cell_lines").where(where)
        return lines.count().query_id, where

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            questions = pool.map(ask, range(16))
            until(lambda: _unanswered(lyon), "questions to be written down at the node")
            lyon.service.kill()
            asked.update(questions)
        killed_at_work += bool(_unanswered(lyon))
        federation.start("lyon")
        answers = {query_id: network.result(query_id, wait=60) for query_id in asked}
        assert {answer.center("lyon").status.value for answer in answers.values()} == {RELEASED}
    assert killed_at_work, "the node was never killed between receiving and answering"

    numbers = {
        where: {str(answers[query].rows) for query, one in asked.items() if one == where} for where in conditions
    }
    assert {len(drawn) for drawn in numbers.values()} == {1}
    assert {_sealed(lyon)[query_id] for query_id in asked} == {1}
    assert rows(lyon.folder, "select count(*) from privacy_measurements") == [(len(conditions),)]
    charges = rows(lyon.folder, "select query_id, rho from privacy_charges")
    assert len(charges) == len({query_id for query_id, _ in charges}) == len(conditions)
    (spent,) = lyon.command_json("budget", "list")["researchers"]
    assert (spent["researcher"], spent["spent"]) == ("lyon/ada", pytest.approx(sum(rho for _, rho in charges)))


@pytest.fixture
def line_to_hub(tmp_path: Path) -> Iterator[tuple[LocalFederation, Line]]:
    """A federation whose one center dials through a line that can be cut."""
    federation = LocalFederation(tmp_path / "federation")
    with federation, Line(federation.link_address) as line:
        with commands_in_process():
            federation.make_hub()
            lyon = federation.join_center("lyon", link_address=line.address)
            lyon.set("release", minimum_donors=1, round_to=1)
            lyon.command("ontology", "add", "--demo")
            lyon.command("sample", "--donors", "100", "--seed", "1", "--only", "bank", "--import")
            federation.sign_roster()
            federation.start()
            federation.accredit("ada", home="lyon")
        yield federation, line


def test_a_cut_line_is_dialled_again_and_the_question_answered(line_to_hub: tuple[LocalFederation, Line]) -> None:
    federation, line = line_to_hub
    network = _network(federation)
    line.cut()
    answer = network.study(purpose="health", wait=1).dataset("cell_lines").count()
    assert _statuses(answer) == {"lyon": "waiting"}
    line.mend()
    assert _statuses(network.result(answer.query_id, wait=90)) == {"lyon": RELEASED}


def test_a_line_that_goes_silent_is_found_dead_and_replaced(line_to_hub: tuple[LocalFederation, Line]) -> None:
    federation, line = line_to_hub
    network = _network(federation)
    line.freeze()
    answer = network.study(purpose="health", wait=0).dataset("cell_lines").count()
    until(lambda: "lyon" not in federation.attached(), "the hub to miss the silent center", seconds=60)
    line.mend()
    assert _statuses(network.result(answer.query_id, wait=90)) == {"lyon": RELEASED}


@contextmanager
def _disk_full(service: Service) -> Iterator[None]:
    """No file of this process can grow any more: what a full disk is to it."""
    before = resource.prlimit(service.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_at_a_node_delays_its_answer_and_loses_nothing(shared_federation: LocalFederation) -> None:
    federation = shared_federation
    network = _network(federation)
    with _disk_full(federation.centers["lyon"].service):
        answer = _ask_lyon(network, wait=3)
        assert _statuses(answer) == {"lyon": "waiting"}
    assert _statuses(network.result(answer.query_id, wait=60)) == {"lyon": RELEASED}
    assert _sealed(federation.centers["lyon"])[answer.query_id] == 1


def test_a_full_disk_at_the_hub_refuses_the_question_instead_of_losing_it(shared_federation: LocalFederation) -> None:
    federation = shared_federation
    network = _network(federation)
    with _disk_full(federation.hub), pytest.raises(ConnexonError) as refusal:
        _ask_lyon(network, wait=3)
    assert refusal.value.code == "database.unavailable"
    assert _statuses(_ask_lyon(network, wait=40)) == {"lyon": RELEASED}


def test_a_locked_database_at_a_node_delays_its_answer_and_loses_nothing(shared_federation: LocalFederation) -> None:
    federation = shared_federation
    network = _network(federation)
    with closing(sqlite3.connect(federation.centers["lyon"].folder / "state.db", isolation_level=None)) as lock:
        lock.execute("begin immediate")
        answer = _ask_lyon(network, wait=14)
        assert _statuses(answer) == {"lyon": "waiting"}
    assert _statuses(network.result(answer.query_id, wait=60)) == {"lyon": RELEASED}
    assert _sealed(federation.centers["lyon"])[answer.query_id] == 1


def test_a_second_node_with_the_same_identity_is_refused_and_the_first_goes_on(
    shared_federation: LocalFederation,
) -> None:
    federation = shared_federation
    twin_folder = federation.folder / "twin"
    shutil.copytree(federation.centers["lyon"].folder, twin_folder)
    twin = Service(["connexon-node", "serve", "--dir", str(twin_folder)], federation.folder / "logs" / "twin.log")
    answered_before = _sealed(federation.centers["lyon"])
    twin.start()
    try:
        until(lambda: "identity_in_use" in twin.tail(200), "the twin to be told")
        assert _statuses(_ask_lyon(_network(federation), wait=60)) == {"lyon": RELEASED}
        assert _sealed(Center("twin", twin_folder, twin)) == answered_before
    finally:
        twin.stop()


def test_suspension_ends_a_live_session_and_reinstatement_lets_it_back(shared_federation: LocalFederation) -> None:
    answer = _shut_out(shared_federation, "suspend", "kyoto")
    shared_federation.hub_command("reinstate", "kyoto")
    shared_federation.wait_attached("kyoto")
    later = _network(shared_federation).result(answer.query_id, wait=60)
    assert _statuses(later) == {"lyon": RELEASED, "kyoto": RELEASED}


def test_revocation_ends_a_live_session_for_good(make_federation: Maker) -> None:
    federation = make_federation("lyon", "kyoto")
    _shut_out(federation, "revoke", "kyoto", "--yes")
    federation.sign_roster()
    until(lambda: "kyoto" not in _network(federation).centers, "the roster without kyoto to be in force")


def _shut_out(federation: LocalFederation, *command: str) -> connexon.Answer:
    """End a center's part; the answer to a question that goes by the roster, in which it still takes part."""
    network = _network(federation)
    federation.hub_command(*command)
    until(lambda: federation.attached() == {"lyon"}, "the session to end", seconds=60)
    answer = network.study(purpose="health", centers=["lyon", "kyoto"], wait=5).dataset("cell_lines").count()
    assert _statuses(answer) == {"lyon": RELEASED, "kyoto": "waiting"}
    return answer


def test_certificates_renew_without_restart_and_no_question_is_lost(make_federation: Maker) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]
    # Only now: making a federation may take longer than such a certificate lives.
    lyon.service.stop()
    federation.hub.stop()
    federation.set_hub(link_certificate_seconds=18)
    federation.start_hub()
    asyncio.run(_renew(lyon))
    federation.start("lyon")
    network = _network(federation)
    pid = lyon.service.pid
    seen = {_certificate(lyon)}
    for _ in range(2):
        until(lambda: _certificate(lyon) not in seen, "a new certificate")
        seen.add(_certificate(lyon))
        answer = network.study(purpose="health", wait=60).dataset("cell_lines").count()
        assert _statuses(answer) == {"lyon": RELEASED}
    assert lyon.service.pid == pid
    lyon.service.require_running()


async def _renew(center: Center) -> None:
    folder = NodeFolder(center.folder)
    address = settings.load(folder).hub.link_address
    async with grpc.aio.secure_channel(address, keys.channel_credentials(folder)) as channel:
        await renewal.renew(channel, folder, NodeKeys.load(folder).link, SpiffeId("alliance", center_id(center.name)))


def _certificate(center: Center) -> bytes:
    return (center.folder / "keys" / "link.crt").read_bytes()
