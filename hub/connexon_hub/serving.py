"""The serving process: two ports, their services, and a stop that tells everybody."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from connexon.clock import now_ms
from connexon.errors import Misconfigured, Unavailable
from connexon.link.frames import CHANNEL_OPTIONS
from connexon.service import gc_tuning, logs, systemd
from connexon.telemetry import export_if_configured
from connexon.v1 import (
    link_pb2,
    link_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    research_pb2,
    research_pb2_grpc,
)
from connexon_hub import housekeeping, settings
from connexon_hub.assembly import Hub
from connexon_hub.folder import HubFolder
from connexon_hub.limits.call_quota import PER_RESEARCHER
from connexon_hub.membership import authority
from connexon_hub.membership.authority import ServerCertificate
from connexon_hub.routing.sessions import GOODBYE_SECONDS
from connexon_hub.rpc.guard import Guard
from connexon_hub.rpc.link import LinkService
from connexon_hub.rpc.membership import MembershipService
from connexon_hub.rpc.models import ModelsService
from connexon_hub.rpc.research import ResearchService
from connexon_hub.state import open_state

LOG = logging.getLogger("connexon.hub")
HANDSHAKE_SECONDS = 10
"""A connection whose TLS handshake is not over by then is cut."""
IDLE_SECONDS = 3_600
"""A connection to the public port with no call under way for so long is cut; a researcher's own end does it sooner."""
CONNECTIONS = 4_000
"""To one port. Of these, connections over which nobody proves anything are far fewer
(connexon_hub.limits.connections)."""
PUBLIC_STREAMS = PER_RESEARCHER
"""Calls under way on one connection to the public port; more wait at the caller's."""
LINK_STREAMS = 16
"""Calls under way on one connection to the link port. A node needs two: it renews while it is attached."""

_OPTIONS = (
    *CHANNEL_OPTIONS,
    ("grpc.so_reuseport", 0),
    # Nodes and clients ping every ten seconds; the default would hang up on them.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 4_000),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1_000),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
)
PUBLIC_OPTIONS = (
    *_OPTIONS,
    ("grpc.max_concurrent_streams", PUBLIC_STREAMS),
    ("grpc.max_connection_idle_ms", IDLE_SECONDS * 1_000),
    # What is sent to this port is small: a call that nobody reads shall hold no more than one window of it.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
)
LINK_OPTIONS = (*_OPTIONS, ("grpc.max_concurrent_streams", LINK_STREAMS))
_PUBLIC = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((membership_pb2, "Membership"), (research_pb2, "Research"), (models_pb2, "Models"))
)
_LINK = link_pb2.DESCRIPTOR.services_by_name["Link"].full_name


def serve(folder: HubFolder) -> None:
    """Serve until SIGTERM or SIGINT. Raises Misconfigured where this folder is served already or a port is taken."""
    logs.begin(logging.INFO)
    # gRPC's thread and the event loop hand Python's lock to each other with every message; five milliseconds, the
    # default wait, are long beside that.
    sys.setswitchinterval(0.001)
    allow_many_connections()
    export_if_configured("connexon-hub")
    with folder.serving():
        asyncio.run(_serve(folder))


def allow_many_connections() -> None:
    """Raise this process's limit of open files, which is often 1,024, to what the system grants it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(folder: HubFolder) -> None:
    present = settings.load(folder)
    database = open_state(present.state_url)
    hub = Hub(present, database, authority.load(folder), folder)
    gc_tuning.keep_loaded()
    try:
        await asyncio.to_thread(hub.watching.end_all, now_ms())
        certificate = ServerCertificate(folder, hub.authority, present)
        public, link = await _public_server(hub), await _link_server(hub)
        port = _bind(public, present.addresses.listen, certificate.credentials(require_client=False))
        link_port = _bind(link, present.addresses.link_listen, certificate.credentials(require_client=True))
        hub.connections.port, hub.link_connections.port = port, link_port
        await link.start()
        await public.start()
        await hub.runs.resume()
        try:
            await _run(folder, hub, port, link_port)
        finally:
            await _stop(hub, public, link)
    finally:
        await hub.writer.close()
        database.close()


async def _run(folder: HubFolder, hub: Hub, port: int, link_port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, LOG.info, "SIGHUP: nothing is read anew; restart to change settings")
    chores = asyncio.create_task(housekeeping.run(hub))
    watchdog = asyncio.create_task(systemd.keep_watchdog_quiet())
    address = _with_port(hub.settings.addresses.public, port)
    link_address = _with_port(hub.settings.addresses.link, link_port)
    folder.announce(address=address, link_address=link_address)
    sys.stdout.write(f"ready: {hub.settings.federation.name} on {address}, link on {link_address}\n")
    sys.stdout.flush()
    systemd.notify(READY=1, STATUS=f"serving {hub.settings.federation.name} on {address}")
    LOG.info("serving %s, roster %d", hub.settings.federation.name, hub.standing.roster.serial)
    try:
        await stop.wait()
    finally:
        systemd.notify(STOPPING=1)
        chores.cancel()
        watchdog.cancel()
        await asyncio.wait({chores, watchdog})


async def _stop(hub: Hub, public: grpc.aio.Server, link: grpc.aio.Server) -> None:
    LOG.info("stopping")
    await hub.runs.close()
    for session in hub.sessions:
        session.end(Unavailable("The hub is stopping.", code="hub.stopping"))
    await asyncio.gather(public.stop(1.0), link.stop(GOODBYE_SECONDS))
    await housekeeping.note_sessions(hub)


async def _public_server(hub: Hub) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=(Guard(hub, hub.connections),), options=PUBLIC_OPTIONS)
    membership_pb2_grpc.add_MembershipServicer_to_server(MembershipService(hub), server)
    research_pb2_grpc.add_ResearchServicer_to_server(ResearchService(hub), server)
    models_pb2_grpc.add_ModelsServicer_to_server(ModelsService(hub), server)
    await _add_health(hub, server, *_PUBLIC)
    reflection.enable_server_reflection((*_PUBLIC, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server


async def _link_server(hub: Hub) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=(Guard(hub, hub.link_connections),), options=LINK_OPTIONS)
    link_pb2_grpc.add_LinkServicer_to_server(LinkService(hub), server)
    await _add_health(hub, server, _LINK)
    return server


class _Health(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Says how the hub is when asked. Nobody has to prove themselves for that, so nobody may stay on the line."""

    async def Watch(  # noqa: N802  # gRPC names it
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
    ) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "This hub is not watched; call Check now and then.")


async def _add_health(hub: Hub, server: grpc.aio.Server, *services: str) -> None:
    servicer = _Health()

    async def say(healthy: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", *services):
            await servicer.set(service, states.SERVING if healthy else states.NOT_SERVING)

    await say(True)
    hub.health.append(say)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    try:
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Misconfigured(
            f"The hub cannot listen on {address}: it is taken, or not this machine's.", code="hub.address_taken"
        ) from error


def _with_port(address: str, port: int) -> str:
    """An advertised address; where its port is 0, the one really taken."""
    host, _, advertised = address.rpartition(":")
    return f"{host}:{port if advertised == '0' else advertised}"
