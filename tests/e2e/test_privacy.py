"""Private and granted numbers as people meet them: asked for, priced, refined, spent, granted and withdrawn."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

import connexon
from connexon.analyses.noise import Noise
from deploy.local.federation import Center, LocalFederation, Researcher
from deploy.local.processes import LauncherError, command
from tests.e2e.conftest import build
from tests.support.documented import assert_same_shape, documented
from tests.support.in_process import commands_in_process

WAIT = 40.0
SIGMAS = 6.0
"""Noise beyond so many standard deviations comes up once in 500 million draws."""


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    """Lyon and kyoto, with the accounts of persons of new centers. Each test has a researcher of its own."""
    with build(tmp_path_factory.mktemp("private"), "lyon", "kyoto", private=True) as federation:
        yield federation


def _researcher(federation: LocalFederation, subject: str) -> tuple[Researcher, connexon.Network]:
    with commands_in_process():
        researcher = federation.accredit(subject, home="lyon")
    return researcher, connexon.connect(researcher.home)


def _statuses(answer: connexon.Answer) -> dict[str, str]:
    return {center.id: center.status.value for center in answer.centers}


def _noise(answer: connexon.Answer, center: str = "lyon") -> Noise:
    noise = answer.protection[answer.center(center).id].noise
    assert noise is not None
    return noise


def _donors(center: Center, *options: str) -> dict[str | None, int]:
    """The exact number of donors by group, as the center's steward sees them."""
    tried = center.command_json("release", "try", "--dataset", "cell_lines", *options)
    return {group["key"][0] if group["key"] else None: group["donors"] for group in tried["groups"]}


def _spent(center: Center, researcher: Researcher) -> float:
    budgets = center.command_json("budget", "list")["researchers"]
    return next((float(one["spent"]) for one in budgets if one["researcher"] == researcher.id), 0.0)


def test_private_numbers_lie_within_their_intervals_and_the_same_question_is_free(federation: LocalFederation) -> None:
    bea, network = _researcher(federation, "bea")
    lines = network.study(purpose="health", wait=WAIT).dataset("cell_lines")
    answer = lines.count(by="type")
    assert set(_statuses(answer).values()) == {"released"}
    exact = {name: _donors(center, "--by", "type") for name, center in federation.centers.items()}
    assert all(max(groups.values()) > 50 for groups in exact.values()), "there is something to count"
    scale = {name: _noise(answer, name).scale for name in federation.centers}
    # Every group that can be has its number, also those without a donor, and the totals are their plain sums.
    groups = {row["type"] for row in answer.rows}
    assert len(answer.rows) == 2 * len(groups)
    assert groups >= {group for one in exact.values() for group in one}
    for row in answer.rows:
        assert abs(row["count"] - exact[row["center"]].get(row["type"], 0)) < SIGMAS * scale[row["center"]]
        assert row["plus_minus"] == _noise(answer, row["center"]).half_width == 15
    for total in answer.totals:
        assert total["count"] == sum(row["count"] for row in answer.rows if row["type"] == total["type"])
        assert 15 < total["plus_minus"] < 30

    spent = _spent(federation.centers["lyon"], bea)
    assert spent == pytest.approx(_noise(answer).charged)
    again = bea.command_json("count", "cell_lines", "--by", "type", "--purpose", "health", "--wait", "40")
    assert again["rows"] == answer.rows
    assert [part["protection"]["noise"]["charged"] for part in again["centers"]] == [0.0, 0.0]
    assert _spent(federation.centers["lyon"], bea) == spent
    _assert_documented(again)


def _assert_documented(document: dict[str, Any]) -> None:
    example = documented("connexon.answer/1 of a count")
    for part in (*document["centers"], *example["centers"]):
        # Named by the data, not by the shape.
        (part["provenance"] or {}).update(generations={}, ontologies={})
    assert_same_shape(json.loads(json.dumps(document)), example)


