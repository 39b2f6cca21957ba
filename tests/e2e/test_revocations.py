"""A researcher who is revoked, with real processes: refused at home, by the hub and by every center, whatever dies."""

from __future__ import annotations

import json

import pytest

import connexon
from connexon.errors import ConnexonError
from deploy.local.federation import Center, LocalFederation, Researcher
from deploy.local.processes import until
from tests.e2e.conftest import Maker
from tests.support.in_process import commands_in_process
from tests.support.state import rows

CONTROL = "health,control"


def ask(researcher: Researcher, *centers: str, wait: float = 30, purpose: str = "health") -> connexon.Answer:
    network = connexon.connect(researcher.home)
    return network.study(purpose=purpose, centers=centers, wait=wait).dataset("cell_lines").count()


def statuses(answer: connexon.Answer) -> dict[str, str]:
    return {center.id: center.status.value for center in answer.centers}


def code(researcher: Researcher, *centers: str) -> str:
    """With which the hub refuses a question."""
    with pytest.raises(ConnexonError) as refusal:
        ask(researcher, *centers)
    return refusal.value.code


def knows(center: Center) -> list[str]:
    """Of whom the center has it written down that they are revoked."""
    return [subject for (subject,) in rows(center.folder, "select subject from revocations order by subject")]


def became(center: Center, answer: connexon.Answer) -> list[tuple[str, str]]:
    """What the center recorded of a question: status and code."""
    found = rows(center.folder, "select status, code from audit where query_id = ? order by sequence", answer.query_id)
    return [(str(status), str(code)) for status, code in found]


def test_a_revoked_researcher_is_refused_by_everybody_also_by_who_was_away_or_killed(make_federation: Maker) -> None:
    federation: LocalFederation = make_federation("lyon", "kyoto")
    lyon, kyoto = federation.centers["lyon"], federation.centers["kyoto"]
    with commands_in_process():
        ada, bob = federation.researchers["ada"], federation.accredit("bob", home="lyon")
    assert statuses(ask(ada, "lyon", "kyoto")) == {"lyon": "released", "kyoto": "released"}
    waiting = ask(ada, "lyon", purpose=CONTROL)
    assert statuses(waiting) == {"lyon": "awaiting_steward"}

    # Kyoto is away; the hub has a question for it. Lyon's node is dead, too, when its steward revokes.
    kyoto.service.kill()
    late = ask(ada, "kyoto", wait=0)
    lyon.service.kill()
    lyon.command("revoke", "ada", "--because", "a stolen laptop", "--yes")
    assert knows(lyon) == ["ada"]
    assert late.query_id
    # Nobody has told the hub. What it brings to lyon is refused there from the first moment.
    own = ask(ada, "lyon", wait=0)
    federation.start("lyon")
    until(lambda: became(lyon, own) == [("refused", "credential.revoked")], "lyon to refuse")
    until(lambda: became(lyon, waiting)[-1:] == [("refused", "credential.revoked")], "what waited to be refused")
    assert lyon.command_json("requests")["requests"] == []

    # The hub has it now, and dies with it; kyoto was away all the while.
    until(lambda: untold(lyon) == [], "the hub to have written it down")
    federation.hub.kill()
    federation.start_hub()
    assert code(ada, "lyon") == "credential.revoked"
    federation.start("kyoto")
    until(lambda: knows(kyoto) == ["ada"], "kyoto to hear of it")
    # What ada had asked is over at the hub, so kyoto, which was away, never gets it.
    assert became(kyoto, late) == []
    kyoto.service.kill()
    federation.start("lyon", "kyoto")
    assert statuses(ask(bob, "lyon", "kyoto")) == {"lyon": "released", "kyoto": "released"}

    accredited_anew(federation, ada)
    assert statuses(ask(ada, "lyon", "kyoto")) == {"lyon": "released", "kyoto": "released"}
    assert [center.command_json("audit", "verify")["ok"] for center in (lyon, kyoto)] == [True, True]


def untold(center: Center) -> list[str]:
    """Of whom the hub has not yet heard."""
    return [who for (who,) in rows(center.folder, "select subject from revocations where hub_has_at_ms is null")]


def accredited_anew(federation: LocalFederation, researcher: Researcher) -> None:
    """With the request that there is, at once after the revocation."""
    folder = federation.folder / "researchers"
    login = folder / f"{researcher.name}-again.json"
    request = str(folder / f"{researcher.name}-request.json")
    with commands_in_process():
        federation.centers["lyon"].command("accredit", request, "--subject", researcher.name, "--out", str(login))
        researcher.command("login", str(login))


def test_the_researcher_reads_who_revoked_them_and_comes_back_within_the_second(make_federation: Maker) -> None:
    federation: LocalFederation = make_federation("lyon")
    lyon, ada = federation.centers["lyon"], federation.researchers["ada"]
    for _ in range(3):
        with commands_in_process():
            lyon.command("revoke", "ada", "--yes")
        until(lambda: untold(lyon) == [], "the hub to have written it down")
        with pytest.raises(ConnexonError) as refusal:
            ask(ada, "lyon")
        assert refusal.value.public == (
            "lyon has revoked this credential; ask the steward there to accredit you again."
        )
        accredited_anew(federation, ada)
        assert statuses(ask(ada, "lyon")) == {"lyon": "released"}
    with commands_in_process():
        listed = json.loads(lyon.command("accredit", "--list", "--json"))["accreditations"]
    assert [one["revoked"] is None for one in listed] == [True, False, False, False]
