"""The audit log with real processes: receipts, proofs for others, and an older copy that the hub's witness finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import connexon
from connexon.identity import roster as rosters
from connexon.v1 import roster_pb2
from deploy.local.federation import Center, LocalFederation
from deploy.local.processes import run, until


def _ask(federation: LocalFederation) -> connexon.Answer:
    network = connexon.connect(federation.researchers["ada"].home)
    answer = network.study(purpose="health", wait=30).dataset("cell_lines").count()
    assert answer.complete
    return answer


def _verify(center: Center, *options: str, accept: tuple[int, ...] = (0,)) -> Any:
    return center.command_json("audit", "verify", *options, accept=accept)


def _databases(folder: Path) -> list[Path]:
    return sorted(folder.glob("state.db*"))


def _move(source: Path, target: Path) -> None:
    for path in _databases(target):
        path.unlink()
    for path in _databases(source):
        shutil.copy(path, target / path.name)


def test_an_answers_receipt_is_proved_for_anybody_with_the_roster(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation, proof = shared_federation, tmp_path / "proof.json"
    kyoto, ada = federation.centers["kyoto"], federation.researchers["ada"]
    answer = _ask(federation)
    receipt = answer.center("kyoto").receipt
    assert receipt is not None
    kyoto.command("audit", "prove", answer.query_id, "--out", str(proof))
    shown = ada.command_json("receipt", "verify", str(proof))
    assert (shown["center"], shown["sequence"]) == ("kyoto", receipt.sequence)
    assert (shown["record"]["query_id"], shown["record"]["researcher"]) == (answer.query_id, "lyon/ada")
    assert "Record" in ada.command("receipt", "verify", str(proof))
    (entry,) = kyoto.command_json("audit", "show", answer.query_id)["entries"]
    assert entry["sequence"] == receipt.sequence
    # Without ever having been connected: with a roster on a stick, and the root's fingerprint.
    kept = roster_pb2.SignedRoster.FromString((ada.home / "roster.bin").read_bytes())
    (tmp_path / "roster.txt").write_text(rosters.to_text_file(kept))
    root = connexon.connect(ada.home).home.login().root_fingerprint.hex()
    with_roster = ("--roster", str(tmp_path / "roster.txt"), "--root-fingerprint", root)
    nobody = {"CONNEXON_HOME": str(tmp_path / "nobody")}
    assert "audit log" in run(["connexon", "receipt", "verify", str(proof), *with_roster], environment=nobody)
    proof.write_text(proof.read_text().replace("lyon/ada", "lyon/eve"))
    assert run(["connexon", "receipt", "verify", str(proof), *with_roster], environment=nobody, accept=(1,)) == ""
    kyoto.command("audit", "export", "--out", str(tmp_path / "log.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))


def test_an_older_copy_of_the_database_is_found_with_the_hubs_witness(
    shared_federation: LocalFederation, tmp_path: Path
) -> None:
    federation = shared_federation
    kyoto = federation.centers["kyoto"]
    older, newer = tmp_path / "older", tmp_path / "newer"
    older.mkdir()
    newer.mkdir()
    kyoto.service.stop()
    _move(kyoto.folder, older)
    federation.start("kyoto")
    _ask(federation)
    kyoto.service.stop()
    # A node that attaches says at once how far its log has come.
    federation.start("kyoto")
    records = _verify(kyoto)["records"]
    until(lambda: _verify(kyoto)["witness"]["newest_size"] == records, "the hub to witness the log")
    kyoto.service.stop()
    try:
        _move(kyoto.folder, newer)
        _move(older, kyoto.folder)
        found = _verify(kyoto, accept=(1,))
        assert not found["ok"]
        assert {fault["code"] for fault in found["faults"]} == {"rolled_back"}
        alone = _verify(kyoto, "--offline")
        assert alone["ok"]
        assert not alone["witness"]["asked"]
        examined = kyoto.command("doctor", accept=(0, 1))
        assert "back to an earlier state" in " ".join(examined.split())
        federation.start("kyoto")
        until(lambda: kyoto.command_json("status")["restoring"], "the node to see that its state is an older one")
        assert "connexon-node recover" in kyoto.command("status")
        kyoto.service.stop()
    finally:
        kyoto.service.stop()
        _move(newer, kyoto.folder)
        federation.start("kyoto")
    assert _verify(kyoto)["ok"]
