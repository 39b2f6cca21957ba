"""Differential privacy as people meet it: a researcher asks for it, a steward demands it and refills budgets."""

from __future__ import annotations

import pytest

import connexon
from deploy.local.federation import LocalFederation
from tests.e2e.conftest import Maker
from tests.support.documented import assert_same_shape, documented

WAIT = 40.0


def _federation(make: Maker, *centers: str, **privacy: object) -> tuple[LocalFederation, connexon.Network]:
    """A federation whose first center has these settings of privacy, and ada's connection to it."""
    federation = make(*centers)
    first = federation.centers[centers[0]]
    first.service.stop()
    first.set("privacy", **privacy)
    federation.start(centers[0])
    return federation, connexon.connect(federation.researchers["ada"].home)


def _statuses(answer: connexon.Answer) -> dict[str, str]:
    return {center.id: center.status.value for center in answer.centers}


def test_a_researcher_asks_for_noise_until_the_budget_is_spent_and_the_steward_refills(make_federation: Maker) -> None:
    federation, network = _federation(make_federation, "lyon", "kyoto", budget_epsilon=1.3, records_per_donor=2)
    lyon, lines = federation.centers["lyon"], network.dataset("cell_lines")

    first = lines.count(purpose="health", epsilon=1, wait=WAIT)
    assert set(_statuses(first).values()) == {"released"}
    noise = {center: protection.noise for center, protection in first.protection.items()}
    assert {center: one.records_per_donor for center, one in noise.items() if one} == {"lyon": 2, "kyoto": 3}
    assert first.totals[0]["plus_minus"] < sum(row["plus_minus"] for row in first.rows)
    asked = ("count", "cell_lines", "--purpose", "health", "--epsilon", "1", "--wait", "40")
    again = federation.researchers["ada"].command_json(*asked)
    assert again["rows"] == first.rows
    assert again["privacy"] == {"epsilon": 1.0, "delta": 1e-6}

    other = lines.where("type = 'iPSC'")
    refused = other.count(purpose="health", epsilon=1, wait=WAIT)
    assert _statuses(refused) == {"lyon": "budget_spent", "kyoto": "released"}
    assert refused.center("lyon").code == "budget.spent"
    assert "ask the center's steward" in refused.center("lyon").message

    (budget,) = lyon.command_json("budget", "list")["budgets"]
    assert_same_shape({"budgets": [budget]}, documented("connexon-node budget list"))
    assert (budget["researcher"], budget["project"], budget["dataset"]) == ("lyon/ada", "", "cell_lines")
    lyon.command("budget", "refill", "lyon/ada", "--dataset", "cell_lines", "--because", "a new year")
    assert set(_statuses(other.count(purpose="health", epsilon=1, wait=WAIT)).values()) == {"released"}
    shown = lyon.command_json("budget", "show", "lyon/ada")["budgets"][0]
    assert [entry["kind"] for entry in shown["entries"]] == ["charge", "refill", "charge"]
    assert shown["entries"][1]["because"] == "a new year"
    assert shown["ever_spent"]["rho"] == pytest.approx(2 * shown["spent"]["rho"])

    lyon.command("budget", "limit", "lyon/ada", "--dataset", "donors", "--epsilon", "0", "--because", "not this one")
    closed = network.dataset("donors").count(purpose="health", epsilon=0.5, wait=WAIT)
    assert _statuses(closed)["lyon"] == "budget_spent"


def test_a_steward_demands_noise_and_sees_what_would_leave(make_federation: Maker) -> None:
    federation, network = _federation(make_federation, "lyon", required="true")
    lyon = federation.centers["lyon"]
    assert "This center demands differential privacy" in " ".join(lyon.command("release", "show").split())
    tried = lyon.command_json("release", "try", "--dataset", "donors", "--by", "sex")
    assert tried["noise"]["epsilon"] == 1.0
    assert tried["costs_rho"] > 0
    assert {group["key"][0] for group in tried["groups"]} == {"female", "male", "intersex", "unknown"}
    assert lyon.command_json("budget", "list")["budgets"] == []

    answer = network.dataset("donors").count(by="sex", purpose="health", wait=WAIT)
    protection = answer.protection[answer.center("lyon").id]
    assert protection.noise is not None
    assert protection.noise.epsilon == 1.0
    again = lyon.command_json("release", "try", answer.query_id)
    assert again["costs_rho"] == 0
    assert {group["key"][0]: group["leaves"] for group in again["groups"]} == {
        row["sex"]: row["count"] for row in answer.rows
    }
    without, asked = (network.catalog(purpose="health", epsilon=epsilon, wait=WAIT) for epsilon in (None, 2.0))
    of_donors = [next(one for one in catalog.totals if one["dataset"] == "donors") for catalog in (without, asked)]
    assert of_donors[0]["records"] is None
    assert of_donors[1]["plus_minus"] > 0
