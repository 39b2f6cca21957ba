"""A center behind an HTTP proxy: the node's one connection goes through it, and the doctor sees the same way."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest

from connexon.identity.keys import SpiffeId
from connexon.link import frames
from connexon.v1 import link_pb2
from connexon_node.folder import NodeFolder
from connexon_node.health import connection_probes
from connexon_node.health.connection_probes import HopBroken
from connexon_node.link.session import Session, Times
from connexon_node.membership import keys
from connexon_node.membership.keys import LinkCertificate, NodeKeys
from tests.support.federation import Federation
from tests.support.proxy import ConnectProxy
from tests.support.small_hub import SmallHub, soon


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """A proxy that is set for everything, loopback included."""
    for name in (*connection_probes.PROXY_VARIABLES, *connection_probes.BYPASS_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    with ConnectProxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        yield proxy


@pytest.fixture
def folder(federation: Federation, tmp_path: Path) -> NodeFolder:
    """Kyoto's, with a certificate."""
    folder = NodeFolder(tmp_path / "kyoto")
    folder.make()
    request = NodeKeys.load_or_make(folder).link.request()
    identity = SpiffeId("alliance", federation.centers["kyoto"].id)
    keys.save_authority(folder, federation.authority.der)
    LinkCertificate(federation.authority.issue_link(request, identity, life=datetime.timedelta(days=1))).save(folder)
    return folder


async def test_the_link_goes_through_the_proxy_and_stays_the_nodes_own(
    proxy: ConnectProxy, federation: Federation, folder: NodeFolder
) -> None:
    hello = link_pb2.Hello(software_version="0.1.0", process_id="one")
    hello.protocol.major, hello.protocol.minor = frames.PROTOCOL.major, frames.PROTOCOL.minor

    async with SmallHub(federation).running() as hub:
        session = await soon(Session.attach(hub.address, keys.channel_credentials(folder), hello, Times(welcome=20.0)))
        try:
            assert proxy.tunnels == [hub.address]
            assert (await hub.session()).hello.process_id == "one"
        finally:
            await session.close()

        said = await asyncio.to_thread(connection_probes.reach, hub.address)
        assert f"through {proxy.url.removeprefix('http://')}" in said
        # TLS is with the hub, not with the proxy.
        assert "of the pinned authority" in await asyncio.to_thread(connection_probes.handshake, folder, hub.address)

        proxy.refusing = True
        with pytest.raises(HopBroken, match="The proxy does not let connections through"):
            await asyncio.to_thread(connection_probes.reach, hub.address)


def test_what_is_exempt_from_the_proxy_is_dialled_straight(
    proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connection_probes.proxy_for("hub.example.org:7444") == proxy.url.removeprefix("http://")
    monkeypatch.setenv("no_proxy", "example.org")
    assert connection_probes.proxy_for("hub.example.org:7444") == ""
    # As gRPC reads them, the first that is set decides, also when it is empty.
    monkeypatch.setenv("no_grpc_proxy", "")
    assert connection_probes.proxy_for("hub.example.org:7444") == proxy.url.removeprefix("http://")
    monkeypatch.setenv("grpc_proxy", "")
    assert connection_probes.proxy_for("hub.example.org:7444") == ""
