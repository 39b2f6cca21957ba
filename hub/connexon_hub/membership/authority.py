"""The hub's certificate authority on disk, and the server certificate that renews itself."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from connexon.errors import Misconfigured
from connexon.identity import certificates, keys
from connexon.identity.certificates import Authority, TlsKey
from connexon_hub.folder import HubFolder
from connexon_hub.settings import HubSettings


def create(folder: HubFolder, federation: str) -> Authority:
    """Make the authority and write it down. Raises Misconfigured where there is one already."""
    authority = Authority.create(federation)
    keys.write_private(folder.keys / "authority.key", authority.key.pem())
    keys.replace_file(folder.keys / "authority.crt", authority.certificate.public_bytes(Encoding.PEM))
    return authority


def load(folder: HubFolder) -> Authority:
    """Read the authority. Raises Misconfigured where a file is missing or unreadable."""
    try:
        key = TlsKey.from_pem((folder.keys / "authority.key").read_bytes())
        return Authority(key, certificates.parse((folder.keys / "authority.crt").read_bytes()))
    except OSError as error:
        raise Misconfigured(
            f"The hub's certificate authority in {folder.keys} cannot be read; restore it from the backup.",
            code="authority.unreadable",
        ) from error


def hosts(*addresses: str) -> list[str]:
    """The hosts of these host:port addresses, once each, without brackets."""
    return list(dict.fromkeys(address.rpartition(":")[0].strip("[]") for address in addresses))


class ServerCertificate:
    """The hub's own certificate. Every handshake asks for it; at two thirds of its life a new one is made."""

    def __init__(self, folder: HubFolder, authority: Authority, settings: HubSettings) -> None:
        self._folder = folder
        self._authority = authority
        self._names = hosts(settings.addresses.public, settings.addresses.link)
        self._life = datetime.timedelta(days=settings.server_certificate_days)
        self._lock = threading.Lock()
        self._present: grpc.ServerCertificateConfiguration | None = None
        self._renew_at = datetime.datetime.min.replace(tzinfo=datetime.UTC)

    def credentials(self, *, require_client: bool) -> grpc.ServerCredentials:
        """For a port; with `require_client`, only holders of the authority's certificates get in."""
        served = self._configuration()

        def news() -> Any:
            # INVARIANT: None unless it changed. With a new one for every handshake, gRPC crashes under many at once.
            nonlocal served
            former, served = served, self._configuration()
            return None if served is former else served

        return grpc.dynamic_ssl_server_credentials(served, news, require_client)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        with self._lock:
            now = datetime.datetime.now(datetime.UTC)
            if self._present is None or now >= self._renew_at:
                self._present = self._issue()
                self._renew_at = now + self._life * 2 / 3
            return self._present

    def _issue(self) -> grpc.ServerCertificateConfiguration:
        key = TlsKey.generate()
        certificate = self._authority.issue_server(key, self._names, life=self._life).public_bytes(Encoding.PEM)
        # For the operator to look at; what serves is in memory.
        keys.replace_file(self._folder.keys / "server.crt", certificate)
        root = self._authority.certificate.public_bytes(Encoding.PEM)
        return grpc.ssl_server_certificate_configuration([(key.pem(), certificate)], root_certificates=root)
