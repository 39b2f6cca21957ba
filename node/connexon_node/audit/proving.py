"""Proof files: one record, and the proof that it is in the center's log, for anybody who holds the roster."""

from __future__ import annotations

from typing import Any

from connexon.clock import now_ms
from connexon.errors import InvalidQuery, NotFound
from connexon.identity.keys import CenterId, SigningKey
from connexon.transparency import proof_file
from connexon_node.approvals.store import MINIMUM_PREFIX
from connexon_node.audit.log import AuditLog
from connexon_node.audit.record import AuditEntry


def find(log: AuditLog, named: str) -> list[AuditEntry]:
    """The record of a number, or the records of a query named by its id or the start of it.

    Raises NotFound where there is none, InvalidQuery where several queries begin so.
    """
    found = log.at(int(named)) if named.isascii() and named.isdigit() and len(named) < 19 else []
    found = found or log.of_query(named)
    if not found and len(named) >= MINIMUM_PREFIX:
        fitting = log.beginning(named)
        if len(fitting) > 1:
            raise InvalidQuery(f"Several queries begin with {named}; give more of the id.", code="audit.ambiguous")
        found = [entry for query_id in fitting for entry in log.of_query(query_id)]
    if not found:
        raise NotFound(
            f"The log has no record of {named!r}: give the number that audit list shows, or a query's id, of which the "
            f"first {MINIMUM_PREFIX} letters will do.",
            code="audit.no_record",
        )
    return found


def prove(log: AuditLog, named: str, *, center: CenterId, federation: str, key: SigningKey) -> dict[str, Any]:
    """The proof file (connexon.transparency.proof_file) of one record. Raises NotFound, or InvalidQuery where there are
    several."""
    found = find(log, named)
    if len(found) > 1:
        numbers = ", ".join(f"{entry.sequence} ({entry.record.status})" for entry in found)
        raise InvalidQuery(
            f"Several records carry that query id: name one by its number, {numbers}.", code="audit.ambiguous"
        )
    entry, proof = log.prove(found[0].sequence)
    receipt = proof.receipt(center, key, now_ms())
    return proof_file.document(entry.record.document(), receipt, center=center, federation=federation)
