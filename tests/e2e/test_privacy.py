"""Differential privacy as people meet it: a researcher who asks for it, a steward who gives and refills."""

from __future__ import annotations

import pytest

from deploy.local.federation import LocalFederation
from tests.e2e.conftest import Maker
from tests.support.documented import assert_same_shape, documented


@pytest.fixture
def federation(make_federation: Maker) -> LocalFederation:
    made = make_federation("lyon", "kyoto")
    lyon = made.centers["lyon"]
    lyon.service.stop()
    lyon.set("privacy", budget_epsilon=1.3, records_per_donor=2)
    made.start("lyon")
    return made


def test_a_researcher_asks_for_noise_until_the_budget_is_spent_and_the_steward_refills(
    federation: LocalFederation,
) -> None:
    ada, lyon = federation.researchers["ada"], federation.centers["lyon"]
    asked = ("count", "cell_lines", "--purpose", "health", "--epsilon", "1", "--wait", "30")

    first = ada.command_json(*asked)
    assert {center["status"] for center in first["centers"]} == {"released"}
    noise = {center["id"]: center["protection"]["noise"] for center in first["centers"]}
    assert (noise["lyon"]["records_per_donor"], noise["kyoto"]["records_per_donor"]) == (2, 3)
    assert first["privacy"] == {"epsilon": 1.0, "delta": 1e-6}
    assert first["totals"][0]["plus_minus"] < sum(row["plus_minus"] for row in first["rows"])
    assert "±" in ada.command(*asked)
    assert ada.command_json(*asked)["rows"] == first["rows"]

    other = (*asked, "--where", "type = 'iPSC'")
    second = {center["id"]: center for center in ada.command_json(*other)["centers"]}
    assert second["kyoto"]["status"] == "released"
    assert (second["lyon"]["status"], second["lyon"]["code"]) == ("budget_spent", "budget.spent")
    assert "ask the center's steward" in second["lyon"]["message"]

    (budget,) = lyon.command_json("budget", "list")["budgets"]
    assert_same_shape({"budgets": [budget]}, documented("connexon-node budget list"))
    assert (budget["researcher"], budget["project"], budget["dataset"]) == ("lyon/ada", "", "cell_lines")
    lyon.command("budget", "refill", "lyon/ada", "--dataset", "cell_lines", "--because", "a new year")
    third = {
        center["id"]: center["status"] for center in ada.command_json(*asked, "--where", "type = 'iPSC'")["centers"]
    }
    assert set(third.values()) == {"released"}
    shown = lyon.command_json("budget", "show", "lyon/ada")["budgets"][0]
    assert [entry["kind"] for entry in shown["entries"]] == ["charge", "refill", "charge"]
    assert shown["ever_spent"]["rho"] == pytest.approx(2 * shown["spent"]["rho"])
    assert "a new year" in lyon.command("budget", "show", "lyon/ada")

    limited = lyon.command_json(
        "budget", "limit", "lyon/ada", "--dataset", "donors", "--epsilon", "0", "--because", "not this one"
    )
    assert limited["budget"]["limit"]["epsilon"] == 0
    closed = ada.command_json(
        "count", "donors", "--purpose", "health", "--epsilon", "0.5", "--wait", "30", accept=(0, 3)
    )
    assert {center["id"]: center["status"] for center in closed["centers"]}["lyon"] == "budget_spent"


def test_a_steward_demands_noise_and_sees_what_would_leave(federation: LocalFederation) -> None:
    ada, lyon = federation.researchers["ada"], federation.centers["lyon"]
    lyon.service.stop()
    lyon.set("privacy", required="true", budget_epsilon=20.0)
    federation.start("lyon")
    shown = lyon.command_json("release", "show")
    assert shown["privacy"]["in_force"]["required"] is True
    assert "This center demands differential privacy" in " ".join(lyon.command("release", "show").split())
    tried = lyon.command_json("release", "try", "--dataset", "donors", "--by", "sex")
    assert tried["noise"]["epsilon"] == 1.0
    assert tried["costs_rho"] > 0
    assert {group["key"][0] for group in tried["groups"]} == {"female", "male", "intersex", "unknown"}
    assert "example" in lyon.command("release", "try", "--dataset", "donors", "--epsilon", "0.5")
    assert lyon.command_json("budget", "list")["budgets"] == []

    answer = ada.command_json("count", "donors", "--by", "sex", "--purpose", "health", "--wait", "30")
    by_center = {center["id"]: center["protection"]["noise"] for center in answer["centers"]}
    assert by_center["kyoto"] is None
    assert by_center["lyon"]["epsilon"] == 1.0
    assert {row["plus_minus"] is None for row in answer["rows"] if row["center"] == "lyon"} == {False}
    again = lyon.command_json("release", "try", answer["query_id"])
    assert again["costs_rho"] == 0
    catalog = ada.command_json("catalog", "--purpose", "health", "--wait", "30")
    records = {one["dataset"]: one["centers"] for one in catalog["totals"]}["donors"]
    assert {one["id"]: one["records"] is None for one in records} == {"lyon": True, "kyoto": False}
    asked = ada.command_json("catalog", "--purpose", "health", "--epsilon", "2", "--wait", "30")
    assert {one["dataset"]: one["plus_minus"] for one in asked["totals"]}["donors"] > 0
