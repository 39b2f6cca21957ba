"""The first step: who asks, what exactly, and is it meant for this center, now."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from connexon import strict
from connexon.clock import now_ms
from connexon.errors import Refused
from connexon.identity import credential
from connexon.identity.credential import CredentialRefused, Revocations
from connexon.identity.keys import CenterId
from connexon.identity.roster import Roster
from connexon.query import signed
from connexon.query.signed import Asked, QueryRefused
from connexon.v1 import query_pb2
from connexon_node.membership.revocations import RevocationsIn
from connexon_node.pipeline.values import ConsentMoved


class QueryVerifier:
    """The verifier of a node (pipeline.Verifier). `roster` gives the one that is believed now."""

    def __init__(self, center: CenterId, roster: Callable[[], Roster], revocations: Revocations) -> None:
        self._center = center
        self._roster = roster
        self._revocations = revocations

    def verify(self, signed_query: query_pb2.SignedQuery) -> Asked:
        """Return the proved question.

        Raises what connexon.query.signed.verify_query raises, and Refused where this center does not take part or is
        not addressed.
        """
        roster = self._roster()
        asked = signed.verify_query(signed_query, roster, self._revocations)
        if self._center not in asked.question.centers:
            raise Refused("The query is not addressed to this center.", code="query.not_addressed")
        roster.active(self._center)
        return asked

    def require_counting(self, connection: Connection, asked: Asked) -> None:
        """Raise ConsentMoved where the credential was revoked, or a center closed, since `asked` was proved.

        The question is then proved again, and refused with the reason.
        """
        roster = self._roster()
        try:
            roster.require_fresh(now_ms())
            roster.active(self._center)
            roster.active(asked.researcher.center)
        except Refused as refusal:
            raise ConsentMoved(
                "Who takes part changed while the answer was computed.", code="roster.moved"
            ) from refusal
        try:
            credential.require_counting(asked.researcher, RevocationsIn(connection))
        except CredentialRefused as refusal:
            raise ConsentMoved(
                "The researcher's credential was revoked while the answer was computed.", code="credential.moved"
            ) from refusal


def open_parcel(body: bytes) -> query_pb2.SignedQuery:
    """Read what the hub delivered; raises InvalidQuery."""
    return strict.parse(query_pb2.SignedQuery, body, what="query")


def require_delivered_as(asked: Asked, query_id: str) -> None:
    """Raise QueryRefused where the hub delivered a query under another id than its own.

    With the inbox, where an id is received once, this is what stops a replay.
    """
    if asked.question.query_id != query_id:
        raise QueryRefused("The query was delivered under another id.", code="query.other_id")