def test_refining_is_charged_the_difference_and_a_price_nothing(federation: LocalFederation) -> None:
    cleo, network = _researcher(federation, "cleo")
    lyon = federation.centers["lyon"]
    study = network.study(purpose="health", centers=["lyon"], wait=WAIT)
    lines = study.dataset("cell_lines").where("type = 'iPSC'")
    (exact,) = _donors(lyon, "--where", "type = 'iPSC'").values()

    def price(within: int) -> dict[str, Any]:
        before = _spent(lyon, cleo)
        priced = lines.count(within=within, price_only=True)
        assert _spent(lyon, cleo) == before
        assert priced.totals == []
        example = documented("connexon.answer/1 of a price")
        assert_same_shape({name: priced.to_json()[name] for name in example}, example)
        (row,) = priced.rows
        return row

    dear = price(8)
    assert dear["charge"] == pytest.approx(dear["rho"])
    coarse = lines.count(within=20)
    assert _noise(coarse).half_width == 20
    refined = price(8)
    assert refined["rho"] == pytest.approx(dear["rho"])
    assert refined["charge"] == pytest.approx(dear["rho"] - _noise(coarse).charged)
    assert refined["left"] == pytest.approx(dear["left"] - _noise(coarse).charged)
    fine = lines.count(within=8)
    assert _noise(fine).half_width == 8
    assert _noise(fine).charged == pytest.approx(refined["charge"])
    assert _spent(lyon, cleo) == pytest.approx(dear["rho"])
    assert abs(fine.rows[0]["count"] - exact) < SIGMAS * _noise(fine).scale
    # What was paid for is not made worse again.
    assert lines.count(within=20).rows == fine.rows

    printed = cleo.command("count", "cell_lines", "--where", "type = 'iPSC'", "-p", "health", "--price")
    assert "Nothing was charged." in " ".join(printed.split())


def test_a_spent_share_ends_new_questions_at_its_center_and_keeps_what_was_answered(
    federation: LocalFederation,
) -> None:
    dora, network = _researcher(federation, "dora")
    lyon, lines = federation.centers["lyon"], network.study(purpose="health", wait=WAIT).dataset("cell_lines")
    # Enough for two questions within 15.
    lyon.command("budget", "limit", dora.id, "--rho", "0.02", "--because", "a pilot")
    first = lines.count()
    assert [row["plus_minus"] for row in first.rows] == [15, 15]
    second = lines.where("type = 'ESC'").count()
    assert set(_statuses(first).values()) == set(_statuses(second).values()) == {"released"}

    third = lines.where("xeno_free = true")
    refused = third.count()
    assert _statuses(refused) == {"lyon": "budget_spent", "kyoto": "released"}
    assert refused.center("lyon").code == "budget.spent"
    assert "--within" in refused.center("lyon").message
    assert "ask the center's steward" in refused.center("lyon").message
    assert lines.count().rows == first.rows
    assert _statuses(third.count(within=30))["lyon"] == "released"

    lyon.command("budget", "limit", dora.id, "--rho", "0.1", "--because", "the pilot went well")
    assert set(_statuses(third.count()).values()) == {"released"}
    listed, shown = lyon.command_json("budget", "list"), lyon.command_json("budget", "show", dora.id)
    assert_same_shape(listed, documented("connexon-node budget list"))
    assert_same_shape(shown, documented("connexon-node budget show"))
    assert [entry["share"] for entry in shown["entries"]] == ["questions"] * 4
    assert shown["budget"]["spent"] == pytest.approx(sum(entry["rho"] for entry in shown["entries"]))

    lyon.command("budget", "limit", dora.id, "--rho", "0", "--because", "on leave")
    assert _statuses(lines.where("gmp = true").count())["lyon"] == "budget_spent"
    assert lines.count().rows == first.rows


