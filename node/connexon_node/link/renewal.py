"""A new link certificate for the same key, in time and without a restart."""

from __future__ import annotations

import asyncio
import datetime
import random

import grpc
from cryptography.hazmat.primitives.serialization import Encoding

from connexon import errors
from connexon.errors import Unavailable
from connexon.identity.certificates import TlsKey
from connexon.identity.keys import SpiffeId
from connexon.link import frames
from connexon.v1 import link_pb2, link_pb2_grpc, membership_pb2, membership_pb2_grpc
from connexon_node.folder import NodeFolder
from connexon_node.membership import keys
from connexon_node.membership.keys import LinkCertificate

TIMEOUT_SECONDS = 20.0
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 3600.0


def seconds_until_due(certificate: LinkCertificate) -> float:
    """Until two thirds of its life have passed; zero or less when it is due."""
    return (certificate.renewal_due - datetime.datetime.now(datetime.UTC)).total_seconds()


def pause_after_failure(certificate: LinkCertificate) -> float:
    """Seconds until the next attempt: about ten attempts fit in what is left, within a second and an hour."""
    left = (certificate.expires - datetime.datetime.now(datetime.UTC)).total_seconds()
    pause = min(max(left / 10, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
    return pause * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, guards nothing


async def renew_expired(
    folder: NodeFolder, address: str, key: TlsKey, identity: SpiffeId, expired: LinkCertificate
) -> LinkCertificate:
    """Ask the hub, at its public address, for a certificate in place of one that has run out. Raises as `renew`."""
    request = membership_pb2.RenewExpiredRequest(
        certificate=expired.certificate.public_bytes(Encoding.DER), certificate_request=key.request()
    )
    authority = await asyncio.to_thread((folder.keys / keys.AUTHORITY).read_bytes)
    async with grpc.aio.secure_channel(
        address, grpc.ssl_channel_credentials(authority), options=frames.CHANNEL_OPTIONS
    ) as channel:
        try:
            stub = membership_pb2_grpc.MembershipStub(channel)
            response = await stub.RenewExpired(request, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            raise errors.from_rpc(error) from error
    return await _put_in_place(response.certificate, folder, key, identity)


async def renew(channel: grpc.aio.Channel, folder: NodeFolder, key: TlsKey, identity: SpiffeId) -> LinkCertificate:
    """Ask the hub for a certificate over the present connection, check it and put it in place of the old one.

    Raises what the hub answers (connexon.errors), Misconfigured for a certificate that is not ours, or Unavailable
    where it cannot be written.
    """
    request = link_pb2.RenewRequest(certificate_request=key.request())
    try:
        response = await link_pb2_grpc.LinkStub(channel).Renew(request, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        raise errors.from_rpc(error) from error
    return await _put_in_place(response.certificate, folder, key, identity)


async def _put_in_place(der: bytes, folder: NodeFolder, key: TlsKey, identity: SpiffeId) -> LinkCertificate:
    certificate = LinkCertificate.checked(der, key, identity)
    try:
        await asyncio.to_thread(certificate.save, folder)
    except OSError as error:
        raise Unavailable(
            f"The new certificate cannot be written ({error.strerror}).", code="certificate.not_saved"
        ) from error
    return certificate
