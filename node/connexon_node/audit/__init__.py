"""The audit room: every request and what became of it, in a log that nobody can rewrite unseen. See why.md."""

from connexon_node.audit.log import AuditLog, RecordProof
from connexon_node.audit.record import AuditEntry, AuditRecord
from connexon_node.audit.verifying import AuditFault, AuditReport, verify

__all__ = ["AuditEntry", "AuditFault", "AuditLog", "AuditRecord", "AuditReport", "RecordProof", "verify"]
