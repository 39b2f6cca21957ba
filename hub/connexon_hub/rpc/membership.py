"""Joining, and the public roster."""

from __future__ import annotations

import asyncio
import datetime

import grpc
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from connexon import strict
from connexon.errors import InvalidQuery, NotFound, Unauthenticated
from connexon.identity import certificates
from connexon.identity.keys import SpiffeId
from connexon.v1 import membership_pb2, membership_pb2_grpc
from connexon_hub.assembly import Hub
from connexon_hub.membership.certificate_quota import require_left
from connexon_hub.membership.certificates import IssuedCertificate
from connexon_hub.membership.members import BroughtKeys

JoinContext = grpc.aio.ServicerContext[membership_pb2.JoinRequest, membership_pb2.JoinResponse]
RenewContext = grpc.aio.ServicerContext[membership_pb2.RenewExpiredRequest, membership_pb2.RenewExpiredResponse]
RosterContext = grpc.aio.ServicerContext[membership_pb2.GetRosterRequest, membership_pb2.GetRosterResponse]


class MembershipService(membership_pb2_grpc.MembershipServicer):
    """Where a center joins."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def Join(  # noqa: N802  # gRPC names it
        self, request: membership_pb2.JoinRequest, context: JoinContext
    ) -> membership_pb2.JoinResponse:
        """Take up an invitation."""
        keys = brought_keys(request)
        member = await asyncio.to_thread(self._hub.members.join, request.token, keys)
        identity = SpiffeId(self._hub.settings.federation.name, member.center)
        certificate = await asyncio.to_thread(issue_link_certificate, self._hub, request.certificate_request, identity)
        self._hub.note("membership.joined", center=member.center, detail="has brought its keys")
        return membership_pb2.JoinResponse(certificate=certificate, roster=self._hub.standing.signed_roster)

    async def GetRoster(  # noqa: N802  # gRPC names it
        self, request: membership_pb2.GetRosterRequest, context: RosterContext
    ) -> membership_pb2.GetRosterResponse:
        """The roster in force."""
        return membership_pb2.GetRosterResponse(roster=self._hub.standing.signed_roster)

    async def RenewExpired(  # noqa: N802  # gRPC names it
        self, request: membership_pb2.RenewExpiredRequest, context: RenewContext
    ) -> membership_pb2.RenewExpiredResponse:
        """A certificate for a center that was away longer than its last one, and holds the key it joined with."""
        strict.refuse_unknown(request, what="renewal")
        former = certificates.parse(request.certificate)
        certificates.require_issued_by(former, self._hub.authority.certificate)
        identity, serial = certificates.spiffe_id(former), certificates.serial(former)
        key = certificates.public_bytes(certificates.request_key(request.certificate_request))
        if (
            not isinstance(held := former.public_key(), EllipticCurvePublicKey)
            or certificates.public_bytes(held) != key
        ):
            raise Unauthenticated("A certificate is renewed for the same key only.", code="certificate.other_key")
        standing = self._hub.standing
        standing.require_certificate(identity, serial, key)
        standing.require_active(identity.center)
        if standing.link_keys.get(identity.center) != key:
            # Where the hub does not know who joined with this key, its certificate alone proved it, and has run out.
            raise Unauthenticated(
                f"The hub does not know this key of {identity.center} any more; ask its operator for a new invitation.",
                code="certificate.unknown_key",
            )
        certificate = await asyncio.to_thread(
            issue_link_certificate, self._hub, request.certificate_request, identity, renews=serial
        )
        until = f"{former.not_valid_after_utc:%Y-%m-%d}"
        self._hub.note(
            "certificate.renewed_late", center=identity.center, detail=f"its last one was valid until {until}"
        )
        return membership_pb2.RenewExpiredResponse(certificate=certificate)


def brought_keys(request: membership_pb2.JoinRequest) -> BroughtKeys:
    """The keys in a request to join. Raises InvalidQuery or Unauthenticated where one is none."""
    strict.refuse_unknown(request, what="join")
    if not request.token:
        raise NotFound("The request carries no invitation.", code="invitation.refused")
    if len(request.accrediting_key) != 32 or len(request.answering_key) != 32:
        raise InvalidQuery("A center brings two Ed25519 keys of 32 bytes.", code="membership.bad_keys")
    return BroughtKeys(
        accrediting=request.accrediting_key,
        answering=request.answering_key,
        link=certificates.public_bytes(certificates.request_key(request.certificate_request)),
    )


def issue_link_certificate(hub: Hub, request: bytes, identity: SpiffeId, *, renews: str = "") -> bytes:
    """A link certificate in DER for a PKCS#10 request, written down before it is handed out. Blocks.

    `renews` is the serial number of the one that was shown for it. Raises Refused as `remember_certificate` does.
    """
    measure = hub.settings.certificate_measure
    # Looked at before anything is made, too: who comes again and again neither signs nor waits for the one who writes.
    with hub.database.reading() as connection:
        require_left(connection, identity.center, measure)
    life = datetime.timedelta(seconds=hub.settings.link_certificate_seconds)
    certificate = hub.authority.issue_link(request, identity, life=life)
    hub.members.remember_certificate(
        IssuedCertificate(
            serial=certificates.serial(certificate),
            center=identity.center,
            expires_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
            key=certificates.public_bytes(certificates.request_key(request)),
            renews=renews,
        ),
        measure,
    )
    return certificate.public_bytes(Encoding.DER)
