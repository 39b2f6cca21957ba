"""A center that was away longer than its certificate comes back by itself, with real processes."""

from __future__ import annotations

import datetime

from connexon.identity.keys import SpiffeId, center_id
from connexon_hub.folder import HubFolder
from connexon_hub.membership import authority
from connexon_node.folder import NodeFolder
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from deploy.local.federation import Center, LocalFederation
from deploy.local.processes import until
from tests.e2e.conftest import Maker


def _let_expire(federation: LocalFederation, center: Center) -> None:
    """Put a certificate in place that has just run out."""
    folder = NodeFolder(center.folder)
    request, life = NodeKeys.load(folder).link.request(), datetime.timedelta(seconds=-1)
    identity = SpiffeId("alliance", center_id(center.name))
    issued = authority.load(HubFolder(federation.hub_folder)).issue_link(request, identity, life=life)
    LinkCertificate(issued).save(folder)


def test_an_expired_certificate_is_renewed_without_an_invitation_unless_the_center_is_closed(
    make_federation: Maker,
) -> None:
    federation = make_federation("lyon")
    lyon = federation.centers["lyon"]
    lyon.service.stop()
    _let_expire(federation, lyon)
    federation.start("lyon")
    assert LinkCertificate.load(NodeFolder(lyon.folder)).expires > datetime.datetime.now(datetime.UTC)
    assert "certificate.renewed_late" in {event["code"] for event in federation.hub_json("status")["events"]}

    lyon.service.stop()
    _let_expire(federation, lyon)
    federation.hub_command("revoke", "lyon", "--yes")
    federation.start("lyon", wait=False)
    problem = until(lambda: lyon.command_json("status")["problem"], "lyon to be refused")
    assert "certificate.expired" in problem
    assert "new invitation" in problem
