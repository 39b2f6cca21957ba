"""May this query enter the network: decided from the signed bytes, the caller and who takes part."""

from __future__ import annotations

import importlib.util

from connexon.analyses.train import Train
from connexon.clock import now_ms
from connexon.errors import ConnexonError, NotFound, Refused, Unauthenticated
from connexon.identity.credential import Researcher, Revocations
from connexon.query import signed, wire_question
from connexon.v1 import query_pb2
from connexon_hub.membership.standing import Standing
from connexon_hub.routing.store import QueryStore, Stored, Submission


def admit(
    query: query_pb2.SignedQuery, caller: Researcher, standing: Standing, revocations: Revocations, *, traceparent: str
) -> Submission:
    """Check signature, credential, freshness, federation, the caller and the addressed centers.

    Raises what connexon.query.signed.verify_query raises, Unauthenticated for another researcher's query, and NotFound
    or Refused for a center that is no member or takes no part.
    """
    moment = now_ms()
    asked = signed.verify_query(query, standing.roster, revocations, at_ms=moment)
    if (asked.researcher.id, asked.researcher.key) != (caller.id, caller.key):
        raise Unauthenticated("The query was signed by somebody else than calls.", code="query.other_researcher")
    standing.require_addressable(asked.question.centers)
    rounds = 0
    if isinstance(asked.question.analysis, Train):
        _require_trainer()
        # Who asks for the price of a run begins none.
        rounds = 0 if asked.question.price_only else asked.question.analysis.recipe.rounds
    return Submission(
        query_id=asked.question.query_id,
        researcher_id=caller.id,
        signed=query,
        centers=asked.question.centers,
        accepted_ms=moment,
        expires_ms=asked.question.expires_at_ms,
        traceparent=traceparent,
        rounds=rounds,
    )


def same_query(store: QueryStore, query: query_pb2.SignedQuery, caller: Researcher, error: ConnexonError) -> Stored:
    """The caller's query with exactly these bytes, accepted before it expired; raises `error` where there is none."""
    try:
        stored = store.find(wire_question.from_bytes(query.payload).query_id, caller.id)
    except NotFound:
        raise error from None
    if stored.signed.payload != query.payload:
        raise error
    return stored


def _require_trainer() -> None:
    """Raise Refused where this hub cannot train."""
    if importlib.util.find_spec("flwr") is None:
        raise Refused(
            "This hub does not train models: its operator has not installed connexon[learn].", code="hub.cannot_train"
        )
