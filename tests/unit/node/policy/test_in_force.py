"""A node that cannot apply the newest policies answers nothing, instead of going on with older ones."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from connexon.errors import Refused
from connexon.identity.credential import NOTHING_REVOKED
from connexon.query import signed
from connexon_node import assembly
from connexon_node.assembly import PoliciesInForce
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.policy.access import CedarAccess
from connexon_node.policy.store import PolicyStore
from connexon_node.release.floors import Floors, floors
from tests.support.federation import Federation, new_federation
from tests.support.rules import baseline


@pytest.fixture
def federation() -> Federation:
    federation = new_federation()
    federation.policy_files = baseline()
    return federation


def test_a_broken_baseline_refuses_everything_until_it_is_mended(federation: Federation, tmp_path: Path) -> None:
    policies = PolicyStore(tmp_path)
    access = PoliciesInForce(policies, CedarAccess(policies, DICTIONARY))
    asked = signed.verify_query(federation.researcher().ask("kyoto"), federation.roster(), NOTHING_REVOKED)
    access.apply(federation.roster())
    assert access.authorise(asked).policy_version == policies.version

    sound = dict(federation.policy_files)
    federation.policy_files = {**sound, "access/broken.cedar": b"permit (principal, action when"}
    access.apply(federation.roster(serial=2))
    with pytest.raises(Refused) as caught:
        access.authorise(asked)
    assert caught.value.code == "policy.not_in_force"

    federation.policy_files = sound
    access.apply(federation.roster(serial=3))
    assert access.authorise(asked).rule


def test_own_files_that_were_wrong_when_a_roster_came_count_as_soon_as_they_are_mended(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policies = PolicyStore(tmp_path)
    access = PoliciesInForce(policies, CedarAccess(policies, DICTIONARY))
    asked = signed.verify_query(federation.researcher().ask("kyoto"), federation.roster(), NOTHING_REVOKED)
    own = tmp_path / "own.cedar"
    own.write_text("forbid (")
    access.apply(federation.roster())
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            access.authorise(asked)
        assert caught.value.code == "policy.not_in_force"
    assert caplog.text.count("own.cedar line 1") == 1
    own.unlink()
    assert access.authorise(asked).rule


def test_an_older_roster_that_is_tried_again_does_not_follow_a_newer_one(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = PolicyStore(tmp_path)
    access = PoliciesInForce(policies, CedarAccess(policies, DICTIONARY))
    older = federation.roster()
    (tmp_path / "own.cedar").write_text("forbid (")
    access.apply(older)
    (tmp_path / "own.cedar").unlink()
    stop = b'@id("access.stop")\n@says("No more.")\nforbid (principal, action == Action::"count", resource);\n'
    federation.policy_files = {**federation.policy_files, "access/stop.cedar": stop}
    newer = federation.roster(serial=2)
    asked = signed.verify_query(federation.researcher().ask("kyoto"), newer, NOTHING_REVOKED)
    trying, came, plain = threading.Event(), threading.Event(), floors

    def slowly(files: Mapping[str, bytes]) -> Floors:
        if threading.current_thread() is worker:
            trying.set()
            came.wait(0.2)
        return plain(files)

    monkeypatch.setattr(assembly, "floors", slowly)
    worker = threading.Thread(target=lambda: access.authorise(asked))
    worker.start()
    assert trying.wait(10)
    access.apply(newer)
    came.set()
    worker.join()
    assert "access.stop" in policies.rules.rules
    with pytest.raises(Refused):
        access.authorise(asked)
    access.apply(older)
    assert "access.stop" in policies.rules.rules
