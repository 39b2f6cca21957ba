"""Questions that only a person can decide, with real processes: they wait, are decided, and answer themselves."""

from __future__ import annotations

from typing import Any

import pytest

import connexon
from deploy.local.federation import Center, LocalFederation
from deploy.local.processes import LauncherError, until
from tests.support.state import rows

CONTROL = "health,control"
"""Use as controls: the federation's rules leave it to the steward."""


@pytest.fixture
def lyon(shared_federation: LocalFederation) -> Center:
    return shared_federation.centers["lyon"]


@pytest.fixture
def network(shared_federation: LocalFederation) -> connexon.Network:
    return connexon.connect(shared_federation.researchers["ada"].home)


def ask(network: connexon.Network, *, project: str = "", by: str = "type") -> connexon.Answer:
    return (
        network.study(purpose=CONTROL, project=project or None, centers=["lyon"], wait=30)
        .dataset("cell_lines")
        .count(by=by)
    )


def status(answer: connexon.Answer) -> str:
    return answer.center("lyon").status.value


def waiting(center: Center, answer: connexon.Answer) -> dict[str, Any]:
    (request,) = [one for one in center.command_json("requests")["requests"] if one["request"] == answer.query_id]
    return request


def recorded(center: Center, answer: connexon.Answer) -> list[str]:
    found = rows(center.folder, "select status from audit where query_id = ? order by sequence", answer.query_id)
    return [status for (status,) in found]


def test_a_referred_question_waits_and_is_answered_when_the_steward_approves(
    shared_federation: LocalFederation, lyon: Center, network: connexon.Network
) -> None:
    ada = shared_federation.researchers["ada"]
    printed = ada.command(
        *("count", "cell_lines", "--by", "type", "--purpose", CONTROL, "--centers", "lyon"), accept=(3,)
    )
    assert "awaiting steward" in printed
    query_id = ada.command_json("queries", "--limit", "1")["queries"][0]["query_id"]
    answer = network.result(query_id)
    assert (status(answer), answer.complete, answer.settled) == ("awaiting_steward", False, True)

    request = waiting(lyon, answer)
    assert (request["researcher"], request["role"], request["question"]) == (
        "lyon/ada",
        "researcher",
        "count donors of cell_lines by type, with noise",
    )
    assert [reason["rule"] for reason in request["reasons"]] == ["consent.refer.control"]
    assert request["reasons"][0]["donors"] > 0

    lyon.command("approve", query_id[:8], "--because", "their protocol names controls")
    assert status(answer.wait(30)) == "released"
    assert answer.rows
    assert recorded(lyon, answer) == ["awaiting_steward", "released"]
    assert ada.command_json("result", query_id)["complete"]
    with pytest.raises(LauncherError, match=r"request\.over|has its answer already"):
        lyon.command("approve", query_id)


def test_a_refused_question_is_answered_with_the_stewards_reason(lyon: Center, network: connexon.Network) -> None:
    answer = ask(network)
    assert status(answer) == "awaiting_steward"
    lyon.command("refuse", answer.query_id, "--because", "no controls from this study")
    part = answer.wait(30).center("lyon")
    assert (part.status.value, part.code) == ("refused", "steward.refused")
    assert "no controls from this study" in part.message
    assert waiting_ids(lyon) == []


def waiting_ids(center: Center) -> list[str]:
    return [one["request"] for one in center.command_json("requests")["requests"]]


def test_a_projects_approval_serves_its_like_questions_until_it_is_revoked(
    lyon: Center, network: connexon.Network
) -> None:
    first, second = ask(network, project="atlas"), ask(network, project="atlas", by="grade")
    other = ask(network, project="other")
    lyon.command("approve", first.query_id, "--scope", "project", "--until", "2099-01-31")
    # The second waited for the same reason: it is answered with the first.
    assert [status(one.wait(30)) for one in (first, second)] == ["released", "released"]
    assert waiting_ids(lyon) == [other.query_id]
    assert status(ask(network, project="atlas", by="grade")) == "released"

    (approval,) = lyon.command_json("approvals", "list")["approvals"]
    assert (approval["project"], approval["researcher"]) == ("atlas", "lyon/ada")
    lyon.command("approvals", "revoke", approval["approval"], "--because", "the project has ended")
    assert lyon.command_json("approvals", "list")["approvals"] == []
    again = ask(network, project="atlas")
    assert status(again) == "awaiting_steward"
    for one in (again, other):
        assert network.cancel(one.query_id) == 1
    until(lambda: waiting_ids(lyon) == [], "the taken back questions to leave the steward's list")
    until(lambda: recorded(lyon, again) == ["awaiting_steward", "cancelled"], "the cancellation to be recorded")
    assert status(network.result(again.query_id)) == "cancelled"


