"""What operators' and stewards' commands print as JSON has the documented shape."""

from __future__ import annotations

from deploy.local.federation import LocalFederation
from deploy.local.processes import run_json
from tests.support.documented import assert_same_shape, documented


def test_status_and_doctor_print_what_is_documented(shared_federation: LocalFederation) -> None:
    federation = shared_federation
    lyon = federation.centers["lyon"]
    federation.researchers["ada"].command("count", "cell_lines", "--purpose", "health", "--wait", "30")
    status = federation.hub_json("status")
    assert_same_shape(status, documented("connexon-hub status"))
    assert {center["center"] for center in status["centers"]} == {"lyon", "kyoto"}
    assert_same_shape(lyon.command_json("status"), documented("connexon-node status"))
    examined = run_json(["connexon-node", "doctor", "--dir", str(lyon.folder)], accept=(0, 1))
    assert_same_shape(examined, documented("connexon-node doctor"))
    assert {check["state"] for check in examined["checks"]} <= {"good", "note", "broken"}