def test_a_grant_gives_exact_numbers_to_its_project_until_it_is_withdrawn(federation: LocalFederation) -> None:
    erin, network = _researcher(federation, "erin")
    lyon = federation.centers["lyon"]
    exact = _donors(lyon, "--by", "type")

    def ask(project: str) -> connexon.Answer:
        lines = network.study(purpose="health", project=project, centers=["lyon"], wait=WAIT).dataset("cell_lines")
        return lines.count(by="type", kind="granted")

    def refusal(answer: connexon.Answer) -> tuple[str, str]:
        assert answer.rows == []
        return (answer.center("lyon").status.value, answer.center("lyon").code)

    assert refusal(ask("atlas")) == ("refused", "release.not_granted")
    assert "Ask without exact" in ask("atlas").center("lyon").message
    given = lyon.command_json(
        *("grant", "give", erin.id, "--project", "atlas", "--dataset", "cell_lines"),
        *("--because", "a committee has seen the protocol", "--yes"),
    )["grant"]
    answer = ask("atlas")
    assert {row["type"]: row["count"] for row in answer.rows} == exact
    protection = answer.protection[answer.center("lyon").id]
    assert (protection.kind, protection.grant, protection.noise) == ("granted", given["id"], None)
    assert any("by the steward's grant" in note for note in answer.notes)
    assert refusal(ask("other")) == ("refused", "release.not_granted")
    assert _spent(lyon, erin) == 0.0

    lyon.command("grant", "withdraw", given["id"], "--because", "the project has ended")
    assert refusal(ask("atlas")) == ("refused", "release.not_granted")
    listed = lyon.command_json("grant", "list")
    assert_same_shape(listed, documented("connexon-node grant list"))
    (grant,) = [one for one in listed["grants"] if one["researcher"] == erin.id]
    assert grant["withdrawn_because"] == "the project has ended"


def test_what_a_steward_tries_is_what_left(federation: LocalFederation) -> None:
    _, network = _researcher(federation, "fay")
    lyon = federation.centers["lyon"]
    told = " ".join(lyon.command("release", "show").split())
    assert "All that rests on persons has noise that hides every single donor, within 15" in told
    tried = lyon.command_json("release", "try", "--dataset", "donors", "--by", "sex")
    assert tried["costs_rho"] > 0
    assert {group["key"][0] for group in tried["groups"]} >= {"female", "male", "intersex", "unknown"}
    before = lyon.command_json("budget", "list")

    answer = network.study(purpose="health", centers=["lyon"], wait=WAIT).dataset("donors").count(by="sex")
    assert lyon.command_json("budget", "list")["account"]["total"] != before["account"]["total"]
    again = lyon.command_json("release", "try", answer.query_id)
    assert again["costs_rho"] == 0
    assert {group["key"][0]: group["leaves"] for group in again["groups"]} == {
        row["sex"]: row["count"] for row in answer.rows
    }
    # A catalog costs nothing, so it counts nobody.
    catalog = network.study(purpose="health", centers=["lyon"], wait=WAIT).catalog()
    of = {total["dataset"]: total["number"] for total in catalog.totals}
    assert (of["donors"], of["cell_lines"]) == (None, None)


def test_nothing_is_asked_for_by_epsilon_any_more(federation: LocalFederation) -> None:
    gil, network = _researcher(federation, "gil")
    asked = [command("connexon"), "count", "cell_lines", "--purpose", "health", "--epsilon", "1"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    with pytest.raises(TypeError, match="epsilon"):
        network.study().dataset("cell_lines").count(epsilon=1)  # type: ignore[call-arg]  # as it was before
    lyon = federation.centers["lyon"]
    with pytest.raises(LauncherError, match="No such command"):
        lyon.command("budget", "refill", gil.id, "--because", "a new year")
    settings = (lyon.folder / "node.toml").read_text()
    lyon.set("privacy", required="true")
    try:
        with pytest.raises(LauncherError, match=r"privacy.*required"):
            lyon.command("budget", "list")
    finally:
        (lyon.folder / "node.toml").write_text(settings)