def test_a_question_taken_back_while_the_node_was_down_leaves_the_stewards_list_and_is_never_computed(
    shared_federation: LocalFederation, lyon: Center, network: connexon.Network
) -> None:
    answer = ask(network)
    assert status(answer) == "awaiting_steward"
    lyon.service.kill()
    assert network.cancel(answer.query_id) == 1
    shared_federation.start("lyon")
    until(lambda: waiting_ids(lyon) == [], "the taken back question to leave the steward's list")
    until(lambda: recorded(lyon, answer) == ["awaiting_steward", "cancelled"], "the cancellation to be recorded")
    with pytest.raises(LauncherError):
        lyon.command("approve", answer.query_id)


def test_a_node_killed_after_the_approval_answers_once_when_it_is_back(
    shared_federation: LocalFederation, lyon: Center, network: connexon.Network
) -> None:
    answer = ask(network)
    lyon.service.kill()
    lyon.command("approve", answer.query_id)
    shared_federation.start("lyon")
    assert status(answer.wait(30)) == "released"
    assert recorded(lyon, answer) == ["awaiting_steward", "released"]


def test_what_awaits_the_steward_is_still_known_after_hub_and_node_have_restarted(
    shared_federation: LocalFederation, lyon: Center, network: connexon.Network
) -> None:
    answer = ask(network)
    shared_federation.hub.kill()
    lyon.service.kill()
    shared_federation.start_hub()
    shared_federation.start("lyon", "kyoto")
    assert status(network.result(answer.query_id, wait=1)) == "awaiting_steward"
    lyon.command("approve", answer.query_id)
    assert status(network.result(answer.query_id, wait=30)) == "released"
    assert recorded(lyon, answer) == ["awaiting_steward", "released"]


def test_a_question_whose_time_ends_before_the_steward_decides_is_closed(
    lyon: Center, network: connexon.Network
) -> None:
    answer = network.study(purpose=CONTROL, centers=["lyon"], wait=30, expires_in="10s").dataset("cell_lines").count()
    assert status(answer) == "awaiting_steward"
    # Hub and node both watch the time; whichever comes first closes the question.
    assert status(answer.wait(30)) in ("expired", "too_old")
    until(lambda: waiting_ids(lyon) == [], "the expired question to leave the steward's list")
    # Taken back by the hub it is off the list at once, and closed when the node next looks.
    until(lambda: len(recorded(lyon, answer)) > 1, "the node to record that it is closed")
    assert recorded(lyon, answer) == ["awaiting_steward", "too_old"]
    with pytest.raises(LauncherError):
        lyon.command("approve", answer.query_id)


def test_changed_rules_count_from_the_next_question_and_broken_ones_leave_the_old_in_force(
    lyon: Center, network: connexon.Network
) -> None:
    own = """@id("own.no_lots")
@says("Lots are not counted here today.")
forbid (principal, action == Action::"count", resource) when { resource.name == "lots" };
"""

    def lots() -> str:
        answer = network.study(purpose="health", centers=["lyon"], wait=30).dataset("lots").count()
        return answer.center("lyon").rule or status(answer)

    assert lots() == "released"
    lyon.add_policy("own.cedar", own)
    assert lots() == "own.no_lots"
    lyon.add_policy("own.cedar", own.replace("when", "whenever"))
    assert lots() == "own.no_lots"
    (lyon.folder / "policies" / "own.cedar").unlink()
    assert lots() == "released"
