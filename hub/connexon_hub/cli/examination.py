"""The hub's doctor: what must be in order for questions to be carried, tried one by one, with what to do."""

from __future__ import annotations

import datetime
import shutil
import socket
import ssl
from functools import cached_property

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc

from connexon.clock import DAY, now_ms
from connexon.errors import Unavailable
from connexon.findings import Broken, Checks, Seen, State
from connexon.identity.certificates import Authority
from connexon.service.database import Database
from connexon_hub import settings
from connexon_hub.folder import HubFolder
from connexon_hub.health.events import WatchStore
from connexon_hub.membership import authority
from connexon_hub.membership.members import MemberStore
from connexon_hub.membership.roster import RosterStore
from connexon_hub.settings import HubSettings
from connexon_hub.state import open_present
from connexon_hub.state.tables import RosterRow

SECONDS = 10.0
LOW_DISK_BYTES = 1024**3
ROSTER_WARNING_DAYS = 14
AUTHORITY_WARNING_DAYS = 90
SILENT_MS = 90_000
"""A center that was not heard for so long is away."""


def checks(folder: HubFolder) -> Checks:
    """Everything that is looked at, in order."""
    hub = _Examined(folder)
    return (
        ("settings", hub.settings_read),
        ("database", hub.writable),
        ("disk", hub.disk),
        ("authority", hub.certificates),
        ("roster", hub.roster),
        ("process", hub.process),
        ("public port", hub.public_port),
        ("link port", hub.link_port),
        ("centers", hub.centers),
    )


class _Examined:
    """The hub under examination. What several checks need is looked up once."""

    def __init__(self, folder: HubFolder) -> None:
        self._folder = folder

    @cached_property
    def _settings(self) -> HubSettings:
        return settings.load(self._folder)

    @cached_property
    def _database(self) -> Database:
        return open_present(self._settings.state_url)

    @cached_property
    def _authority(self) -> Authority:
        return authority.load(self._folder)

    @cached_property
    def _rosters(self) -> RosterStore:
        return RosterStore(
            self._database, MemberStore(self._database), root_fingerprint=self._settings.root_fingerprint
        )

    def settings_read(self) -> Seen:
        return Seen(f"{self._settings.federation.name}, {self._folder.settings_file}.")

    def writable(self) -> Seen:
        rosters = RosterRow.metadata.tables[str(RosterRow.__tablename__)]
        try:
            with self._database.writing() as connection:
                connection.execute(rosters.delete().where(rosters.c.serial == -1))
        except Unavailable as error:
            raise Broken(
                f"{error.public} Until it can be written, questions and answers are refused and sent again."
            ) from error
        damage = self._database.damage()
        if damage:
            raise Broken(f"The database file is damaged ({damage}). Stop the hub and restore it from the backup.")
        kind = "SQLite" if self._database.is_sqlite else "PostgreSQL"
        return Seen(f"{kind}, writable and up to date.")

    def disk(self) -> Seen:
        free = shutil.disk_usage(self._folder.root).free
        if free < LOW_DISK_BYTES:
            raise Broken(f"Only {free / 1024**2:.0f} MiB are free; make room before answers are refused.")
        return Seen(f"{free / 1024**3:.0f} GiB free.")

    def certificates(self) -> Seen:
        ends = self._authority.certificate.not_valid_after_utc
        days = (ends - datetime.datetime.now(datetime.UTC)).days
        if days < 0:
            raise Broken("The hub's certificate authority has expired: no center can connect. Found the hub anew.")
        sentence = f"The certificate authority holds for {days:,} more days."
        return Seen(sentence, State.NOTE if days < AUTHORITY_WARNING_DAYS else State.GOOD)

    def roster(self) -> Seen:
        present, _ = self._rosters.in_force()
        days = (present.expires_at_ms - now_ms()) / DAY
        renew = "Publish a new one:  connexon-hub roster update"
        if days <= 0:
            raise Broken(f"Roster {present.serial} has expired: centers and researchers refuse everything. {renew}")
        if days < ROSTER_WARNING_DAYS:
            return Seen(f"Roster {present.serial} expires in {days:.0f} days. {renew}", State.NOTE)
        return Seen(f"Roster {present.serial} is in force for {days:.0f} more days.")

    @cached_property
    def _process(self) -> dict[str, str]:
        found = self._folder.present_process()
        if not found:
            raise Broken("No hub serves this folder. Start it:  connexon-hub serve")
        return {name: str(value) for name, value in found.items()}

    def process(self) -> Seen:
        return Seen(f"Process {self._process['pid']} serves this folder.")

    def public_port(self) -> Seen:
        host, port = _listening(self._settings.addresses.listen, self._process["address"])
        root = self._authority.certificate.public_bytes(Encoding.PEM)
        name = authority.hosts(self._settings.addresses.public)[0]
        options = (("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0))
        with grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(root), options=options) as channel:
            try:
                told = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            except grpc.RpcError as error:
                raise Broken(
                    f"Port {port} does not answer ({error.code().name.lower()}). The hub is overloaded, or another "
                    "program has the port; look into its log, and start it anew."
                ) from error
        if told.status != health_pb2.HealthCheckResponse.SERVING:
            raise Broken("The hub answers that it does not serve; its log says why.")
        return Seen(f"Researchers are answered on port {port}.")

    def link_port(self) -> Seen:
        host, port = _listening(self._settings.addresses.link_listen, self._process["link_address"])
        context = ssl.create_default_context(cadata=self._authority.certificate.public_bytes(Encoding.PEM).decode())
        context.set_alpn_protocols(["h2"])
        name = authority.hosts(self._settings.addresses.link)[0]
        try:
            with (
                socket.create_connection((host, int(port)), timeout=SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=name) as proved,
            ):
                version = proved.version()
        except OSError as error:
            raise Broken(
                f"Port {port} proves nothing to centers ({error}). Look into the hub's log, and start it anew."
            ) from error
        return Seen(f"Centers are answered on port {port} with {version}.")

    def centers(self) -> Seen:
        present, _ = self._rosters.in_force()
        sessions = WatchStore(self._database).sessions()
        active = sorted(member.center for member in present.active_members)
        away = []
        for center in active:
            link = sessions.get(center)
            if link is None or link.ended_ms is not None or now_ms() - link.seen_ms > SILENT_MS:
                away.append(str(center))
        if away:
            return Seen(f"{len(active) - len(away)} of {len(active)} are here; away: {', '.join(away)}.", State.NOTE)
        return Seen(f"All {len(active)} are here." if active else "No center is active yet.")


def _listening(listen: str, announced: str) -> tuple[str, str]:
    """Where a port can be reached from this machine: the host listened on, and the port really taken."""
    host = listen.rpartition(":")[0].strip("[]")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  # read, not bound
    port = listen.rpartition(":")[2]
    taken = announced.rpartition(":")[2] if port == "0" else port
    return (f"[{reached}]" if ":" in reached and not reached.startswith("[") else reached), taken
