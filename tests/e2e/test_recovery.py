"""A node that is restored from an older copy: silent until its steward has recovered it, with real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy

import connexon
from connexon_node import settings
from connexon_node.folder import NodeFolder
from connexon_node.state import open_state
from deploy.local.federation import AMPLE, Center, LocalFederation
from deploy.local.processes import LauncherError, until
from tests.e2e.conftest import Maker
from tests.support.postgresql import PostgresqlServer

RELEASED = "released"


def _network(federation: LocalFederation) -> connexon.Network:
    return connexon.connect(federation.researchers["ada"].home)


def _donors(network: connexon.Network, *, kind: str = "granted", wait: float = 60) -> connexon.Answer:
    study = network.study(purpose="health", centers=["lyon"], wait=wait)
    return study.dataset("donors").count(kind=kind, unit="donors")


def _number(answer: connexon.Answer) -> int:
    assert answer.center("lyon").status.value == RELEASED, answer.center("lyon")
    return int(answer.rows[0]["count"])


def _silent(center: Center) -> bool:
    return bool(center.command_json("status")["restoring"])


def _in_force(center: Center) -> list[str]:
    """Donors whose consent counts."""
    database = open_state(settings.load(NodeFolder(center.folder)).state_url)
    with closing(database), database.reading() as connection:
        query = "select donor_id from donor_numbers join donor_consents on donor = number where profile > 0 order by 1"
        return list(connection.exec_driver_sql(query).scalars())


def _spent(center: Center) -> float:
    return float(center.command_json("budget", "list")["account"]["total"]["spent"])


def test_an_older_copy_stays_silent_until_recovered_and_then_knows_withdrawals_draws_and_charges(
    make_federation: Maker, tmp_path: Path
) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]

    def copy() -> None:
        shutil.copy(lyon.folder / "state.db", tmp_path / "state.db")

    def restore() -> None:
        for file in lyon.folder.glob("state.db*"):
            file.unlink()
        shutil.copy(tmp_path / "state.db", lyon.folder / "state.db")

    _put_back_and_recovered(federation, copy, restore)


@pytest.mark.postgres
def test_a_postgresql_put_back_from_a_copy_is_recovered_alike(
    postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    server = postgresql_server
    with server.new_database() as url, LocalFederation(tmp_path) as federation:
        name = sqlalchemy.make_url(url).database
        federation.make_hub()
        lyon = federation.join_center("lyon", state_url=url)
        lyon.set("release", minimum_donors=1, round_to=1)
        lyon.set("privacy", **AMPLE)
        lyon.command("ontology", "add", "--demo")
        lyon.command("sample", "--donors", "120", "--seed", "0", "--only", "bank", "--import")
        federation.sign_roster()
        federation.start()
        federation.grant_exact(federation.accredit("ada", home="lyon"))

        def copy() -> None:
            server.execute(f"create database {name}_copy template {name}")

        def restore() -> None:
            server.execute(f"drop database {name} with (force)")
            server.execute(f"alter database {name}_copy rename to {name}")

        _put_back_and_recovered(federation, copy, restore)
        federation.stop()


def _put_back_and_recovered(federation: LocalFederation, copy: Callable[[], None], restore: Callable[[], None]) -> None:
    lyon, network = federation.centers["lyon"], _network(federation)
    before = _number(_donors(network))
    lyon.service.stop()
    copy()
    federation.start("lyon")
    drawn = _donors(network, kind="private")
    spent = _spent(lyon)
    gone = _in_force(lyon)[:6]
    for donor in gone:
        lyon.command("consent", "withdraw", donor, "--because", "a letter")
    assert _number(_donors(network)) == before - 6
    lyon.service.stop()

    restore()
    federation.start("lyon")
    assert _silent(lyon)
    waiting = _donors(network, wait=3)
    assert waiting.center("lyon").code == "delivery.restoring"
    assert "restoring" in " ".join(event["code"] for event in federation.hub_json("status")["events"])
    report = lyon.command_json("recover")
    assert sorted(report["withdrawn"]) == sorted(gone)
    assert report["draws"] == 1
    assert report["journal_whole"] is True
    assert _donors(network, wait=2).center("lyon").status.value == "waiting"
    with pytest.raises(LauncherError, match="--because"):
        lyon.command("recover", "--resume", "--yes")

    lyon.command("recover", "--resume", "--yes", "--because", "the disk was replaced")
    federation.start("lyon")
    until(lambda: not _silent(lyon), "lyon to answer again")
    assert lyon.command_json("audit", "verify")["ok"]
    assert _spent(lyon) == pytest.approx(spent)
    same = _donors(network, kind="private")
    assert _number(same) == _number(drawn)
    assert _spent(lyon) == pytest.approx(spent)
    # What was exact since the copy is not known any more: a grant is given anew or not at all.
    assert network.result(waiting.query_id, wait=60).center("lyon").status.value != RELEASED
    federation.grant_exact(federation.researchers["ada"], "lyon")
    assert _number(_donors(network)) == before - 6
    lyon.service.stop()
    federation.start("lyon")
    assert not _silent(lyon)


def test_a_whole_folder_put_back_is_found_out_by_the_last_answer_that_the_hub_has(
    make_federation: Maker, tmp_path: Path
) -> None:
    federation = make_federation("lyon")
    lyon, network = federation.centers["lyon"], _network(federation)
    _number(_donors(network))
    lyon.service.stop()
    shutil.copytree(lyon.folder, tmp_path / "copy")
    federation.start("lyon")
    # Killed at once: no heartbeat has told the hub how far the log had come.
    drawn = _donors(network, kind="private")
    lyon.service.kill()
    shutil.rmtree(lyon.folder)
    shutil.copytree(tmp_path / "copy", lyon.folder)
    federation.start("lyon", wait=False)
    until(lambda: _silent(lyon), "lyon to find out")
    waiting = _donors(network, wait=2)
    assert waiting.center("lyon").status.value == "waiting"
    report = lyon.command_json("recover")
    assert (report["answers"], report["draws"], report["journal_whole"]) == (1, 1, False)
    assert "from your papers" in " ".join(lyon.command("recover").split())
    lyon.command("recover", "--resume", "--yes", "--because", "a snapshot was put back; nobody has withdrawn since")
    until(lambda: not _silent(lyon), "lyon to answer again")
    assert _number(_donors(network, kind="private")) == _number(drawn)


def test_keys_without_a_database_answer_nothing_and_make_none(make_federation: Maker, tmp_path: Path) -> None:
    federation = make_federation("lyon")
    lyon, network = federation.centers["lyon"], _network(federation)
    before = _number(_donors(network))
    gone = _in_force(lyon)[0]
    lyon.command("consent", "withdraw", gone)
    lyon.service.stop()
    for file in lyon.folder.glob("state.db*"):
        file.rename(tmp_path / file.name)
    federation.start("lyon", wait=False)
    until(lambda: (lyon.folder / "keys" / "recovery.json").exists(), "lyon to miss its database")
    answer = _donors(network, wait=3)
    assert answer.center("lyon").status.value == "waiting"
    with pytest.raises(LauncherError, match="--new-database"):
        lyon.command("recover")
    report = lyon.command_json("recover", "--new-database")
    assert report["unknown"] > 0
    lyon.command("ontology", "add", "--demo")
    lyon.command("sample", "--donors", "120", "--seed", "0", "--only", "bank", "--import")
    assert lyon.command_json("consent", "show", gone)["status"] == "withdrawn"
    lyon.command("recover", "--resume", "--yes", "--because", "the database and every copy of it are lost")
    until(lambda: not _silent(lyon), "lyon to answer again")
    federation.wait_attached("lyon")
    federation.grant_exact(federation.researchers["ada"], "lyon")
    assert _number(_donors(network)) == before - 1
