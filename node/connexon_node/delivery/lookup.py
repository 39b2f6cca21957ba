"""From a record back to the query it tells of, as long as the node keeps that."""

from __future__ import annotations

import hashlib

from connexon.errors import NotFound, Refused
from connexon.query import wire_question
from connexon.safe_text import plain
from connexon.service.database import Database
from connexon_node.approvals.model import in_words
from connexon_node.audit.log import AuditLog
from connexon_node.audit.proving import find
from connexon_node.audit.record import AuditRecord
from connexon_node.delivery.inbox import Inbox
from connexon_node.pipeline.delivery import Delivery
from connexon_node.pipeline.verification import open_parcel


def received(database: Database, named: str) -> Delivery:
    """The query of that id, or of the record that the audit log finds by it: a number, or the start of an id.

    Raises NotFound where there is none or it is no longer kept, InvalidQuery where several begin so.
    """
    inbox = Inbox(database)
    delivery = inbox.delivery(named)
    if delivery is not None:
        return delivery
    try:
        record = find(AuditLog(database), named)[0].record
    except NotFound as error:
        raise NotFound(
            f"No query {named} was received here; connexon-node audit list shows those that were.", code="query.unknown"
        ) from error
    delivery = inbox.delivery(record.query_id)
    if delivery is None:
        raise NotFound(
            f"The query {record.query_id} is no longer kept here, only its record: connexon-node audit show {named}. "
            "How long queries are kept is keep_days in node.toml.",
            code="query.not_kept",
        )
    return delivery


def question_in_words(database: Database, record: AuditRecord) -> str:
    """The question as its researcher would write it; empty where it cannot be read or is no longer kept."""
    delivery = Inbox(database).delivery(record.query_id)
    if delivery is None:
        return ""
    try:
        payload = open_parcel(delivery.body).payload
        # An id that was used again has records of queries that were never kept.
        is_recorded = hashlib.sha256(payload).digest() == record.query_sha256
        return plain(in_words(wire_question.from_bytes(payload))) if is_recorded else ""
    except Refused:
        return ""
